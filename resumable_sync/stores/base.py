"""What every store stands on: the shared settings, limits and argument checks, and who may append (the fence).

**To write a store of your own**, subclass BaseStore and write the methods that begin with one underscore and are
abstract. They are called with valid arguments only, on an open store. Decide under one lock, or in one
transaction, as follows, with the stream's present state as a Snapshot, or as anything that has the fields of
StreamState (None where the stream is missing or has expired):

- acquire: None if there is a state. Otherwise `Limits.check_streams` (sweep first if it raises), then begin with
  `new_generation` of the contract, above every generation that the id has had.
- append: `Limits.check_chunks`, then `append_error`. If there is none and the stream ends at the lease's offset,
  store the chunks (`Limits.check_room`). If it ends after that, compare what is stored there with the chunks:
  equal bytes are a repeated append, which succeeds; other bytes are a `conflict_error`. Advance the lease last.
- renew: `ownership_error`.  - finalize: `finalize_error`.  - read: `start_position`.
- cancel: end the stream as `cancelled` if its status is STREAMING; no lease is asked for.
- delete: remove all of it, and wake its readers. A later `acquire` must still get a higher generation.

Two additions are there for those who need them; until a store has their methods, the calls raise
UnsupportedError:

- Takeover (`TakeoverStore`): `_take_over`, `_release`, `_orphans`, and the parameter `handover` of `_acquire`.
  Each lease gets a token, kept with the stream as its `fence`. What a producer has stored in its term is found by
  `Term`.
- Shared streams and notes (`SharedStore`): `_create`, `_commit`, `_touch_life`, and the parameters `notes` of
  `_append_many` and `_finalize`. See notes.py.

`resumable_sync.testing.StoreContract` tests the result, `TakeoverContract` and `SharedContract` the additions;
`tests/stores/contract/file_store.py` is an example.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, NoReturn, Protocol, TypeVar

from ..contract import (
    DEFAULT_GRACE,
    DEFAULT_READ_BYTES,
    DEFAULT_TTL,
    ENDINGS,
    INTERNAL_PREFIXES,
    TRANSITIONS,
    Batch,
    Lease,
    Notes,
    Position,
    Status,
    StreamInfo,
    check_notes,
    check_restart,
    new_token,
    parse_cursor,
    validate_stream_id,
    validate_wait,
)
from ..errors import (
    InvalidCursorError,
    LeaseLostError,
    LimitExceededError,
    ResumableStreamError,
    StoreUnavailableError,
    StreamFinalizedError,
    StreamLostError,
    StreamNotFoundError,
    UnsupportedError,
)
from .notes import Commit, Creation

__all__ = [
    "BaseStore",
    "Limits",
    "MAX_EMPTY_TERMS",
    "MAX_ERROR_CHARACTERS",
    "MAX_METADATA_BYTES",
    "MAX_TTL",
    "Selection",
    "Snapshot",
    "StreamState",
    "Term",
    "append_error",
    "as_ending",
    "check_error_text",
    "check_metadata",
    "check_seconds",
    "conflict_error",
    "finalize_error",
    "freeze_chunks",
    "outcomes",
    "ownership_error",
    "start_position",
]

MAX_TTL = 1e10
"""Seconds, some 300 years: times stay exact in Lua, and in what Redis makes of its numbers."""

MAX_METADATA_BYTES = 16 * 1024
"""Bytes of a stream's metadata, keys and values in UTF-8."""

MAX_ERROR_CHARACTERS = 4096
"""Characters of an ending's error; the rest is cut off."""

MAX_EMPTY_TERMS = 3
"""Terms in a row that stored nothing, after which a stream is not taken over any more."""


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
            raise LimitExceededError(
                f"a chunk exceeds max_chunk_bytes={self.max_chunk_bytes}; split it", limit="max_chunk_bytes"
            )

    def check_streams(self, streams: int) -> None:
        """Raise unless one more stream may join `streams` others."""
        if streams >= self.max_streams:
            raise LimitExceededError(
                f"the store holds max_streams={self.max_streams} streams already; delete some, or raise it",
                limit="max_streams",
            )

    def check_room(self, stream_id: str, size: int, entries: int) -> None:
        """Raise unless a stream may grow to `size` bytes in `entries` chunks."""
        if size > self.max_stream_bytes:
            raise LimitExceededError(
                f"stream {stream_id} would exceed max_stream_bytes={self.max_stream_bytes}; raise it, or begin "
                "another stream",
                limit="max_stream_bytes",
            )
        if entries > self.max_entries:
            raise LimitExceededError(
                f"stream {stream_id} would exceed max_entries={self.max_entries}; raise it, or append larger "
                "chunks",
                limit="max_entries",
            )


