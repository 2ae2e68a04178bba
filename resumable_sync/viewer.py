"""How a viewer follows a stream: the one loop over `Store.read`."""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .contract import Batch, Entry, Status, Store
from .errors import (
    InvalidCursorError,
    ProducerFailedError,
    ProducerInterruptedError,
    ResumableStreamError,
    StoreUnavailableError,
    StreamCancelledError,
    StreamLostError,
    StreamNotFoundError,
)
from .interrupts import Event, Roll

if TYPE_CHECKING:
    from .production import Production
    from .stats import Tally

WAIT_SLICE = 15.0
"""Seconds that one wait of a viewer lasts at most before it reads again by itself."""

RETRY_SECONDS = 0.2
"""Seconds between reads of a store that is unavailable."""


class OpenReads:
    """The reads that the viewers of one context have open in one process.

    It has no lock: all viewers would contend for it. Each change of a roll is atomic; a viewer enters before it
    checks `closed`, and whoever closes sets `closed` before reading who is inside. So one of the two sees the
    other.
    """

    def __init__(self) -> None:
        self.following = Roll()  # the viewers that have begun and not ended
        self.viewers = Roll()  # those inside a read of the store
        self.closed = Event()
        self.place = self.viewers.place  # what a viewer enters and leaves with
        self.leave = self.viewers.vacate  # the read is over

    def close(self) -> None:
        """Let no further read begin."""
        self.closed.set()

    def enter(self, place: weakref.ref[object], cursor: str) -> None:
        """A read begins: from here on whoever closes knows that there is somebody to wake."""
        self.viewers.occupy(place)
        if self.closed.is_set():
            self.viewers.vacate(place)
            raise StoreUnavailableError(f"the context was closed; resume from {cursor}", transient=False)


class ViewerLoop:
    """One viewer's way along a stream, as a generator: call exactly one of `batches`, `pieces`, `entries`, once.

    Each begins with `first`, a read that was made already, and goes on to the stream's ending, which is raised
    unless it is `done`. What was yielded is not kept while the viewer waits for more. One thread at a time.
    """

    def __init__(
        self,
        store: Store,
        reads: OpenReads,
        stream_id: str,
        read_bytes: int,
        production: Production | None = None,
        tally: Tally | None = None,
    ) -> None:
        self._store = store
        self._reads = reads
        self._place = reads.place(self)
        self._stream_id = stream_id
        self._read_bytes = read_bytes
        self._production = production  # of this process: it knows why the stream failed
        self._tally = tally

    def batches(self, first: Batch, heartbeat: float | None = None) -> Iterator[Batch]:
        """Yield what each read found. With `heartbeat`, an empty batch is yielded whenever that many seconds
        brought nothing."""
        batch = first
        del first
        self._reads.following.enter(self)
        try:
            yielded_at = time.monotonic()  # the last time; here nothing was yet
            while True:
                ended = batch.status is not Status.STREAMING and (not batch.length or batch.offset >= batch.size)
                overdue = heartbeat is not None and time.monotonic() - yielded_at >= heartbeat and not ended
                if batch.length or overdue:
                    yield batch
                    yielded_at = time.monotonic()
                if ended:  # in the same snapshot: nothing more can come
                    ending = self.ending(batch)
                    if ending is not None:
                        raise ending
                    return
                wait = WAIT_SLICE
                if heartbeat is not None:
                    wait = min(wait, max(0.0, yielded_at + heartbeat - time.monotonic()))
                cursor = batch.cursor
                del batch  # its bytes are not kept for as long as the viewer waits
                batch = self._read(cursor, wait)
        finally:
            self._reads.following.leave(self)

    def stored(self, first: Batch) -> Iterator[Batch]:
        """Yield what is stored, without waiting for more. The last batch says how the stream stood there; an
        ending is not raised."""
        batch = first
        del first
        while batch.offset < batch.size:
            yield batch
            batch = self._read(batch.cursor, 0.0)
        yield batch

    def pieces(self, first: Batch) -> Iterator[bytes]:
        """Yield the bytes."""
        batches = self.batches(first)
        del first
        for batch in batches:
            pieces = list(batch.pieces)
            del batch
            pieces.reverse()
            while pieces:
                yield pieces.pop()

    def entries(self, first: Batch) -> Iterator[Entry]:
        """Yield the producer's chunks."""
        batches = self.batches(first)
        del first
        for batch in batches:
            entries = batch.entries
            del batch
            entries.reverse()
            while entries:
                yield entries.pop()

    def ending(self, ended: Batch) -> ResumableStreamError | None:
        """The error of an ending; None for `done`."""
        stream_id, cursor = self._stream_id, ended.cursor
        production = self._production
        if production is not None and production.generation != ended.generation:
            production = None
        if ended.status is Status.CANCELLED:
            if production is not None:  # elsewhere, perhaps: then its source is not to wait for a heartbeat
                production.check()
            return StreamCancelledError(f"stream {stream_id} was cancelled at {cursor}")
        if ended.status is Status.INTERRUPTED:
            return ProducerInterruptedError(f"the producer of stream {stream_id} was lost at {cursor}")
        if ended.status is Status.DONE:
            return None
        failed = ProducerFailedError(ended.error or f"the source of stream {stream_id} failed at {cursor}")
        if production is not None:
            failed.__cause__ = production.failure
        return failed

    def _read(self, cursor: str, wait: float) -> Batch:
        """One read, repeated for the grace time while the store is unavailable."""
        unavailable_since: float | None = None
        while True:
            try:
                self._reads.enter(self._place, cursor)
                return self._store.read(self._stream_id, cursor, max_bytes=self._read_bytes, timeout=wait)
            except (StreamNotFoundError, InvalidCursorError) as lost:
                # The cursor was good when it was given out: what it points at is gone.
                raise StreamLostError(f"stream {self._stream_id} was lost after {cursor}: {lost}") from lost
            except StoreUnavailableError as unavailable:
                if self._tally is not None:
                    self._tally.count("store-error.read")
                now = time.monotonic()
                if unavailable_since is None:
                    unavailable_since = now
                if not unavailable.transient or now - unavailable_since >= self._store.grace:
                    raise
            finally:
                self._reads.leave(self._place)
            self._reads.closed.wait(RETRY_SECONDS)
