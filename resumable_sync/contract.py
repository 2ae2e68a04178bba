"""The store contract: what every store promises, in numbered guarantees, and the values it speaks in.

A **stream** is an append-only log of bytes, made by one producer at a time and read by any number of viewers. A
**shared** stream has no producer: anybody who has the store may write to it.
A position in it is a **cursor**, `"<generation>-<offset>"`: the offset counts bytes, the generation
says which life of the stream id they belong to. Generations of an id only grow, also across delete
and expiry, so a cursor or a producer of an earlier life is always recognised.

Guarantees (tests cite them by number):

G1  From cursor (g, n) a viewer gets exactly the bytes n, n+1, … of generation g: no gap, repeat or
    reorder; otherwise a typed error. A cursor of another generation is refused, never spliced.
G2  An append that returned is stored. Memory: while the process lives. SQLite: it survives the kill of
    any process; at a power loss the last commits may go. Redis: executed on the primary; it survives
    what that server's persistence and replication survive.
G3  Retrying an append, whatever happened to its reply, stores it once.
G4  Once another producer has taken the stream over, or a reader has declared the old one lost, no append
    of the old one succeeds; its source is closed at its next append or heartbeat.
G5  A generation has at most one ending: atomic, last, never changed. A viewer ends without an
    exception only after it has read the ending `done`.
G6  Loss is loud: delete, expiry, flush, eviction, trim or roll-back raise in a reader within one wait
    slice, and in the writer at its next append.
G7  A producer that died (killed, crashed, frozen) is reported to every viewer as `interrupted` within the
    grace time, plus the handover of a stream that has one, plus one wait slice. Merely opening or reading never
    ends a living stream, nor one that may still be taken over.
G8  An ended stream stays readable for its whole ttl after its ending. While it runs, its ttl is renewed
    on all that belongs to it together, also while the source is silent.
G9  A viewer that leaves never stops the producer. `cancel` does, from any process, durably.
G10 What an application does not opt in to is bounded: chunk size, bytes and entries of a stream, streams
    of a store, notes, memory of a slow viewer, waits.
G11 A takeover goes on right after the last stored byte of the same generation. One of several wins, and nothing
    of an earlier term appears after it.
G12 A commit to a shared stream, or to the notes of any, is one atomic step or nothing: what it expects, what it
    stores, the notes and the ending.

Not promised: exactly one run of the source function after a crash, and acknowledged data across a Redis
failover unless the store was told to wait for replicas: after a primary that was rolled back and a takeover, a
cursor beyond the takeover's offset may point into other bytes.

**Terms.** A generation may have several producers, one after the other. Each of them has a term, which begins with
its election or takeover. What tells them apart is the **fence**, a random token that is drawn anew by each
election, takeover and release, kept with the stream and with the lease, and compared before anything else. A
stream with a **handover** may be taken over from the moment its producer is lost (dead, silent beyond its lease,
or it has let go) until the handover is over; until then it is `streaming`, with nobody who produces it. No ending
is ever lifted.

**Notes** are small texts that are kept with a stream, compared and set in the same step as the bytes.
"""

from __future__ import annotations

import enum
import functools
import re
import secrets
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

from .errors import InvalidCursorError, InvalidStreamIdError, ResumableStreamError

__all__ = [
    "Batch",
    "DEFAULT_GRACE",
    "DEFAULT_READ_BYTES",
    "DEFAULT_TTL",
    "ENDINGS",
    "Entry",
    "HEALTH_PREFIX",
    "INTERNAL_PREFIXES",
    "Lease",
    "Listing",
    "MAX_NOTE_BYTES",
    "MAX_WAIT",
    "Maintenance",
    "Notes",
    "Position",
    "Routed",
    "SharedStore",
    "Status",
    "Store",
    "StreamInfo",
    "TRANSITIONS",
    "TakeoverStore",
    "check_notes",
    "check_restart",
    "new_generation",
    "new_token",
    "parse_cursor",
    "shared_store",
    "takeover_store",
    "validate_stream_id",
    "validate_wait",
]

