"""Streams in the memory of one process, for tests, scripts and servers with a single worker."""

from __future__ import annotations

import math
import threading
import time
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from ..contract import (
    DEFAULT_GRACE,
    DEFAULT_TTL,
    Batch,
    Lease,
    Notes,
    Position,
    Status,
    StreamInfo,
    check_notes,
    new_generation,
    new_token,
)
from ..errors import ResumableStreamError, StreamLostError, StreamNotFoundError
from ..process import PerProcess
from .base import (
    BaseStore,
    Chunks,
    Term,
    append_error,
    conflict_error,
    finalize_error,
    freeze_chunks,
    outcomes,
    ownership_error,
    start_position,
)
from .notes import Commit, Creation, commit_error, with_notes
from .sweeper import Sweeper
from .wakeup import Channel


class MemoryStore(BaseStore):
    """A store in this process's memory. Thread-safe; no method blocks but `read`, at most its timeout.

    An append costs the same however many streams there are; a read finds its place by bisection. Expired streams
    are dropped in the background, also when nobody asks. What was stored is lost with the process, and a
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
        super().__init__(
            ttl=ttl,
            finished_ttl=finished_ttl,
            grace=grace,
            max_chunk_bytes=max_chunk_bytes,
            max_stream_bytes=max_stream_bytes,
            max_entries=max_entries,
            max_streams=max_streams,
        )
        self._clock = clock
        self._directories = PerProcess(_Directory)
        self._shortest_ttl = min(self._ttl, self._finished_ttl or self._ttl)
        self._sweepers = PerProcess(
            lambda: Sweeper("resumable-sync-memory-sweeper", self._sweep, self._sweep_interval)
        )
        self._wakes = object()  # another one after every wake(): a waiting read returns when it has changed

    @property
    def shared(self) -> bool:
        """False: the streams are this process's alone."""
        return False

    def _acquire(
        self,
        stream_id: str,
        ttl: float,
        metadata: dict[str, str],
        restart: frozenset[Status],
        handover: float = 0.0,
    ) -> Lease | None:
        def make(generation: int) -> _Stream:
            stream = _Stream(stream_id, generation, self._life(ttl, handover), metadata, new_token())
            stream.ttl = ttl
            stream.handover = handover
            stream.touch(self._clock(), self._grace)
            return stream

        stream = self._begin(stream_id, ttl, restart, make)
        if stream is None:
            return None
        return Lease(stream_id, stream.generation, ttl, token=stream.fence, handover=handover)

    def _begin(
        self, stream_id: str, ttl: float, restart: frozenset[Status], make: Callable[[int], _Stream]
    ) -> _Stream | None:
        """Put the stream that `make(generation)` gives in its place, unless the id is taken."""
        directory = self._directories.get()
        found = self._find(stream_id)
        if found is not None and found.status not in restart:
            return None
        if len(directory.streams) >= self._limits.max_streams:
            self._sweep()
        with directory.lock:
            current = directory.streams.get(stream_id)
            if current is not None and not current.gone:
                if current.status not in restart:  # without its lock: an ending stands for good
                    return None
            else:
                self._limits.check_streams(len(directory.streams))
            directory.last_generation = new_generation(directory.last_generation)
            stream = make(directory.last_generation)  # nobody else knows it yet: its lock is not needed
            directory.streams[stream_id] = stream
            if stream.handover:
                directory.handed_over[stream_id] = stream
        if current is not None:
            self._discard(current)  # whoever reads it learns that it is lost
        sweeper = self._sweepers.get()
        sweeper.start()
        if ttl < self._shortest_ttl:
            self._shortest_ttl = ttl
            sweeper.hurry()  # its rounds must come more often from now on
        return stream

    def _take_over(self, stream_id: str, generation: int, token: str) -> Lease | None:
        stream = self._find(stream_id)
        if stream is None:
            return None
        with stream.lock:
            if self._expired(stream) or stream.generation != generation or not self._is_orphan(stream):
                return None
            term = stream.term.next(stream.size)
            if term is None:
                self._end(stream, Status.INTERRUPTED)
            else:
                stream.begin_term(term, token)
                stream.touch(self._clock(), self._grace)
                lease = Lease(stream_id, generation, stream.ttl, stream.size, token, term.number, stream.handover)
        if term is not None:
            return lease
        stream.readers.bump()
        return None

    def _release(self, lease: Lease) -> None:
        stream = self._owned(lease)
        with stream.lock:
            state = self._state(stream)
            if state is None or stream.generation != lease.generation or stream.fence != lease.released:
                error = ownership_error(lease, state)
                if error is not None:
                    raise error
                stream.fence = lease.released
                stream.touch(self._clock(), 0.0)
            if not stream.handover and stream.status is Status.STREAMING:  # or a call was broken off before this
                self._end(stream, Status.INTERRUPTED)
        stream.readers.bump()

    def _orphans(self) -> Iterator[str]:
        directory = self._directories.get()
        with directory.lock:
            streams = list(directory.handed_over.values())
        for stream in streams:
            with stream.lock:
                over = not self._is_there(stream) or stream.status.ended
                waits = not over and self._is_orphan(stream)
            if over:
                with directory.lock:
                    if directory.handed_over.get(stream.stream_id) is stream:
                        del directory.handed_over[stream.stream_id]
            if waits:
                yield stream.stream_id

    def _create(self, creation: Creation, token: str) -> StreamInfo | None:
        self._limits.check_chunks(creation.chunks)
        size = sum(map(len, creation.chunks))
        self._limits.check_room(creation.stream_id, size, len(creation.chunks))
        notes = with_notes(creation.stream_id, {}, creation.notes)

        def make(generation: int) -> _Stream:
            stream = _Stream(creation.stream_id, generation, creation.ttl, creation.metadata, token)
            stream.shared, stream.sliding, stream.notes = True, creation.sliding, notes
            stream.term = Term(0)
            stream.extend(creation.chunks)
            stream.live(self._clock())
            if creation.ending is not None:
                self._end(stream, creation.ending)
            return stream

        stream = self._begin(creation.stream_id, creation.ttl, frozenset(), make)
        if stream is None:
            return None
        with stream.lock:
            return stream.info(self._clock(), with_notes=True)

    def _commit(self, commit: Commit) -> str:
        stream = self._find(commit.stream_id)
        if stream is None:
            raise StreamNotFoundError(f"there is no stream {commit.stream_id}")
        with stream.lock:
            state = self._state(stream)
            error = commit_error(commit, state, lambda names: stream.notes)
            if error is not None:
                raise error
            self._limits.check_chunks(commit.chunks)
            entries = stream.entries + len(commit.chunks)
            if commit.chunks:
                self._limits.check_room(commit.stream_id, stream.size + commit.length, entries)
            notes = with_notes(commit.stream_id, stream.notes, commit.notes)
            size = stream.size + commit.length
            ending = None
            if commit.ending is not None:
                ending = _Ending(commit.ending, commit.error, time.time())
            stream.intent = _Intent(size, commit.chunks, notes, stream.term, ending, stream.expires_at)
            stream.carry_out()
            if stream.shared:
                stream.live(self._clock())
        stream.readers.bump()
        return f"{stream.generation}-{size}"

    def _touch_life(self, stream_id: str) -> bool:
        stream = self._find(stream_id)
        if stream is None:
            return False
        with stream.lock:
            if self._expired(stream):
                return False
            ended = stream.status.ended and not stream.shared
            stream.live(self._clock(), (self._finished_ttl or stream.ttl) if ended else None)
            return True

    def append(self, lease: Lease, *chunks: bytes, notes: Notes | None = None) -> str:
        """Store all chunks in one atomic step; see `Store.append`."""
        frozen = freeze_chunks(chunks)
        noted = check_notes(notes) if notes else None
        self._check_open()
        return self._append((lease, frozen), noted)  # without the lists of a group commit, which cost some 0.4 µs

    def _append_many(
        self, batches: Sequence[tuple[Lease, Chunks]], notes: Sequence[dict[str, str | None]] = ()
    ) -> list[str | ResumableStreamError]:
        if not notes:
            return outcomes(self._append, batches)
        return outcomes(lambda both: self._append(*both), list(zip(batches, notes)))

    def _append(self, batch: tuple[Lease, Chunks], notes: dict[str, str | None] | None = None) -> str:
        lease, chunks = batch
        self._limits.check_chunks(chunks)
        length = sum(map(len, chunks))
        stream = self._owned(lease)
        with stream.lock:
            error = append_error(lease, self._state(stream), length)
            if error is not None:
                raise error
            if stream.size == lease.offset:
                self._limits.check_room(lease.stream_id, lease.offset + length, stream.entries + len(chunks))
                if notes:
                    noted = with_notes(lease.stream_id, stream.notes, notes)
                    term = stream.term._replace(begin=-1)
                    stream.intent = _Intent(lease.offset + length, chunks, noted, term, None, stream.expires_at)
                    stream.carry_out()
                else:
                    stream.extend(chunks)
            elif b"".join(stream.slice(lease.offset, length)) != b"".join(chunks):
                raise conflict_error(lease)
            stream.touch(self._clock(), self._grace)
            size = stream.size
        stream.readers.bump()
        lease.offset = size  # last: whatever breaks off before this is repeated as a whole
        return lease.cursor

    def _renew(self, leases: Sequence[Lease]) -> list[ResumableStreamError | None]:
        return outcomes(self._renew_one, leases)

    def _renew_one(self, lease: Lease) -> None:
        stream = self._owned(lease)
        with stream.lock:
            error = ownership_error(lease, self._state(stream))
            if error is not None:
                raise error
            stream.touch(self._clock(), self._grace)

    def _finalize(
        self, lease: Lease, ending: Status, error: str | None, notes: dict[str, str | None] | None = None
    ) -> None:
        stream = self._owned(lease)
        with stream.lock:
            refused = finalize_error(lease, self._state(stream), ending)
            if refused is not None:
                raise refused
            if stream.status is Status.STREAMING:
                noted = with_notes(lease.stream_id, stream.notes, notes or {})
                end = _Ending(ending, error, time.time())
                stream.intent = _Intent(stream.size, [], noted, stream.term, end, self._expiry_of_ended(stream))
                stream.carry_out()
        stream.readers.bump()  # also where it had ended: a call that was broken off may not have come to this

    def _cancel(self, stream_id: str) -> bool:
        stream = self._find(stream_id)
        if stream is None:
            return False
        with stream.lock:
            running = not self._expired(stream) and stream.status is Status.STREAMING
            if running:
                self._end(stream, Status.CANCELLED)
        stream.readers.bump()  # also where it had ended: a call that was broken off may not have come to this
        return running

    def _read(self, stream_id: str, position: Position | None, max_bytes: int, timeout: float) -> Batch:
        # A loop of its own: the stream itself is at hand, so there is no Tail to be told, asked or checked.
        wakes = self._wakes
        deadline = time.monotonic() + timeout
        stream = self._directories.get().streams.get(stream_id)  # a dict is read atomically
        waited = False
        if stream is not None:
            while True:
                version = stream.readers.version  # before the snapshot: nothing that comes after it is missed
                with stream.lock:
                    if not self._is_there(stream):
                        break
                    start = start_position(stream_id, stream, position)
                    found = stream.slice(start.offset, max_bytes)
                    size, status, due = stream.size, stream.status, 0.0
                    ended = status is not Status.STREAMING
                    error = stream.error if ended else None
                    if not found:
                        # The wait ends in time for the lease and the ttl to be checked, whichever is first.
                        due = min(stream.until, stream.expires_at) - self._clock()
                left = deadline - time.monotonic()
                if found or ended or left <= 0 or wakes is not self._wakes:
                    lengths = list(map(len, found))
                    return Batch(start, b"".join(found), lengths, size=size, status=status, error=error)
                waited = True
                stream.readers.wait(version, min(left, due))
            self._discard(stream)
        self._check_open()  # a store that closes drops its streams: they are neither missing nor lost
        if waited:
            raise StreamLostError(f"stream {stream_id} was deleted or has expired")
        raise StreamNotFoundError(f"there is no stream {stream_id}")

    def _wake(self) -> None:
        self._wakes = object()  # one assignment: unlike +=, no wake of another thread can undo it
        for stream in self._all():
            stream.readers.bump()

    def _info(self, stream_id: str) -> StreamInfo | None:
        stream = self._find(stream_id)
        if stream is None:
            return None
        with stream.lock:
            return None if stream.gone else stream.info(self._clock(), with_notes=True)

    def _streams(self) -> Iterator[StreamInfo]:
        ids = sorted(stream.stream_id for stream in self._all())
        return (replace(info, notes={}) for info in map(self._info, ids) if info is not None)

    def _delete(self, stream_id: str) -> bool:
        stream = self._find(stream_id)
        return stream is not None and self._discard(stream)

    def _sweep(self) -> int:
        removed = 0
        for stream in self._all():
            with stream.lock:
                expired = not self._is_there(stream)
            removed += expired and self._discard(stream)
        return removed

    def _close(self) -> None:
        """Drop all streams; a stream that is acquired after this snapshot finds the store closed when it is
        read."""
        streams = self._all()
        sweeper = self._sweepers.peek()
        if sweeper is not None:
            sweeper.stop()
        for stream in streams:
            self._discard(stream)

    def _all(self) -> list[_Stream]:
        directory = self._directories.get()
        with directory.lock:
            return list(directory.streams.values())

    def _sweep_interval(self) -> float:
        return min(30.0, max(0.05, self._shortest_ttl / 2))

    def _find(self, stream_id: str) -> _Stream | None:
        """The stream if it is there and has not expired; ends it first if its producer is dead."""
        directory = self._directories.get()
        with directory.lock:
            stream = directory.streams.get(stream_id)
        if stream is None:
            return None
        with stream.lock:
            if self._is_there(stream):
                return stream
        self._discard(stream)
        return None

    def _owned(self, lease: Lease) -> _Stream:
        """The stream that `lease` names, of whatever generation; StreamLostError if there is none.

        Its lease does not matter: a late producer that nobody has declared lost goes on.
        """
        directory = self._directories.get()
        with directory.lock:
            stream = directory.streams.get(lease.stream_id)
        if stream is None:
            raise StreamLostError(f"stream {lease.stream_id} was deleted or has expired")
        return stream

    def _state(self, stream: _Stream) -> _Stream | None:
        return None if stream.gone or self._expired(stream) else stream

    # The helpers below are called with the stream's lock held, except _discard, which takes it.

    def _is_orphan(self, stream: _Stream) -> bool:
        """Whether nobody produces it, and it may be taken over."""
        waits = stream.status is Status.STREAMING and bool(stream.handover)
        return waits and stream.lease_until <= self._clock()

    def _expired(self, stream: _Stream) -> bool:
        if stream.intent is not None:  # its thread was broken off
            stream.carry_out()
        return stream.gone or self._clock() >= stream.expires_at

    def _end(self, stream: _Stream, status: Status, error: str | None = None) -> None:
        stream.end(_Ending(status, error, time.time()), self._expiry_of_ended(stream))

    def _expiry_of_ended(self, stream: _Stream) -> float:
        return stream.expires_at if stream.shared else self._clock() + (self._finished_ttl or stream.ttl)

    def _is_there(self, stream: _Stream) -> bool:
        """Whether it has not expired; ends it first if its producer is dead."""
        if stream.intent is not None:
            stream.carry_out()
        now = self._clock()
        if stream.gone or now >= stream.expires_at:
            return False
        if stream.status is Status.STREAMING and stream.until <= now:
            self._end(stream, Status.INTERRUPTED)
            stream.readers.bump()
        return True

    def _discard(self, stream: _Stream) -> bool:
        """Remove the stream; True if this call did."""
        with stream.lock:
            first = not stream.gone
            stream.gone = True
        stream.readers.bump()
        directory = self._directories.get()
        with directory.lock:
            for streams in directory.streams, directory.handed_over:
                if streams.get(stream.stream_id) is stream:
                    del streams[stream.stream_id]
        return first


