"""Group commit and heartbeat: one thread per store and process writes for all streams produced there.

Theory of operation. Keep it true when you change something below.

There are two halves. `Schedule` is the state and every decision about it: its methods are called under the
committer's lock, and none of them waits, calls a store, reads a clock or notifies anybody. They are given the
time and say what is to be done. `Committer` does it: it holds the lock, the thread and the store, and calls the
store only while it does not hold the lock.

An outbox is in one of three places:

    IDLE      nothing of it waits
    QUEUED    it has chunks, and stands once in the queue
    WRITING   its `in_flight` is part of the turn

      chunk of a fast source               next_round
    IDLE ---------------------> QUEUED ---------------------> WRITING      and back from WRITING
      '-------------------------------------------------------^   to IDLE    all is stored, or it was stopped
      chunk of a slow source, nothing else to do (direct append)  to QUEUED  more has come, or the store was away

Chunks that come while it is WRITING gather in `pending`, so the next round is as large as the last one was slow:
an idle stream pays one append, a busy process shares them. Apart from its place an outbox is open, or refuses
new chunks (`refusal`: the context closes, what was handed over is still written), or was stopped (`error`:
nothing more is written). It never becomes open again.

There is one turn. Whoever holds it - the thread with a round, or a producer's thread with a direct append - is
alone in calling the store, so a lease is used by one thread at a time, and `in_flight` changes only with it.
A direct append saves the hand-over to the thread, which costs more than the append of a chunk. So it must not
cost others their turn: it is made only while nothing is queued and no renewal is due. The thread that waits for
the turn is therefore next, and a source that is always ready cannot starve the heartbeat of the silent ones.

Interleavings that were thought of:

- A chunk is put while a turn is under way: it is queued, and the end of the turn wakes the thread.
- The reply to an append is lost, or the append is broken off by an exception from outside: `in_flight` is kept
  and appended again, unchanged; the store recognises it (G3). Where the lease has advanced, it was stored:
  stores advance it last.
- The thread meets an exception that nobody planned (MemoryError, a logging handler that raises): `end_turn`
  treats what was not recorded as broken off, and the thread goes on. So no turn is held for good.
- A stream is stopped while its append is under way: `error` is set at once, so that nothing more is put. What the
  append stored is still acknowledged, and `flush` waits for it: the ending must not overtake it.
- A renewal is asked for while an append is under way. That append may be older than the reason, so its success
  does not put the renewal off.
- An outbox is closed while it is QUEUED: it leaves the queue. While it is WRITING, its result is recorded
  and nothing follows.
- The thread ends for want of streams while one is opened: both happen under the lock, in one order or the other.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import math
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from .contract import Lease, Store
from .errors import ResumableStreamError, StoreUnavailableError
from .process import PerProcess, start_thread

logger = logging.getLogger("resumable_sync")

MAX_PENDING_CHUNKS = 4096
"""Chunks of one stream that may wait to be stored, whatever their size."""

MAX_PENDING_BYTES = 256 * 1024
"""Bytes of one stream that may wait to be stored, unless `Committer.open` is told otherwise."""

_ROUND_BYTES = 4 * 1024 * 1024  # of one append_many; the rest takes the next round
_IDLE_SECONDS = 5.0  # without any stream before the thread ends
_SLOW_SOURCE_SECONDS = 0.001  # from the end of one put to the next: such a source may store a chunk itself
_EARLY = 0.2  # of its interval, by which a lease may be renewed too early, together with one that is due
_RETRY_SECONDS = (0.05, 1.0)  # first and longest pause while the store is unavailable


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


class Outbox:
    """What one producer has made and the store has not acknowledged yet. Made by `Committer.open`.

    Guarded by the committer's lock, but for `acknowledged`, a deque, and `put_ended_at`, which only the producer's
    thread uses.
    """

    def __init__(
        self,
        lease: Lease,
        interval: float,
        max_pending_bytes: int,
        on_stop: Callable[[], None],
        room: threading.Condition,
    ) -> None:
        self.lease = lease
        self.interval = interval  # seconds from one sign of life to the next
        self.max_pending_bytes = max_pending_bytes
        self.on_stop = on_stop
        self.room = room  # notified when there is more room, less in flight, or an error
        self.place = Place.IDLE
        self.pending: list[bytes] = []  # for the next round
        self.pending_bytes = 0
        self.in_flight: list[bytes] = (
            []
        )  # kept as it is until its fate is known: only the very same can be repeated
        self.begin = 0  # the lease's offset before `in_flight`
        self.acknowledged: deque[int] = deque()  # lengths of stored chunks, until the producer reports them
        self.error: ResumableStreamError | None = None  # why it was stopped
        self.refusal: ResumableStreamError | None = None  # why no more chunks are taken
        self.put_ended_at = -math.inf
        self.renew_at = math.inf
        self.renewal_asked = False  # by `ask_renewal`, and not made yet
        self.unavailable_since: float | None = None


class Round(NamedTuple):
    """One turn: the outboxes whose `in_flight` is to be appended, and those whose leases are to be renewed."""

    writes: list[Outbox]
    renewals: list[Outbox]


class Schedule:
    """The committer's state and its decisions. Called under the committer's lock; pure but for that state."""

    def __init__(self, grace: float) -> None:
        self.grace = grace
        self.outboxes: set[Outbox] = set()
        self.queue: deque[Outbox] = deque()
        self.turn: Round | None = None  # what is being written and renewed now
        self.next_renewal = math.inf  # no later than any outbox's `renew_at`
        self.retry_at = -math.inf  # before this nothing is taken from the queue
        self.retry_pause = _RETRY_SECONDS[0]
        self.idle_since: float | None = None

    def add(self, outbox: Outbox, now: float) -> None:
        """Renew for this outbox from now on."""
        self.outboxes.add(outbox)
        self.idle_since = None
        self._renew_at(outbox, now + outbox.interval)

    def remove(self, outbox: Outbox) -> None:
        """Neither write nor renew for this outbox any more."""
        self.outboxes.discard(outbox)
        self._drop_chunks(outbox)

    def offer(self, outbox: Outbox, chunk: bytes, now: float, slow: bool) -> Offer:
        """Take a chunk if there is room, and say who stores it. Raises the outbox's error or refusal."""
        stopped = outbox.error or outbox.refusal
        if stopped is not None:
            raise stopped
        size = outbox.pending_bytes + len(chunk)
        if outbox.pending and (size > outbox.max_pending_bytes or len(outbox.pending) >= MAX_PENDING_CHUNKS):
            return Offer.FULL  # a chunk that is larger than the bound goes alone
        if slow and outbox.place is Place.IDLE and self.turn is None and not self.has_work(now):
            outbox.in_flight = [chunk]
            self.turn = Round([outbox], [])
            self._begin_writing(outbox)
            return Offer.DIRECT
        outbox.pending.append(chunk)
        outbox.pending_bytes = size
        if outbox.place is not Place.IDLE:
            return Offer.QUEUED
        self._enqueue(outbox)
        return Offer.WAKE if self.turn is None and len(self.queue) == 1 else Offer.QUEUED

    def has_work(self, now: float) -> bool:
        """Whether the thread has something to do, or waits to be allowed to: then no direct append is made."""
        return bool(self.queue) or now >= self.next_renewal

    def next_round(self, now: float) -> Round | float | None:
        """What the thread does next: a round, whose turn begins; seconds to wait for one; None: it ends."""
        if not self.outboxes:
            if self.idle_since is None:
                self.idle_since = now
            left = self.idle_since + _IDLE_SECONDS - now
            return left if left > 0 else None
        if self.turn is None:
            turn = Round(self._take_queued(now), self._take_due(now))
            if turn.writes or turn.renewals:
                self.turn = turn
                return turn
        due = min(self.next_renewal, self.retry_at if self.queue else math.inf)
        # What is due already waits for the turn, whose end wakes the thread. No wait is unbounded.
        return min(due - now, _IDLE_SECONDS) if due > now else _IDLE_SECONDS

    def record_appends(
        self, writes: Sequence[Outbox], results: Sequence[str | ResumableStreamError], now: float
    ) -> list[Outbox]:
        """Record what `append_many` returned. Gives those that this stopped, whose `on_stop` is to be called."""
        stopped, away = [], False
        for outbox, result in zip(writes, results):
            outbox.place = Place.IDLE
            if isinstance(result, str):
                self._record_stored(outbox, now)
                self.retry_at, self.retry_pause = -math.inf, _RETRY_SECONDS[0]
            elif self._may_retry(outbox, result, now):
                self._enqueue(outbox)
                away = True
            elif self.stop(outbox, result):
                stopped.append(outbox)
        if away:
            self.retry_at = now + self.retry_pause
            self.retry_pause = min(self.retry_pause * 2, _RETRY_SECONDS[1])
        return stopped

    def record_renewals(
        self, renewals: Sequence[Outbox], results: Sequence[ResumableStreamError | None], now: float
    ) -> list[Outbox]:
        """Record what `renew` returned. Gives those that this stopped, whose `on_stop` is to be called."""
        stopped = []
        if self.turn is not None:
            self.turn = Round(self.turn.writes, [])
        for outbox, result in zip(renewals, results):
            if isinstance(result, StoreUnavailableError) and result.transient:
                self._renew_soon(outbox, now)
            elif result is not None and self.stop(outbox, result):
                stopped.append(outbox)
        return stopped

    def end_turn(self, now: float) -> list[Outbox]:
        """Give the turn back. What was not recorded was broken off. Gives those that this stopped."""
        turn, self.turn = self.turn, None
        if turn is None:
            return []
        for outbox in turn.renewals:
            self._renew_soon(outbox, now)
        broken_off = [outbox for outbox in turn.writes if outbox.place is Place.WRITING]
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

    def ask_renewal(self, outbox: Outbox, now: float) -> None:
        """Renew this lease next."""
        outbox.renewal_asked = True
        self._renew_at(outbox, now)

    def _enqueue(self, outbox: Outbox) -> None:
        outbox.place = Place.QUEUED
        self.queue.append(outbox)

    def _drop_chunks(self, outbox: Outbox) -> None:
        outbox.pending, outbox.pending_bytes = [], 0
        if outbox.place is Place.QUEUED:
            self.queue.remove(outbox)
            outbox.place = Place.IDLE
        if outbox.place is Place.IDLE:
            outbox.in_flight = []

    def _begin_writing(self, outbox: Outbox) -> None:
        outbox.place = Place.WRITING
        outbox.begin = outbox.lease.offset

    def _take_queued(self, now: float) -> list[Outbox]:
        taken: list[Outbox] = []
        total = 0
        while self.queue and total < _ROUND_BYTES and now >= self.retry_at:
            outbox = self.queue.popleft()
            if not outbox.in_flight:
                outbox.in_flight, outbox.pending, outbox.pending_bytes = outbox.pending, [], 0
            total += sum(map(len, outbox.in_flight))
            self._begin_writing(outbox)
            taken.append(outbox)
        return taken

    def _take_due(self, now: float) -> list[Outbox]:
        """Those whose leases are due, and those nearly due, for one call of the store. An append renews too."""
        if now < self.next_renewal:
            return []
        due = []
        self.next_renewal = math.inf
        for outbox in self.outboxes:
            if outbox.error is not None:
                continue
            if outbox.renewal_asked or outbox.renew_at <= now + outbox.interval * _EARLY:
                outbox.renewal_asked = False
                outbox.renew_at = now + outbox.interval
                if outbox.place is not Place.WRITING:
                    due.append(outbox)
            self.next_renewal = min(self.next_renewal, outbox.renew_at)
        return due

    def _renew_at(self, outbox: Outbox, at: float) -> None:
        outbox.renew_at = at
        self.next_renewal = min(self.next_renewal, at)

    def _renew_soon(self, outbox: Outbox, now: float) -> None:
        """Sooner than the next heartbeat: the lease is running out."""
        self._renew_at(outbox, now + min(outbox.interval, _RETRY_SECONDS[1]))

    def _record_stored(self, outbox: Outbox, now: float) -> None:
        outbox.acknowledged.extend(map(len, outbox.in_flight))
        outbox.in_flight = []
        outbox.unavailable_since = None
        if not outbox.renewal_asked:
            outbox.renew_at = now + outbox.interval
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
    """Carries out what its `Schedule` decides. Thread-safe.

    `_lock` guards the schedule, its outboxes and `_thread`; the store and `on_stop` are called without it.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)  # notified when the thread has something to do sooner
        self._schedule = Schedule(store.grace)
        self._thread: threading.Thread | None = None

    def open(
        self,
        lease: Lease,
        heartbeat: float,
        on_stop: Callable[[], None],
        max_pending_bytes: int = MAX_PENDING_BYTES,
    ) -> Outbox:
        """Begin to write and to renew for `lease`, every `heartbeat` seconds or as often as lease and ttl need it.

        `on_stop` is called once, without locks, when the store refuses the lease or `tell` stops it. `put` waits
        while more than `max_pending_bytes` are not stored yet. StoreUnavailableError if no thread can be started.
        """
        interval = min(heartbeat, self._schedule.grace / 3, lease.ttl / 3)
        outbox = Outbox(lease, interval, max_pending_bytes, on_stop, threading.Condition(self._lock))
        with self._lock:
            if self._thread is None:
                # May fail, then nothing is renewed for a producer that there is not.
                self._thread = start_thread(self._run, "resumable-sync-committer")
            self._schedule.add(outbox, time.monotonic())
            self._work.notify()
        return outbox

    def put(self, outbox: Outbox, chunk: bytes) -> None:
        """Hand over a chunk; waits while too much is pending. Raises the outbox's error if it was stopped."""
        with self._lock:
            now = time.monotonic()
            # Measured from the end of the last put: how long the store takes says nothing about the source.
            slow = now - outbox.put_ended_at >= _SLOW_SOURCE_SECONDS
            while (offer := self._schedule.offer(outbox, chunk, now, slow)) is Offer.FULL:
                outbox.room.wait(self._schedule.grace)
                now = time.monotonic()
            if offer is Offer.WAKE:
                self._work.notify()
            outbox.put_ended_at = now
            turn = self._schedule.turn
        if offer is Offer.DIRECT and turn is not None:
            self._execute(turn)
            outbox.put_ended_at = time.monotonic()
            if outbox.error is not None:
                raise outbox.error

    def flush(self, outbox: Outbox, timeout: float | None = None) -> None:
        """Wait until everything handed over is stored. Raises the outbox's error, or StoreUnavailableError
        after `timeout` seconds (without one: when the store stays away for the grace time)."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._lock:
            while outbox.pending or outbox.in_flight:
                left = self._schedule.grace if deadline is None else deadline - time.monotonic()
                if left <= 0:
                    raise StoreUnavailableError(f"stream {outbox.lease.stream_id} could not be stored in time")
                outbox.room.wait(left)
            if outbox.error is not None:
                raise outbox.error

    def refuse(self, outbox: Outbox, error: ResumableStreamError) -> None:
        """Take no further chunks: `put` raises `error`. What was handed over before is still written."""
        with self._lock:
            outbox.refusal = outbox.refusal or error
            outbox.room.notify_all()

    def close(self, outbox: Outbox) -> None:
        """Neither write nor renew for this outbox any more. Idempotent."""
        with self._lock:
            self._schedule.remove(outbox)
            outbox.room.notify_all()

    def outboxes(self, stream_id: str) -> list[Outbox]:
        """Those open for a stream: several while a producer of an earlier life has not yet learned of its end."""
        with self._lock:
            return [outbox for outbox in self._schedule.outboxes if outbox.lease.stream_id == stream_id]

    def tell(self, stream_id: str, ended: Collection[Outbox], error: ResumableStreamError) -> None:
        """Stop the outboxes `ended` with `error`, and let the store say what the stream's others are to do."""
        stopped = []
        with self._lock:
            now = time.monotonic()
            for outbox in self._schedule.outboxes:
                if outbox.lease.stream_id != stream_id:
                    continue
                if outbox not in ended:
                    self._schedule.ask_renewal(outbox, now)
                elif self._schedule.stop(outbox, error):
                    stopped.append(outbox)
                    outbox.room.notify_all()
            if self._schedule.has_work(now):
                self._work.notify()
        for outbox in stopped:
            outbox.on_stop()

    def _run(self) -> None:
        """The thread. It goes on after any exception; the turn was given back by `_execute` then."""
        while True:
            try:
                with self._lock:
                    turn = self._schedule.next_round(time.monotonic())
                    if turn is None:
                        self._thread = None
                        return
                    if not isinstance(turn, Round):
                        self._work.wait(turn)
                        continue
                self._execute(turn)
            except BaseException:
                with contextlib.suppress(BaseException):  # logging may be what failed
                    logger.exception("the committer of %r goes on after an unexpected error", self._store)
                time.sleep(_RETRY_SECONDS[0])  # an error that comes again and again must not keep a core busy

    def _execute(self, turn: Round) -> None:
        """Call the store for a turn, record what came of it, and give the turn back, whatever happens."""
        stopped: list[Outbox] = []
        try:
            with self._lock:
                _notify_room(turn.writes)  # what was pending is in flight now
            if turn.writes:
                cursors = self._append(turn.writes)
                with self._lock:
                    stopped += self._schedule.record_appends(turn.writes, cursors, time.monotonic())
                    _notify_room(turn.writes)
            if turn.renewals:
                refusals = self._renew(turn.renewals)
                with self._lock:
                    stopped += self._schedule.record_renewals(turn.renewals, refusals, time.monotonic())
        finally:
            with self._lock:
                now = time.monotonic()
                stopped += self._schedule.end_turn(now)
                _notify_room([*turn.writes, *stopped])
                if self._schedule.has_work(now):
                    self._work.notify()
            for outbox in stopped:
                outbox.on_stop()

    def _append(self, writes: Sequence[Outbox]) -> Sequence[str | ResumableStreamError]:
        try:
            return self._store.append_many([(outbox.lease, outbox.in_flight) for outbox in writes])
        except ResumableStreamError as error:
            return [error] * len(writes)
        except Exception as error:  # a fault in a store must stop its streams, not this thread
            logger.exception("append_many failed")
            return [StoreUnavailableError(f"the store failed: {error!r}", transient=False)] * len(writes)

    def _renew(self, renewals: Sequence[Outbox]) -> Sequence[ResumableStreamError | None]:
        try:
            return self._store.renew([outbox.lease for outbox in renewals])
        except ResumableStreamError as error:
            return [error] * len(renewals)
        except Exception as error:  # its streams' next append will tell whether the fault stays
            logger.exception("renew failed")
            return [StoreUnavailableError(f"the store failed: {error!r}")] * len(renewals)


