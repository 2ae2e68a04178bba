"""A producing process is killed at a random moment (G1, G2, G7)."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from resumable_sync import ProducerInterruptedError, Status
from resumable_sync.stores.sqlite import SQLiteStore

from ...support import Process
from .conftest import Report
from .follower import Follower
from .rounds import rounds
from .source import text

PROGRAMS = "tests.stores.faults.programs"

KILL_TO_INTERRUPTED = 5.0
"""Seconds: the two that are promised, and what a busy machine adds. By the lease alone it would take 15."""


@pytest.mark.parametrize("how", ["append", "produce"])
@rounds(2, 200)
def test_killed_producer(how: str, rounds: int, path: Path, store: SQLiteStore, report: Report) -> None:
    """Followers here and in another process get all acknowledged bytes, then `interrupted`; so do newcomers."""
    worst = worst_elsewhere = 0.0
    for number in range(rounds):
        rng = random.Random(number)
        stream_id = f"killed-{number}"
        with Process(PROGRAMS, how, path, stream_id, number, 15, rng.choice((0, 0, 0.003))) as producer:
            stored = int(producer.until("stored"))
            here = Follower(store, stream_id)
            with Process(PROGRAMS, "follow", path, stream_id) as elsewhere:
                elsewhere.until("following")
                for _ in range(rng.randint(0, 300)):
                    stored = int(producer.until("stored"))
                killed_at = producer.kill()
                producer.wait()
                for line in producer.rest():
                    word, *numbers = line.split()
                    if word == "stored":
                        stored = int(numbers[0])
                ended_at, size, ending = elsewhere.until("ended").split(maxsplit=2)
                assert elsewhere.wait() == 0, elsewhere.stderr()
            here.join()
        assert isinstance(here.error, ProducerInterruptedError)
        assert ending == "ProducerInterruptedError"
        assert len(here.data) == int(size) >= stored
        assert bytes(here.data) == text(0, len(here.data))
        worst = max(worst, here.ended_at - killed_at)
        worst_elsewhere = max(worst_elsewhere, float(ended_at) - killed_at)
        with Process(PROGRAMS, "info", path, stream_id) as newcomer:
            assert newcomer.line() == f"interrupted {size} False interrupted"
        store.delete(stream_id)
    assert max(worst, worst_elsewhere) <= KILL_TO_INTERRUPTED
    assert store.check() == []
    report(rounds=rounds, worst_here=worst, worst_elsewhere=worst_elsewhere)


@rounds(1, 20)
def test_restart(rounds: int, path: Path, report: Report) -> None:
    """After all processes died, a new one finds the streams interrupted, with their bytes (G2, G7)."""
    for number in range(rounds):
        sizes = {}
        producers = []
        try:
            for which in range(3):
                stream_id = f"left-{number}-{which}"
                producer = Process(PROGRAMS, "produce", path, stream_id, which)
                producers.append((stream_id, producer))
            for stream_id, producer in producers:
                for _ in range(5):
                    sizes[stream_id] = int(producer.until("stored"))
        finally:
            for _, producer in producers:
                producer.kill()
            for _, producer in producers:
                producer.__exit__(None, None, None)
        store = SQLiteStore(path)
        found = {info.stream_id: info for info in store.streams() if info.stream_id in sizes}
        assert found.keys() == sizes.keys()
        for stream_id, info in found.items():
            assert info.status is Status.INTERRUPTED and not info.producer_alive
            assert info.size >= sizes[stream_id]
            batch = store.read(stream_id, max_bytes=info.size)
            assert batch.data == text(0, info.size)
        store.close()
    report(rounds=rounds)
