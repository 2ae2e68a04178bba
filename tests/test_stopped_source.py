"""A source that ends because it was told to has not made all it would have."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from resumable_sync import MemoryStore, ResumableStreamContext, Status, current_producer


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