def _notify_room(outboxes: Sequence[Outbox]) -> None:
    """Wake those that wait in `put` and `flush`. Called with the lock held."""
    for outbox in outboxes:
        outbox.room.notify_all()


class _Registry:
    """This process's committers, keyed by the identity of their stores, which need not be hashable.

    A committer keeps its store, so while it is here no other object has that id. It is kept by whoever has an
    outbox open and by its thread, and goes a few seconds after the last of them.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()  # guards committers
        self.committers: weakref.WeakValueDictionary[int, Committer] = weakref.WeakValueDictionary()

    def find(self, store: Store) -> Committer | None:
        """The committer of `store` if there is one."""
        with self.lock:
            return self.committers.get(id(store))


_registries = PerProcess(_Registry)


def committer_for(store: Store) -> Committer:
    """This process's committer of `store`; all contexts of one store share it."""
    registry = _registries.get()
    with registry.lock:
        committer = registry.committers.get(id(store))
        if committer is None:
            committer = registry.committers[id(store)] = Committer(store)
        return committer


def end_and_tell(store: Store, stream_id: str, end: Callable[[str], bool], error: ResumableStreamError) -> bool:
    """Call `end` (the store's `cancel` or `delete`) and tell this process's producers of the stream at once.

    Returns what `end` returned. If that is True, the producers are told `error` without asking the store. It can
    only be true of them: an outbox that was open before the call has a lease of the life that was ended, or of
    an earlier one. An outbox that was opened meanwhile may be of a new life of the id, begun after a delete; it is
    not stopped but renewed, and the store tells. The same if `end` returned False: the stream is missing or
    has another ending, and the store knows which.
    """
    registry = _registries.get()
    committer = registry.find(store)
    before = committer.outboxes(stream_id) if committer is not None else []
    ended = end(stream_id)
    committer = registry.find(store)  # an earlier one may have gone, a first one come
    if committer is not None:
        committer.tell(stream_id, before if ended else [], error)
    return ended
