"""A producing process is frozen beyond its lease and wakes up when another has taken its place (G4, G7)."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from resumable_sync import ProducerInterruptedError, Status, StoreUnavailableError, StreamLostError
from resumable_sync.stores.sqlite import SQLiteStore

from ...support import Process, wait_until
from .conftest import Report
from .follower import Follower
from .frozen import freeze, holds_the_file
from .rounds import rounds
from .source import text

PROGRAMS = "tests.stores.faults.programs"
GRACE = 0.5


@pytest.mark.parametrize("how", ["append", "produce"])
@rounds(1, 200)
def test_frozen_producer(how: str, rounds: int, path: Path, report: Report) -> None:
    """It is declared interrupted, replaced, and wakes: not one byte of it appears, and its source is closed."""
    store = SQLiteStore(path, grace=GRACE)
    worst = 0.0
    within_transaction = 0
    for number in range(rounds):
        rng = random.Random(number)
        stream_id = f"frozen-{number}"
        with Process(PROGRAMS, how, path, stream_id, number, GRACE, rng.choice((0, 0.002))) as producer:
            producer.until("stored")
            follower = Follower(store, stream_id)
            for _ in range(rng.randint(0, 100)):
                producer.until("stored")
            within_transaction += freeze(producer.pid, path, lambda: producer.until("stored"))
            frozen_at = time.monotonic()
            follower.join()
            assert bytes(follower.data) == text(0, len(follower.data))
            if isinstance(follower.error, StoreUnavailableError) and holds_the_file(path):
                within_transaction += 1  # in a lock of SQLite's that only some meet: nobody else gets in or out
                continue
            assert isinstance(follower.error, ProducerInterruptedError)
            worst = max(worst, follower.ended_at - frozen_at)
            lease = None
            takeover = rng.random() < 0.8
            if takeover:
                assert store.delete(stream_id)
                lease = store.acquire(stream_id)
                assert lease is not None
                store.append(lease, text(0, 500, "b"))
            producer.signal(signal.SIGCONT)
            if how == "append":
                refused = "LeaseLostError" if takeover else "StreamFinalizedError interrupted"
                assert producer.until("refused") == refused
            elif takeover:
                producer.until("closed")
                assert producer.until("failed") == "LeaseLostError"
            else:
                producer.until("closed")
                assert producer.until("final") == "interrupted"
            if lease is not None:
                store.append(lease, text(500, 1000, "b"))
                store.finalize(lease, "done")
                batch = store.read(stream_id)
                assert batch.data == text(0, 1000, "b") and batch.size == 1000 and batch.status is Status.DONE
                with pytest.raises(StreamLostError):
                    store.read(stream_id, f"{lease.generation - 1}-0")
            else:
                batch = store.read(stream_id, max_bytes=1 << 30)
                assert batch.data == bytes(follower.data) and batch.status is Status.INTERRUPTED
        store.delete(stream_id)
    store.close()
    report(rounds=rounds, grace=GRACE, worst_until_interrupted=worst, frozen_within_transaction=within_transaction)


@rounds(1, 50)
def test_heartbeat_keeps_a_silent_producer(rounds: int, path: Path) -> None:
    """A short freeze ends nothing, nor does reading (G7)."""
    store = SQLiteStore(path, grace=2.0)
    with Process(PROGRAMS, "produce", path, "silent", 1, 2, 60) as producer:
        producer.until("running")
        wait_until(lambda: store.read("silent").data)
        for number in range(rounds):
            producer.signal(signal.SIGSTOP)
            assert store.read("silent", timeout=0.2, max_bytes=1).status is Status.STREAMING
            producer.signal(signal.SIGCONT)
            end = store.info("silent")
            assert end is not None
            assert store.read("silent", end.cursor, timeout=1.0).status is Status.STREAMING
    store.close()
