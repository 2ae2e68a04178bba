"""A source that ends because it was told to has not made all it would have."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from resumable_sync import (
    MemoryStore,
    ResumableStreamContext,
    Status,
    StreamCancelledError,
    current_producer,
)
from resumable_sync.contract import Lease
from resumable_sync.errors import ResumableStreamError

from ..backends import Backend
from ..support import PATIENCE, wait_until


def test_a_source_that_obeys_cancelled_is_not_done() -> None:
    def obedient() -> Iterator[bytes]:
        yield b"abc"
        current_producer().cancelled.wait(30)

    store = MemoryStore()
    context = ResumableStreamContext(store)
    assert next(context.run("s", obedient)) == b"abc"
    context.close()
    assert store.status("s") is Status.INTERRUPTED
    store.close()


def test_a_source_whose_wait_is_broken_by_on_cancel_has_not_failed() -> None:
    def broken() -> Iterator[bytes]:
        told = threading.Event()
        current_producer().on_cancel(told.set)
        yield b"abc"
        told.wait(30)
        raise OSError("the upstream connection was closed")

    store = MemoryStore()
    context = ResumableStreamContext(store)
    assert next(context.run("s", broken)) == b"abc"
    context.close()
    assert store.status("s") is Status.INTERRUPTED
    store.close()


@pytest.mark.parametrize(
    "backend",
    ["memory", "sqlite", pytest.param("redis", marks=[pytest.mark.redis, pytest.mark.heavy])],  # which takes 2 s
    indirect=True,
)
def test_a_silent_source_is_told_by_its_viewer_of_a_cancel_elsewhere(backend: Backend) -> None:
    """By the store's wake-up, without a heartbeat."""
    store = backend.make(grace=3000.0)
    stopped = threading.Event()

    def silent() -> Iterator[bytes]:
        current_producer().on_cancel(stopped.set)
        yield b"abc"
        stopped.wait(PATIENCE)

    with ResumableStreamContext(store, heartbeat=1000) as context:
        viewer = context.run("s", silent)
        assert next(viewer) == b"abc"
        other = backend.second(store)
        canceller = threading.Timer(0.05, other.cancel, ["s"])
        canceller.start()
        with pytest.raises(StreamCancelledError):
            next(viewer)
        assert stopped.wait(PATIENCE)
        canceller.join()
    for each in {store, other}:
        each.close()


def test_a_silent_source_is_told_of_a_cancel_that_came_before_it_had_begun(backend: Backend) -> None:
    """Between its election and its first sign of life; not by a heartbeat, which would come after minutes. If it
    is told before it has a thread, it never runs."""
    store = backend.make(grace=3000.0)
    stopped = threading.Event()

    def silent() -> Iterator[bytes]:
        current_producer().on_cancel(stopped.set)
        stopped.wait(PATIENCE)
        yield b"never"

    def cancel(stream_id: str, _: str) -> None:
        assert context.cancel(stream_id)

    with ResumableStreamContext(store, heartbeat=1000, on_acquire=cancel) as context:
        context.start("s", silent)
        wait_until(lambda: context.stats().producers == 0)
        assert context.status("s") is Status.CANCELLED
    store.close()


class _SlowReply(MemoryStore):
    """Appends at once; the reply to the first comes when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.stored, self.reply = threading.Event(), threading.Event()

    def append_many(
        self, batches: Sequence[tuple[Lease, Sequence[bytes]]], *rest: Any
    ) -> list[str | ResumableStreamError]:
        results = super().append_many(batches, *rest)
        self.stored.set()
        assert self.reply.wait(30)
        return results


def test_a_source_that_is_cancelled_before_it_knows_its_last_chunk_stored_is_told_at_once() -> None:
    stopped = threading.Event()

    def silent() -> Iterator[bytes]:
        current_producer().on_cancel(stopped.set)
        yield b"abc"
        stopped.wait(30)

    store = _SlowReply()
    with ResumableStreamContext(store, heartbeat=4.9) as context:
        context.run("s", silent)
        assert store.stored.wait(30)
        assert context.cancel("s")
        store.reply.set()
        assert stopped.wait(3.0)  # not by the next heartbeat
    store.close()
