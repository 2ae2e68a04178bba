"""The ttl runs out under a reader and under a producer: loud, or renewed (G6, G8)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from resumable_sync import ResumableStreamContext, Status, Store, StreamLostError
from resumable_sync.stores.memory import MemoryStore
from resumable_sync.stores.sqlite import SQLiteStore

from ...support import wait_until
from .conftest import Report
from .follower import Follower
from .rounds import rounds

TTL = 0.8


@pytest.fixture(params=["memory", "sqlite"])
def any_store(request: pytest.FixtureRequest, path: Path) -> Iterator[Store]:
    """Each local store."""
    store: Store = MemoryStore() if request.param == "memory" else SQLiteStore(path)
    yield store
    store.close()


@rounds(3, 100)
def test_expiry_is_loud(rounds: int, any_store: Store, report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody renews: readers that wait learn of it within a wait slice, the writer at its next append."""
    monkeypatch.setattr("resumable_sync.viewer.WAIT_SLICE", 0.5)
    ttl = TTL * (1 + rounds // 20)  # many followers take long to start
    leases = []
    followers = []
    for number in range(rounds):
        lease = any_store.acquire(f"short-{number}", ttl=ttl)
        assert lease is not None
        any_store.append(lease, b"all there is")
        leases.append(lease)
        followers.append(Follower(any_store, lease.stream_id))
    for lease, follower in zip(leases, followers):
        follower.join()
        assert isinstance(follower.error, StreamLostError)
        assert follower.data == b"all there is"
        with pytest.raises(StreamLostError):
            any_store.append(lease, b"too late")
        with pytest.raises(StreamLostError):
            any_store.finalize(lease, "done")
        assert any_store.status(lease.stream_id) is Status.MISSING
    report(rounds=rounds)


@rounds(3, 100)
def test_silent_producer_is_renewed(rounds: int, any_store: Store, report: Report) -> None:
    """A source silent for many ttls keeps its stream: heartbeats come in time for the ttl."""
    context = ResumableStreamContext(any_store)
    go_on = threading.Event()

    def source() -> Iterator[bytes]:
        yield b"before"
        go_on.wait(60)
        yield b" after"

    ids = [f"quiet-{number}" for number in range(rounds)]
    for stream_id in ids:
        context.run(stream_id, source, ttl=1.0)
    viewers = [Follower(any_store, stream_id) for stream_id in ids]
    threading.Event().wait(2.5)  # some ttls
    assert all(context.status(stream_id) is Status.STREAMING for stream_id in ids)
    go_on.set()
    for viewer in viewers:
        viewer.join()
        assert viewer.error is None and viewer.data == b"before after"
    # Ended, it lives a whole ttl, and then goes, also from the middle of a reader's way.
    wait_until(lambda: all(context.status(stream_id) is Status.MISSING for stream_id in ids))
    context.close()
    report(rounds=rounds)


@rounds(2, 20)
def test_finished_stream_lives_its_ttl(rounds: int, any_store: Store) -> None:
    """A slow reader of an ended stream that expires gets a typed error, never a clean end (G1, G5, G8)."""
    for number in range(rounds):
        stream_id = f"ended-{number}"
        lease = any_store.acquire(stream_id, ttl=TTL)
        assert lease is not None
        any_store.append(lease, b"a" * 10, b"b" * 10)
        any_store.finalize(lease, "done")
        context = ResumableStreamContext(any_store, read_bytes=10)
        pieces = context.require_resume(stream_id)
        assert next(pieces) == b"a" * 10
        wait_until(lambda: any_store.status(stream_id) is Status.MISSING)
        with pytest.raises(StreamLostError):
            list(pieces)
        context.close()
