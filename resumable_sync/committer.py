"""Group commit: one thread per store and process writes for all streams produced there.

Theory of operation. Keep it true when you change something below.

There are two halves. `Schedule` is the state and every decision about it: its methods are called under the
committer's lock, and none of them waits, calls a store, reads a clock or notifies anybody. They are given the
time and say what is to be done. `Committer` does it: it holds the lock, the thread and the store, and calls the
store only while it does not hold the lock.

An outbox is in one of three places:

    IDLE      nothing of it waits
    QUEUED    it has chunks, and stands once in the queue
    WRITING   its `in_flight` is part of the turn

      chunk of a fast source               next_turn
    IDLE ---------------------> QUEUED ---------------------> WRITING      and back from WRITING
      '-------------------------------------------------------^   to IDLE    all is stored, or it was stopped
      chunk of a slow source, nothing else to do (direct append)  to QUEUED  more has come, or the store was away

Chunks that come while it is WRITING gather in `pending`, so the next turn is as large as the last one was slow:
an idle stream pays one append, a busy process shares them. Apart from its place an outbox is open, or refuses
new chunks (`refusal`: the context closes, what was handed over is still written), or was stopped (`error`:
nothing more is written). It never becomes open again.

There is one turn. Whoever holds it - the thread, or a producer's thread with a direct append - is alone in
appending, so a lease is used by one thread at a time. Only the holder changes `in_flight`, except that stopping a
queued outbox drops it.
A direct append saves the hand-over to the thread, which costs more than the append of a chunk. So it must not
cost others their turn: it is made only while nothing is queued. The thread that waits for the turn is therefore
next. Nor must it cost the source its pace: it is made only where the source has paused for as long as the last
append took. So a store that is far away gets in one append what a source makes meanwhile. Renewals wait for no
turn: they have a thread of their own, see heartbeat.py.

Where a store keeps its streams on several servers (`Routed`), each has a Committer and a Heartbeat of its own: one
that hangs holds up nobody else's chunks and leases.

Interleavings that were thought of:

- A chunk is put while a turn is under way: it is queued, and the end of the turn wakes the thread.
- The reply to an append is lost, or the append is broken off by an exception from outside: `in_flight` is kept
  and appended again, unchanged; the store recognises it (G3). Where the lease has advanced, it was stored:
  stores advance it last.
- The thread meets an exception that nobody planned (MemoryError, a logging handler that raises): `end_turn`
  treats what was not recorded as broken off, and the thread goes on. So no turn is held for good.
- A stream is stopped while its append is under way: `error` is set at once, so that nothing more is put. What the
  append stored is still acknowledged, and `flush` waits for it: the ending must not overtake it.
- An outbox is closed while it is QUEUED: it leaves the queue. While it is WRITING, its result is recorded
  and nothing follows.
- The thread ends for want of streams while one is opened: both happen under the lock, in one order or the other.
- A signal handler raises in a call of the main thread, between any two steps of a decision, or while it has the
  turn. Each call that may run there mends what it left (`repair`): a turn of its own is given back, and where the
  outbox is follows from what is true, the queue and the turn. What was in flight counts as stored if the lease
  has advanced; so `begin` is set before a write begins.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import logging
import math
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from .contract import Lease, Routed, Store, shared_store
from .errors import ResumableStreamError, StoreUnavailableError
from .heartbeat import Heartbeat, Pulse
from .interrupts import Alarm, Waiters, was_thrown_in
from .logs import about
from .process import PerProcess, start_thread
from .stats import Figures

logger = logging.getLogger("resumable_sync")

MAX_PENDING_CHUNKS = 4096
"""Chunks of one stream that may wait to be stored, whatever their size."""

MAX_PENDING_BYTES = 256 * 1024
"""Bytes of one stream that may wait to be stored, unless `Committer.open` is told otherwise."""

_TURN_BYTES = 4 * 1024 * 1024  # of one append_many; the rest takes the next turn
_IDLE_SECONDS = 5.0  # without any stream before the thread ends
_SLOW_SOURCE_SECONDS = 0.001  # from the end of one put to the next, at least, if its source stores a chunk itself
_RETRY_SECONDS = (0.05, 1.0)  # first and longest pause while the store is unavailable
_AT_ONCE = (-math.inf, _RETRY_SECONDS[0])  # `retry_at` and `retry_pause` while it is there


class Place(enum.Enum):
    """Where an outbox is; see the theory of operation."""

    IDLE = enum.auto()
    QUEUED = enum.auto()
    WRITING = enum.auto()


class Offer(enum.Enum):
    """What became of a chunk, and so what its producer's thread does next."""

    FULL = enum.auto()  # not taken: wait for room
    QUEUED = enum.auto()  # the thread comes to it by itself
    WAKE = enum.auto()  # queued, and the thread must be woken
    DIRECT = enum.auto()  # the turn is the caller's: execute it