DEFAULT_TTL = 86_400.0
"""Seconds that a stream lives after its last append or its ending."""

DEFAULT_GRACE = 15.0
"""Seconds without a sign of life after which a producer counts as dead."""

DEFAULT_READ_BYTES = 256 * 1024
"""Bytes that one `read` returns at most (it may exceed this by the rest of one chunk)."""

_PIECE_BYTES = 16 * 1024  # from this average on, handing out more pieces costs less than joining them

MAX_WAIT = 3600.0
"""Seconds that one `read` may be asked to wait."""

MAX_NOTE_BYTES = 1024
"""Bytes of one note's value, in UTF-8."""

_STREAM_ID = re.compile(r"[A-Za-z0-9_.:-]{1,256}")
_NOTE_NAME = re.compile(r"[\x20-\x7e]{1,300}")
# 2**53 has 16 digits: both numbers stay exact in Lua and JavaScript, whose numbers are doubles.
_CURSOR = re.compile(r"(0|[1-9][0-9]{0,15})-(0|[1-9][0-9]{0,15})")
_GENERATION_FRACTION_BITS = 20  # of a second; also the scale of edition 1, whose low bits were random


class Status(str, enum.Enum):
    """Where a stream stands. Compares equal to its plain string, for example `"done"`."""

    MISSING = "missing"
    STREAMING = "streaming"
    DONE = "done"
    ERROR = "error"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"

    def __str__(self) -> str:
        return self.value

    @property
    def ended(self) -> bool:
        """True for the four endings: done, error, cancelled, interrupted."""
        return self in ENDINGS


Notes = Mapping[str, "str | None"]
"""Values of notes by name; None: absent."""

HEALTH_PREFIX = "resumable_sync.health."
"""Ids of the records of health checks begin so."""

INTERNAL_PREFIXES = ("chat.", HEALTH_PREFIX)
"""Ids of records that the library keeps for itself begin so."""

ENDINGS = frozenset({Status.DONE, Status.ERROR, Status.CANCELLED, Status.INTERRUPTED})

TRANSITIONS: Mapping[Status, frozenset[Status]] = {
    Status.MISSING: frozenset({Status.STREAMING}),  # acquire
    Status.STREAMING: ENDINGS | {Status.MISSING},  # finalize, cancel, a dead producer; delete, expiry
    Status.DONE: frozenset({Status.MISSING}),  # delete, expiry
    Status.ERROR: frozenset({Status.MISSING}),
    Status.CANCELLED: frozenset({Status.MISSING}),
    Status.INTERRUPTED: frozenset({Status.MISSING}),
}
"""Every step a stream may take. MISSING to STREAMING begins a new, higher generation; all others keep it."""


class Position(NamedTuple):
    """A parsed cursor: byte `offset` of `generation`."""

    generation: int
    offset: int

    def __str__(self) -> str:
        return f"{self.generation}-{self.offset}"


def parse_cursor(cursor: str) -> Position | None:
    """Parse `"<generation>-<offset>"`; the empty string, which means "from the start", gives None.

    Raises InvalidCursorError for anything else. Pure; thread-safe.
    """
    if cursor == "":
        return None
    if not isinstance(cursor, str):
        raise _not_a_cursor(cursor)
    return _parse_cursor(cursor)


@functools.lru_cache(maxsize=1024)  # the viewers of a stream ask for what follows the same cursors
def _parse_cursor(cursor: str) -> Position:
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise _not_a_cursor(cursor)
    return Position(int(match[1]), int(match[2]))


def _not_a_cursor(cursor: object) -> InvalidCursorError:
    return InvalidCursorError(f"not a cursor: {cursor!r:.80}; expected '<generation>-<offset>' or ''")


def validate_stream_id(stream_id: str) -> str:
    """Return `stream_id` if it is 1 to 256 characters of `A-Z a-z 0-9 _ . : -`, else InvalidStreamIdError."""
    if not isinstance(stream_id, str) or _STREAM_ID.fullmatch(stream_id) is None:
        raise InvalidStreamIdError(
            f"not a stream id: {stream_id!r:.80}; use 1 to 256 characters of A-Z a-z 0-9 _ . : -"
        )
    return stream_id


