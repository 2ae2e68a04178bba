"""A stream survives its producer: kill -9, and a freeze beyond the lease (G4, G7, G11)."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

from resumable_sync import Status
from resumable_sync.stores.sqlite import SQLiteStore

from ...support import Process
from .conftest import Report
from .follower import Follower
from .frozen import freeze
from .rounds import rounds
from .source import text
from .test_freeze import PROGRAMS

LONG = 3600.0
"""A lease that no test waits for: what is noticed before is noticed by the lock file."""


@rounds(1, 100)
def test_a_killed_producer_is_succeeded(rounds: int, path: Path, report: Report) -> None:
    """By one of two other processes, at the first unstored byte; a viewer gets every byte, and `done`."""
    store = SQLiteStore(path, grace=LONG)
    worst = 0.0
    for number in range(rounds):
        rng = random.Random(number)
        stream_id = f"killed-{number}"
        length = rng.randint(1, 20_000)
        with Process(PROGRAMS, "append", path, stream_id, number, LONG, rng.choice((0, 0.002)), LONG) as producer:
            producer.until("stored")
            follower = Follower(store, stream_id)
            heirs = [Process(PROGRAMS, "take_over", path, stream_id, length, LONG) for _ in range(2)]
            try:
                for heir in heirs:
                    heir.until("waiting")
                for _ in range(rng.randint(0, 100)):
                    acknowledged = int(producer.until("stored"))
                killed_at = time.monotonic()
                producer.kill()
                follower.join()
                worst = max(worst, follower.ended_at - killed_at)
                assert follower.error is None
                info = store.info(stream_id)
                assert info is not None and info.term == 2 and info.status is Status.DONE
                assert info.size - length >= acknowledged
                assert bytes(follower.data) == text(0, info.size)
                assert store.read(stream_id, max_bytes=1 << 30).data == text(0, info.size)
            finally:
                for heir in heirs:
                    with heir:
                        pass
        store.delete(stream_id)
    assert store.check() == []
    store.close()
    report(rounds=rounds, worst_until_done=worst)


@rounds(1, 100)
def test_a_frozen_producer_is_succeeded_and_wakes(rounds: int, path: Path, report: Report) -> None:
    """Once its lease has run out. Not one byte of it appears after that, though they are the right ones."""
    grace = 0.5
    store = SQLiteStore(path, grace=grace)
    for number in range(rounds):
        rng = random.Random(number)
        stream_id = f"frozen-{number}"
        length = rng.randint(1, 20_000)
        with Process(PROGRAMS, "append", path, stream_id, number, grace, 0.002, LONG) as producer:
            producer.until("stored")
            follower = Follower(store, stream_id)
            with Process(PROGRAMS, "take_over", path, stream_id, length, grace) as heir:
                heir.until("waiting")
                freeze(producer.pid, path, lambda: producer.until("stored"))
                offset = int(heir.until("took"))
                if rng.random() < 0.5:
                    heir.until("ended")
                producer.signal(signal.SIGCONT)
                assert producer.until("refused") == "LeaseLostError"
                follower.join()
            assert follower.error is None
            assert bytes(follower.data) == text(0, offset + length)
            batch = store.read(stream_id, max_bytes=1 << 30)
            assert batch.data == text(0, offset + length) and batch.status is Status.DONE
        store.delete(stream_id)
    assert store.check() == []
    store.close()
    report(rounds=rounds, grace=grace)
