"""What the stores decide alike: limits, arguments, and who may append (the fence)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..contract import ENDINGS, Lease, Position, Status
from ..errors import (
    InvalidCursorError,
    LeaseLostError,
    LimitExceededError,
    ResumableStreamError,
    StreamFinalizedError,
    StreamLostError,
)

MAX_TTL = 1e10  # seconds, some 300 years: times stay exact in Lua, and in what Redis makes of its numbers
MAX_METADATA_BYTES = 16 * 1024
MAX_ERROR_CHARACTERS = 4096


@dataclass(frozen=True)
class Limits:
    """The bounds of a store (G10). Exceeding one raises LimitExceededError and stores nothing."""

    max_chunk_bytes: int
    max_stream_bytes: int
    max_entries: int
    max_streams: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive integer, not {value!r}")

    def check_chunks(self, chunks: Sequence[bytes]) -> None:
        """Raise unless each chunk is small enough."""
        if chunks and max(map(len, chunks)) > self.max_chunk_bytes:
            raise LimitExceededError(f"a chunk exceeds max_chunk_bytes={self.max_chunk_bytes}; split it")

    def check_streams(self, streams: int) -> None:
        """Raise unless one more stream may join `streams` others."""
        if streams >= self.max_streams:
            raise LimitExceededError(f"the store holds max_streams={self.max_streams} streams already")

    def check_room(self, stream_id: str, size: int, entries: int) -> None:
        """Raise unless a stream may grow to `size` bytes in `entries` chunks."""
        if size > self.max_stream_bytes:
            raise LimitExceededError(f"stream {stream_id} would exceed max_stream_bytes={self.max_stream_bytes}")
        if entries > self.max_entries:
            raise LimitExceededError(f"stream {stream_id} would exceed max_entries={self.max_entries}")


@dataclass(frozen=True)
class Snapshot:
    """How a stream stands in the store, at one moment."""

    generation: int
    status: Status
    size: int
    entries: int
    error: str | None = None
    due: float = 0.0
    """Seconds until the stream's lease or its life runs out by itself."""


class StreamState(Protocol):
    """What the fence looks at."""

    @property
    def generation(self) -> int: ...
    @property
    def status(self) -> Status: ...
    @property
    def size(self) -> int: ...


def ownership_error(lease: Lease, state: StreamState | None) -> ResumableStreamError | None:
    """Why `lease` may not write to a stream in `state`; None if it may (G4, G5, G6)."""
    name = f"stream {lease.stream_id}"
    if state is None:
        return StreamLostError(f"{name} was deleted or has expired")
    if state.generation != lease.generation:
        return LeaseLostError(f"{name} belongs to generation {state.generation} now, not {lease.generation}")
    if state.status is not Status.STREAMING:
        return StreamFinalizedError(f"{name} has ended: {state.status.value}", status=state.status.value)
    if state.size < lease.offset:
        return StreamLostError(f"{name} holds {state.size} of {lease.offset} acknowledged bytes")
    return None


def append_error(lease: Lease, state: StreamState | None, length: int) -> ResumableStreamError | None:
    """As `ownership_error`, and also why bytes may not be put at the lease's offset.

    None when the stream ends at the offset (store them), or exactly `length` bytes behind it: then either
    this very append was stored before and its reply was lost (G3), or somebody else used the lease. The
    caller tells these apart by comparing the bytes; see `conflict`.
    """
    error = ownership_error(lease, state)
    if error is None and state is not None and state.size not in (lease.offset, lease.offset + length):
        return conflict(lease)
    return error


def conflict(lease: Lease) -> LeaseLostError:
    """The error of an append whose offset holds other bytes already."""
    return LeaseLostError(f"stream {lease.stream_id} holds other bytes at {lease.cursor}: a second writer")


def finalize_error(lease: Lease, state: StreamState | None, status: Status) -> ResumableStreamError | None:
    """Why `lease` may not end the stream as `status`. A repeated ending is no error."""
    same = state is not None and state.generation == lease.generation and state.status is status
    return None if same else ownership_error(lease, state)


def as_ending(status: Status | str) -> Status:
    """`status` as one of the four endings, else ValueError."""
    ending = Status(status)
    if ending not in ENDINGS:
        raise ValueError(f"{ending.value!r} is not an ending; use done, error, cancelled or interrupted")
    return ending


def start_position(stream_id: str, state: StreamState, position: Position | None) -> Position:
    """Where a read begins: raises StreamLostError for another generation, InvalidCursorError beyond the end."""
    if position is None:
        return Position(state.generation, 0)
    if position.generation != state.generation:
        raise StreamLostError(
            f"stream {stream_id} was replaced: the cursor {position} is not of generation {state.generation}"
        )
    if position.offset > state.size:
        raise InvalidCursorError(f"cursor {position} lies beyond the {state.size} bytes of stream {stream_id}")
    return position


def freeze_chunks(chunks: Sequence[bytes]) -> list[bytes]:
    """The chunks without the empty ones, as bytes of their own: a caller may reuse its buffer afterwards."""
    frozen = []
    for chunk in chunks:
        if not isinstance(chunk, bytes):
            if not isinstance(chunk, (bytearray, memoryview)):
                raise TypeError(f"a chunk must be bytes, not {type(chunk).__name__}")
            chunk = bytes(chunk)
        if chunk:
            frozen.append(chunk)
    return frozen


def check_ttl(ttl: float, name: str = "ttl") -> float:
    """Return a life in seconds if it is positive and at most MAX_TTL, else ValueError."""
    if not 0 < ttl <= MAX_TTL:  # nor is NaN
        raise ValueError(f"{name} must be a positive number of seconds up to {MAX_TTL:g}, not {ttl!r}")
    return float(ttl)


def check_metadata(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """A copy of `metadata`; ValueError unless it maps strings to strings within MAX_METADATA_BYTES."""
    copy = dict(metadata or {})
    if not all(isinstance(text, str) for pair in copy.items() for text in pair):
        raise ValueError("metadata must map strings to strings")
    size = sum(len(text.encode("utf-8", "surrogatepass")) for pair in copy.items() for text in pair)
    if size > MAX_METADATA_BYTES:
        raise LimitExceededError(f"metadata exceeds {MAX_METADATA_BYTES} bytes")
    return copy


def check_error_text(error: str | None) -> str | None:
    """`error`, cut to MAX_ERROR_CHARACTERS and free of what UTF-8 cannot hold."""
    if error is None:
        return None
    return str(error)[:MAX_ERROR_CHARACTERS].encode("utf-8", "replace").decode("utf-8")