# What every chunk asks for: a global is found several times as fast as a member of an enumeration.
_IDLE, _WRITING = Place.IDLE, Place.WRITING
_FULL, _QUEUED, _DIRECT = Offer.FULL, Offer.QUEUED, Offer.DIRECT


class Outbox:
    """What one producer has made and the store has not acknowledged yet. Made by `Committer.open`.

    Guarded by the committer's lock, but for `acknowledged`, a deque, and `put_ended_at`, which only the producer's
    thread uses. That thread reads `append_seconds` without the lock: any recent value will do.
    """

    def __init__(
        self,
        lease: Lease,
        interval: float,
        max_pending_bytes: int,
        on_stop: Callable[[], None],
        owner: weakref.ref[Any] | None = None,
        figures: Figures | None = None,
        reports: bool = True,
    ) -> None:
        self.lease = lease
        self.reports = reports
        self.figures = figures or Figures()
        self.pulse = Pulse(lease, interval, owner, self.figures)
        self.max_pending_bytes = max_pending_bytes
        self.on_stop = on_stop
        self.room = Waiters()  # for more room, less in flight, or an error
        self.place = Place.IDLE
        self.pending: list[bytes] = []  # for the next turn
        self.pending_bytes = 0
        # Kept as it is until its fate is known: only the very same can be repeated.
        self.in_flight: list[bytes] = []
        self.pending_notes: dict[str, str | None] = {}  # set with `pending`
        self.in_flight_notes: dict[str, str | None] = {}
        self.begin = 0  # the lease's offset before `in_flight`
        self.acknowledged: deque[int] = deque()  # lengths of stored chunks until they are reported, if they are
        self.error: ResumableStreamError | None = None  # why it was stopped
        self.refusal: ResumableStreamError | None = None  # why no more chunks are taken
        self.put_ended_at = -math.inf
        self.append_seconds = 0.0  # that the last append took
        self.unavailable_since: float | None = None
        self.blocked = False  # `put` waits for room; the producer's thread alone changes it


class Turn(NamedTuple):
    """One turn: the outboxes whose `in_flight` is to be appended, and since when."""

    writes: list[Outbox]
    began: float
    holder: object = None
    """The call of `put` whose turn it is; None: the thread's."""