class StreamState(Protocol):
    """What the fence decides on. Snapshot is one; a store's own rows may be, too.

    In a store with terms it has a `fence`, too: the token of the present term. Without one, no lease has a token.
    """

    @property
    def generation(self) -> int: ...
    @property
    def status(self) -> Status: ...
    @property
    def size(self) -> int: ...


@dataclass(frozen=True)
class Snapshot:
    """How a stream stands at one moment: what a store and the tails of its viewers exchange. Immutable."""

    generation: int
    status: Status
    size: int
    """Bytes stored."""
    entries: int
    """Chunks stored."""
    error: str | None = None
    valid_for: float = 0.0
    """Seconds for which this holds unless something happens: then the lease or the stream's life runs out by
    itself, and the store must be asked again."""
    fence: str = ""
    """The token of the present term."""


class Term(NamedTuple):
    """Which of a generation's producers has its turn, and whether those before it have stored anything."""

    number: int = 1
    begin: int = 0
    """Bytes that were stored when it began; -1 once its producer has stored a note."""
    empty: int = 0
    """Terms in a row right before this one that stored nothing."""

    def next(self, size: int) -> Term | None:
        """The term after this one, for a stream that holds `size` bytes; None if there is to be none (see
        MAX_EMPTY_TERMS)."""
        empty = self.empty + 1 if size == self.begin else 0
        return Term(self.number + 1, size, empty) if empty < MAX_EMPTY_TERMS else None


def ownership_error(lease: Lease, state: StreamState | None) -> ResumableStreamError | None:
    """Why `lease` may not write to a stream in `state`; None if it may (G4, G5, G6)."""
    if state is None or state.generation != lease.generation:
        return _replaced_error(lease, state)
    if getattr(state, "fence", "") != lease.token:
        return _fenced_error(lease)
    if state.status is not Status.STREAMING:
        return _ended_error(lease, state)
    if state.size < lease.offset:
        return _lost_bytes_error(lease, state)
    return None


def append_error(lease: Lease, state: StreamState | None, length: int) -> ResumableStreamError | None:
    """As `ownership_error`, and also why bytes may not be put at the lease's offset.

    None when the stream ends at the offset (store them), or exactly `length` bytes after it: then either
    this very append was stored before and its reply was lost (G3), or somebody else used the lease. The
    caller tells these apart by comparing the bytes; see `conflict_error`.
    """
    error = ownership_error(lease, state)
    if error is None and state is not None and state.size not in (lease.offset, lease.offset + length):
        return conflict_error(lease)
    return error


def conflict_error(lease: Lease) -> LeaseLostError:
    """The error of an append whose offset holds other bytes already."""
    return LeaseLostError(f"stream {lease.stream_id} holds other bytes at {lease.cursor}: a second writer")


def finalize_error(lease: Lease, state: StreamState | None, status: Status) -> ResumableStreamError | None:
    """Why `lease` may not end the stream as `status`, by TRANSITIONS (G5). A repeated ending is no error."""
    if state is None or state.generation != lease.generation:
        return _replaced_error(lease, state)
    if getattr(state, "fence", "") != lease.token:
        return _fenced_error(lease)
    if state.status is status:
        return None
    if status not in TRANSITIONS[state.status]:
        return _ended_error(lease, state)
    return _lost_bytes_error(lease, state) if state.size < lease.offset else None


def _replaced_error(lease: Lease, state: StreamState | None) -> ResumableStreamError:
    if state is None:
        return StreamLostError(f"stream {lease.stream_id} was deleted or has expired")
    return LeaseLostError(
        f"stream {lease.stream_id} belongs to generation {state.generation} now, not {lease.generation}"
    )


def _fenced_error(lease: Lease) -> LeaseLostError:
    return LeaseLostError(f"stream {lease.stream_id} was taken over, or released: term {lease.term} is over")


