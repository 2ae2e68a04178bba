"""A viewer's loop: what it keeps, and what it does while the store is away."""

from __future__ import annotations

import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from resumable_sync import (
    Batch,
    Lease,
    MemoryStore,
    ProducerFailedError,
    ResumableStreamContext,
    ResumableStreamError,
    StoreUnavailableError,
    StreamCancelledError,
)
from resumable_sync.contract import Position

TIMEOUT = 20.0
CHUNK = 1_000_000

Open = Callable[[ResumableStreamContext], Iterator[Any]]


class Waiting(MemoryStore):
    """Measures, when a read begins to wait, what Python has allocated."""

    def __init__(self) -> None:
        super().__init__()
        self.allocated: list[int] = []

    def read(self, *arguments: Any, timeout: float = 0.0, **options: Any) -> Batch:
        if timeout:
            self.allocated.append(tracemalloc.get_traced_memory()[0])
        return super().read(*arguments, timeout=timeout, **options)


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def acquire(store: MemoryStore) -> Lease:
    lease = store.acquire("s")
    assert lease is not None
    return lease


@pytest.mark.parametrize(
    "open_viewer",
    [
        lambda context: context.require_resume("s"),
        lambda context: context.run("s", lambda: []),
        lambda context: context.entries("s"),
        lambda context: context.batches("s"),
    ],
    ids=["resume", "run", "entries", "batches"],
)
@pytest.mark.usefixtures("traced")
def test_what_was_delivered_is_not_kept_while_a_viewer_waits(open_viewer: Open) -> None:
    """G10: the memory of slow and waiting viewers is bounded."""
    store = Waiting()
    lease = acquire(store)
    store.append(lease, bytes(CHUNK), bytes(CHUNK))
    with ResumableStreamContext(store, read_bytes=3 * CHUNK) as context:
        before = tracemalloc.get_traced_memory()[0]
        viewer = open_viewer(context)
        thread = threading.Timer(0.1, store.finalize, (lease, "done"))
        thread.start()
        for piece in viewer:
            del piece
        thread.join(TIMEOUT)
    assert store.allocated and max(store.allocated) - before < CHUNK / 2
    store.close()


class Away(MemoryStore):
    """Unavailable for reads until a moment."""

    until = 0.0

    def read(self, *arguments: Any, **options: Any) -> Batch:
        if time.monotonic() < self.until:
            raise StoreUnavailableError("away")
        return super().read(*arguments, **options)


def test_a_viewer_bridges_a_store_that_is_away() -> None:
    store = Away(grace=TIMEOUT)
    lease = acquire(store)
    store.append(lease, b"one")
    with ResumableStreamContext(store) as context:
        viewer = context.require_resume("s")
        assert next(viewer) == b"one"
        store.append(lease, b"two")
        store.finalize(lease, "done")
        store.until = time.monotonic() + 0.3
        assert list(viewer) == [b"two"]
    store.close()


def test_a_viewer_gives_up_on_a_store_that_stays_away() -> None:
    store = Away(grace=0.5)
    store.append(acquire(store), b"one")
    with ResumableStreamContext(store) as context:
        viewer = context.require_resume("s")
        assert next(viewer) == b"one"
        store.until = float("inf")
        with pytest.raises(StoreUnavailableError, match="away"):
            next(viewer)
    store.close()


class Counting(MemoryStore):
    """Counts its reads."""

    reads = 0

    def read(self, *arguments: Any, **options: Any) -> Batch:
        self.reads += 1
        return super().read(*arguments, **options)


ENDINGS = {"done": type(None), "error": ProducerFailedError, "cancelled": StreamCancelledError}


@pytest.mark.parametrize("status", ENDINGS)
def test_the_read_that_brings_the_last_byte_of_an_ended_stream_is_the_last(status: str) -> None:
    with Counting() as store, ResumableStreamContext(store, read_bytes=10) as context:
        lease = acquire(store)
        store.append(lease, b"0123456789", b"abc")
        if status == "cancelled":
            store.cancel("s")
        else:
            store.finalize(lease, status)
        got: list[bytes] = []
        ending = None
        try:
            for piece in context.require_resume("s"):
                got.append(piece)
        except ResumableStreamError as error:
            ending = error
        assert got == [b"0123456789", b"abc"] and store.reads == 2
        assert type(ending) is ENDINGS[status]


def test_an_ending_after_the_last_byte_was_read_takes_another_read() -> None:
    with Counting() as store, ResumableStreamContext(store) as context:
        lease = acquire(store)
        store.append(lease, b"abc")
        viewer = context.require_resume("s")
        assert next(viewer) == b"abc"
        store.append(lease, b"def")
        store.finalize(lease, "done")
        assert list(viewer) == [b"def"]
        assert store.reads == 2


@pytest.mark.parametrize("status", [*ENDINGS, "missing"])
def test_no_ending_but_done_is_quiet_whatever_a_store_tells_it_with(status: str) -> None:
    """A store of one's own, which keeps statuses as plain text, or tells of what it should raise."""

    class Plain(MemoryStore):
        def read(self, stream_id: str, after: str = "", **options: Any) -> Batch:
            text: Any = status if after else "streaming"
            return Batch(Position(1, 3 if after else 0), b"" if after else b"abc", (), size=3, status=text)

    with Plain() as store, ResumableStreamContext(store) as context:
        viewer = context.require_resume("s")
        assert next(viewer) == b"abc"
        if status == "done":
            assert list(viewer) == []
        else:
            with pytest.raises(ENDINGS.get(status, ResumableStreamError)):
                next(viewer)