class Schedule:
    """The committer's state and its decisions. Called under the committer's lock; pure but for that state."""

    def __init__(self, grace: float) -> None:
        self.grace = grace
        self.outboxes: set[Outbox] = set()
        self.queue: deque[Outbox] = deque()
        self.turn: Turn | None = None  # what is being written now
        self.retry_at, self.retry_pause = _AT_ONCE  # before then nothing is taken from the queue
        self.idle_since: float | None = None

    def add(self, outbox: Outbox) -> None:
        """Write for this outbox from now on."""
        self.outboxes.add(outbox)
        self.idle_since = None

    def remove(self, outbox: Outbox) -> None:
        """Write nothing more for this outbox."""
        self.outboxes.discard(outbox)
        self._drop_chunks(outbox)

    def offer(
        self,
        outbox: Outbox,
        chunk: bytes,
        now: float,
        slow: bool,
        notes: dict[str, str | None] | None = None,
        caller: object = None,
    ) -> Offer:
        """Take a chunk, with its notes, if there is room, and say who stores it. Raises the outbox's error or
        refusal. A direct append is `caller`'s."""
        stopped = outbox.error or outbox.refusal
        if stopped is not None:
            raise stopped.with_traceback(None)  # of this call alone: a caller may go on to put for ever
        pending = outbox.pending
        size = outbox.pending_bytes + len(chunk)
        if pending and (size > outbox.max_pending_bytes or len(pending) >= MAX_PENDING_CHUNKS):
            return _FULL  # a chunk that is larger than the bound goes alone
        if slow and outbox.place is _IDLE and self.turn is None and not self.queue:
            outbox.in_flight = [chunk]
            outbox.in_flight_notes = notes or {}
            outbox.begin = outbox.lease.offset
            outbox.place = _WRITING
            self.turn = Turn([outbox], now, caller)
            return _DIRECT
        pending.append(chunk)
        outbox.pending_bytes = size
        if notes:
            outbox.pending_notes = {**outbox.pending_notes, **notes}
        if outbox.place is not _IDLE:
            return _QUEUED
        self._enqueue(outbox)
        return Offer.WAKE if self.turn is None and len(self.queue) == 1 else _QUEUED

    def next_turn(self, now: float) -> Turn | float | None:
        """What the thread does next: a turn, which has begun; seconds to wait for one; None: it ends."""
        if not self.outboxes:
            if self.idle_since is None:
                self.idle_since = now
            left = self.idle_since + _IDLE_SECONDS - now
            return left if left > 0 else None
        if self.turn is None:
            writes = self._take_queued(now)
            if writes:
                self.turn = Turn(writes, now)
                return self.turn
        # What waits for the turn is woken by its end. No wait is unbounded.
        return min(self.retry_at - now, _IDLE_SECONDS) if self.queue and self.retry_at > now else _IDLE_SECONDS

    def record_appends(
        self, writes: Sequence[Outbox], results: Sequence[str | ResumableStreamError], now: float
    ) -> list[Outbox]:
        """Record what `append_many` returned. Gives those that this stopped, whose `on_stop` is to be called."""
        stopped, away = [], False
        for outbox, result in zip(writes, results):
            outbox.place = _IDLE
            if isinstance(result, str):
                self._record_stored(outbox, now)
                self.retry_at, self.retry_pause = _AT_ONCE
                continue
            if isinstance(result, StoreUnavailableError):
                outbox.figures.failed_appends += 1
            if self._may_retry(outbox, result, now):
                self._enqueue(outbox)
                away = True
            elif self.stop(outbox, result):
                stopped.append(outbox)
        if away:
            self.retry_at = now + self.retry_pause
            self.retry_pause = min(self.retry_pause * 2, _RETRY_SECONDS[1])
        return stopped

    def end_turn(self, now: float) -> list[Outbox]:
        """Give the turn back. What was not recorded was broken off. Gives those that this stopped."""
        turn, self.turn = self.turn, None
        if turn is None:
            return []
        broken_off = []
        for outbox in turn.writes:  # a comprehension would be a call more for each live chunk
            if outbox.place is _WRITING:
                broken_off.append(outbox)
        if not broken_off:
            return []
        unknown = StoreUnavailableError("the append was broken off")
        results: list[str | ResumableStreamError] = [
            outbox.lease.cursor if outbox.lease.offset > outbox.begin else unknown for outbox in broken_off
        ]
        return self.record_appends(broken_off, results, now)

    def stop(self, outbox: Outbox, error: ResumableStreamError) -> bool:
        """Write nothing more for this outbox. True if it was not stopped before: then call its `on_stop`."""
        self._drop_chunks(outbox)
        if outbox.error is not None:
            return False
        outbox.error = error
        return True

    def repair(self, outbox: Outbox, caller: object, now: float) -> list[Outbox]:
        """A call that concerned this outbox was broken off. Its turn, if it has it, is given back; then its place
        is what is true. Gives those that this stopped."""
        turn = self.turn
        mine = turn is not None and caller is not None and turn.holder is caller
        stopped = self.end_turn(now) if mine else []
        if self.turn is not None and outbox.place is Place.WRITING and outbox in self.turn.writes:
            return stopped
        if outbox.in_flight and outbox.lease.offset > outbox.begin:  # stored, and not quite recorded
            outbox.in_flight, outbox.in_flight_notes = [], {}
        outbox.pending_bytes = sum(map(len, outbox.pending))
        if outbox in self.queue:
            outbox.place = Place.QUEUED
        elif (outbox.pending or outbox.in_flight) and outbox in self.outboxes and outbox.error is None:
            self._enqueue(outbox)
        else:
            outbox.place = Place.IDLE
            self._drop_chunks(outbox)
        return stopped

    def _enqueue(self, outbox: Outbox) -> None:
        outbox.place = Place.QUEUED
        self.queue.append(outbox)

    def _drop_chunks(self, outbox: Outbox) -> None:
        outbox.pending, outbox.pending_bytes, outbox.pending_notes = [], 0, {}
        if outbox.place is Place.QUEUED:
            with contextlib.suppress(ValueError):  # a call that was broken off has taken it out
                self.queue.remove(outbox)
            outbox.place = Place.IDLE
        if outbox.place is Place.IDLE:
            outbox.in_flight, outbox.in_flight_notes = [], {}

    def _take_queued(self, now: float) -> list[Outbox]:
        taken: list[Outbox] = []
        total = 0
        while self.queue and total < _TURN_BYTES and now >= self.retry_at:
            outbox = self.queue.popleft()
            if outbox.in_flight:  # it is repeated
                total += sum(map(len, outbox.in_flight))
            else:
                total += outbox.pending_bytes
                outbox.in_flight, outbox.pending, outbox.pending_bytes = outbox.pending, [], 0
                outbox.in_flight_notes, outbox.pending_notes = outbox.pending_notes, {}
            outbox.begin = outbox.lease.offset
            outbox.place = _WRITING
            taken.append(outbox)
        return taken

    def _record_stored(self, outbox: Outbox, now: float) -> None:
        chunks = len(outbox.in_flight)
        if outbox.reports:
            outbox.acknowledged.extend(map(len, outbox.in_flight))
        outbox.in_flight, outbox.in_flight_notes = [], {}
        outbox.unavailable_since = None
        began = now
        if self.turn is not None:
            began = outbox.pulse.signed_at = self.turn.began
        outbox.append_seconds = now - began
        outbox.figures.stored(chunks, outbox.lease.offset - outbox.begin, outbox.append_seconds)
        if outbox.pending:
            self._enqueue(outbox)

    def _may_retry(self, outbox: Outbox, error: ResumableStreamError, now: float) -> bool:
        """Whether the same append is to be tried again: while the store is away, for the grace time."""
        if not (isinstance(error, StoreUnavailableError) and error.transient):
            return False
        if outbox.error is not None or outbox not in self.outboxes:
            return False
        if outbox.unavailable_since is None:
            outbox.unavailable_since = now
        return now - outbox.unavailable_since < self.grace


