"""Group commit and heartbeat: one thread per store and process writes for all streams produced there."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable

from .contract import Lease, Store
from .errors import ResumableStreamError, StoreUnavailableError
from .process import PerProcess

logger = logging.getLogger("resumable_sync")

MAX_PENDING_CHUNKS = 4096
"""Chunks of one stream that may wait to be stored, whatever their size."""

_ROUND_BYTES = 4 * 1024 * 1024  # of one append_many; the rest takes the next round
_IDLE_SECONDS = 5.0  # without any stream before the thread ends
_SLOW_SOURCE_SECONDS = 0.001  # between chunks: such a source may store one itself when nobody else writes
_EARLY = 0.2  # of its interval, by which a lease may be renewed too early, together with one that is due
_RETRY_SECONDS = (0.05, 1.0)  # first and longest pause while the store is unavailable


class Outbox:
    """What one producer has made and the store has not acknowledged yet. Made by `Committer.open`.

    Every field is guarded by the committer's lock. `pending` waits for the next round; `in_flight` is the
    batch of the present round, kept as it is until its fate is known, because only the very same append
    can be repeated safely (G3).
    """

    def __init__(self, lease: Lease, interval: float, lock: threading.Lock, on_stop: Callable[[], None]) -> None:
        self.lease = lease
        self.interval = interval  # seconds from one sign of life to the next
        self.on_stop = on_stop
        self.room = threading.Condition(lock)  # signalled when there is more room, less in flight, or an error
        self.pending: list[bytes] = []
        self.pending_bytes = 0
        self.in_flight: list[bytes] = []
        self.acknowledged: deque[int] = deque()  # lengths of stored chunks, until the producer reports them
        self.error: ResumableStreamError | None = None  # why the store refused: nothing more is written
        self.refusal: ResumableStreamError | None = None  # why no more chunks are taken: shutdown
        self.put_at = 0.0  # when the last chunk came
        self.queued = False  # in the committer's queue or in its present round
        self.renew_at = time.monotonic() + interval
        self.unavailable_since: float | None = None


class Committer:
    """Stores what all outboxes hold, as few and as large appends as the store's speed makes of them.

    While one round is written the next gathers, so an idle stream pays one append and a busy process shares
    them. A chunk of a slow source that comes while nothing is being written is stored by its own thread:
    handing it over would cost more than the append. One thread at a time writes (`_writing`), so a lease is
    used by one. Between rounds the committer's thread renews the leases of silent producers and learns which
    of them were stopped. While the store is unavailable, batches are kept and retried until the grace time
    has passed.
    Thread-safe. `_lock` guards all fields and those of the outboxes; no store is called while it is held.
    """

    def __init__(self, store: Store, max_pending_bytes: int) -> None:
        self._store = weakref.ref(store)  # the registry below is keyed by the store and must not keep it
        self._grace = store.grace
        self._max_pending_bytes = max_pending_bytes
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._queue: deque[Outbox] = deque()
        self._outboxes: set[Outbox] = set()
        self._thread: threading.Thread | None = None
        self._writing = False  # a round or a direct append is under way
        self._awaiting_turn = False  # the thread has work and waits for a direct append to end
        self._next_renewal = 0.0
        self._retry_at = 0.0
        self._retry_pause = _RETRY_SECONDS[0]

    def open(self, lease: Lease, interval: float, on_stop: Callable[[], None]) -> Outbox:
        """Begin to write and to renew for `lease`. `on_stop` is called, without locks, once it is refused.
        RuntimeError if no thread can be started."""
        outbox = Outbox(lease, interval, self._lock, on_stop)
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="resumable-sync-committer", daemon=True)
                thread.start()  # may fail, then nothing is renewed for a producer that there is not
                self._thread = thread
            self._outboxes.add(outbox)
            self._next_renewal = min(self._next_renewal, outbox.renew_at)
            self._work.notify()
        return outbox

    def put(self, outbox: Outbox, chunk: bytes) -> None:
        """Hand over a chunk; waits while too much is pending. Raises the outbox's error if it was stopped."""
        with self._lock:
            now = time.monotonic()
            slow, outbox.put_at = now - outbox.put_at >= _SLOW_SOURCE_SECONDS, now
            while True:
                stopped = outbox.error or outbox.refusal
                if stopped is not None:
                    raise stopped
                if not outbox.pending or (
                    outbox.pending_bytes + len(chunk) <= self._max_pending_bytes
                    and len(outbox.pending) < MAX_PENDING_CHUNKS
                ):
                    break
                outbox.room.wait(self._grace)
            direct = slow and not (self._writing or self._queue or outbox.queued)
            if not direct:
                outbox.pending.append(chunk)
                outbox.pending_bytes += len(chunk)
                self._enqueue(outbox)
                return
            self._writing = outbox.queued = True
            outbox.in_flight = [chunk]
            before = outbox.lease.offset
        try:
            refused = self._write([outbox])
        except BaseException:  # thrown in from outside, such as gevent's Timeout round a source
            with self._lock:
                self._take_over(outbox, before)
            raise
        finally:
            with self._lock:
                self._writing = False
                if self._queue or self._awaiting_turn:
                    self._work.notify()
        if refused:
            outbox.on_stop()
        if outbox.error is not None:
            raise outbox.error

    def flush(self, outbox: Outbox, timeout: float | None = None) -> None:
        """Wait until everything handed over is stored. Raises the outbox's error, or StoreUnavailableError
        after `timeout` seconds (without one: when the store stays away for the grace time)."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._lock:
            while outbox.error is None and (outbox.pending or outbox.in_flight):
                left = self._grace if deadline is None else deadline - time.monotonic()
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

    def renew_now(self, matches: Callable[[Lease], bool]) -> None:
        """Renew the matching leases at once, so that a stopped producer learns of it without delay."""
        with self._lock:
            for outbox in self._outboxes:
                if matches(outbox.lease):
                    outbox.renew_at = self._next_renewal = 0.0
            self._work.notify()

    def close(self, outbox: Outbox) -> None:
        """No longer write or renew for this outbox."""
        with self._lock:
            self._outboxes.discard(outbox)

    # Called with the lock held.

    def _enqueue(self, outbox: Outbox) -> None:
        if not outbox.queued:
            outbox.queued = True
            self._queue.append(outbox)
            if len(self._queue) == 1:
                self._work.notify()

    def _fail(self, outbox: Outbox, error: ResumableStreamError) -> None:
        outbox.error = error
        outbox.room.notify_all()

    def _take_round(self) -> list[Outbox] | None:
        """Wait for something to do; return the outboxes to write, possibly none (then leases are due).
        None ends the thread."""
        while True:
            now = time.monotonic()
            if self._writing:
                self._awaiting_turn = True
                self._work.wait(self._grace)
                self._awaiting_turn = False
            elif self._queue and now >= self._retry_at:
                taken, total = [], 0
                while self._queue and total < _ROUND_BYTES:
                    outbox = self._queue.popleft()
                    if not outbox.in_flight:
                        outbox.in_flight, outbox.pending = outbox.pending, []
                        outbox.pending_bytes = 0
                        outbox.room.notify_all()
                    total += sum(map(len, outbox.in_flight))
                    taken.append(outbox)
                return taken
            elif self._outboxes:
                if now >= self._next_renewal:
                    return []
                wait = self._next_renewal - now
                if self._queue:
                    wait = min(wait, self._retry_at - now)
                self._work.wait(wait)
            elif not self._work.wait(_IDLE_SECONDS) and not self._outboxes and not self._queue:
                self._thread = None
                return None

    def _take_due(self) -> list[Outbox]:
        now = time.monotonic()
        if now < self._next_renewal:
            return []
        due = []
        self._next_renewal = now + 3600.0
        for outbox in self._outboxes:
            if outbox.error is not None:
                continue
            if outbox.renew_at <= now + outbox.interval * _EARLY:
                outbox.renew_at = now + outbox.interval
                due.append(outbox)
            self._next_renewal = min(self._next_renewal, outbox.renew_at)
        return due

    def _settle(self, outbox: Outbox, result: str | ResumableStreamError) -> bool:
        """Book the result of one outbox's append. True if this stopped the outbox."""
        outbox.queued = False
        now = time.monotonic()
        if isinstance(result, str):
            outbox.acknowledged.extend(map(len, outbox.in_flight))
            outbox.in_flight = []
            outbox.unavailable_since = None
            if outbox.renew_at > 0.0:  # else it was asked for meanwhile, and this append may be older than why
                outbox.renew_at = now + outbox.interval
            outbox.room.notify_all()
            if outbox.pending:
                self._enqueue(outbox)
            return False
        if isinstance(result, StoreUnavailableError) and result.transient and outbox in self._outboxes:
            if outbox.unavailable_since is None:
                outbox.unavailable_since = now
            if now - outbox.unavailable_since < self._grace:
                self._retry_at = now + self._retry_pause
                self._retry_pause = min(self._retry_pause * 2, _RETRY_SECONDS[1])
                self._enqueue(outbox)
                return False
        outbox.in_flight, outbox.pending, outbox.pending_bytes = [], [], 0
        stopped = outbox.error is None
        self._fail(outbox, result)
        return stopped

    def _take_over(self, outbox: Outbox, before: int) -> None:
        """A direct append that began at offset `before` was broken off: the thread sees to its end."""
        if outbox.in_flight and outbox.lease.offset > before:
            self._settle(outbox, outbox.lease.cursor)  # a store advances the lease last
        elif outbox.in_flight:
            outbox.queued = False
            self._enqueue(outbox)

    # Called without the lock.

    def _run(self) -> None:
        while True:
            with self._lock:
                taken = self._take_round()
                if taken is None:
                    return
                due = self._take_due()
                self._writing = True
            stopped = self._write(taken) + self._renew([outbox for outbox in due if outbox not in taken])
            with self._lock:
                self._writing = False
            for outbox in stopped:
                outbox.on_stop()

    def _write(self, taken: list[Outbox]) -> list[Outbox]:
        if not taken:
            return []
        store = self._store()
        batches = [(outbox.lease, outbox.in_flight) for outbox in taken]
        results: list[str | ResumableStreamError]
        try:
            if store is None:
                raise StoreUnavailableError("the store is gone", transient=False)
            results = list(store.append_many(batches))
        except ResumableStreamError as error:
            results = [error] * len(taken)
        except Exception as error:  # a fault in a store must stop its streams, not this thread
            logger.exception("append_many failed")
            results = [StoreUnavailableError(f"the store failed: {error!r}", transient=False)] * len(taken)
        with self._lock:
            if any(isinstance(result, str) for result in results):
                self._retry_at, self._retry_pause = 0.0, _RETRY_SECONDS[0]
            return [outbox for outbox, result in zip(taken, results) if self._settle(outbox, result)]

    def _renew(self, due: list[Outbox]) -> list[Outbox]:
        store = self._store()
        if not due or store is None:
            return []
        try:
            results = store.renew([outbox.lease for outbox in due])
        except ResumableStreamError as error:
            results = [error] * len(due)
        except Exception as error:
            logger.exception("renew failed")
            results = [StoreUnavailableError(f"the store failed: {error!r}")] * len(due)
        stopped = []
        with self._lock:
            for outbox, result in zip(due, results):
                if isinstance(result, StoreUnavailableError) and result.transient:
                    # Sooner than the next heartbeat: the lease is running out.
                    outbox.renew_at = time.monotonic() + min(outbox.interval, _RETRY_SECONDS[1])
                    self._next_renewal = min(self._next_renewal, outbox.renew_at)
                elif result is not None and outbox.error is None:
                    self._fail(outbox, result)
                    stopped.append(outbox)
        return stopped


class _Registry:
    def __init__(self) -> None:
        self.lock = threading.Lock()  # guards committers
        self.committers: weakref.WeakKeyDictionary[Store, Committer] = weakref.WeakKeyDictionary()


_registries = PerProcess(_Registry)


def committer_for(store: Store, max_pending_bytes: int) -> Committer:
    """This process's committer of `store`; contexts of one store share it, the first sets its bound."""
    registry = _registries.get()
    with registry.lock:
        committer = registry.committers.get(store)
        if committer is None:
            committer = registry.committers[store] = Committer(store, max_pending_bytes)
        return committer
