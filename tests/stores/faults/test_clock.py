"""Processes whose wall clocks are wrong, or jump (G7, G8): no decision rests on them."""

from __future__ import annotations

from pathlib import Path

import pytest

from resumable_sync import ProducerInterruptedError, Status, StreamLostError
from resumable_sync.stores.sqlite import SQLiteStore

from ...support import Process
from .conftest import Report
from .follower import Follower
from .rounds import rounds
from .source import text
from .test_kill import KILL_TO_INTERRUPTED, PROGRAMS

CLOCKED = "tests.stores.faults.clocked"
HOUR, DAY = 3600, 86_400


@pytest.mark.parametrize("skew", [HOUR, -HOUR, DAY, -DAY])
@rounds(1, 20)
def test_wrong_clock(skew: int, rounds: int, path: Path, report: Report) -> None:
    """A producer and a viewer with clocks off by `skew`, and jumping by it: no false end, no false expiry."""
    store = SQLiteStore(path, grace=3, ttl=30)
    worst = 0.0
    for number in range(rounds):
        stream_id = f"clock-{number}"
        with Process(CLOCKED, skew, -skew, "produce", path, stream_id, number, 3, 0.02) as producer:
            producer.until("running")
            here = Follower(store, stream_id)
            with (
                Process(CLOCKED, -skew, skew, "follow", path, stream_id) as ahead,
                Process(CLOCKED, 0, skew, "info", path, stream_id) as newcomer,
                Process(PROGRAMS, "follow", path, stream_id) as right,
            ):
                ahead.until("following")
                right.until("following")
                assert newcomer.line().split()[0] == "streaming"
                for _ in range(40):  # almost a second, with jumps
                    producer.until("stored")
                assert store.sweep() == 0
                assert not here.ended and store.status(stream_id) is Status.STREAMING
                killed_at = producer.kill()
                for viewer in (ahead, right):
                    _, size, ending = viewer.until("ended").split()
                    assert ending == "ProducerInterruptedError"
                here.join()
        assert isinstance(here.error, ProducerInterruptedError)
        assert bytes(here.data) == text(0, int(size))
        worst = max(worst, here.ended_at - killed_at)
        store.delete(stream_id)
    assert worst <= KILL_TO_INTERRUPTED
    store.close()
    report(rounds=rounds, worst_until_interrupted=worst)


@pytest.mark.parametrize("skew", [DAY, -DAY])
def test_generations_grow_whatever_the_clock(skew: int, path: Path, store: SQLiteStore) -> None:
    """A life begun by a process a day ahead or behind is followed by a higher generation (G4)."""
    with Process(CLOCKED, skew, 0, "append", path, "lives", 1) as first:
        generation = int(first.until("acquired"))
        first.until("stored")
        assert store.delete("lives")
        assert first.until("refused") == "StreamLostError"
    lease = store.acquire("lives")
    assert lease is not None and lease.generation > generation
    store.append(lease, b"new")
    with pytest.raises(StreamLostError):
        store.read("lives", f"{generation}-0")