class Committer:
    """Carries out what its `Schedule` decides, and has the leases renewed. Thread-safe.

    `_lock` guards the schedule, its outboxes and `_thread`; the store, the heartbeat and `on_stop` are called
    without it.
    """

    def __init__(self, store: Store, route: str = "") -> None:
        self.route = route
        self._store = store
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)  # notified when the thread has something to do sooner
        self._schedule = Schedule(store.grace)
        self._heartbeat = Heartbeat(store)
        self._thread: threading.Thread | None = None

    def open(
        self,
        lease: Lease,
        heartbeat: float,
        on_stop: Callable[[], None],
        max_pending_bytes: int = MAX_PENDING_BYTES,
        owner: weakref.ref[Any] | None = None,
        figures: Figures | None = None,
        reports: bool = True,
    ) -> Outbox:
        """Begin to write and to renew for `lease`, every `heartbeat` seconds or as often as lease and ttl need it.

        `on_stop` is called once, without locks, when the store refuses the lease or `tell` stops it. `put` waits
        while more than `max_pending_bytes` are not stored yet. Once `owner` is collected the lease is not renewed
        any more, and the outbox is stopped. `figures`: where appends are counted, under this committer's lock.
        `reports`: whether the lengths of stored chunks are noted in `acknowledged`.
        StoreUnavailableError if no thread can be started.
        """
        interval = min(heartbeat, self._schedule.grace / 3, lease.ttl / 3)
        outbox = Outbox(lease, interval, max_pending_bytes, on_stop, owner, figures, reports)
        self._heartbeat.add(outbox.pulse, functools.partial(self._stop, outbox))
        try:
            with self._lock:
                if self._thread is None:
                    self._thread = start_thread(self._run, "resumable-sync-committer")
                self._schedule.add(outbox)
        except BaseException:
            self._heartbeat.remove(outbox.pulse)  # nothing is renewed for a producer that there is not
            raise
        return outbox

    def keep_alive(self, stream_id: str, ttl: float) -> Callable[[], None]:
        """Renew the life of a shared stream, of `ttl` seconds, until what is returned is called, or the stream is
        gone. StoreUnavailableError if no thread can be started."""
        pulse = Pulse(stream_id, ttl / 3)
        self._heartbeat.add(pulse, lambda gone: None)
        return functools.partial(self._heartbeat.remove, pulse)

    def put(self, outbox: Outbox, chunk: bytes, notes: dict[str, str | None] | None = None) -> None:
        """Hand over a chunk, and the notes that are to be set with it; waits while too much is pending. Raises the
        outbox's error if it was stopped."""
        # Measured from the end of the last put: how long the store takes says nothing about the source.
        pause = time.monotonic() - outbox.put_ended_at
        slow = pause >= _SLOW_SOURCE_SECONDS and pause >= outbox.append_seconds
        alarm, caller = None, object()
        try:
            while True:
                with self._lock:
                    now = time.monotonic()
                    offer = self._schedule.offer(outbox, chunk, now, slow, notes, caller)
                    if offer is _FULL:
                        alarm = alarm or Alarm()
                        outbox.room.expect(alarm)
                    else:
                        outbox.put_ended_at = now
                        if offer is _QUEUED:
                            return
                        if offer is Offer.WAKE:
                            self._work.notify()
                            return
                        turn = self._schedule.turn
                        break
                outbox.blocked = True
                alarm.wait(self._schedule.grace)
                outbox.blocked = False
            if turn is not None:
                self._execute(turn)
                outbox.put_ended_at = time.monotonic()
                if outbox.error is not None:
                    raise outbox.error.with_traceback(None)
        except BaseException:
            outbox.blocked = False
            self._repair(outbox, caller)
            raise

    def flush(self, outbox: Outbox, timeout: float | None = None) -> None:
        """Wait until everything handed over is stored. Raises the outbox's error, or StoreUnavailableError
        after `timeout` seconds (without one: when the store stays away for the grace time)."""
        deadline = None if timeout is None else time.monotonic() + timeout
        alarm = Alarm()
        while True:
            with self._lock:
                if not (outbox.pending or outbox.in_flight):
                    if outbox.error is not None:
                        raise outbox.error.with_traceback(None)
                    return
                now = time.monotonic()
                left = self._schedule.grace if deadline is None else deadline - now
                if left <= 0:
                    raise StoreUnavailableError(f"stream {outbox.lease.stream_id} could not be stored in time")
                self._schedule.repair(outbox, None, now)  # whatever was broken off before
                self._work.notify()
                outbox.room.expect(alarm)
            alarm.wait(left)

    def refuse(self, outbox: Outbox, error: ResumableStreamError) -> None:
        """Take no further chunks: `put` raises `error`. What was handed over before is still written."""
        with self._lock:
            outbox.refusal = outbox.refusal or error
            outbox.room.wake_all()

    def check(self, outbox: Outbox) -> None:
        """Let the store say whether this stream may still be written. Does not wait for it."""
        self._heartbeat.ask(outbox.pulse)

    def close(self, outbox: Outbox) -> None:
        """Neither write nor renew for this outbox any more. Idempotent."""
        self._heartbeat.remove(outbox.pulse)
        try:
            with self._lock:
                self._schedule.remove(outbox)
                outbox.room.wake_all()
        except BaseException:
            self._repair(outbox)
            raise

    def outboxes(self, stream_id: str) -> list[Outbox]:
        """Those open for a stream: several while a producer of an earlier life has not yet learned of its end."""
        with self._lock:
            return [outbox for outbox in self._schedule.outboxes if outbox.lease.stream_id == stream_id]

    def tell(self, stream_id: str, ended: Collection[Outbox], error: ResumableStreamError) -> None:
        """Stop the outboxes `ended` with `error`, and let the store say what the stream's others are to do."""
        for outbox in self.outboxes(stream_id):
            if outbox in ended:
                self._stop(outbox, error)
            else:
                self._heartbeat.ask(outbox.pulse)

    def _stop(self, outbox: Outbox, error: ResumableStreamError) -> None:
        """The stream is not this producer's any more."""
        try:
            with self._lock:
                stopped = self._schedule.stop(outbox, error)
                if outbox.pulse.abandoned:  # nobody is left who would close it
                    self._schedule.remove(outbox)
                outbox.room.wake_all()
            if stopped:
                outbox.on_stop()
        except BaseException:
            self._repair(outbox)
            raise

    def _repair(self, outbox: Outbox, caller: object = None) -> None:
        """What a call that was broken off by an exception has left."""
        with self._lock:
            stopped = self._schedule.repair(outbox, caller, time.monotonic())
            outbox.room.wake_all()
            self._work.notify()
        for each in stopped:
            each.on_stop()

    def _run(self) -> None:
        """The thread. It goes on after any exception; the turn was given back by `_execute` then."""
        while True:
            try:
                with self._lock:
                    turn = self._schedule.next_turn(time.monotonic())
                    if turn is None:
                        self._thread = None
                        return
                    if not isinstance(turn, Turn):
                        self._work.wait(turn)
                        continue
                    for outbox in turn.writes:
                        outbox.room.wake_all()  # what was pending is in flight now
                self._execute(turn)
            except BaseException:
                with contextlib.suppress(BaseException):  # logging may be what failed
                    logger.exception(
                        "the committer of %r goes on after an unexpected error",
                        self._store,
                        extra=about("store-fault"),
                    )
                time.sleep(_RETRY_SECONDS[0])  # an error that comes again and again must not keep a core busy

    def _execute(self, turn: Turn) -> None:
        """Call the store for a turn, record what came of it, and give the turn back, whatever happens."""
        stopped: list[Outbox] = []
        results: Sequence[str | ResumableStreamError] = ()
        try:
            results = self._append(turn.writes)
        finally:
            with self._lock:
                now = time.monotonic()
                try:
                    stopped += self._schedule.record_appends(turn.writes, results, now)
                finally:
                    stopped += self._schedule.end_turn(now)  # what was not recorded was broken off
                    for outbox in turn.writes:
                        outbox.room.wake_all()
                    if self._schedule.queue:
                        self._work.notify()
            for outbox in stopped:
                outbox.on_stop()

    def _append(self, writes: Sequence[Outbox]) -> Sequence[str | ResumableStreamError]:
        try:
            batches, noted = [], False
            for outbox in writes:
                batches.append((outbox.lease, outbox.in_flight))
                noted = noted or bool(outbox.in_flight_notes)
            keeper = shared_store(self._store) if noted else None
            if keeper is not None:
                return keeper.append_many(batches, [outbox.in_flight_notes for outbox in writes])
            return self._store.append_many(batches)
        except ResumableStreamError as error:
            return [error] * len(writes)
        except Exception as error:  # a fault in a store must stop its streams, not this thread
            if was_thrown_in(error):
                raise  # the caller's, in whose thread it is
            logger.exception("append_many failed", extra=about("store-fault"))
            return [StoreUnavailableError(f"the store failed: {error!r}", transient=False)] * len(writes)


