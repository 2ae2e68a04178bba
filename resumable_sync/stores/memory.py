"""Streams in the memory of one process, for tests, scripts and servers with a single worker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from ..contract import (
    DEFAULT_GRACE,
    DEFAULT_READ_BYTES,
    DEFAULT_TTL,
    Batch,
    Lease,
    Status,
    StreamInfo,
    new_generation,
    parse_cursor,
    validate_stream_id,
    validate_wait,
)
from ..errors import ResumableStreamError, StoreUnavailableError, StreamLostError, StreamNotFoundError
from ..process import PerProcess
from . import base as rules
from .memory_stream import Directory, Stream
from .sweeper import Janitor


class MemoryStore:
    """A store in this process's memory. Thread-safe; no method blocks but `read`, at most its timeout.

    An append costs the same however many streams there are, a read is found by bisection. Expired streams
    are dropped in the background, also when nobody looks. What was stored is lost with the process, and a
    forked child begins with an empty store.

    `ttl`: seconds that a stream lives after its last append, renewal or ending; `finished_ttl`: the same
    after its ending, where that should be shorter. `grace`: seconds without append or renewal after which a
    producer counts as dead. `clock`: monotonic seconds, for tests of time.
    """

    def __init__(
        self,
        *,
        ttl: float = DEFAULT_TTL,
        finished_ttl: float | None = None,
        grace: float = DEFAULT_GRACE,
        max_chunk_bytes: int = 1024 * 1024,
        max_stream_bytes: int = 256 * 1024 * 1024,
        max_entries: int = 4_000_000,
        max_streams: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ttl = rules.check_ttl(ttl)
        self._finished_ttl = None if finished_ttl is None else rules.check_ttl(finished_ttl, "finished_ttl")
        self._grace = rules.check_ttl(grace, "grace")
        self._limits = rules.Limits(max_chunk_bytes, max_stream_bytes, max_entries, max_streams)
        self._clock = clock
        self._directories = PerProcess(Directory)
        self._shortest_ttl = min(self._ttl, self._finished_ttl or self._ttl)
        self._janitors = PerProcess(
            lambda: Janitor("resumable-sync-memory-janitor", self.sweep, self._sweep_interval)
        )
        self._wakes = object()  # another one after every wake(): a waiting read returns when it has changed
        self._closed = False

    @property
    def grace(self) -> float:
        """Seconds without append or renew after which a producer counts as dead."""
        return self._grace

    @property
    def max_chunk_bytes(self) -> int:
        """The largest chunk `append` takes."""
        return self._limits.max_chunk_bytes

    def acquire(
        self, stream_id: str, *, ttl: float | None = None, metadata: Mapping[str, str] | None = None
    ) -> Lease | None:
        """Elect one producer; see `Store.acquire`."""
        validate_stream_id(stream_id)
        life = self._ttl if ttl is None else rules.check_ttl(ttl)
        details = rules.check_metadata(metadata)
        directory = self._directory()
        if self._find(stream_id) is not None:
            return None
        if len(directory.streams) >= self._limits.max_streams:
            self.sweep()
        with directory.lock:
            current = directory.streams.get(stream_id)
            if current is not None and not current.gone:
                return None
            self._limits.check_streams(len(directory.streams))
            directory.last_generation = new_generation(directory.last_generation)
            stream = Stream(stream_id, directory.last_generation, life, details)
            self._touch(stream)  # nobody else knows the stream yet: its lock is not needed
            directory.streams[stream_id] = stream
        janitor = self._janitors.get()
        janitor.start()
        if life < self._shortest_ttl:
            self._shortest_ttl = life
            janitor.hurry()  # its rounds must come more often from now on
        return Lease(stream_id, stream.generation, life)

    def append(self, lease: Lease, *chunks: bytes) -> str:
        """Store all chunks in one atomic step; see `Store.append`."""
        frozen = rules.freeze_chunks(chunks)
        self._limits.check_chunks(frozen)
        length = sum(map(len, frozen))
        stream = self._owned(lease)
        with stream.lock:
            error = rules.append_error(lease, self._state(stream), length)
            if error is not None:
                raise error
            if stream.size == lease.offset:
                self._limits.check_room(lease.stream_id, stream.size + length, len(stream.chunks) + len(frozen))
                stream.extend(frozen)
            elif b"".join(stream.slice(lease.offset, length)) != b"".join(frozen):
                raise rules.conflict(lease)
            self._touch(stream)
            size = stream.size
        stream.readers.bump()
        lease.offset = size  # last: whoever is broken off before repeats it all
        return lease.cursor

    def append_many(self, batches: Sequence[tuple[Lease, Sequence[bytes]]]) -> list[str | ResumableStreamError]:
        """`append` for many streams; see `Store.append_many`."""
        results: list[str | ResumableStreamError] = []
        for lease, chunks in batches:
            try:
                results.append(self.append(lease, *chunks))
            except ResumableStreamError as error:
                results.append(error)
        return results

    def renew(self, leases: Sequence[Lease]) -> list[ResumableStreamError | None]:
        """Say that these producers live; see `Store.renew`."""
        results: list[ResumableStreamError | None] = []
        for lease in leases:
            try:
                stream = self._owned(lease)
                with stream.lock:
                    error = rules.ownership_error(lease, self._state(stream))
                    if error is None:
                        self._touch(stream)
            except ResumableStreamError as refused:
                error = refused
            results.append(error)
        return results

    def finalize(self, lease: Lease, status: Status | str, error: str | None = None) -> None:
        """End the stream; see `Store.finalize`."""
        ending = rules.as_ending(status)
        stream = self._owned(lease)
        with stream.lock:
            refused = rules.finalize_error(lease, self._state(stream), ending)
            if refused is not None:
                raise refused
            if stream.status is Status.STREAMING:
                self._end(stream, ending, rules.check_error_text(error))

    def cancel(self, stream_id: str) -> bool:
        """End a running stream as `cancelled`; see `Store.cancel`."""
        stream = self._find(validate_stream_id(stream_id))
        if stream is None:
            return False
        with stream.lock:
            if stream.gone or stream.status is not Status.STREAMING:
                return False
            self._end(stream, Status.CANCELLED)
            return True

    def read(
        self, stream_id: str, after: str = "", *, max_bytes: int = DEFAULT_READ_BYTES, timeout: float = 0.0
    ) -> Batch:
        """Return what follows `after`, waiting at most `timeout` seconds; see `Store.read`."""
        position = parse_cursor(after)
        wakes = self._wakes
        deadline = time.monotonic() + validate_wait(timeout)
        validate_stream_id(stream_id)
        stream = self._directory().streams.get(stream_id)  # a dict is read atomically
        waited = False
        if stream is not None:
            while True:
                version = stream.readers.version  # taken before the look: what comes after it is not missed
                with stream.lock:
                    if self._expired(stream):
                        break
                    start = rules.start_position(stream_id, stream, position)
                    self._end_if_dead(stream)
                    found = stream.slice(start.offset, max_bytes)
                    size, status, error = stream.size, stream.status, stream.error
                    # The wait ends in time for the lease and the ttl to be looked at, whichever is first.
                    due = min(stream.lease_until, stream.expires_at) - self._clock()
                left = deadline - time.monotonic()
                if found or status.ended or left <= 0 or wakes is not self._wakes:
                    lengths = list(map(len, found))
                    return Batch(start, b"".join(found), lengths, size=size, status=status, error=error)
                waited = True
                stream.readers.wait(version, min(left, due))
            self._discard(stream)
        self._check_open()  # a store that closes drops its streams: they are neither missing nor lost
        if waited:
            raise StreamLostError(f"stream {stream_id} was deleted or has expired")
        raise StreamNotFoundError(f"there is no stream {stream_id}")

    def wake(self) -> None:
        """Make blocked reads return early; see `Store.wake`."""
        self._wakes = object()  # one assignment: unlike +=, no wake of another thread can undo it
        for stream in self._snapshot():
            stream.readers.bump()

    def status(self, stream_id: str) -> Status:
        """Where the stream stands."""
        info = self.info(stream_id)
        return Status.MISSING if info is None else info.status

    def info(self, stream_id: str) -> StreamInfo | None:
        """A snapshot of one stream, None where there is none."""
        stream = self._find(validate_stream_id(stream_id))
        if stream is None:
            return None
        with stream.lock:
            if stream.gone:
                return None
            return stream.info()

    def streams(self) -> Iterator[StreamInfo]:
        """Every stream, in order of its id."""
        ids = sorted(stream.stream_id for stream in self._snapshot())
        return (info for info in map(self.info, ids) if info is not None)

    def delete(self, stream_id: str) -> bool:
        """Remove a stream, whatever its state; see `Store.delete`."""
        stream = self._find(validate_stream_id(stream_id))
        return stream is not None and self._discard(stream)

    def sweep(self) -> int:
        """Remove expired streams and end those whose producers died. Returns how many were removed."""
        removed = 0
        for stream in self._snapshot():
            with stream.lock:
                self._end_if_dead(stream)
                expired = self._expired(stream)
            removed += expired and self._discard(stream)
        return removed

    def close(self) -> None:
        """Wake blocked reads, which raise StoreUnavailableError, and drop all streams. Idempotent."""
        self._closed = True  # first: who acquires a stream after the snapshot finds the store closed when reading
        directory = self._directories.get()
        with directory.lock:
            streams = list(directory.streams.values())
        janitor = self._janitors.peek()
        if janitor is not None:
            janitor.stop()
        for stream in streams:
            self._discard(stream)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailableError("the store is closed", transient=False)

    def _directory(self) -> Directory:
        self._check_open()
        return self._directories.get()

    def _snapshot(self) -> list[Stream]:
        directory = self._directory()
        with directory.lock:
            return list(directory.streams.values())

    def _sweep_interval(self) -> float:
        return min(30.0, max(0.05, self._shortest_ttl / 2))

    def _find(self, stream_id: str) -> Stream | None:
        """The stream if it is there and has not expired; ends it first if its producer is dead."""
        directory = self._directory()
        with directory.lock:
            stream = directory.streams.get(stream_id)
        if stream is None:
            return None
        with stream.lock:
            self._end_if_dead(stream)
            if not stream.gone and not self._expired(stream):
                return stream
        self._discard(stream)
        return None

    def _owned(self, lease: Lease) -> Stream:
        """The stream that `lease` names, of whatever generation; StreamLostError if there is none.

        A dead lease is not looked at: a late producer that nobody has declared lost goes on.
        """
        directory = self._directory()
        with directory.lock:
            stream = directory.streams.get(lease.stream_id)
        if stream is None:
            raise StreamLostError(f"stream {lease.stream_id} was deleted or has expired")
        return stream

    def _state(self, stream: Stream) -> Stream | None:
        return None if stream.gone or self._expired(stream) else stream

    # The helpers below are called with the stream's lock held, except _discard, which takes it.

    def _touch(self, stream: Stream) -> None:
        stream.touch(self._clock(), self._grace)

    def _expired(self, stream: Stream) -> bool:
        return stream.gone or self._clock() >= stream.expires_at

    def _end(self, stream: Stream, status: Status, error: str | None = None) -> None:
        stream.end(status, error, self._clock() + (self._finished_ttl or stream.ttl))

    def _end_if_dead(self, stream: Stream) -> None:
        now = self._clock()
        if stream.status is Status.STREAMING and not stream.gone and stream.lease_until <= now < stream.expires_at:
            self._end(stream, Status.INTERRUPTED)

    def _discard(self, stream: Stream) -> bool:
        """Remove the stream; True if this call did."""
        with stream.lock:
            first = not stream.gone
            stream.gone = True
        stream.readers.bump()
        directory = self._directories.get()
        with directory.lock:
            if directory.streams.get(stream.stream_id) is stream:
                del directory.streams[stream.stream_id]
        return first