def check_restart(restart: Collection[Status | str]) -> frozenset[Status]:
    """`restart` as endings; ValueError for what is no collection of endings, such as a bare string."""
    if isinstance(restart, str):
        raise ValueError(f"restart must be a collection of endings, such as {{{str(restart)!r}}}, not one of them")
    try:
        endings = frozenset(map(Status, restart))
    except TypeError as error:
        raise ValueError(f"restart must be a collection of endings, not {restart!r}") from error
    if not endings <= ENDINGS:
        raise ValueError(
            f"restart must name endings ({', '.join(sorted(ENDINGS))}), not {sorted(endings - ENDINGS)}"
        )
    return endings


def check_notes(notes: Notes | None, name: str = "notes") -> dict[str, str | None]:
    """A copy of `notes`; ValueError, which calls them `name`, unless all are well-formed."""
    copy = dict(notes or {})
    for key, value in copy.items():
        if not isinstance(key, str) or _NOTE_NAME.fullmatch(key) is None:
            raise ValueError(f"{name}: {key!r:.80} is no name of a note; use 1 to 300 printable ASCII characters")
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{name}: the value of {key} must be text, or None for absent, not {value!r:.80}")
        try:
            size = len((value or "").encode("utf-8"))
        except UnicodeEncodeError as error:
            raise ValueError(f"{name}: the value of {key} cannot be encoded in UTF-8") from error
        if size > MAX_NOTE_BYTES:
            raise ValueError(f"{name}: the value of {key} takes more than {MAX_NOTE_BYTES} bytes")
    return copy


def validate_wait(timeout: float) -> float:
    """Return `timeout` in seconds if it lies in 0 to MAX_WAIT, else ValueError (no wait is unbounded)."""
    if not 0 <= timeout <= MAX_WAIT:  # also false for NaN
        raise ValueError(f"timeout must be 0 to {MAX_WAIT:g} seconds, not {timeout!r}")
    return timeout


