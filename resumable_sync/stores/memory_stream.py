"""What the memory store keeps: the streams of one process."""

from __future__ import annotations

import threading
import time
from array import array
from bisect import bisect_left, bisect_right

from ..contract import Status, StreamInfo
from .wakeup import Channel


class Stream:
    """One generation. `lock` guards every field but `readers`, where readers wait; `gone` only ever turns True."""

    __slots__ = (
        "stream_id",
        "generation",
        "status",
        "error",
        "metadata",
        "ttl",
        "chunks",
        "ends",
        "size",
        "created_at",
        "updated_at",
        "finished_at",
        "lease_until",
        "expires_at",
        "gone",
        "readers",
        "lock",
    )

    def __init__(self, stream_id: str, generation: int, ttl: float, metadata: dict[str, str]) -> None:
        self.stream_id = stream_id
        self.generation = generation
        self.ttl = ttl
        self.metadata = metadata
        self.status = Status.STREAMING
        self.error: str | None = None
        self.chunks: list[bytes] = []
        self.ends = array("Q")  # ends[i]: the offset behind chunks[i]; sorted, for bisection
        self.size = 0
        self.created_at = self.updated_at = time.time()
        self.finished_at: float | None = None
        self.lease_until = 0.0
        self.expires_at = 0.0
        self.gone = False
        self.readers = Channel()
        self.lock = threading.Lock()

    def touch(self, now: float, grace: float) -> None:
        """A sign of life, at `now` of the store's clock. The caller holds the lock."""
        self.lease_until = now + grace
        self.expires_at = now + self.ttl
        self.updated_at = time.time()

    def end(self, status: Status, error: str | None, expires_at: float) -> None:
        """Book the ending. The caller holds the lock."""
        self.status = status
        self.error = error
        self.finished_at = self.updated_at = time.time()
        self.expires_at = expires_at
        self.readers.bump()

    def info(self) -> StreamInfo:
        """The public snapshot. The caller holds the lock."""
        return StreamInfo(
            stream_id=self.stream_id,
            status=self.status,
            generation=self.generation,
            size=self.size,
            entries=len(self.chunks),
            created_at=self.created_at,
            updated_at=self.updated_at,
            finished_at=self.finished_at,
            error=self.error,
            metadata=dict(self.metadata),
            producer_alive=self.status is Status.STREAMING,
        )

    def extend(self, chunks: list[bytes]) -> None:
        """Put chunks at the end. The caller holds the lock."""
        for chunk in chunks:
            self.size += len(chunk)
            self.ends.append(self.size)
        self.chunks += chunks

    def slice(self, offset: int, max_bytes: int) -> list[bytes]:
        """The chunks from `offset` on, the first cut. The caller holds the lock."""
        first = bisect_right(self.ends, offset)
        stop = bisect_left(self.ends, offset + max_bytes, first) + 1
        chunks = self.chunks[first:stop]
        if chunks:
            skip = offset - (self.ends[first] - len(chunks[0]))
            if skip:
                chunks[0] = chunks[0][skip:]
        return chunks


class Directory:
    """The streams of one process. `lock` guards `streams` and `last_generation`; it is never held together
    with a stream's lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.streams: dict[str, Stream] = {}
        self.last_generation = 0