class _Registry:
    """This process's committers, keyed by the identity of their stores, which need not be hashable, and by route.

    A committer keeps its store, so while it is here no other object has that id. It is kept by whoever has an
    outbox open and by its thread, and goes a few seconds after the last of them.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()  # guards committers and endings
        self.endings = 0  # calls of `end_and_tell` that have ended a stream, or tried to
        self.committers: weakref.WeakValueDictionary[tuple[int, str], Committer] = weakref.WeakValueDictionary()

    def of(self, store: Store) -> list[Committer]:
        """The committers of `store`, of all its routes."""
        with self.lock:
            return [committer for (key, _), committer in self.committers.items() if key == id(store)]


_registries = PerProcess(_Registry)


def committer_for(store: Store, stream_id: str) -> Committer:
    """This process's committer for new producers of this stream; all contexts of one store share it."""
    route = store.route(stream_id) if isinstance(store, Routed) else ""
    registry = _registries.get()
    with registry.lock:
        committer = registry.committers.get((id(store), route))
        if committer is None:
            committer = registry.committers[id(store), route] = Committer(store, route)
        return committer


def endings() -> int:
    """Grows with each `end_and_tell` of this process, once that has ended its stream and before it tells.

    Where it has grown from before a lease was acquired to after its outbox was opened, the stream may have been
    ended in between, and its outbox not have been there to be told: `check` it.
    """
    return _registries.get().endings


def end_and_tell(store: Store, stream_id: str, end: Callable[[str], bool], error: ResumableStreamError) -> bool:
    """Call `end` (the store's `cancel` or `delete`) and tell this process's producers of the stream at once.

    Returns what `end` returned. If that is True, the producers are told `error` without asking the store. It can
    only be true of them: an outbox that was open before the call has a lease of the life that was ended, or of
    an earlier one. An outbox that was opened meanwhile may be of a new life of the id, begun after a delete: its
    lease is renewed at once, so that it learns from the store. The same if `end` returned False: the stream is
    missing or has another ending, and the store knows which.
    """
    registry = _registries.get()
    # A slot of a Cluster may have moved, so the stream's present route is not the only one to look at.
    before = [outbox for committer in registry.of(store) for outbox in committer.outboxes(stream_id)]
    ended = end(stream_id)
    with registry.lock:
        registry.endings += 1
    for committer in registry.of(store):  # an earlier one may have gone, a first one come
        committer.tell(stream_id, before if ended else [], error)
    return ended
