"""The producing interpreter ends, in every way it can (G7)."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from resumable_sync import ProducerInterruptedError
from resumable_sync.stores.sqlite import SQLiteStore

from ...support import Process
from .conftest import Report
from .follower import Follower
from .source import text
from .test_kill import KILL_TO_INTERRUPTED, PROGRAMS

CODES = {"return": 0, "exit": 3, "raise": 1, "_exit": 4, "sigterm": -15}

EXIT_SECONDS = 5.0
"""What leaving may take: a close of 2 seconds, the interpreter's own end, and what a busy machine adds."""


SOURCES = ["blocked", "busy", "spinning"]

BRIEF = [("return", "blocked"), ("exit", "busy"), ("raise", "spinning"), ("_exit", "busy"), ("sigterm", "blocked")]


@pytest.mark.parametrize(
    "way, source, rounds",
    [pytest.param(way, source, 1, id=f"few-{way}-{source}") for way, source in BRIEF]
    + [
        pytest.param(
            way, source, 20, id=f"heavy-{way}-{source}", marks=[pytest.mark.heavy, pytest.mark.timeout(900)]
        )
        for way in CODES
        for source in SOURCES
    ],
)
def test_leave(way: str, source: str, rounds: int, path: Path, store: SQLiteStore, report: Report) -> None:
    """The stream is interrupted, whether the interpreter can still say so or not, and nothing hangs."""
    worst_exit = worst_ending = 0.0
    for number in range(rounds):
        stream_id = f"left-{number}"
        with Process(PROGRAMS, "leave", path, stream_id, way, source) as producer:
            producer.until("running")
            follower = Follower(store, stream_id)
            producer.say("leave")
            left_at = float(producer.until("leaving"))
            code = producer.wait()
            worst_exit = max(worst_exit, time.monotonic() - left_at)
            assert code == CODES[way], producer.stderr()
            complaints = producer.stderr()
            assert ("unhandled, on purpose" in complaints) == (way == "raise")
            assert "Fatal" not in complaints and complaints.count("Traceback") == (way == "raise"), complaints
            follower.join()
        worst_ending = max(worst_ending, follower.ended_at - left_at)
        assert isinstance(follower.error, ProducerInterruptedError)
        data = bytes(follower.data)
        assert data == (text(0, len(data)) if source == "busy" else b"one chunk")
        info = store.info(stream_id)
        assert info is not None
        # An exit that runs Python's exit handlers ends the stream itself; otherwise a reader has to find out.
        said = None if way in ("_exit", "sigterm") else "the producing process was shut down"
        assert info.error == said
        store.delete(stream_id)
    assert worst_exit <= EXIT_SECONDS
    assert worst_ending <= EXIT_SECONDS + KILL_TO_INTERRUPTED
    report(rounds=rounds, worst_exit=worst_exit, worst_until_interrupted=worst_ending)
