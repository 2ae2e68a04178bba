"""How viewers follow a stream: the one loop over `Store.read`."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from .contract import Batch, Status, Store
from .errors import (
    InvalidCursorError,
    ProducerFailedError,
    ProducerInterruptedError,
    StoreUnavailableError,
    StreamCancelledError,
    StreamLostError,
    StreamNotFoundError,
)

WAIT_SLICE = 15.0
"""Seconds that one wait of a viewer lasts at most before it looks at the store again by itself."""

_RETRY_SECONDS = 0.2  # between looks at a store that is unavailable


class Viewers:
    """The viewers of one context in one process. Without a lock, which all of them would share: single operations
    of a set are atomic, a viewer enters before it looks whether it is closed, and who closes does that before it
    looks who is within. So one of the two sees the other.
    """

    def __init__(self) -> None:
        self.reading: set[object] = set()  # viewers within a read of the store
        self.closed = threading.Event()

    def close(self) -> None:
        """Let no read begin any more."""
        self.closed.set()

    def enter(self, viewer: object, cursor: str) -> None:
        """A read begins: from here on whoever closes knows that there is somebody to wake."""
        self.reading.add(viewer)
        if self.closed.is_set():
            self.reading.discard(viewer)
            raise StoreUnavailableError(f"the context was closed; resume from {cursor}", transient=False)

    def leave(self, viewer: object) -> None:
        """The read is over."""
        self.reading.discard(viewer)


def follow(
    store: Store, viewers: Viewers, stream_id: str, first: Batch, read_bytes: int, heartbeat: float | None
) -> Iterator[Batch]:
    """Yield `first`, a read that was made already, and what follows it, until the stream's ending, which is raised
    unless it is `done`.

    With `heartbeat`, an empty batch is yielded whenever that many seconds brought nothing.
    """
    batch = first
    del first
    viewer = object()
    heard = time.monotonic()  # when something was yielded last
    while True:
        if batch.data:
            yield batch
            heard = time.monotonic()
        elif batch.status.ended:
            return _raise_ending(stream_id, batch)
        elif heartbeat is not None and time.monotonic() - heard >= heartbeat:
            yield batch
            heard = time.monotonic()
        wait = WAIT_SLICE
        if heartbeat is not None:
            wait = min(wait, max(0.0, heard + heartbeat - time.monotonic()))
        cursor = batch.cursor
        del batch  # its bytes are not to be kept for as long as the viewer waits
        batch = _read(store, viewers, viewer, stream_id, cursor, read_bytes, wait)


def _read(
    store: Store, viewers: Viewers, viewer: object, stream_id: str, cursor: str, read_bytes: int, wait: float
) -> Batch:
    """One read, repeated for the grace time while the store is unavailable."""
    unavailable_since: float | None = None
    while True:
        viewers.enter(viewer, cursor)
        try:
            return store.read(stream_id, cursor, max_bytes=read_bytes, timeout=wait)
        except (StreamNotFoundError, InvalidCursorError) as lost:
            # The cursor was good when it was given out: what it points at is gone.
            raise StreamLostError(f"stream {stream_id} was lost behind {cursor}: {lost}") from lost
        except StoreUnavailableError as unavailable:
            now = time.monotonic()
            unavailable_since = unavailable_since or now
            if not unavailable.transient or now - unavailable_since >= store.grace:
                raise
        finally:
            viewers.leave(viewer)
        viewers.closed.wait(_RETRY_SECONDS)


def _raise_ending(stream_id: str, batch: Batch) -> None:
    """Return for `done`, raise for the other endings."""
    if batch.status is Status.CANCELLED:
        raise StreamCancelledError(f"stream {stream_id} was cancelled at {batch.cursor}")
    if batch.status is Status.INTERRUPTED:
        raise ProducerInterruptedError(f"the producer of stream {stream_id} was lost at {batch.cursor}")
    if batch.status is Status.ERROR:
        raise ProducerFailedError(batch.error or f"the source of stream {stream_id} failed at {batch.cursor}")