def new_generation(last: int) -> int:
    """Return a generation above `last`: the Unix time in units of 2**-20 seconds, about a microsecond.

    Time keeps it growing where `last` was forgotten (a flush, expiry, a database that was rolled back). It stays
    below 2**53 until the year 2242.
    """
    return max((time.time_ns() << _GENERATION_FRACTION_BITS) // 1_000_000_000, last + 1)


class Entry(NamedTuple):
    """One chunk as the producer appended it, and the cursor right after it."""

    cursor: str
    chunk: bytes


def new_token() -> str:
    """Return a random fence: 16 characters that nobody else draws."""
    return secrets.token_urlsafe(12)


@dataclass
class Lease:
    """The right to produce one generation of a stream, for one term. Made by `Store.acquire` and `take_over`.

    `offset` counts the bytes whose append was acknowledged; stores advance it and compare it with what is stored,
    which is how a repeated append is recognised (G3). After a takeover it begins with what was stored then. One
    thread at a time may use a lease.
    """

    stream_id: str
    generation: int
    ttl: float = DEFAULT_TTL
    """Seconds that the stream lives after its last append or renewal."""
    offset: int = 0
    token: str = ""
    """The fence of this term; empty in a store without terms."""
    term: int = 1
    """How many producers the generation has had, with this one."""
    handover: float = 0.0
    """Seconds after the end of the lease in which another producer may take the stream over."""
    released: str = field(default_factory=new_token, repr=False)
    """The fence that `release` puts in place of `token`: by it a repeated release is recognised."""

    @property
    def cursor(self) -> str:
        """The cursor after the last acknowledged byte."""
        return f"{self.generation}-{self.offset}"


_BUFFERS = bytes, bytearray, memoryview


class Batch:
    """What one `read` found: bytes and status of one snapshot.

    `data` holds the bytes after the asked cursor; `cursor` points after them. `entries` gives the same as one
    Entry per appended chunk (the first is cut where the cursor lay inside it), `pieces` as few pieces, without
    copying large ones; all three are made when asked for. `length` counts their bytes. `size` is the stream's
    length in the snapshot: while `offset < size` more can be read at once (replay), when they are equal the reader
    has caught up (live). Immutable; thread-safe. A store gives `data` as it has it: whole, or in parts.
    """

    __slots__ = ("generation", "length", "size", "status", "error", "_start", "_lengths", "_parts")

    def __init__(
        self,
        start: Position,
        data: bytes | Sequence[bytes],
        lengths: Sequence[int],
        *,
        size: int,
        status: Status,
        error: str | None = None,
    ) -> None:
        self._start = start.offset
        self._lengths = lengths
        self.generation = start.generation
        # Replaced as a whole, by what is equal.
        self._parts: Sequence[bytes]
        if type(data) is bytes:  # as of most live chunks
            self._parts = (data,) if data else ()
            self.length = len(data)
        else:
            parts = (bytes(data),) if isinstance(data, _BUFFERS) else data
            self._parts = parts if all(parts) else [part for part in parts if part]
            self.length = sum(map(len, parts))
        self.size = size
        self.status = status if type(status) is Status else Status(status)  # a store may keep plain text
        self.error = error

    @property
    def data(self) -> bytes:
        """The bytes, joined."""
        parts = self._parts
        if len(parts) == 1:
            return parts[0]
        joined = b"".join(parts)
        if joined:
            self._parts = (joined,)
        return joined

    @property
    def pieces(self) -> Sequence[bytes]:
        """`data` in pieces of some size, as the store had it, or joined where those would be small. Empty if there
        is nothing."""
        if len(self._parts) > 1 and self.length < len(self._parts) * _PIECE_BYTES:
            return (self.data,)
        return self._parts

    @property
    def start(self) -> str:
        """The cursor before `data`: where this read began."""
        return f"{self.generation}-{self._start}"

    @property
    def offset(self) -> int:
        """Bytes of this generation up to and including `data`."""
        return self._start + self.length

    @property
    def cursor(self) -> str:
        """The cursor after `data`: read on from here."""
        return f"{self.generation}-{self.offset}"

    @property
    def entries(self) -> list[Entry]:
        """`data` as the producer's chunks."""
        entries = []
        data, begin = self.data, 0
        for length in self._lengths:
            end = begin + length
            entries.append(Entry(f"{self.generation}-{self._start + end}", data[begin:end]))
            begin = end
        return entries

    def __repr__(self) -> str:
        return f"<Batch {self.cursor} of {self.size}, {self.length} bytes, {self.status.value}>"


@dataclass(frozen=True)
class StreamInfo:
    """A snapshot of one stream. Times are Unix seconds, for people; no decision rests on them."""

    stream_id: str
    status: Status
    generation: int
    size: int
    """Bytes stored."""
    entries: int
    """Chunks stored."""
    created_at: float
    updated_at: float
    finished_at: float | None = None
    error: str | None = None
    """What the source said when it raised. For the server's eyes; see `format_error` of the responses."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    producer_alive: bool = False
    """Whether a producer holds the stream's lease. False while the stream waits to be taken over."""
    shared: bool = False
    """Whether the stream has no producer, and anybody may commit to it."""
    term: int = 1
    """How many producers this generation has had; 0 for a shared stream."""
    handover: float = 0.0
    """Seconds after the end of a lease in which another producer may take the stream over."""
    ttl: float = DEFAULT_TTL
    """Seconds that the stream lives."""
    sliding: bool = True
    """Whether signs of life renew the ttl; otherwise it counts from the creation."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """The notes; empty in what `streams` yields."""

    @property
    def cursor(self) -> str:
        """The cursor at the end of what is stored."""
        return f"{self.generation}-{self.size}"


@runtime_checkable
class Store(Protocol):
    """Where streams are kept. Every method is thread-safe; none calls back into the application.

    Only `read` waits, at most its timeout, and a closed store wakes it. All others return after a bounded
    time. Every method may raise StoreUnavailableError (the store is out of reach, damaged, full or closed)
    and, where it takes a stream id, InvalidStreamIdError. A producer whose lease ran out, with the handover that
    followed it, is declared `interrupted` by the first method that comes across it: `read` (when nothing is left
    to return), `acquire`, `status`, `info`, `streams`, `sweep`; `cancel` may too, and then returns False.
    """

    @property
    def grace(self) -> float:
        """Seconds without append or renew after which a producer counts as dead."""

    @property
    def max_chunk_bytes(self) -> int:
        """The largest chunk `append` takes."""

    def acquire(
        self,
        stream_id: str,
        *,
        ttl: float | None = None,
        metadata: Mapping[str, str] | None = None,
        restart: Collection[Status | str] = (),
    ) -> Lease | None:
        """Elect one producer: a Lease if the id was free, None if somebody produces it or it has ended.

        Atomic among all processes. Not idempotent: the second call finds the stream taken. `ttl` is the
        stream's life in seconds after its last sign of life or its ending (default: the store's).
        `metadata` stays with the stream. `restart`: a stream that has one of these endings makes way, as if it
        were deleted in the same step; one whose producer is dead counts as `interrupted`, once its handover is
        over. Raises LimitExceededError when the store holds too many streams or the metadata is too large,
        ValueError for a bad ttl, metadata that is not text, and what is no collection of endings.
        """

    def append(self, lease: Lease, *chunks: bytes) -> str:
        """Store all chunks in order, in one atomic step, and return the cursor after them.

        Stored when it returns (G2). Renews lease and ttl. Idempotent for the same lease state (G3): after a
        StoreUnavailableError repeat the same call with the same chunks. Empty chunks store nothing. Raises
        LeaseLostError, StreamFinalizedError, StreamLostError, LimitExceededError, and TypeError for what is not
        bytes; nothing was stored then. (Where the store itself repeats a call whose reply was lost, the refusal is
        that of the repeat: what the first try has stored stands, as it was stored while the lease did.) A repeated
        or empty append is a sign of life like any other.
        """

    def append_many(self, batches: Sequence[tuple[Lease, Sequence[bytes]]]) -> list[str | ResumableStreamError]:
        """`append` for many streams in one go: a cursor or an error for each, in order.

        Each stream's part is atomic; one stream's error never hides or undoes another's result. ValueError if
        a lease is named twice; nothing is stored then. Raises nothing but programming errors: an unavailable store
        is every part's error.
        """

    def renew(self, leases: Sequence[Lease]) -> list[ResumableStreamError | None]:
        """Renew the leases and ttls of these producers, which are alive. Idempotent.

        None for each that still owns its stream, else the error its next append would raise.
        """

    def finalize(self, lease: Lease, status: Status | str, error: str | None = None) -> None:
        """End the stream as `status`, one of the four endings, with an optional message for the server side.

        Atomic (G5). Idempotent: repeating the same ending changes nothing. Raises StreamFinalizedError if it
        has another ending, LeaseLostError if another generation owns the id, StreamLostError if the stream
        or some acknowledged bytes are gone, ValueError if `status` is no ending.
        """

    def cancel(self, stream_id: str) -> bool:
        """End a running stream as `cancelled`, at once and durably (G9). True if this call did it.

        Its producer is refused from now on and learns of it at its next append or heartbeat. One that waits to be
        taken over is ended so too. Idempotent: False if the stream has ended or is missing.
        """

    def read(
        self, stream_id: str, after: str = "", *, max_bytes: int = DEFAULT_READ_BYTES, timeout: float = 0.0
    ) -> Batch:
        """Return what follows cursor `after`, waiting at most `timeout` seconds for something to return.

        The bytes and the status are of one snapshot. An empty batch with an ended status is the end; an
        empty batch that says `streaming` is a timeout. At least one entry is returned if there is any, and
        no further one once `max_bytes` are reached. Raises StreamNotFoundError if there is no such stream,
        StreamLostError if `after` is of another generation or the stream goes while this read waits,
        InvalidCursorError if `after` is malformed or beyond the end, ValueError for a timeout outside
        0 to MAX_WAIT and for `max_bytes` below 1.
        """

    def wake(self) -> None:
        """Make the blocked reads of this process return early, as at a timeout. Idempotent."""

    def status(self, stream_id: str) -> Status:
        """Where the stream stands; MISSING where there is none."""

    def info(self, stream_id: str) -> StreamInfo | None:
        """A snapshot of one stream, None where there is none."""

    def streams(self) -> Iterator[StreamInfo]:
        """Every stream, in order of its id, in bounded pages: not one snapshot of all."""

    def delete(self, stream_id: str) -> bool:
        """Remove a stream, whatever its state. True if it was there.

        Its producer and its waiting readers get StreamLostError, a later read StreamNotFoundError.
        """

    def sweep(self) -> int:
        """Remove expired streams, in small steps, and end those whose producers died. Returns the removed."""

    def close(self) -> None:
        """Wake blocked reads and free what this process holds; stored streams stay. Idempotent."""


@runtime_checkable
class TakeoverStore(Protocol):
    """Streams that survive their producer, beside `Store`. A BaseStore that cannot raises UnsupportedError.

    Every method is thread-safe, does not wait, and may raise StoreUnavailableError; it may be repeated then.
    """

    def acquire(
        self,
        stream_id: str,
        *,
        ttl: float | None = None,
        metadata: Mapping[str, str] | None = None,
        restart: Collection[Status | str] = (),
        handover: float = 0.0,
    ) -> Lease | None:
        """As `Store.acquire`. `handover` stays with the stream: seconds from the end of the lease in which another
        producer may go on; 0: none may. With one the stream lives for max(ttl, grace + handover) after its last
        sign of life. ValueError for a negative one.
        """

    def take_over(self, stream_id: str, generation: int) -> Lease | None:
        """Begin the next term of a stream that nobody produces: a Lease that goes on where its bytes end (G11).

        None if somebody produces it, if it has ended, is gone or was begun anew, is shared, has no handover, or
        was begun by an edition that knew no terms. Atomic: of several one wins. Begins no stream. Ttl, metadata
        and handover stay as they are stored. After three terms in a row that stored neither bytes nor notes (the
        elected one counts) it ends the stream as `interrupted` and returns None: a job that kills its process must
        not go from worker to worker.
        """

    def release(self, lease: Lease) -> None:
        """Let go of a stream without ending it: it may be taken over at once; without a handover it is ended as
        `interrupted`. The lease may not append any more.

        Idempotent. Raises what `append` raises of a lease that is not the stream's any more.
        """

    def orphans(self) -> Iterator[str]:
        """The ids of streams that wait to be taken over. Cheap however many streams there are.

        A hint: it may come late, or hold streams that need nobody; `take_over` decides.
        """


@runtime_checkable
class SharedStore(Protocol):
    """Shared streams and notes, beside `Store`. A BaseStore that has none raises UnsupportedError.

    Every method is thread-safe, does not wait, and may raise StoreUnavailableError. G12: each is one atomic step.
    At most 2,000 notes for a stream; names of 1 to 300 printable ASCII characters; values of at most 1 KiB, and
    names and values of at most 256 KiB in all, in UTF-8. A malformed note is a ValueError before anything.

    The notes of `append`, `append_many` and `finalize` are set in the same step (None takes one away). A repeated
    append that is recognised by its bytes, and a repeated ending, leave them alone.
    """

    def append(self, lease: Lease, *chunks: bytes, notes: Notes | None = None) -> str:
        """As `Store.append`, with notes."""

    def append_many(
        self, batches: Sequence[tuple[Lease, Sequence[bytes]]], notes: Sequence[Notes | None] = ()
    ) -> list[str | ResumableStreamError]:
        """As `Store.append_many`. `notes`: for each batch, in the same order, or nothing for any."""

    def finalize(
        self, lease: Lease, status: Status | str, error: str | None = None, *, notes: Notes | None = None
    ) -> None:
        """As `Store.finalize`, with notes."""

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
        """Begin a shared stream, with its first chunks and notes, and perhaps its ending. None if the id is taken.

        It is never `interrupted`. `ttl`: seconds (default: the store's; MAX_TTL for no end), from the last commit
        or `touch`, or from now if it is not `sliding`; a `finished_ttl` does not apply. Raises what `acquire` and
        `append` raise of limits and values.
        """

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
        """Store chunks, notes and an ending in one step, if the notes are as expected; returns the cursor after
        these chunks.

        `expect`: what notes must be (None: absent). `notes`: what they are to be (None: taken away). `generation`:
        of which it must be. Checked in this order: the stream is missing (StreamNotFoundError) or of another
        generation (StreamLostError); for chunks or an ending, it has a producer (LeaseLostError); `expect`
        (ConflictError); for chunks or an ending, it has ended (StreamFinalizedError); limits (LimitExceededError).
        Notes alone may be set on every stream, by everybody, also after its ending.

        A commit is **fenced** if a note in `expect` gets another value in `notes`, one that is unique to the
        attempt, such as a count with a random text of the writer. Finding that value proves that this commit was
        stored. So a store may repeat a fenced commit after a lost reply, and whoever repeats one after a
        StoreUnavailableError with `fate_unknown` reads a ConflictError with its own value as success. Any other is
        repeated only where it was certainly not executed.
        """

    def touch(self, stream_id: str) -> bool:
        """Renew the life of a stream if it is sliding, whatever its status. False if there is no such stream."""


def takeover_store(store: object) -> TakeoverStore | None:
    """`store`, if it has takeover. A BaseStore has the methods in any case, and says by `has_takeover` whether
    they do more than refuse."""
    able = isinstance(store, TakeoverStore) and getattr(store, "has_takeover", True)
    return store if able and isinstance(store, TakeoverStore) else None


def shared_store(store: object) -> SharedStore | None:
    """`store`, if it has shared streams and notes; see `takeover_store`."""
    able = isinstance(store, SharedStore) and getattr(store, "has_shared_streams", True)
    return store if able and isinstance(store, SharedStore) else None


@runtime_checkable
class Listing(Protocol):
    """A choice of streams, beside `Store`. Every BaseStore has it."""

    def streams(
        self,
        *,
        prefix: str = "",
        status: Status | str | Collection[Status | str] | None = None,
        metadata: Mapping[str, str] | None = None,
        internal: bool = False,
    ) -> Iterator[StreamInfo]:
        """The streams, in order of their ids, in bounded pages: not one snapshot of all. Without their notes.

        Those whose id begins with `prefix`, that stand at `status` (or at one of several), and whose metadata has
        all the pairs of `metadata`. Records that the library keeps for itself, whose ids begin with
        INTERNAL_PREFIXES, only with `internal`. ValueError for a status that is none.
        """


@runtime_checkable
class Routed(Protocol):
    """A store that keeps its streams on several servers, beside `Store`. Every BaseStore has it."""

    def route(self, stream_id: str) -> str:
        """Names the server that keeps this stream at present: a hint. Thread-safe; raises nothing.

        Streams of different routes are committed and renewed by different threads, so that a server that hangs
        holds up only its own.
        """


@runtime_checkable
class Maintenance(Protocol):
    """What operators need of a store, beside `Store`. Every BaseStore has it; a store of your own may do without.

    Every method is thread-safe and may raise StoreUnavailableError.
    """

    def check(self) -> list[str]:
        """Verify that the bytes of each stream are there; returns what is wrong, in words, nothing if all is well.

        Reads everything that is stored. Streams may come, grow and go meanwhile.
        """

    def clear(self) -> int:
        """Delete all streams; their producers and readers get StreamLostError. Returns how many there were."""

    def drop(self) -> None:
        """Delete all streams, close the store, and remove all that it keeps. No other process may use it."""
