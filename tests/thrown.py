"""Exceptions that come out of nowhere: what the fixture `alarms` throws, and calls that it breaks off."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator

from resumable_sync import StoreUnavailableError

_TRIES = 10
_TRIES_BROKEN_OFF = 3


class Thrown(Exception):
    """Came out of nowhere, as from a signal handler."""


def broken_off(
    call: Callable[[], object],
    alarms: Callable[[float], object],
    rng: random.Random,
    is_through: Callable[[], bool],
) -> Iterator[Thrown | StoreUnavailableError]:
    """Make a call, again and again until it returns, or `is_through` after a Thrown. Into the first tries an
    exception is thrown. Yields what broke each try off."""
    for number in range(_TRIES):
        try:
            alarms(rng.uniform(0.00002, 0.002) if number < _TRIES_BROKEN_OFF else 0)
            call()
            alarms(0)
            return
        except Thrown as thrown:
            yield thrown
            if is_through():
                return
        except StoreUnavailableError as unavailable:
            yield unavailable


def in_thread(work: Callable[[], object]) -> threading.Thread:
    """A thread that is at work."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread
