"""A store of plain dictionaries and bytes: what the contract says, with no thought of speed, threads or time."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..contract import (
    DEFAULT_READ_BYTES,
    TRANSITIONS,
    Batch,
    Lease,
    Position,
    Status,
    StreamInfo,
    parse_cursor,
    validate_stream_id,
)
from ..errors import (
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
    chunks: list[bytes] = field(default_factory=list)
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


class ModelStore:
    """The Store contract without waits and clocks; not thread-safe. The truth that StoreMachine compares with."""

    grace = 1e9

    def __init__(self, *, max_chunk_bytes: int, max_stream_bytes: int, max_entries: int, max_streams: int) -> None:
        self.max_chunk_bytes = max_chunk_bytes
        self._max_stream_bytes = max_stream_bytes
        self._max_entries = max_entries
        self._max_streams = max_streams
        self._streams: dict[str, ModelStream] = {}
        self._generation = 1_000  # so that there are lower ones that never were

    def acquire(
        self,
        stream_id: str,
        *,
        ttl: float | None = None,
        metadata: Mapping[str, str] | None = None,
        restart: Collection[Status | str] = (),
    ) -> Lease | None:
        """See Store.acquire."""
        current = self._streams.get(validate_stream_id(stream_id))
        if current is not None and current.status not in set(restart):
            return None
        if current is None and len(self._streams) == self._max_streams:
            raise LimitExceededError
        self._generation += 1
        self._streams[stream_id] = ModelStream(self._generation, dict(metadata or {}))
        return Lease(stream_id, self._generation)

    def append(self, lease: Lease, *chunks: bytes) -> str:
        """See Store.append."""
        if any(len(chunk) > self.max_chunk_bytes for chunk in chunks):
            raise LimitExceededError
        stream = self._owned(lease)
        new = [bytes(chunk) for chunk in chunks if chunk]
        if lease.offset == len(stream.data):
            grown = stream.chunks + new
            if len(b"".join(grown)) > self._max_stream_bytes or len(grown) > self._max_entries:
                raise LimitExceededError
            stream.chunks = grown
        elif stream.data[lease.offset :] != b"".join(new):
            raise LeaseLostError
        lease.offset = len(stream.data)
        return lease.cursor

    def append_many(self, batches: Sequence[tuple[Lease, Sequence[bytes]]]) -> list[str | ResumableStreamError]:
        """See Store.append_many."""
        if len({(lease.stream_id, lease.generation) for lease, _ in batches}) < len(batches):
            raise ValueError("a lease twice")
        results: list[str | ResumableStreamError] = []
        for lease, chunks in batches:
            try:
                results.append(self.append(lease, *chunks))
            except ResumableStreamError as error:
                results.append(error)
        return results

    def renew(self, leases: Sequence[Lease]) -> list[ResumableStreamError | None]:
        """See Store.renew."""
        results: list[ResumableStreamError | None] = []
        for lease in leases:
            try:
                self._owned(lease)
                results.append(None)
            except ResumableStreamError as error:
                results.append(error)
        return results

    def finalize(self, lease: Lease, status: Status | str, error: str | None = None) -> None:
        """See Store.finalize."""
        ending = Status(status)
        if not ending.ended:
            raise ValueError(status)
        stream = self._streams.get(lease.stream_id)
        if stream is None or (stream.generation, stream.status) != (lease.generation, ending):
            self._owned(lease).move(ending, error)

    def cancel(self, stream_id: str) -> bool:
        """See Store.cancel."""
        stream = self._streams.get(validate_stream_id(stream_id))
        if stream is None or stream.status.ended:
            return False
        stream.move(Status.CANCELLED)
        return True

    def read(
        self, stream_id: str, after: str = "", *, max_bytes: int = DEFAULT_READ_BYTES, timeout: float = 0.0
    ) -> Batch:
        """See Store.read; never waits."""
        position = parse_cursor(after)
        stream = self._streams.get(validate_stream_id(stream_id))
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
        stream = self._streams.get(validate_stream_id(stream_id))
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
            running,
        )

    def streams(self) -> Iterator[StreamInfo]:
        """See Store.streams."""
        return (info for info in map(self.info, sorted(self._streams)) if info is not None)

    def delete(self, stream_id: str) -> bool:
        """See Store.delete."""
        return self._streams.pop(validate_stream_id(stream_id), None) is not None

    def sweep(self) -> int:
        """See Store.sweep."""
        return 0

    def close(self) -> None:
        """See Store.close."""

    def _owned(self, lease: Lease) -> ModelStream:
        """The stream, if `lease` may write to it."""
        stream = self._streams.get(lease.stream_id)
        if stream is None:
            raise StreamLostError
        if stream.generation != lease.generation:
            raise LeaseLostError
        if stream.status.ended:
            raise StreamFinalizedError(status=stream.status.value)
        if lease.offset > len(stream.data):
            raise StreamLostError
        return stream
