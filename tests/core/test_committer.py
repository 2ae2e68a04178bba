"""The committer where an append goes wrong in the middle."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest

from resumable_sync import (
    Lease,
    MemoryStore,
    ProducerFailedError,
    ResumableStreamContext,
    ResumableStreamError,
    StreamCancelledError,
)

TIMEOUT = 20.0


class Thrown(BaseException):
    """Thrown into the running thread, as gevent's Timeout is into the greenlet of a source."""


class BrokenOff(MemoryStore):
    """One append that a source's own thread makes is broken off, before or after it has stored the bytes."""

    def __init__(self, *, stored: bool) -> None:
        super().__init__()
        self.stored = stored
        self.thrown = False

    def append_many(self, batches: Sequence[tuple[Lease, Sequence[bytes]]]) -> list[str | ResumableStreamError]:
        if self.thrown or not threading.current_thread().name.startswith("resumable-sync-producer"):
            return super().append_many(batches)
        self.thrown = True
        if self.stored:
            super().append_many(batches)
        raise Thrown


@pytest.mark.parametrize("stored", [False, True])
def test_an_append_that_is_broken_off_is_stored_once(stored: bool) -> None:
    """G3, G5: the ending comes after all that was made."""
    store, pause = BrokenOff(stored=stored), threading.Event()
    made: list[bytes] = []

    def source() -> Iterator[bytes]:
        for number in range(1000):  # the committer may be busy with the lease: then it stores the chunk itself
            made.append(b"%d " % number)
            yield made[-1]
            pause.wait(0.005)

    data = b""
    with ResumableStreamContext(store) as context:
        with pytest.raises(ProducerFailedError, match="Thrown"):
            for piece in context.run("s", source):
                data += piece
        assert b"".join(context.run("t", lambda: [b"others go on"])) == b"others go on"
    assert data == b"".join(made)
    store.close()


def test_a_refused_chunk_closes_its_source_at_once() -> None:
    """G4: the source is not asked for another chunk, for which it might wait long."""
    store, cancelled, closed = MemoryStore(), threading.Event(), threading.Event()

    def source() -> Iterator[bytes]:
        try:
            yield b"stored"
            assert cancelled.wait(TIMEOUT)
            threading.Event().wait(0.01)  # a slow source, whose chunks are stored by its own thread
            yield b"refused"
            raise AssertionError("asked for more")
        finally:
            closed.set()

    errors: list[BaseException] = []
    with ResumableStreamContext(store, on_error=lambda _, error: errors.append(error)) as context:
        viewer = context.run("s", source)
        assert next(viewer) == b"stored"
        store.cancel("s")
        cancelled.set()
        with pytest.raises(StreamCancelledError):
            next(viewer)
        assert closed.wait(TIMEOUT)
    assert errors == []
    store.close()
