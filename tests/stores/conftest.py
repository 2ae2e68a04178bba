"""What tests of several stores need."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from types import FrameType

import pytest

from .thrown import Thrown


@pytest.fixture
def alarms() -> Iterator[Callable[[float], object]]:
    """Has an exception thrown into the main thread after some seconds."""

    def throw(number: int, frame: FrameType | None) -> None:
        raise Thrown

    before = signal.signal(signal.SIGALRM, throw)
    try:
        yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