def _ended_error(lease: Lease, state: StreamState) -> StreamFinalizedError:
    ending = state.status.value
    return StreamFinalizedError(f"stream {lease.stream_id} has ended: {ending}", status=ending)


def _lost_bytes_error(lease: Lease, state: StreamState) -> StreamLostError:
    return StreamLostError(f"stream {lease.stream_id} holds {state.size} of {lease.offset} acknowledged bytes")


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
    chunks = list(chunks)  # once, whatever it is
    if len(chunks) == 1 and type(chunks[0]) is bytes and chunks[0]:  # a live chunk
        return chunks
    if set(map(type, chunks)) == {bytes} and all(chunks):
        return chunks
    frozen = []
    for chunk in chunks:
        if not isinstance(chunk, bytes):
            if not isinstance(chunk, (bytearray, memoryview)):
                raise TypeError(f"a chunk must be bytes, not {type(chunk).__name__}")
            chunk = bytes(chunk)
        if chunk:
            frozen.append(chunk)
    return frozen


def check_seconds(seconds: float, name: str = "ttl") -> float:
    """Return a time in seconds (a ttl, a grace time, a timeout) if it is positive and at most MAX_TTL, else
    ValueError, which calls it `name`."""
    if not 0 < seconds <= MAX_TTL:  # also false for NaN
        raise ValueError(f"{name} must be a positive number of seconds up to {MAX_TTL:g}, not {seconds!r}")
    return float(seconds)


def check_handover(handover: float) -> float:
    """Return `handover`, in seconds, if it is 0 to MAX_TTL, else ValueError."""
    if not 0 <= handover <= MAX_TTL:  # also false for NaN
        raise ValueError(f"handover must be 0 to {MAX_TTL:g} seconds, not {handover!r}")
    return float(handover)


