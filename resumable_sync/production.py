"""One stream that this process produces: what takes its chunks, and how it ends, exactly once."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
import weakref
from collections.abc import Callable, Mapping

from . import process
from .committer import committer_for
from .contract import Lease, Status, Store, shared_store, takeover_store
from .errors import (
    LeaseLostError,
    LimitExceededError,
    ProducerInterruptedError,
    ResumableStreamError,
    StoreUnavailableError,
    StreamFinalizedError,
    StreamLostError,
)
from .logs import about
from .process import start_thread
from .producer import Hooks, Producer, call_hook_in_thread
from .stats import Tally

logger = logging.getLogger("resumable_sync")

_RETRY_SECONDS = 0.2
SHUT_DOWN = "the producing process was shut down"


class Stopped(Exception):
    """The outbox takes no more chunks; why, `Committer.flush` says."""


class Production:
    """Takes the chunks of one stream, renews its lease, and ends it.

    `put`, `flush` and `end` are for whoever produces; `stop` and `interrupt` for whoever closes the context.
    Thread-safe: `_lock` guards `_ending_claimed`; `_idle_since` is one assignment at a time; `status` and
    `failure` are written by whoever claimed the ending, before `ended` is set.

    `owner`: held weakly. Once it is collected the lease is renewed no longer and `on_abandoned` is called, in a
    thread of the library. A child that is forked carries a copy of this: it touches nothing, since the stream is
    the parent's.

    With a handover, what would end the stream as `interrupted` lets go of it instead, for another producer to go
    on: `released` is True then, and there is no ending.
    """

    def __init__(
        self,
        store: Store,
        lease: Lease,
        hooks: Hooks,
        tally: Tally,
        *,
        heartbeat: float,
        max_pending_bytes: int,
        idle_timeout: float | None = None,
        owner: object = None,
        on_abandoned: Callable[[Production], object] | None = None,
    ) -> None:
        self.stream_id = lease.stream_id
        self.generation = lease.generation
        self.producer = Producer(lease, self._read_notes if shared_store(store) is not None else None)
        self.ended = self.producer.ended
        self.status: Status | None = None
        """The ending that is stored; None before, and where it could not be stored."""
        self.failure: BaseException | None = None
        """Why the stream is not done: what its source raised, or what the store refused with."""
        self.refusal: ProducerInterruptedError | None = None
        """What is raised for a chunk that comes after `stop`."""
        self.released = False
        """Whether the stream was let go of, without an ending."""
        self.has_handover = lease.handover > 0
        self.hooks = hooks
        self._store = store
        self._lease = lease
        self._tally = tally
        self._lock = threading.Lock()
        self._ending_claimed = False
        self._forks = process.forks
        self._max_chunk_bytes = store.max_chunk_bytes
        self._idle_timeout = idle_timeout
        self._idle_since: float | None = None  # monotonic: since when the next chunk is waited for
        self._owner = None if owner is None else weakref.ref(owner)
        self._on_abandoned = on_abandoned
        self._committer = committer_for(store, lease.stream_id)
        self._outbox = self._committer.open(
            lease,
            heartbeat,
            self._stopped,
            max_pending_bytes,
            owner=self._owner,
            figures=tally.figures(self._committer.route),
            reports=hooks.on_append is not None,
        )
        if idle_timeout is not None:
            try:
                start_thread(self._watch_idle, f"resumable-sync-idle-{self.stream_id}")
            except BaseException:
                self._committer.close(self._outbox)
                raise
        tally.count("elected" if lease.term == 1 else "taken-over")

    @property
    def unattended(self) -> bool:
        """Whether nobody is left who works on it."""
        return self._owner is not None and self._owner() is None

    @property
    def stopped(self) -> bool:
        """Whether nothing more is written: the stream was cancelled, replaced or lost."""
        return self._outbox.error is not None

    @property
    def stalled(self) -> bool:
        """Whether appends are being repeated because the store is away."""
        return self._outbox.unavailable_since is not None

    @property
    def blocked(self) -> bool:
        """Whether the source waits because too much of it is not stored yet."""
        return self._outbox.blocked

    def pending(self) -> tuple[int, int]:
        """Chunks and bytes that are not stored yet. Takes no lock: each is of this moment, more or less."""
        outbox = self._outbox
        in_flight = outbox.in_flight  # a list that nobody changes any more
        return len(outbox.pending) + len(in_flight), outbox.pending_bytes + sum(map(len, in_flight))

    @property
    def forked(self) -> bool:
        """Whether this is a child of the process that produces: the source has forked."""
        return process.forks != self._forks

    @property
    def parents(self) -> ProducerInterruptedError:
        """What a forked child is told."""
        return ProducerInterruptedError(f"stream {self.stream_id} stays the parent's: its producer has forked")

    def wait_for_chunk(self) -> None:
        """From now on the next chunk is waited for: `idle_timeout` counts."""
        self._idle_since = time.monotonic()

    def put(self, data: bytes) -> None:
        """Hand over a chunk; waits while too much is pending. Raises Stopped once the stream was stopped.

        One that is larger than the store's bound is split, never dropped. An empty one stores nothing, and is a
        point at which a source is stopped like any other.
        """
        if process.forks != self._forks or (not data and self.producer.cancelled.is_set()):
            raise Stopped
        self._idle_since = None
        outbox, size, producer = self._outbox, self._max_chunk_bytes, self.producer
        if producer._must_ask and data:
            raise RuntimeError(
                f"stream {self.stream_id} is continued, at offset {self._lease.offset}: its source must ask "
                "current_producer().offset and go on from there"
            )
        notes = producer._take_notes() if producer._notes and data else None
        try:
            if len(data) <= size:
                if data:
                    self._committer.put(outbox, data, notes)
            else:
                last = (len(data) - 1) // size * size
                for begin in range(0, last, size):
                    self._committer.put(outbox, data[begin : begin + size])
                self._committer.put(outbox, data[last:], notes)
        except ResumableStreamError as reason:
            raise Stopped from reason
        if self._idle_timeout is not None:
            self.wait_for_chunk()
        if outbox.acknowledged:
            self._report_appends()

    def flush(self) -> None:
        """Wait until all that was put is stored. Raises the error of the store, or why the stream was stopped."""
        if self.forked:
            raise self.parents
        self._committer.flush(self._outbox)
        self._report_appends()

    def check(self) -> None:
        """Ask the store at once whether the stream is still this producer's. Does not wait for it."""
        if not self.forked and not self.ended.is_set():
            self._committer.check(self._outbox)

    def stop(self) -> None:
        """Take no more chunks: the stream is to end as `interrupted`. Does not wait."""
        self.refusal = ProducerInterruptedError("the context was closed")
        self._committer.refuse(self._outbox, self.refusal)
        self.producer._cancel()

    def interrupt(self, timeout: float) -> None:
        """After `stop`: end the stream as `interrupted` even though its source does not return, within
        `timeout` seconds. What was handed over is stored first."""
        self.end(Status.INTERRUPTED, SHUT_DOWN, timeout=timeout)

    def end(
        self,
        status: Status,
        error: str | None = None,
        failure: BaseException | None = None,
        timeout: float | None = None,
    ) -> bool:
        """Store what is pending, then the ending, then call the hooks. Only the first call does it, and returns
        True. Raises nothing of the store's: see `status` and `failure`."""
        if not self._claim_ending(failure):
            return False
        self._finish(status, error, timeout)
        return True

    def abandon(self) -> None:
        """Where `end` was broken off: neither write nor renew any more, so that the lease runs out. Idempotent."""
        self._committer.close(self._outbox)
        self.producer._end()

    def report_failure(self, failure: BaseException, *, loud: bool = True) -> None:
        """Tell the application: its `on_error` hook, or else the log."""
        loud = loud and self.hooks.on_error is None
        with contextlib.suppress(Exception):  # of a logging handler: the hook is to be called all the same
            logger.log(
                logging.ERROR if loud else logging.INFO,
                "the source of stream %s failed",
                self.stream_id,
                exc_info=(type(failure), failure, failure.__traceback__),
                extra=about("source-failed", self.stream_id, self.generation),
            )
        call_hook_in_thread(self.hooks.on_error, self.stream_id, failure)

    def _stopped(self) -> None:
        """The outbox was stopped. Called without locks."""
        self.producer._cancel()
        if self.unattended:
            self.producer._end()  # the lease runs out
            self._tally.count("lost")
            if self._on_abandoned is not None:
                self._on_abandoned(self)

    def _watch_idle(self) -> None:
        """The thread of a stream with an idle timeout: ends it when its source has hung for that long."""
        timeout = self._idle_timeout or 0.0
        while True:
            since = self._idle_since
            left = timeout if since is None else since + timeout - time.monotonic()
            if left <= 0:
                break
            if self.ended.wait(left):
                return
        silence = TimeoutError(f"the source of stream {self.stream_id} made no chunk for {timeout:g} s")
        if self._claim_ending(silence):  # first: a source that is told may return at once, and would be faster
            try:
                self._committer.refuse(self._outbox, ProducerInterruptedError(str(silence)))
                self.report_failure(silence)
                self.producer._cancel()
            finally:
                self._finish(Status.ERROR, str(silence), None)

    def _claim_ending(self, failure: BaseException | None) -> bool:
        """True for the one call that is to end the stream."""
        if self.forked:
            return False
        with self._lock:
            if self._ending_claimed:
                return False
            self._ending_claimed = True
        self.failure = failure  # before anybody can read that the stream has ended
        return True

    def _finish(self, status: Status, error: str | None, timeout: float | None) -> None:
        try:
            self._store_ending(status, error, timeout)
        finally:
            self.abandon()

    def _report_appends(self) -> None:
        acknowledged, hook = self._outbox.acknowledged, self.hooks.on_append
        if hook is None:
            return
        with contextlib.suppress(IndexError):  # a deque is thread-safe: another thread may be at it, too
            while True:
                call_hook_in_thread(hook, self.stream_id, acknowledged.popleft())

    def _store_ending(self, status: Status, error: str | None, timeout: float | None) -> None:
        deadline = time.monotonic() + (self._store.grace if timeout is None else timeout)
        told = self.failure is not None  # the `on_error` hook, of one error that stops the stream
        try:
            # The ending comes after all that was made: it is last, and `done` means that everything is there.
            self._committer.flush(self._outbox, timeout)
        except StreamFinalizedError:
            pass  # cancelled, or declared lost: finalize tells which
        except ResumableStreamError as refused:
            status = Status.ERROR if isinstance(refused, LimitExceededError) else Status.INTERRUPTED
            error = str(refused)
            self.failure = self.failure or refused
            call_hook_in_thread(self.hooks.on_error, self.stream_id, refused)
            told = True
        self._report_appends()
        try:
            if status is Status.INTERRUPTED and self.has_handover:
                self._let_go(deadline, told)
                return
            self._finalize(status, error, deadline)
        except StreamFinalizedError as ended:
            status, error = Status(ended.status or status), None  # that ending stands
            self.failure = self.failure or ended
        except ResumableStreamError as refused:
            # Nothing more can be done here: readers see the loss, or the lease runs out and they see
            # `interrupted`.
            superseded = self.has_handover and isinstance(refused, LeaseLostError)  # as it is meant to be
            level = logging.INFO if superseded else logging.WARNING
            extra = about("not-ended", self.stream_id, self.generation)
            logger.log(
                level, "stream %s could not be ended as %s: %s", self.stream_id, status, refused, extra=extra
            )
            if isinstance(refused, StoreUnavailableError):
                self._tally.count("store-error.end")
            self._tally.count("superseded" if superseded else "lost")
            if not told:
                call_hook_in_thread(self.hooks.on_error, self.stream_id, refused)
            self.failure = refused
            return
        except Exception as fault:  # a fault in the store: the same
            extra = about("not-ended", self.stream_id, self.generation)
            logger.exception("stream %s could not be ended as %s", self.stream_id, status, extra=extra)
            self._tally.count("lost")
            if not told:
                call_hook_in_thread(self.hooks.on_error, self.stream_id, fault)
            self.failure = fault
            return
        self.status = status
        self._tally.count(f"ended.{status}")
        call_hook_in_thread(self.hooks.on_finalize, self.stream_id, status, error)

    def _finalize(self, status: Status, error: str | None, deadline: float) -> None:
        notes = self.producer._take_notes()
        keeper = shared_store(self._store) if notes else None
        if keeper is not None:
            retry_while_away(functools.partial(keeper.finalize, self._lease, status, error, notes=notes), deadline)
        else:
            retry_while_away(functools.partial(self._store.finalize, self._lease, status, error), deadline)

    def _let_go(self, deadline: float, told: bool) -> None:
        """Another producer may go on. `told`: the `on_error` hook knows why."""
        store = takeover_store(self._store)
        assert store is not None  # it gave the lease its handover
        retry_while_away(functools.partial(store.release, self._lease), deadline)
        self.released = True
        reason = self.failure or ProducerInterruptedError(f"stream {self.stream_id} was released: {SHUT_DOWN}")
        self.failure = reason
        self._tally.count("released")
        logger.info(
            "stream %s was released at offset %d",
            self.stream_id,
            self._lease.offset,
            extra=about("released", self.stream_id, self.generation),
        )
        if not told:
            call_hook_in_thread(self.hooks.on_error, self.stream_id, reason)

    def _read_notes(self) -> Mapping[str, str]:
        info = self._store.info(self.stream_id)
        if info is None or info.generation != self.generation:
            raise StreamLostError(f"stream {self.stream_id} was deleted or replaced")
        return info.notes


def retry_while_away(call: Callable[[], object], deadline: float) -> None:
    """Call `call()` until it does not raise a StoreUnavailableError that is transient, and raise that one from
    `deadline` (monotonic) on. Blocks."""
    while True:
        try:
            call()
            return
        except StoreUnavailableError as unavailable:
            if not unavailable.transient or time.monotonic() >= deadline:
                raise
        # A store does not tell when it is back, so there is nothing to wait for but time.
        time.sleep(_RETRY_SECONDS)


def describe(raised: BaseException) -> str:
    """The exception in words; its name alone if its own text cannot be had."""
    name = type(raised).__name__
    try:
        return f"{name}: {raised}"
    except BaseException:
        return name
