"""Notes and commits: what they must be, and what refuses them.

A note is a small text that is kept with a stream, and compared and set in one step with its bytes (G12). What is
here decides; a store keeps the notes, and carries a Commit out under one lock, or in one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from ..contract import Notes, Status, check_notes
from ..errors import (
    ConflictError,
    LeaseLostError,
    LimitExceededError,
    ResumableStreamError,
    StreamFinalizedError,
    StreamLostError,
    StreamNotFoundError,
)

__all__ = [
    "Commit",
    "Creation",
    "MAX_NOTES",
    "MAX_NOTES_BYTES",
    "SharedState",
    "check_notes",
    "check_room_for_notes",
    "commit_error",
    "with_notes",
]

MAX_NOTES = 2000
"""Notes of one stream."""

MAX_NOTES_BYTES = 256 * 1024
"""Bytes of all names and values of one stream, in UTF-8."""


class Creation(NamedTuple):
    """A shared stream that is to begin; its values are checked."""

    stream_id: str
    chunks: list[bytes]
    ttl: float
    """Seconds."""
    sliding: bool
    metadata: dict[str, str]
    notes: dict[str, str]
    ending: Status | None


class Commit(NamedTuple):
    """What is to be stored in one step, and on which conditions; its values are checked."""

    stream_id: str
    chunks: list[bytes]
    expect: dict[str, str | None]
    notes: dict[str, str | None]
    ending: Status | None = None
    error: str | None = None
    generation: int | None = None

    @property
    def length(self) -> int:
        """Bytes of the chunks."""
        return sum(map(len, self.chunks))

    @property
    def writes(self) -> bool:
        """Whether it is more than notes."""
        return bool(self.chunks) or self.ending is not None

    @property
    def fencing(self) -> dict[str, str]:
        """The notes by which a stored commit is recognised; see `SharedStore.commit`. Empty: it is not fenced."""
        found = {}
        for name, value in self.notes.items():
            if value is not None and name in self.expect and self.expect[name] != value:
                found[name] = value
        return found


class SharedState(Protocol):
    """What decides on a commit."""

    @property
    def generation(self) -> int: ...
    @property
    def status(self) -> Status: ...
    @property
    def size(self) -> int: ...
    @property
    def shared(self) -> bool: ...


def check_room_for_notes(stream_id: str, count: int, size: int) -> None:
    """LimitExceededError if a stream may not have `count` notes, of `size` bytes in all (G10)."""
    if count > MAX_NOTES:
        raise LimitExceededError(f"stream {stream_id} would have more than {MAX_NOTES} notes", limit="max_notes")
    if size > MAX_NOTES_BYTES:
        raise LimitExceededError(
            f"the notes of stream {stream_id} would take more than {MAX_NOTES_BYTES} bytes",
            limit="max_notes_bytes",
        )


def with_notes(stream_id: str, present: Mapping[str, str], notes: Notes) -> dict[str, str]:
    """The notes of a stream after `notes` were set. LimitExceededError if they would be too many or too large."""
    if not notes:
        return dict(present)
    after = {name: value for name, value in {**present, **notes}.items() if value is not None}
    check_room_for_notes(
        stream_id, len(after), sum(len(name) + len(value.encode()) for name, value in after.items())
    )
    return after


def commit_error(
    commit: Commit, state: SharedState | None, present: Callable[[Sequence[str]], Mapping[str, str]]
) -> ResumableStreamError | None:
    """Why `commit` is refused, but for limits; None if it is not. `present` gives those of some notes that there
    are. The order is that of `SharedStore.commit`."""
    stream_id = commit.stream_id
    if state is None:
        return StreamNotFoundError(f"there is no stream {stream_id}")
    if commit.generation is not None and commit.generation != state.generation:
        return StreamLostError(f"stream {stream_id} was replaced: it is of generation {state.generation} now")
    if commit.writes and not state.shared:
        return LeaseLostError(f"stream {stream_id} has a producer: others may set notes, and nothing else")
    if commit.expect:
        found = present(list(commit.expect))
        values = {name: found.get(name) for name in commit.expect}
        if values != commit.expect:
            return ConflictError(
                f"notes of stream {stream_id} are not as expected: "
                + ", ".join(name for name, value in values.items() if value != commit.expect[name]),
                status=state.status.value,
                cursor=f"{state.generation}-{state.size}",
                notes=values,
            )
    if commit.writes and state.status.ended:
        ending = state.status.value
        return StreamFinalizedError(f"stream {stream_id} has ended: {ending}", status=ending)
    return None