class _Ending(NamedTuple):
    """How a stream has ended; counts once the stream's `status` says so."""

    status: Status
    error: str | None
    at: float


class _Intent(NamedTuple):
    """What becomes of a stream in one step: all of its fields that may change."""

    size: int
    chunks: list[bytes]
    """Those that make it `size` bytes."""
    notes: dict[str, str]
    term: Term
    ending: _Ending | None
    expires_at: float
    """Where it ends."""


class _Stream:
    """One generation. `lock` guards every field but `readers`, where readers wait; `gone` only ever turns True.

    A signal handler may raise anywhere in a call of the main thread (Ctrl-C does). So a change counts with one
    assignment: of `size` for an append, `status` for an ending, `gone` for a deletion, `intent` for what is more
    than one of these: whoever takes the lock next carries out what is left of it. What `touch` assigns are
    three signs of life, each true by itself.
    """

    __slots__ = (
        "stream_id",
        "generation",
        "metadata",
        "notes",
        "ttl",
        "life",
        "sliding",
        "shared",
        "handover",
        "fence",
        "term",
        "status",
        "size",
        "chunks",
        "ends",
        "created_at",
        "touched_at",
        "lease_until",
        "expires_at",
        "ending",
        "intent",
        "gone",
        "readers",
        "lock",
    )

    def __init__(self, stream_id: str, generation: int, life: float, metadata: dict[str, str], fence: str) -> None:
        self.stream_id = stream_id
        self.generation = generation
        self.ttl = self.life = life  # seconds; see `BaseStore._life`
        self.sliding = True
        self.shared = False
        self.handover = 0.0  # seconds
        self.fence = fence
        self.term = Term()
        self.metadata = metadata
        self.notes: dict[str, str] = {}  # replaced as a whole
        self.status = Status.STREAMING
        self.size = 0  # bytes stored; what the lists hold beyond is of an append that was broken off
        self.chunks: list[bytes] = []
        self.ends = array("Q", (0,))  # ends[i]: the offset before chunks[i]; sorted, for bisection
        self.created_at = self.touched_at = time.time()
        self.lease_until = 0.0
        self.expires_at = 0.0
        self.ending: _Ending | None = None
        self.intent: _Intent | None = None
        self.gone = False
        self.readers = Channel()
        self.lock = threading.Lock()

    def touch(self, now: float, grace: float) -> None:
        """A sign of life, at `now` of the store's clock. The caller holds the lock."""
        self.lease_until = now + grace
        self.live(now)

    def live(self, now: float, life: float | None = None) -> None:
        """Renew its life, if it is one that signs of life renew, or begin it. The caller holds the lock."""
        if self.sliding or not self.expires_at:
            self.expires_at = now + (life or self.life)
        self.touched_at = time.time()

    def begin_term(self, term: Term, fence: str) -> None:
        """Another producer goes on. The caller holds the lock."""
        self.term, self.fence = term, fence

    def carry_out(self) -> None:
        """Do what `intent` says. Each part may be done again. The caller holds the lock."""
        intent = self.intent
        assert intent is not None
        if self.size != intent.size:
            self.extend(intent.chunks)
        self.notes, self.term = intent.notes, intent.term
        if intent.ending is not None:
            self.end(intent.ending, intent.expires_at)
        self.intent = None

    def end(self, ending: _Ending, expires_at: float) -> None:
        """End it. The caller holds the lock."""
        self.ending = ending
        self.status = ending.status
        self.expires_at = expires_at  # where this is broken off, it lives for the ttl that it had

    # The properties are read with the lock held.

    @property
    def until(self) -> float:
        """When it ends as `interrupted` by itself, by the store's clock."""
        return math.inf if self.shared else self.lease_until + self.handover

    @property
    def entries(self) -> int:
        """Chunks stored."""
        last = len(self.ends) - 1
        return last if self.ends[last] == self.size else bisect_left(self.ends, self.size)

    @property
    def error(self) -> str | None:
        """What was said when it ended."""
        return None if self.status is Status.STREAMING or self.ending is None else self.ending.error

    def info(self, now: float, *, with_notes: bool = False) -> StreamInfo:
        """The public snapshot at `now` of the store's clock. The caller holds the lock."""
        ended = None if self.status is Status.STREAMING else self.ending
        return StreamInfo(
            stream_id=self.stream_id,
            status=self.status,
            generation=self.generation,
            size=self.size,
            entries=self.entries,
            created_at=self.created_at,
            updated_at=self.touched_at if ended is None else ended.at,
            finished_at=None if ended is None else ended.at,
            error=self.error,
            metadata=dict(self.metadata),
            producer_alive=ended is None and not self.shared and now < self.lease_until,
            shared=self.shared,
            term=self.term.number,
            handover=self.handover,
            ttl=self.ttl,
            sliding=self.sliding,
            notes=self.notes if with_notes else {},
        )

    def extend(self, chunks: list[bytes]) -> None:
        """Add chunks at the end. The caller holds the lock."""
        ends = self.ends
        end = self.size
        if ends[-1] != end or len(ends) != len(self.chunks) + 1:
            entries = self.entries
            del ends[entries + 1 :], self.chunks[entries:]
        for chunk in chunks:
            end += len(chunk)
            ends.append(end)
        self.chunks += chunks
        self.size = end

    def slice(self, offset: int, max_bytes: int) -> list[bytes]:
        """The chunks from `offset` on, the first cut. The caller holds the lock."""
        if offset == self.size:  # as for each viewer that has caught up
            return []
        first = bisect_right(self.ends, offset) - 1  # it contains the offset: no chunk is empty
        stop = bisect_left(self.ends, min(offset + max_bytes, self.size), first + 1)
        chunks = self.chunks[first:stop]
        if chunks:
            skip = offset - self.ends[first]
            if skip:
                chunks[0] = chunks[0][skip:]
        return chunks


class _Directory:
    """The streams of one process. `lock` guards all fields; it is never held together
    with a stream's lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.streams: dict[str, _Stream] = {}
        self.handed_over: dict[str, _Stream] = {}  # those with a handover; some may have ended
        self.last_generation = 0
