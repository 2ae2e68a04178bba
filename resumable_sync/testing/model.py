"""A store of plain dictionaries and bytes: what the contract says, with no thought of speed, threads or time."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..contract import (
    DEFAULT_GRACE,
    DEFAULT_READ_BYTES,
    DEFAULT_TTL,
    TRANSITIONS,
    Batch,
    Lease,
    Notes,
    Position,
    Status,
    StreamInfo,
    parse_cursor,
    validate_stream_id,
)
from ..errors import (
    ConflictError,
    InvalidCursorError,
    LeaseLostError,
    LimitExceededError,
    ResumableStreamError,
    StreamFinalizedError,
    StreamLostError,
    StreamNotFoundError,
)


@dataclass
class ModelStream:
    """One life of a stream."""

    generation: int
    metadata: dict[str, str]
    ttl: float = DEFAULT_TTL
    sliding: bool = True
    shared: bool = False
    handover: float = 0.0
    fence: str = ""
    term: int = 1
    stored: bool = False
    """Whether the producer of this term has stored anything."""
    empty: int = 0
    """Terms in a row, up to the one before this, that have stored nothing."""
    lease_until: float = 0.0
    chunks: list[bytes] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    status: Status = Status.STREAMING
    error: str | None = None

    @property
    def data(self) -> bytes:
        """All bytes."""
        return b"".join(self.chunks)

    def move(self, status: Status, error: str | None = None) -> None:
        """Take one step of the transition table."""
        assert status in TRANSITIONS[self.status]
        self.status, self.error = status, error

    def noted(self, notes: Notes | None) -> dict[str, str]:
        """Its notes as they are after `notes` were set. LimitExceededError if they are too many or too large."""
        after = {name: value for name, value in {**self.notes, **(notes or {})}.items() if value is not None}
        size = sum(len(text.encode()) for pair in after.items() for text in pair)
        if len(after) > 2000 or size > 256 * 1024:
            raise LimitExceededError
        return after


class ModelStore:
    """The Store contract, with both additions, without waits; not thread-safe. What StoreMachine compares with.

    Its time is `now`, in seconds, which stands still unless somebody sets it. Nothing expires.
    """

    def __init__(
        self,
        *,
        max_chunk_bytes: int,
        max_stream_bytes: int,
        max_entries: int,
        max_streams: int,
        grace: float = DEFAULT_GRACE,
    ) -> None:
        self.grace = grace
        self.now = 0.0
        self.max_chunk_bytes = max_chunk_bytes
        self._max_stream_bytes = max_stream_bytes
        self._max_entries = max_entries
        self._max_streams = max_streams
        self._streams: dict[str, ModelStream] = {}
        self._generation = 1_000  # so that there are lower ones that never were
        self._tokens = itertools.count(1)

    def acquire(
        self,
        stream_id: str,
        *,
        ttl: float | None = None,
        metadata: Mapping[str, str] | None = None,
        restart: Collection[Status | str] = (),
        handover: float = 0.0,
    ) -> Lease | None:
        """See Store.acquire."""
        current = self._find(stream_id)
        if current is not None and current.status not in set(restart):
            return None
        life = DEFAULT_TTL if ttl is None else ttl
        stream = self._begin(stream_id, ModelStream(0, dict(metadata or {}), life, handover=handover))
        stream.lease_until = self.now + self.grace
        return Lease(stream_id, stream.generation, life, token=stream.fence, handover=handover)

    def _begin(self, stream_id: str, stream: ModelStream) -> ModelStream:
        """Put a new life in the place of the present one, if there is one."""
        if stream_id not in self._streams and len(self._streams) == self._max_streams:
            raise LimitExceededError
        self._generation += 1
        stream.generation, stream.fence = self._generation, self._token()
        self._streams[stream_id] = stream
        return stream

    def take_over(self, stream_id: str, generation: int) -> Lease | None:
        """See TakeoverStore.take_over."""
        stream = self._find(stream_id)
        if stream is None or stream.generation != generation or stream.status.ended or not stream.handover:
            return None
        if self.now < stream.lease_until:
            return None
        stream.empty = 0 if stream.stored else stream.empty + 1
        if stream.empty == 3:
            stream.move(Status.INTERRUPTED)
            return None
        stream.stored = False
        stream.term += 1
        stream.fence = self._token()
        stream.lease_until = self.now + self.grace
        return Lease(
            stream_id,
            generation,
            stream.ttl,
            len(stream.data),
            stream.fence,
            stream.term,
            stream.handover,
        )

    def release(self, lease: Lease) -> None:
        """See TakeoverStore.release."""
        stream = self._streams.get(lease.stream_id)
        if stream is not None and (stream.generation, stream.fence) == (lease.generation, lease.released):
            return
        stream = self._owned(lease)
        stream.fence, stream.lease_until = lease.released, self.now
        if not stream.handover:
            stream.move(Status.INTERRUPTED)

    def orphans(self) -> Iterator[str]:
        """See TakeoverStore.orphans; exact."""
        for stream_id in sorted(self._streams):
            stream = self._find(stream_id)
            if stream is not None and stream.handover and not stream.status.ended:
                if stream.lease_until <= self.now:
                    yield stream_id

    def create(
        self,
        stream_id: str,
        *chunks: bytes,
        ttl: float | None = None,
        sliding: bool = True,
        metadata: Mapping[str, str] | None = None,
        notes: Notes | None = None,
        ending: Status | str | None = None,
    ) -> StreamInfo | None:
        """See SharedStore.create."""
        life = DEFAULT_TTL if ttl is None else ttl
        stream = ModelStream(0, dict(metadata or {}), life, sliding, shared=True, term=0)
        stream.chunks = self._grown(stream, chunks)
        stream.notes = stream.noted(notes)
        if self._find(stream_id) is not None:
            return None
        self._begin(stream_id, stream)
        if ending is not None:
            stream.move(Status(ending))
        return self.info(stream_id)

    def commit(
        self,
        stream_id: str,
        *chunks: bytes,
        expect: Notes | None = None,
        notes: Notes | None = None,
        ending: Status | str | None = None,
        error: str | None = None,
        generation: int | None = None,
    ) -> str:
        """See SharedStore.commit."""
        stream = self._find(stream_id)
        if stream is None:
            raise StreamNotFoundError
        if generation not in (None, stream.generation):
            raise StreamLostError
        writes = any(chunks) or ending is not None
        if writes and not stream.shared:
            raise LeaseLostError
        cursor = f"{stream.generation}-{len(stream.data)}"
        present = {name: stream.notes.get(name) for name in expect or {}}
        if present != dict(expect or {}):
            raise ConflictError(status=stream.status.value, cursor=cursor, notes=present)
        if not writes:
            stream.notes = stream.noted(notes)
            return cursor
        if stream.status.ended:
            raise StreamFinalizedError(status=stream.status.value)
        stream.chunks, stream.notes = self._grown(stream, chunks), stream.noted(notes)
        if ending is not None:
            stream.move(Status(ending), error)
        return f"{stream.generation}-{len(stream.data)}"

    def touch(self, stream_id: str) -> bool:
        """See SharedStore.touch."""
        return self._find(stream_id) is not None

    def _grown(self, stream: ModelStream, chunks: Sequence[bytes]) -> list[bytes]:
        """The chunks of a stream with these at the end. LimitExceededError if they are too many or too large."""
        self._check_chunks(chunks)
        grown = stream.chunks + [bytes(chunk) for chunk in chunks if chunk]
        if len(b"".join(grown)) > self._max_stream_bytes or len(grown) > self._max_entries:
            raise LimitExceededError
        return grown

    def _check_chunks(self, chunks: Sequence[bytes]) -> None:
        if any(len(chunk) > self.max_chunk_bytes for chunk in chunks):
            raise LimitExceededError

    def append(self, lease: Lease, *chunks: bytes, notes: Notes | None = None) -> str:
        """See Store.append."""
        self._check_chunks(chunks)
        stream = self._owned(lease)
        new = [bytes(chunk) for chunk in chunks if chunk]
        if lease.offset == len(stream.data):
            stream.chunks, stream.notes = self._grown(stream, new), stream.noted(notes)
            stream.stored = stream.stored or bool(new or notes)
        elif stream.data[lease.offset :] != b"".join(new):
            raise LeaseLostError
        stream.lease_until = self.now + self.grace
        lease.offset = len(stream.data)
        return lease.cursor

    def append_many(
        self, batches: Sequence[tuple[Lease, Sequence[bytes]]], notes: Sequence[Notes | None] = ()
    ) -> list[str | ResumableStreamError]:
        """See Store.append_many."""
        if len({(lease.stream_id, lease.generation, lease.token) for lease, _ in batches}) < len(batches):
            raise ValueError("a lease twice")
        results: list[str | ResumableStreamError] = []
        for (lease, chunks), noted in itertools.zip_longest(batches, notes):
            try:
                results.append(self.append(lease, *chunks, notes=noted))
            except ResumableStreamError as error:
                results.append(error)
        return results

    def renew(self, leases: Sequence[Lease]) -> list[ResumableStreamError | None]:
        """See Store.renew."""
        results: list[ResumableStreamError | None] = []
        for lease in leases:
            try:
                self._owned(lease).lease_until = self.now + self.grace
                results.append(None)
            except ResumableStreamError as error:
                results.append(error)
        return results

    def finalize(
        self, lease: Lease, status: Status | str, error: str | None = None, *, notes: Notes | None = None
    ) -> None:
        """See Store.finalize."""
        ending = Status(status)
        if not ending.ended:
            raise ValueError(status)
        stream = self._streams.get(lease.stream_id)
        repeated = lease.generation, lease.token, ending
        if stream is None or (stream.generation, stream.fence, stream.status) != repeated:
            stream = self._owned(lease)
            stream.notes = stream.noted(notes)
            stream.move(ending, error)

    def cancel(self, stream_id: str) -> bool:
        """See Store.cancel."""
        stream = self._find(stream_id)
        if stream is None or stream.status.ended:
            return False
        stream.move(Status.CANCELLED)
        return True

    def read(
        self, stream_id: str, after: str = "", *, max_bytes: int = DEFAULT_READ_BYTES, timeout: float = 0.0
    ) -> Batch:
        """See Store.read; never waits."""
        position = parse_cursor(after)
        stream = self._find(stream_id)
        if stream is None:
            raise StreamNotFoundError
        start = position or Position(stream.generation, 0)
        if start.generation != stream.generation:
            raise StreamLostError
        if start.offset > len(stream.data):
            raise InvalidCursorError
        pieces: list[bytes] = []
        end = 0
        for chunk in stream.chunks:
            end += len(chunk)
            if end > start.offset and sum(map(len, pieces)) < max(1, max_bytes):
                pieces.append(chunk[-(end - start.offset) :])
        return Batch(
            start,
            b"".join(pieces),
            list(map(len, pieces)),
            size=len(stream.data),
            status=stream.status,
            error=stream.error,
        )

    def wake(self) -> None:
        """See Store.wake."""

    def status(self, stream_id: str) -> Status:
        """See Store.status."""
        info = self.info(stream_id)
        return Status.MISSING if info is None else info.status

    def info(self, stream_id: str) -> StreamInfo | None:
        """See Store.info; its times are 0."""
        stream = self._find(stream_id)
        if stream is None:
            return None
        running = stream.status is Status.STREAMING
        return StreamInfo(
            stream_id,
            stream.status,
            stream.generation,
            len(stream.data),
            len(stream.chunks),
            0.0,
            0.0,
            None if running else 0.0,
            stream.error,
            stream.metadata,
            running and not stream.shared and self.now < stream.lease_until,
            stream.shared,
            stream.term,
            stream.handover,
            stream.ttl,
            stream.sliding,
            dict(stream.notes),
        )

    def streams(self) -> Iterator[StreamInfo]:
        """See Store.streams."""
        infos = map(self.info, sorted(self._streams))
        return (replace(info, notes={}) for info in infos if info is not None)

    def delete(self, stream_id: str) -> bool:
        """See Store.delete."""
        return self._streams.pop(validate_stream_id(stream_id), None) is not None

    def sweep(self) -> int:
        """See Store.sweep."""
        return 0

    def close(self) -> None:
        """See Store.close."""

    def _token(self) -> str:
        return f"token {next(self._tokens)}"

    def _find(self, stream_id: str) -> ModelStream | None:
        """The stream, if there is one; ended first if nobody may go on with it."""
        stream = self._streams.get(validate_stream_id(stream_id))
        if stream is not None and not stream.shared and stream.status is Status.STREAMING:
            if stream.lease_until + stream.handover <= self.now:
                stream.move(Status.INTERRUPTED)
        return stream

    def _owned(self, lease: Lease) -> ModelStream:
        """The stream, if `lease` may write to it."""
        stream = self._streams.get(lease.stream_id)
        if stream is None:
            raise StreamLostError
        if (stream.generation, stream.fence) != (lease.generation, lease.token):
            raise LeaseLostError
        if stream.status.ended:
            raise StreamFinalizedError(status=stream.status.value)
        if lease.offset > len(stream.data):
            raise StreamLostError
        return stream