def check_metadata(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """A copy of `metadata`. ValueError unless it maps strings to strings; LimitExceededError if they take
    more than MAX_METADATA_BYTES in UTF-8."""
    copy = dict(metadata or {})
    if not all(isinstance(text, str) for pair in copy.items() for text in pair):
        raise ValueError("metadata must map strings to strings")
    size = sum(len(text.encode("utf-8", "surrogatepass")) for pair in copy.items() for text in pair)
    if size > MAX_METADATA_BYTES:
        raise LimitExceededError(f"metadata of {size} bytes exceeds {MAX_METADATA_BYTES}; keep it elsewhere")
    return copy


def check_error_text(error: str | None) -> str | None:
    """`error`, cut to MAX_ERROR_CHARACTERS and free of what UTF-8 cannot hold."""
    if error is None:
        return None
    return str(error)[:MAX_ERROR_CHARACTERS].encode("utf-8", "replace").decode("utf-8")


class Selection(NamedTuple):
    """Which streams a listing is to have; see `Listing.streams`."""

    prefix: str = ""
    statuses: frozenset[Status] = frozenset()
    """Empty: all."""
    metadata: Mapping[str, str] = {}
    internal: bool = True

    def has(self, info: StreamInfo) -> bool:
        """Whether it has this stream."""
        return self.has_id(info.stream_id) and self.has_state(info.status, info.metadata)

    def has_id(self, stream_id: str) -> bool:
        """Whether it may have a stream of this id."""
        hidden = not self.internal and stream_id.startswith(INTERNAL_PREFIXES)
        return stream_id.startswith(self.prefix) and not hidden

    def has_state(self, status: Status, metadata: Mapping[str, str]) -> bool:
        """Whether it has a stream that stands so."""
        if self.statuses and status not in self.statuses:
            return False
        return all(metadata.get(name) == value for name, value in self.metadata.items())


Given = TypeVar("Given")
Result = TypeVar("Result")


def outcomes(step: Callable[[Given], Result], arguments: Iterable[Given]) -> list[Result | ResumableStreamError]:
    """One result for each argument, in order: what `step` returns, or the ResumableStreamError that it raises."""
    results: list[Result | ResumableStreamError] = []
    for argument in arguments:
        try:
            results.append(step(argument))
        except ResumableStreamError as error:
            results.append(error)
    return results


Chunks = list[bytes]
"""Non-empty chunks, as bytes that nobody changes any more."""

Self = TypeVar("Self", bound="BaseStore")


class BaseStore(ABC):
    """The part of `Store`, and of `Maintenance`, that all stores have in common. A base class; thread-safe.

    It takes the settings that all stores share, checks arguments, refuses to work once it is closed, and derives
    what follows from other methods: `append`, `status`, `check`, `clear`, `drop`, `with`. A subclass may override
    these where it knows a faster way. The docstrings of `Store` say what each method promises and raises.

    `ttl`: seconds that a stream lives after its last append, renewal or ending; `finished_ttl`: the same after
    its ending, where that should be shorter. `grace`: seconds without append or renewal after which a producer
    counts as dead. The limits bound one chunk (bytes), one stream (bytes; chunks) and the number of streams.
    ValueError for settings that are out of range. No store can be pickled (TypeError): each process opens its own.

    For subclasses: `_ttl`, `_finished_ttl` (None: as `_ttl`), `_grace`, `_limits`, which never change, and
    `_closed`, which turns True once. No lock is held while a subclass's method is called.
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
    ) -> None:
        self._ttl = check_seconds(ttl)
        self._finished_ttl = None if finished_ttl is None else check_seconds(finished_ttl, "finished_ttl")
        self._grace = check_seconds(grace, "grace")
        self._limits = Limits(max_chunk_bytes, max_stream_bytes, max_entries, max_streams)
        self._closed = False
        # Taken, and never waited for, by the one call of close() that does the work.
        self._first_close = threading.Lock()

    def __getstate__(self) -> NoReturn:
        name = type(self).__name__
        if not self.shared:
            raise TypeError(
                f"a {name} cannot be pickled: it is private to its process. For several processes open a "
                "SQLiteStore or a RedisStore in each, with open_store(url)"
            )
        raise TypeError(
            f"a {name} cannot be pickled: open it anew in the other process, with open_store(url)"
            " and the same options"
        )

    @property
    def grace(self) -> float:
        """Seconds without append or renew after which a producer counts as dead."""
        return self._grace

    @property
    def max_chunk_bytes(self) -> int:
        """The largest chunk `append` takes."""
        return self._limits.max_chunk_bytes

    @property
    def shared(self) -> bool:
        """Whether other processes see the streams of this one."""
        return True

    @property
    def has_takeover(self) -> bool:
        """Whether `take_over` and its like do more than refuse."""
        return type(self)._take_over is not BaseStore._take_over

    @property
    def has_shared_streams(self) -> bool:
        """Whether `commit` and its like do more than refuse."""
        return type(self)._commit is not BaseStore._commit

    def route(self, stream_id: str) -> str:
        """The same for all streams: one server, or none, keeps them all; see `Routed.route`."""
        return ""

    def acquire(
        self,
        stream_id: str,
        *,
        ttl: float | None = None,
        metadata: Mapping[str, str] | None = None,
        restart: Collection[Status | str] = (),
        handover: float = 0.0,
    ) -> Lease | None:
        """Elect one producer; see `Store.acquire`."""
        validate_stream_id(stream_id)
        life = self._ttl if ttl is None else check_seconds(ttl)
        details = check_metadata(metadata)
        endings = check_restart(restart)
        seconds = check_handover(handover)
        if seconds:
            self._check_takeover()
            self._check_open()
            acquire: Callable[..., Lease | None] = self._acquire  # of a store with takeover: it takes one more
            return acquire(stream_id, life, details, endings, seconds)
        self._check_open()
        return self._acquire(stream_id, life, details, endings)

    @abstractmethod
    def _acquire(
        self, stream_id: str, ttl: float, metadata: dict[str, str], restart: frozenset[Status]
    ) -> Lease | None:
        """Begin a new generation (see `new_generation`) unless there is a stream that has not expired, nor ended
        as one of `restart`. LimitExceededError if there is no room for it, also after a sweep. A store with
        takeover takes one more, `handover: float = 0.0`."""

    def take_over(self, stream_id: str, generation: int) -> Lease | None:
        """Begin the next term of a stream that nobody produces; see `TakeoverStore.take_over`."""
        validate_stream_id(stream_id)
        if not isinstance(generation, int):
            raise ValueError(f"generation must be a number, not {generation!r:.80}")
        self._check_takeover()
        self._check_open()
        return self._take_over(stream_id, generation, new_token())

    def _take_over(self, stream_id: str, generation: int, token: str) -> Lease | None:
        """Make `token` the fence and begin the `Term.next`, if nobody produces that generation; end the stream as
        `interrupted` where there is to be no next. One that has `token` already was taken over by this very
        call."""
        self._refuse("takeover")

    def release(self, lease: Lease) -> None:
        """Let go of a stream without ending it; see `TakeoverStore.release`."""
        self._check_takeover()
        self._check_open()
        self._release(lease)

    def _release(self, lease: Lease) -> None:
        """Make `lease.released` the fence and end the lease now, or the stream if it has no handover. Raises
        `ownership_error`, unless the fence is `lease.released` already."""
        self._refuse("takeover")

    def orphans(self) -> Iterator[str]:
        """The ids of streams that wait to be taken over; see `TakeoverStore.orphans`."""
        self._check_takeover()
        self._check_open()
        return self._orphans()

    def _orphans(self) -> Iterator[str]:
        """As `orphans`; may be a generator."""
        self._refuse("takeover")

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
        """Begin a shared stream; see `SharedStore.create`."""
        validate_stream_id(stream_id)
        first = {name: value for name, value in check_notes(notes).items() if value is not None}
        creation = Creation(
            stream_id,
            freeze_chunks(chunks),
            self._ttl if ttl is None else check_seconds(ttl),
            bool(sliding),
            check_metadata(metadata),
            first,
            None if ending is None else as_ending(ending),
        )
        self._check_shared()
        self._check_open()
        return self._create(creation, new_token())

    def _create(self, creation: Creation, token: str) -> StreamInfo | None:
        """Begin the stream with `token` as its fence, unless the id is taken. One that has `token` already was
        created by this very call. LimitExceededError as `_acquire` and `_append_many`."""
        self._refuse("shared streams")

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
        """Store chunks, notes and an ending in one step; see `SharedStore.commit`."""
        validate_stream_id(stream_id)
        if generation is not None and not isinstance(generation, int):
            raise ValueError(f"generation must be a number, not {generation!r:.80}")
        commit = Commit(
            stream_id,
            freeze_chunks(chunks),
            check_notes(expect, "expect"),
            check_notes(notes),
            None if ending is None else as_ending(ending),
            check_error_text(error),
            generation,
        )
        self._check_shared()
        self._check_open()
        return self._commit(commit)

    def _commit(self, commit: Commit) -> str:
        """Store it unless there is a `commit_error`, which is raised, or a limit is exceeded; the cursor after its
        chunks."""
        self._refuse("shared streams")

    def touch(self, stream_id: str) -> bool:
        """Renew a sliding life; see `SharedStore.touch`."""
        validate_stream_id(stream_id)
        self._check_shared()
        self._check_open()
        return self._touch_life(stream_id)

    def _touch_life(self, stream_id: str) -> bool:
        """Renew the stream's life if it is sliding; True if it is there."""
        self._refuse("shared streams")

    def append(self, lease: Lease, *chunks: bytes, notes: Notes | None = None) -> str:
        """Store all chunks in one atomic step; see `Store.append`."""
        frozen = freeze_chunks(chunks)
        if notes:
            result = self.append_many([(lease, frozen)], [notes])[0]
        else:
            self._check_open()
            result = self._append_many([(lease, frozen)])[0]
        if isinstance(result, ResumableStreamError):
            raise result
        return result

    def append_many(
        self,
        batches: Sequence[tuple[Lease, Sequence[bytes]]],
        notes: Sequence[Notes | None] = (),
    ) -> list[str | ResumableStreamError]:
        """`append` for many streams in one go; see `Store.append_many`."""
        frozen = []
        for lease, chunks in batches:  # a comprehension would be a call more for each live chunk
            frozen.append((lease, freeze_chunks(chunks)))
        # By term: the late producer of an earlier one may share a group commit with the present one.
        if len(frozen) > 1:
            leases = {(lease.stream_id, lease.generation, lease.token) for lease, _ in frozen}
            if len(leases) < len(frozen):
                raise ValueError("a lease is in two batches of one append_many; put all its chunks into one batch")
        noted: list[dict[str, str | None]] = []
        if notes and any(notes):
            if len(notes) != len(frozen):
                raise ValueError("notes must be there for each batch, or for none")
            self._check_shared()
            noted = [check_notes(each) for each in notes]
        try:
            self._check_open()
            append_many: Callable[..., list[str | ResumableStreamError]] = self._append_many
            return append_many(frozen, noted) if noted else append_many(frozen)
        except StoreUnavailableError as unavailable:
            return [unavailable] * len(frozen)

    @abstractmethod
    def _append_many(self, batches: Sequence[tuple[Lease, Chunks]]) -> list[str | ResumableStreamError]:
        """A cursor or an error for each batch, in order. A StoreUnavailableError may be raised: it is every
        batch's, and no lease has advanced. See also `outcomes`. A store with notes takes one more, `notes:
        Sequence[dict[str, str | None]] = ()`, for each batch or for none; a batch that is recognised as repeated
        sets none."""

    def renew(self, leases: Sequence[Lease]) -> list[ResumableStreamError | None]:
        """Renew the leases and ttls of these producers; see `Store.renew`."""
        try:
            self._check_open()
            return self._renew(leases)
        except StoreUnavailableError as unavailable:
            return [unavailable] * len(leases)

    @abstractmethod
    def _renew(self, leases: Sequence[Lease]) -> list[ResumableStreamError | None]:
        """None or an error for each lease, in order. A StoreUnavailableError may be raised: it is every
        lease's."""

    def finalize(
        self, lease: Lease, status: Status | str, error: str | None = None, *, notes: Notes | None = None
    ) -> None:
        """End the stream; see `Store.finalize`."""
        ending = as_ending(status)
        text = check_error_text(error)
        if notes:
            noted = check_notes(notes)
            self._check_shared()
            self._check_open()
            finalize: Callable[..., None] = self._finalize
            finalize(lease, ending, text, noted)
            return
        self._check_open()
        self._finalize(lease, ending, text)

    @abstractmethod
    def _finalize(self, lease: Lease, ending: Status, error: str | None) -> None:
        """End the stream unless there is a `finalize_error`, which is raised, or it has this very ending
        already. A store with notes takes one more, `notes: dict[str, str | None] | None = None`, set in the same
        step."""

    def cancel(self, stream_id: str) -> bool:
        """End a running stream as `cancelled`; see `Store.cancel`."""
        validate_stream_id(stream_id)
        self._check_open()
        return self._cancel(stream_id)

    @abstractmethod
    def _cancel(self, stream_id: str) -> bool:
        """End the stream if it is running; True if this call did it."""

    def read(
        self, stream_id: str, after: str = "", *, max_bytes: int = DEFAULT_READ_BYTES, timeout: float = 0.0
    ) -> Batch:
        """Return what follows `after`, waiting at most `timeout` seconds; see `Store.read`."""
        position = parse_cursor(after)
        validate_wait(timeout)
        if not isinstance(max_bytes, int) or max_bytes < 1:
            raise ValueError(f"max_bytes must be a positive integer, not {max_bytes!r}")
        validate_stream_id(stream_id)
        self._check_open()
        return self._read(stream_id, position, max_bytes, timeout)

    @abstractmethod
    def _read(self, stream_id: str, position: Position | None, max_bytes: int, timeout: float) -> Batch:
        """What follows `position` (None: the start of the present generation). Wait, `timeout` seconds at most,
        while there is nothing to return; `wake` and `close` end the wait."""

    def wake(self) -> None:
        """Make the blocked reads of this process return early; see `Store.wake`."""
        self._check_open()
        self._wake()

    @abstractmethod
    def _wake(self) -> None:
        """Make the blocked reads of this process return what they have."""

    def status(self, stream_id: str) -> Status:
        """Where the stream stands; MISSING where there is none."""
        info = self.info(stream_id)
        return Status.MISSING if info is None else info.status

    def info(self, stream_id: str) -> StreamInfo | None:
        """A snapshot of one stream, None where there is none."""
        validate_stream_id(stream_id)
        self._check_open()
        return self._info(stream_id)

    @abstractmethod
    def _info(self, stream_id: str) -> StreamInfo | None:
        """A snapshot of the stream, after it was ended if its producer is dead; None if missing or expired."""

    def streams(
        self,
        *,
        prefix: str = "",
        status: Status | str | Collection[Status | str] | None = None,
        metadata: Mapping[str, str] | None = None,
        internal: bool = False,
    ) -> Iterator[StreamInfo]:
        """The streams, in order of their ids, in bounded pages; see `Listing.streams`."""
        statuses = () if status is None else (status,) if isinstance(status, str) else status
        selection = Selection(
            prefix, frozenset(map(Status, statuses)), check_metadata(metadata), internal=bool(internal)
        )
        if status is not None and not statuses:
            return iter(())
        self._check_open()
        return self._select(selection)

    def _select(self, selection: Selection) -> Iterator[StreamInfo]:
        """The streams of `selection`. For stores that know a faster way than to look at all of them."""
        return filter(selection.has, self._streams())

    @abstractmethod
    def _streams(self) -> Iterator[StreamInfo]:
        """Every stream, in order of its id; may be a generator."""

    def delete(self, stream_id: str) -> bool:
        """Remove a stream, whatever its state; see `Store.delete`."""
        validate_stream_id(stream_id)
        self._check_open()
        return self._delete(stream_id)

    @abstractmethod
    def _delete(self, stream_id: str) -> bool:
        """Remove the stream, and wake its readers; True if it was there."""

    def sweep(self) -> int:
        """Remove expired streams and end those whose producers died; see `Store.sweep`."""
        self._check_open()
        return self._sweep()

    @abstractmethod
    def _sweep(self) -> int:
        """As `sweep`."""

    def check(self) -> list[str]:
        """Verify that each stream's bytes are there; see `Maintenance.check`."""
        self._check_open()
        return [problem for problem in map(self._verify, self._ids()) if problem is not None]

    def clear(self) -> int:
        """Delete all streams; see `Maintenance.clear`. One after the other."""
        self._check_open()
        return sum(map(self.delete, self._ids()))

    def drop(self) -> None:
        """Delete all streams and close the store; see `Maintenance.drop`."""
        self.clear()
        self.close()

    def close(self) -> None:
        """Wake blocked reads and free what this process holds; stored streams stay. Idempotent."""
        if self._first_close.acquire(blocking=False):
            self._closed = True
            self._close()

    @abstractmethod
    def _close(self) -> None:
        """Wake blocked reads, which then raise by `_check_open`, and free what this process holds. Called once,
        with `_closed` set."""

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _check_open(self) -> None:
        """StoreUnavailableError if the store is closed."""
        if self._closed:
            raise StoreUnavailableError("the store is closed", transient=False)

    def _check_takeover(self) -> None:
        if not self.has_takeover:
            self._refuse("takeover")

    def _check_shared(self) -> None:
        if not self.has_shared_streams:
            self._refuse("shared streams")

    def _refuse(self, what: str) -> NoReturn:
        kinds = "MemoryStore, SQLiteStore or RedisStore"
        raise UnsupportedError(f"{type(self).__name__} has no {what}; use {kinds}")

    def _life(self, ttl: float, handover: float) -> float:
        """Seconds that a stream lives after a sign of life: it never expires in its handover."""
        return max(ttl, self._grace + handover) if handover else ttl

    def _ids(self) -> Iterator[str]:
        """The ids that `check` and `clear` go through: those of `streams`, and of what is too damaged to be
        there."""
        return (info.stream_id for info in self._streams())

    def _verify(self, stream_id: str) -> str | None:
        """What is wrong with a stream, in words, after reading all that it holds now; None if it is whole, or
        gone."""
        try:
            try:
                return self._verify_once(stream_id)
            except StreamLostError:  # it may have been deleted and made anew meanwhile: once is no proof
                return self._verify_once(stream_id)
        except (StreamNotFoundError, InvalidCursorError):
            return None
        except StreamLostError as lost:
            return str(lost)

    def _verify_once(self, stream_id: str) -> str | None:
        batch = self.read(stream_id)
        size = batch.size  # at first: a stream may grow faster than it is read
        while batch.offset < size:
            if not batch.length:
                return f"stream {stream_id} holds {batch.offset} of {size} bytes"
            batch = self.read(stream_id, batch.cursor)
        return None
