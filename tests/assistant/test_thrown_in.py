"""Exceptions that signal handlers throw into a writer of an assistant stream hold up no reader."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest

from resumable_sync.assistant import create_assistant_stream_controller

from ..support import PATIENCE
from ..thrown import Thrown, in_thread

SECONDS = 2.0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_writer_that_is_broken_off_holds_up_no_reader(alarms: Callable[[float], object]) -> None:
    rng, hits, until = random.Random(7), 0, time.monotonic() + SECONDS
    while time.monotonic() < until or hits <= 20:
        stream, controller = create_assistant_stream_controller()
        reader = in_thread(lambda stream=stream: list(stream))  # type: ignore[misc]
        try:
            alarms(rng.uniform(0.0002, 0.003))
            given_up = time.monotonic() + 1.0  # one that comes while the collector is at work reaches nobody
            while time.monotonic() < given_up:
                controller.append_text("x")
        except Thrown:
            hits += 1
        in_thread(controller.close).join(PATIENCE)
        reader.join(PATIENCE)
        assert not reader.is_alive()
