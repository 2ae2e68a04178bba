"""The context: elects producers, runs them in the background, and follows streams as plain generators."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Executor, Future
from types import TracebackType
from typing import Any, NamedTuple, NoReturn

from . import process
from .arrivals import Arrivals
from .committer import MAX_PENDING_BYTES, end_and_tell, endings
from .contract import (
    DEFAULT_READ_BYTES,
    Batch,
    Entry,
    Lease,
    Position,
    Status,
    Store,
    StreamInfo,
    TakeoverStore,
    check_restart,
    takeover_store,
)
from .errors import (
    LimitExceededError,
    ProducerInterruptedError,
    ResumableStreamError,
    StoreUnavailableError,
    StreamFinalizedError,
    StreamLostError,
    StreamNotFoundError,
    StreamTakenError,
    UnsupportedError,
)
from .health import Health, HealthCheck
from .interrupts import Alarm, Roll, Waiters
from .logs import about
from .process import PerProcess, at_exit, start_thread
from .producer import Hooks, Source, call_hook, check_callback
from .production import Production
from .pump import Pump, check_source
from .recovery import Recover, Recovery, waits_for_takeover
from .several import Several, Wakers
from .shared_writer import SharedWriter
from .stats import Stats, Tally
from .viewer import OpenReads, ViewerLoop
from .writer import Writer

logger = logging.getLogger("resumable_sync")

_ELECTION_ROUNDS = 5  # in which a stream may be deleted between a lost election and the reading of the winner's
_WAKE_SECONDS = 0.01  # between calls of a closing context to its viewers
_CLOSE_SECONDS = 2.0  # that a close takes if it is not told
_DRAIN_SECONDS = 0.05  # between looks of a draining context at its viewers
_FAILURES_KEPT = 8  # of streams, for viewers that come after the end


class _Owner:
    """Held by whoever stands for an election and brings the production on its way, then by its pump. Once nobody
    holds it any more, nobody works on the stream: its lease is renewed no longer. So an exception that is thrown
    in between any two steps leaves no stream that is produced for ever."""


class _Running:
    """What a context has under way in one process. `lock` guards all fields but `reads`, `arrivals`, `wakers`,
    `tally`, `health` and what `recovery` does."""

    def __init__(self, store: Store) -> None:
        self.lock = threading.Lock()
        self.changed = Waiters()  # for a production that goes, or a close
        self.producers: set[Production] = set()
        self.starting = Roll()  # owners of elections under way, each of which may become a production
        self.known: dict[str, Production] = {}  # by stream id: those, and some that failed, for late viewers
        self.failed: deque[Production] = deque()
        self.draining_until: float | None = None  # monotonic; None: not draining
        self.closed = False
        self.interrupted = False  # a close had to end a producer
        self.reads = OpenReads()
        self.arrivals = Arrivals()
        self.wakers = Wakers(self.reads, self.arrivals)
        self.recovery: Recovery | None = None
        self.tally = Tally()
        self.health = HealthCheck(store)

    @property
    def refusing(self) -> bool:
        """Whether nothing is started or followed any more."""
        return self.closed or self.draining_until is not None

    @property
    def working(self) -> list[Production]:
        """The producers that somebody works on: a thread that was broken off may not have discarded its own."""
        return [production for production in list(self.producers) if not production.unattended]

    def add(self, production: Production, alone: bool) -> bool:
        """It runs from now on. False if it is to be ended or released at once: the context was closed meanwhile,
        or drains, and another process may go on with it (not if the store is this process's `alone`)."""
        for gone in self.producers.difference(self.working):
            if gone.stopped:  # otherwise its heartbeat finds out
                gone.abandon()
            if gone.ended.is_set():
                self.discard(gone)
        with self.lock:
            self.producers.add(production)
            self.known[production.stream_id] = production
            released = self.draining_until is not None and production.has_handover and not alone
            self.interrupted = self.interrupted or released
            return not self.closed and not released

    def discard(self, production: Production) -> None:
        """Nobody works on it any more. Idempotent."""
        with self.lock:
            if production not in self.producers:
                return
            self.producers.discard(production)
            forgotten = [production]
            if production.failure is not None:
                self.failed.append(production)
                forgotten = [self.failed.popleft()] if len(self.failed) > _FAILURES_KEPT else []
            for each in forgotten:
                if self.known.get(each.stream_id) is each:
                    del self.known[each.stream_id]
            self.changed.wake_all()


class _Terms(NamedTuple):
    """On which a stream is to be produced; what the doors that produce have in common. See `run`."""

    ttl: float | None
    metadata: Mapping[str, str] | None
    restart: Collection[Status | str]
    idle_timeout: float | None
    handover: float


class ResumableStreamContext:
    """Runs producers in background threads and lets any number of viewers follow them.

    `on_acquire(stream_id, "producer" | "consumer")` is called in the caller's thread, `on_append(stream_id,
    byte_length)`, `on_finalize(stream_id, status, error)` and `on_error(stream_id, exception)` mostly in the
    producer's; in another one where `close` or an idle timeout ends a stream whose source blocks, and then they
    may overlap. All are called outside of all locks; a hook that raises is logged and harms nothing. `on_append`
    comes in order, some time after the chunk was stored. Without `on_error` a source that fails is logged as an
    error, with its traceback: its viewers are told little.

    `executor` runs the producers instead of threads of their own; its workers must be threads. Note that
    Python itself waits for an executor's threads at exit. `heartbeat`: seconds between signs of life of a
    silent producer, and so the time in which it learns that it was stopped elsewhere. `max_pending_bytes`: how
    far a source may run ahead of the store. `read_bytes`: the largest piece that a viewer gets at once (it may
    exceed this by the rest of one chunk). `max_producers`: how many streams may be produced here at once; one more
    raises LimitExceededError before anything is elected.

    `recover(info)`: asked for each stream with a handover whose producer is lost, once per process, generation and
    term, within a second; returns the `make_stream` with which this process goes on, or None (what the job needs
    to know is in `info.metadata`). It runs in a thread of its own, outside all locks; what it raises is logged. A
    context that is closed, draining or full asks nobody. Asking begins with the context's first call in a process,
    of which `close_on_sigterm` is one, and never in the constructor: a server's master must not produce.

    Thread-safe. The store stays the application's: closing the context does not close it. In a forked child
    the context begins empty: producers stay with the parent; a spawned one makes its own, as no context can be
    pickled. `close` runs at interpreter exit.
    """

    def __init__(
        self,
        store: Store,
        *,
        ttl: float | None = None,
        on_acquire: Callable[[str, str], object] | None = None,
        on_append: Callable[[str, int], object] | None = None,
        on_finalize: Callable[[str, Status, str | None], object] | None = None,
        on_error: Callable[[str, BaseException], object] | None = None,
        executor: Executor | None = None,
        heartbeat: float = 5.0,
        max_pending_bytes: int = MAX_PENDING_BYTES,
        read_bytes: int = DEFAULT_READ_BYTES,
        max_producers: int = 1000,
        recover: Recover | None = None,
    ) -> None:
        _check_heartbeat(heartbeat)
        for number in (max_pending_bytes, read_bytes, max_producers):
            if not isinstance(number, int) or number < 1:
                raise ValueError("max_pending_bytes, read_bytes and max_producers must be positive integers")
        if ttl is not None and not (isinstance(ttl, (int, float)) and math.isfinite(ttl) and ttl > 0):
            raise ValueError(f"ttl must be a positive number of seconds, not {ttl!r}")
        check_callback("recover", recover)
        if executor is not None and not callable(getattr(executor, "submit", None)):
            raise TypeError(f"executor must be a concurrent.futures.Executor, not {type(executor).__name__}")
        self.store = store
        self._ttl = ttl
        self._hooks = Hooks(on_acquire, on_append, on_finalize, on_error)
        self._executor = executor
        self._heartbeat = heartbeat
        self._max_pending_bytes = max_pending_bytes
        self._read_bytes = read_bytes
        self._max_producers = max_producers
        self._recover = recover
        if recover is not None:
            self._takeover_store()
        self._running = PerProcess(functools.partial(_Running, store))
        # Registered here, after the store's own exit handlers and so run before them.
        at_exit(self, _close_at_exit)

    def __getstate__(self) -> NoReturn:
        raise TypeError(
            "a ResumableStreamContext cannot be pickled: in the other process open the store with "
            "open_store(url), and a context there"
        )

    def run(
        self,
        stream_id: str,
        make_stream: Source,
        *,
        ttl: float | None = None,
        metadata: Mapping[str, str] | None = None,
        restart: Collection[Status | str] = (),
        idle_timeout: float | None = None,
        handover: float = 0.0,
    ) -> Iterator[bytes]:
        """Produce the stream unless somebody does or did, and follow it from its start.

        Exactly one caller among all processes is elected; its `make_stream()` runs in a background thread, in
        a copy of the caller's contextvars, and returns an iterable of bytes or str (UTF-8). It is never called
        when the election is lost: then, and for a stream that has ended, this call follows what is stored.
        Returns at once with a plain generator (see `resume` for how it ends). Leaving it stops nothing.

        `restart`: endings, such as `{"error", "interrupted"}`; a stream that has ended so begins anew, in the same
        step as the election, and its former viewers get StreamLostError. `idle_timeout`: seconds without a chunk
        after which the source counts as hung: its stream ends as `error`, and it is told through `on_cancel`.

        `handover`: seconds, from the end of its lease, in which another producer may go on with a stream that has
        lost its own. Above 0 it says that this source can continue: where nobody produces the stream any more,
        this call takes it over, and `make_stream` goes on from `current_producer().offset`. A source that begins
        above 0 and has not asked for its offset ends as `error` at its first chunk, and nothing is stored. What
        would end such a stream as `interrupted` (close, exit, an outage beyond the grace) releases it instead. It
        stays `streaming` in between, and its viewers wait. UnsupportedError if the store has no takeover.

        Before anything runs it raises InvalidStreamIdError, LimitExceededError, StoreUnavailableError, ValueError,
        TypeError for a `make_stream` that can never be one, and StreamNotFoundError if the stream is deleted again
        and again.
        """
        for _ in range(_ELECTION_ROUNDS):
            production = self._start(
                stream_id, make_stream, _Terms(ttl, metadata, restart, idle_timeout, handover)
            )
            if production is not None:
                first = Batch(Position(production.generation, 0), b"", (), size=0, status=Status.STREAMING)
                return self._loop(stream_id, production).pieces(first)
            found = self._open(stream_id, "")
            if found is not None:
                call_hook(self._hooks.on_acquire, stream_id, "consumer")
                return self._loop(stream_id).pieces(found)
            # It was deleted or expired since the election was lost: the id is free again.
        raise _deleted_again_and_again(stream_id)

    def start(
        self,
        stream_id: str,
        make_stream: Source,
        *,
        ttl: float | None = None,
        metadata: Mapping[str, str] | None = None,
        restart: Collection[Status | str] = (),
        idle_timeout: float | None = None,
        handover: float = 0.0,
    ) -> bool:
        """As `run`, for a caller that does not follow, or follows by itself: nothing is read.

        True if this call was elected and now produces; False if somebody else does, or did.
        """
        elected = (
            self._start(stream_id, make_stream, _Terms(ttl, metadata, restart, idle_timeout, handover)) is not None
        )
        if not elected:
            call_hook(self._hooks.on_acquire, stream_id, "consumer")
        return elected

    def produce(
        self,
        stream_id: str,
        make_stream: Source,
        *,
        ttl: float | None = None,
        metadata: Mapping[str, str] | None = None,
        restart: Collection[Status | str] = (),
        idle_timeout: float | None = None,
        handover: float = 0.0,
    ) -> Status:
        """As `start`, but in the calling thread, to the end: for a task of Celery or RQ, or a command.

        Returns the ending that is stored, `done` or `cancelled`, or whatever it is if an earlier run stored it;
        `streaming` while somebody else produces the stream, or may: then a task that was delivered twice tries
        again later. With a `handover` it goes on with a stream whose producer is known to be lost.

        What the source raises goes on to the caller once `error` is stored (KeyboardInterrupt and SystemExit:
        `interrupted`). Otherwise, beside what `run` raises: ProducerInterruptedError if the context was closed
        (with a `handover` the stream is released then), or the lease ran out, LeaseLostError or StreamLostError if
        the stream was replaced or deleted, StoreUnavailableError if the store stayed away, TimeoutError after
        `idle_timeout`.
        """
        check_source(make_stream)
        for _ in range(_ELECTION_ROUNDS):
            owner = _Owner()
            production = self._elect(stream_id, _Terms(ttl, metadata, restart, idle_timeout, handover), owner)
            if production is not None:
                pump = Pump(production, make_stream, owner, foreground=True)
                try:
                    contextvars.copy_context().run(pump.run)
                finally:
                    self._running.get().discard(production)
                return pump.result()
            status = self.store.status(stream_id)
            if status is not Status.MISSING:
                call_hook(self._hooks.on_acquire, stream_id, "consumer")
                return status
        raise _deleted_again_and_again(stream_id)

    def writer(
        self,
        stream_id: str,
        *,
        ttl: float | None = None,
        metadata: Mapping[str, str] | None = None,
        restart: Collection[Status | str] = (),
        idle_timeout: float | None = None,
        handover: float = 0.0,
    ) -> Writer:
        """Produce the stream by writing it: `with context.writer(stream_id) as out: out.write(chunk)`.

        Entering the block elects, and raises StreamTakenError if somebody produces the stream or did, and what
        `run` raises. See Writer for what can be done inside, and how the stream ends. `idle_timeout` counts
        between writes.
        """

        def elect(writer: Writer) -> Production:
            production = self._elect(stream_id, _Terms(ttl, metadata, restart, idle_timeout, handover), writer)
            if production is None:
                raise StreamTakenError(f"the stream {stream_id} is {self.store.status(stream_id)} already")
            return production

        return Writer(elect, self._running.get().discard)

    def shared_writer(
        self,
        stream_id: str,
        name: str,
        *,
        create: bool = False,
        metadata: Mapping[str, str] | None = None,
    ) -> SharedWriter:
        """Write to a shared stream, which several may do at once; each needs a `name` of its own.

        `create`: begin the stream if there is none, with the context's ttl and this metadata. Raises
        StreamNotFoundError without it, StreamTakenError if the stream has a producer, ValueError for a bad name,
        UnsupportedError if the store has no shared streams, StoreUnavailableError. See SharedWriter.
        """
        running = self._enter()
        if running.refusing:
            raise StoreUnavailableError("the context is closed", transient=False)
        return SharedWriter(
            self.store, stream_id, name, create=create, ttl=self._ttl, metadata=metadata, tally=running.tally
        )

    def resume(self, stream_id: str, after: str = "", *, wait: float = 0.0) -> Iterator[bytes] | None:
        """Follow a stream from cursor `after` ("" is the start); None if there is no such stream.

        The id and the cursor are checked now: InvalidStreamIdError, InvalidCursorError, StreamLostError (a cursor
        of another generation), StoreUnavailableError. The generator yields exactly the bytes after the
        cursor, joined into large pieces while it lags, and blocks for more while the stream runs. It ends
        without an exception only when the stream is `done`; otherwise it raises, after the last stored byte,
        ProducerFailedError, ProducerInterruptedError, StreamCancelledError, StreamLostError, or
        StoreUnavailableError (also when this context is closed: resume elsewhere). One thread at a time
        may use a generator; its first piece has been read already when this returns.

        `wait`: seconds that this call blocks, at most, for a stream that has not begun yet, if no cursor is given.
        A stream that begins meanwhile is followed at most 0.2 s late.
        """
        try:
            return self.require_resume(stream_id, after, wait=wait)
        except StreamNotFoundError:
            return None

    def require_resume(self, stream_id: str, after: str = "", *, wait: float = 0.0) -> Iterator[bytes]:
        """As `resume`, but raises StreamNotFoundError if there is no such stream."""
        return self._loop(stream_id).pieces(self._require_open(stream_id, after, wait))

    def entries(self, stream_id: str, after: str = "", *, wait: float = 0.0) -> Iterator[Entry]:
        """As `require_resume`, chunk by chunk as the producer made them, each with the cursor after it."""
        return self._loop(stream_id).entries(self._require_open(stream_id, after, wait))

    def batches(
        self,
        stream_id: str,
        after: str = "",
        *,
        wait: float = 0.0,
        heartbeat: float | None = None,
        live: bool = True,
    ) -> Iterator[Batch]:
        """As `require_resume`, but yields what each read found.

        A batch tells its cursor, and where replay ends and live begins: `batch.offset == batch.size` says that
        everything stored so far was delivered. With `heartbeat`, an empty batch is yielded whenever that
        many seconds brought nothing; ValueError unless it is above 0.

        `live=False` reads back what is stored, without waiting for more: it ends with the batch that has caught up
        (an empty one for an empty stream), whose status is of the same snapshot, and raises no ending.
        """
        if heartbeat is not None:
            _check_heartbeat(heartbeat)
        first = self._require_open(stream_id, after, wait)
        loop = self._loop(stream_id)
        return loop.batches(first, heartbeat) if live else loop.stored(first)

    def status(self, stream_id: str) -> Status:
        """Where the stream stands; MISSING where there is none."""
        self._enter()
        return self.store.status(stream_id)

    def info(self, stream_id: str) -> StreamInfo | None:
        """A snapshot of the stream, None where there is none."""
        self._enter()
        return self.store.info(stream_id)

    def cancel(self, stream_id: str) -> bool:
        """End a running stream as `cancelled`, whoever produces it; True if this call did.

        Durable at once. Its source is closed at its next chunk; a silent one is told at once if it runs in this
        process or has a viewer in its own, else within one heartbeat.
        """
        self._enter()
        reason = StreamFinalizedError(f"stream {stream_id} was cancelled", status=Status.CANCELLED)
        return end_and_tell(self.store, stream_id, self.store.cancel, reason)

    def delete(self, stream_id: str) -> bool:
        """Remove a stream, whatever its state; its viewers get StreamLostError. True if it was there."""
        self._enter()
        reason = StreamLostError(f"stream {stream_id} was deleted")
        return end_and_tell(self.store, stream_id, self.store.delete, reason)

    def report_error(self, stream_id: str, error: BaseException) -> None:
        """Call the `on_error` hook, or log the error: for a source that deals with an exception itself instead of
        raising it.

        Does not change the stream's status. Runs the hook in the calling thread; what it raises is logged, but for
        SystemExit and its like.
        """
        if self._hooks.on_error is None:
            logger.error(
                "the source of stream %s failed",
                stream_id,
                exc_info=(type(error), error, error.__traceback__),
                extra=about("source-failed", stream_id),
            )
        call_hook(self._hooks.on_error, stream_id, error)

    def stats(self) -> Stats:
        """What runs in this process at this moment, and what has happened here since the context's first use.

        No I/O, and no lock that is held during any; its cost grows with the producers and routes of this
        process. Each figure is exact, and two of them may be of moments some microseconds apart. Thread-safe; also
        after `close`. In a forked child it begins at zero.
        """
        running = self._running.get()
        with running.lock:
            producers = running.working
            starting, recovery = len(running.starting), running.recovery
            closed, draining = running.closed, running.draining_until is not None
        pending = [each.pending() for each in producers]
        return Stats(
            producers=len(producers),
            starting=starting,
            handover=sum(each.has_handover for each in producers),
            stalled=sum(each.stalled for each in producers),
            blocked=sum(each.blocked for each in producers),
            pending_chunks=sum(chunks for chunks, _ in pending),
            pending_bytes=sum(size for _, size in pending),
            viewers=len(running.reads.following),
            reading=len(running.reads.viewers),
            awaiting=running.arrivals.waiting(),
            orphans=0 if recovery is None else recovery.orphans,
            draining=draining and not closed,
            closed=closed,
            totals=running.tally.totals(),
        )

    def check_health(self, timeout: float = 5.0) -> Health:
        """Whether this process can begin a stream, append to it, read it back and delete it.

        Returns within about `timeout` seconds, even if the store hangs: the check has a thread of its own, one at
        a time; calls that come meanwhile share what it finds. Raises nothing of the store's, see `Health`; a
        context that is closed or draining is not healthy. The record is internal, so listings do not have it. It
        is deleted by the check, or where that hung as soon as the store answers; should the process be killed in
        between, it expires within minutes. It counts as a stream: a store that holds `max_streams` fails at
        `acquire`, with the code `limit`. ValueError for a bad timeout. Thread-safe.
        """
        running = self._enter()
        if running.refusing:
            closed = StoreUnavailableError("the context is closed or draining", transient=False)
            return Health(False, "context", closed.code, closed)
        return running.health.check(timeout)

    @property
    def closed(self) -> bool:
        """Whether this process's part of the context is closed or draining: it starts nothing and lets nobody
        follow any more."""
        return self._running.get().refusing

    def close(self, timeout: float | None = None, *, drain: bool = False) -> bool:
        """End what runs here: producers as `interrupted`, after all they made is stored, while those with a
        handover are released; viewers of this process with StoreUnavailableError. True if no producer had to be
        ended or released. Idempotent.

        Returns within about `timeout` seconds (default 2), even if a source blocks: its stream is ended all
        the same and its thread, a daemon, closes it as soon as it returns. Where the store does not answer in
        that time, the endings are tried on in the background; at interpreter exit, where Python may start no
        thread any more, one call of the store is waited for.

        `drain`: let the sources end by themselves, for `timeout` seconds; what is left is ended as above. Streams
        with a handover are released at once, since another process goes on with them. From now on nothing is
        started or followed (StoreUnavailableError: 503), and viewers are sent away, since another process serves
        them; of a store that is this process's alone they stay until they have everything. A close without `drain`
        ends a drain that is under way, also in another thread.
        """
        seconds = _CLOSE_SECONDS if timeout is None else timeout
        deadline = time.monotonic() + seconds
        running = self._running.get()
        if drain:
            self._drain(running, deadline)
            seconds = _CLOSE_SECONDS  # the drain may have ended early, and is over
            deadline = time.monotonic() + seconds
        with running.lock:
            running.closed = True
            running.reads.close()
            productions = list(running.producers)
            running.interrupted = running.interrupted or bool(productions)
            running.changed.wake_all()
        running.arrivals.close()
        for production in productions:
            production.stop()
        self._wake()
        for production in productions:  # half of the time for sources to return by themselves
            production.ended.wait(max(0.0, deadline - seconds / 2 - time.monotonic()))
        blocked = [production for production in productions if not production.ended.is_set()]
        if blocked:
            self._interrupt(blocked, deadline)
        # A viewer that was on its way into a wait was not reached by the wake.
        while running.reads.viewers and time.monotonic() < deadline:
            self._wake()
            time.sleep(_WAKE_SECONDS)  # nothing tells that a read has begun to wait
        return not (productions or (drain and running.interrupted))

    def _drain(self, running: _Running, deadline: float) -> None:
        """Wait until the sources have ended, `deadline` at most, or until another thread closes."""
        alone = self._alone
        with running.lock:
            running.draining_until = deadline
            if not alone:
                running.reads.close()
            handed_over = [] if alone else [each for each in running.producers if each.has_handover]
        running.arrivals.close()
        for production in handed_over:
            production.stop()
        if handed_over:
            self._interrupt(handed_over, min(deadline, time.monotonic() + _CLOSE_SECONDS))
            with running.lock:
                running.interrupted = True
        alarm = Alarm()
        while True:
            # Again and again: a viewer that was on its way into a wait was not reached by the wake before.
            leaving = not alone and bool(running.reads.viewers)
            if leaving:
                self._wake()
            with running.lock:
                left = deadline - time.monotonic()
                # A source may block although its stream was released or has ended: nothing is left to wait for.
                busy = bool(running.starting) or any(not each.ended.is_set() for each in running.producers)
                following = alone and running.reads.following
                if running.closed or left <= 0 or not (busy or following or leaving):
                    return
                # Nothing tells that a viewer has gone, or that a stream has ended whose source blocks.
                blocked = any(each.producer.cancelled.is_set() for each in running.producers)
                running.changed.expect(alarm)
            alarm.wait(left if busy and not (leaving or blocked) else min(left, _DRAIN_SECONDS))

    def _interrupt(self, productions: Collection[Production], deadline: float) -> None:
        """End what these produce although their sources do not return; waits until `deadline` at most."""

        def interrupt(until: float = math.inf) -> None:
            for production in productions:
                if time.monotonic() < until:
                    try:
                        production.interrupt(max(0.05, deadline - time.monotonic()))
                    except BaseException:  # such as a logging handler's: the others are still to be ended
                        with contextlib.suppress(BaseException):
                            extra = about("not-ended", production.stream_id, production.generation)
                            logger.exception("stream %s could not be ended", production.stream_id, extra=extra)

        try:
            threading.Thread(target=interrupt, name="resumable-sync-close", daemon=True).start()
        except RuntimeError:  # the interpreter is ending: what is left is ended with the store or its leases
            interrupt(deadline)
        for production in productions:
            production.ended.wait(max(0.0, deadline - time.monotonic()))

    @property
    def _alone(self) -> bool:
        """Whether no other process sees the streams of this one."""
        return not getattr(self.store, "shared", True)

    def _wake(self) -> None:
        with contextlib.suppress(StoreUnavailableError):  # a closed store has no waiting reads
            self.store.wake()

    def __enter__(self) -> ResumableStreamContext:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(
        self,
        stream_id: str,
        make_stream: Source,
        terms: _Terms,
    ) -> Production | None:
        """Stand for the election, and have the stream produced in the background if it was won."""
        check_source(make_stream)
        owner = _Owner()
        production = self._elect(stream_id, terms, owner)
        if production is not None:
            self._launch_or_give_up(production, make_stream, owner)
        return production

    def _elect(
        self,
        stream_id: str,
        terms: _Terms,
        owner: _Owner | Writer,
    ) -> Production | None:
        """Stand for the election. None if somebody else produces the stream, or did."""
        idle_timeout, handover = terms.idle_timeout, terms.handover
        if handover:
            self._takeover_store()
        if idle_timeout is not None and not (math.isfinite(idle_timeout) and idle_timeout > 0):
            raise ValueError(f"idle_timeout must be a positive number of seconds, not {idle_timeout!r}")
        running = self._enter()
        with running.lock:
            if running.refusing:
                raise StoreUnavailableError("the context is closed", transient=False)
            full = len(running.working) + len(running.starting) >= self._max_producers
            if not full:
                running.starting.enter(owner)
        if full:
            self._refuse_if_wanted(stream_id, terms)
            return None
        try:
            before = endings()
            lease = self._acquire(stream_id, terms)
            return None if lease is None else self._begin(running, lease, before, owner, idle_timeout)
        finally:
            with running.lock:
                running.starting.leave(owner)
                running.changed.wake_all()

    def _refuse_if_wanted(self, stream_id: str, terms: _Terms) -> None:
        """There is no room for another producer here: LimitExceededError if one is wanted."""
        restart = check_restart(terms.restart)
        info = self.store.info(stream_id)
        if info is None or info.status in restart or (terms.handover and waits_for_takeover(info)):
            raise LimitExceededError(
                f"max_producers={self._max_producers} streams are produced here already", limit="max_producers"
            )

    def _acquire(self, stream_id: str, terms: _Terms) -> Lease | None:
        """Win the election, or take over what nobody produces."""
        # A store of the first edition knows none of these.
        options: dict[str, Any] = {"restart": check_restart(terms.restart)} if terms.restart else {}
        if terms.handover:
            options["handover"] = terms.handover
        life = self._ttl if terms.ttl is None else terms.ttl
        lease = self.store.acquire(stream_id, ttl=life, metadata=terms.metadata, **options)
        if lease is None and terms.handover:
            info = self.store.info(stream_id)
            if info is not None and waits_for_takeover(info):
                return self._takeover_store().take_over(stream_id, info.generation)
        return lease

    def _takeover_store(self) -> TakeoverStore:
        store = takeover_store(self.store)
        if store is None:
            raise UnsupportedError(
                f"{type(self.store).__name__} has no takeover: leave `handover` at 0, and `recover` out"
            )
        return store

    def _begin(
        self,
        running: _Running,
        lease: Lease,
        before: int,
        owner: _Owner | Writer,
        idle_timeout: float | None = None,
    ) -> Production:
        """Produce with this lease from now on. `before`: what `endings` was when the lease was asked for."""
        stream_id = lease.stream_id
        production: Production | None = None
        before_hook = process.forks
        try:
            call_hook(self._hooks.on_acquire, stream_id, "producer")
            if process.forks != before_hook:
                raise ProducerInterruptedError(f"stream {stream_id} stays the parent's: on_acquire has forked")
            production = Production(
                self.store,
                lease,
                self._hooks,
                running.tally,
                heartbeat=self._heartbeat,
                max_pending_bytes=self._max_pending_bytes,
                idle_timeout=idle_timeout,
                owner=owner,
                on_abandoned=running.discard,
            )
            if not running.add(production, self._alone):  # close() came in between and has not seen this producer
                production.stop()
            if endings() != before:
                production.check()
            running.arrivals.tell(stream_id)
        except BaseException:
            if production is not None:
                self._give_up(production)
            elif process.forks == before_hook:
                with contextlib.suppress(ResumableStreamError):  # then the lease runs out
                    if lease.handover:
                        self._takeover_store().release(lease)
                    else:
                        self.store.finalize(lease, Status.INTERRUPTED, "the producer could not be started")
            raise
        return production

    def _continue(self, info: StreamInfo, make_stream: Source) -> bool:
        """Go on with a stream that has lost its producer, if nobody else does; for `Recovery`."""
        check_source(make_stream)
        running, owner = self._running.get(), _Owner()
        with running.lock:
            if running.refusing or len(running.working) + len(running.starting) >= self._max_producers:
                return False
            running.starting.enter(owner)
        try:
            before = endings()
            lease = self._takeover_store().take_over(info.stream_id, info.generation)
            if lease is None:
                return False
            try:
                self._launch_or_give_up(self._begin(running, lease, before, owner), make_stream, owner)
            except StoreUnavailableError as error:  # no thread, not the store: the term is spent
                raise RuntimeError(f"stream {info.stream_id} cannot be produced here: {error}") from error
        finally:
            with running.lock:
                running.starting.leave(owner)
                running.changed.wake_all()
        return True

    def _may_continue(self) -> bool:
        """Whether there is room here for a stream that has lost its producer."""
        running = self._running.get()
        with running.lock:
            return not running.refusing and len(running.working) + len(running.starting) < self._max_producers

    def _enter(self) -> _Running:
        """What this process has under way. The first call in a process begins to recover."""
        running = self._running.get()
        if self._recover is not None and running.recovery is None and not running.refusing:
            recovery = Recovery(self, self.store, self._takeover_store(), self._recover)
            with running.lock:
                first = running.recovery is None
                if first:
                    running.recovery = recovery
            if first:
                try:
                    recovery.start()
                except BaseException:
                    running.recovery = None  # the next call tries it
                    raise
        return running

    def _launch_or_give_up(self, production: Production, make_stream: Source, owner: _Owner) -> None:
        try:
            self._launch(Pump(production, make_stream, owner))
        except BaseException:
            self._give_up(production)
            raise

    def _give_up(self, production: Production) -> None:
        """No half-started producer: it would be renewed, or waited for until the grace is over."""
        production.stop()
        production.interrupt(1.0)
        self._running.get().discard(production)

    def _launch(self, pump: Pump) -> None:
        """Give a pump its thread."""
        scope = contextvars.copy_context()
        running = self._running.get()

        # The argument keeps the context while it produces, so that the interpreter's exit finds it to close it.
        def run(_context: ResumableStreamContext = self) -> None:
            try:
                scope.run(pump.run)
            finally:
                running.discard(pump.production)

        def give_up(future: Future[None]) -> None:
            if future.cancelled():  # the executor was shut down: nobody else would ever end the stream
                pump.production.stop()
                run()

        if self._executor is not None:
            self._executor.submit(run).add_done_callback(give_up)
        else:
            # A daemon: a source that blocks must not keep the process; close() ends its stream at exit.
            start_thread(run, f"resumable-sync-producer-{pump.production.stream_id}")

    def _open(self, stream_id: str, after: str) -> Batch | None:
        """Check id and cursor against the store: what a viewer gets first; None if there is no such stream."""
        try:
            return self._require_open(stream_id, after)
        except StreamNotFoundError:
            return None

    def _require_open(self, stream_id: str, after: str, wait: float = 0.0) -> Batch:
        if not (math.isfinite(wait) and wait >= 0):
            raise ValueError(f"wait must be a number of seconds, not {wait!r}")
        running = self._enter()
        deadline = time.monotonic() + wait
        while True:
            if running.refusing:
                raise StoreUnavailableError("the context is closed; resume elsewhere", transient=False)
            try:
                return self.store.read(stream_id, after, max_bytes=self._read_bytes)
            except StreamNotFoundError:
                is_there = functools.partial(self._is_there, stream_id)
                found = not after and wait > 0 and running.arrivals.wait(stream_id, deadline, is_there)
                if not found and not running.refusing:
                    raise
            # It has begun; should it be deleted at once, the rest of the time is waited.

    def _is_there(self, stream_id: str) -> bool:
        return self.store.status(stream_id) is not Status.MISSING

    def _loop(self, stream_id: str, production: Production | None = None) -> ViewerLoop:
        running = self._running.get()
        found = production or running.known.get(stream_id)  # a dict is read atomically
        return ViewerLoop(self.store, running.reads, stream_id, self._read_bytes, found, running.tally)

    def _several(self, cursors: Mapping[str, str], wait: float, heartbeat: float) -> Several:
        """One viewer of several streams, which follows what comes after these cursors ("": the start)."""
        running = self._enter()
        return Several(
            self.store,
            running.reads,
            running.wakers,
            cursors,
            wait=wait,
            heartbeat=heartbeat,
            loop_of=self._loop,
            refusing=lambda: running.refusing,
        )


def _deleted_again_and_again(stream_id: str) -> StreamNotFoundError:
    return StreamNotFoundError(f"stream {stream_id} was deleted again and again")


def _close_at_exit(context: ResumableStreamContext) -> None:
    """End what still runs when the interpreter exits; daemon threads live until then."""
    running = context._running.peek()
    if running is None:
        return
    until = running.draining_until
    try:
        if until is not None and not running.closed:
            context.close(max(0.0, until - time.monotonic()), drain=True)
        else:
            context.close()
    except (KeyboardInterrupt, SystemExit):  # of a signal handler, while this waits: no more drain
        context.close()


def _check_heartbeat(heartbeat: float) -> None:
    if not heartbeat > 0:  # also of NaN
        raise ValueError(f"heartbeat must be a positive number of seconds, not {heartbeat!r}")
