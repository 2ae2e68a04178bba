"""The context: elects producers, runs them in the background, and follows streams as plain generators."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Executor, Future
from types import TracebackType

from .committer import MAX_PENDING_BYTES, end_and_tell
from .contract import DEFAULT_READ_BYTES, Batch, Entry, Lease, Position, Status, Store, StreamInfo
from .errors import (
    ResumableStreamError,
    StoreUnavailableError,
    StreamFinalizedError,
    StreamLostError,
    StreamNotFoundError,
)
from .process import PerProcess, at_exit, start_thread
from .producer import Hooks, Pump, Source, call_hook
from .viewer import OpenReads, ViewerLoop

logger = logging.getLogger("resumable_sync")

_ELECTION_ROUNDS = 5  # in which a stream may be deleted between a lost election and the reading of the winner's
_WAKE_SECONDS = 0.01  # between calls of a closing context to its viewers


class _Running:
    """What a context has under way in one process. `lock` guards `producers`."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.producers: set[Pump] = set()
        self.reads = OpenReads()


class ResumableStreamContext:
    """Runs producers in background threads and lets any number of viewers follow them.

    `on_acquire(stream_id, "producer" | "consumer")`, `on_append(stream_id, byte_length)`,
    `on_finalize(stream_id, status, error)` and `on_error(stream_id, exception)` are called in the caller's
    (`on_acquire`) or the producer's thread, outside all locks; a hook that raises is logged and harms nothing.
    `on_append` comes in order, some time after the chunk was stored, and before `on_finalize`.

    `executor` runs the producers instead of threads of their own; its workers must be threads. Note that
    Python itself waits for an executor's threads at exit. `heartbeat`: seconds between signs of life of a
    silent producer, and so the time in which it learns that it was stopped elsewhere. `max_pending_bytes`: how
    far a source may run ahead of the store. `read_bytes`: the largest piece that a viewer gets at once (it may
    exceed this by the rest of one chunk).

    Thread-safe. The store stays the application's: closing the context does not close it. In a forked child
    the context begins empty: producers stay with the parent. `close` runs at interpreter exit.
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
    ) -> None:
        if not heartbeat > 0:
            raise ValueError(f"heartbeat must be a positive number of seconds, not {heartbeat!r}")
        if max_pending_bytes < 1 or read_bytes < 1:
            raise ValueError("max_pending_bytes and read_bytes must be positive")
        self.store = store
        self._ttl = ttl
        self._hooks = Hooks(on_acquire, on_append, on_finalize, on_error)
        self._executor = executor
        self._heartbeat = heartbeat
        self._max_pending_bytes = max_pending_bytes
        self._read_bytes = read_bytes
        self._running = PerProcess(_Running)
        # Registered here, after the store's own exit handlers and so run before them.
        at_exit(self, _close_at_exit)

    def run(
        self,
        stream_id: str,
        make_stream: Source,
        *,
        ttl: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Iterator[bytes]:
        """Produce the stream unless somebody does or did, and follow it from its start.

        Exactly one caller among all processes is elected; its `make_stream()` runs in a background thread, in
        a copy of the caller's contextvars, and returns an iterable of bytes or str (UTF-8). It is never called
        when the election is lost: then, and for a stream that has ended, this call follows what is stored.
        Returns at once with a plain generator (see `resume` for how it ends). Leaving it stops nothing.

        Raises InvalidStreamIdError, LimitExceededError, StoreUnavailableError, ValueError, before anything runs.
        """
        for _ in range(_ELECTION_ROUNDS):
            lease = self._elect(stream_id, make_stream, ttl, metadata)
            if lease is not None:
                first = Batch(Position(lease.generation, 0), b"", (), size=0, status=Status.STREAMING)
                return self._loop(stream_id).pieces(first)
            found = self._open(stream_id, "")
            if found is not None:
                call_hook(self._hooks.on_acquire, stream_id, "consumer")
                return self._loop(stream_id).pieces(found)
            # It was deleted or expired since the election was lost: the id is free again.
        raise StreamNotFoundError(f"stream {stream_id} was deleted again and again")

    def resume(self, stream_id: str, after: str = "") -> Iterator[bytes] | None:
        """Follow a stream from cursor `after` ("" is the start); None if there is no such stream.

        The id and the cursor are checked now: InvalidStreamIdError, InvalidCursorError, StreamLostError (a cursor
        of another generation), StoreUnavailableError. The generator yields exactly the bytes after the
        cursor, joined into large pieces while it lags, and blocks for more while the stream runs. It ends
        without an exception only when the stream is `done`; otherwise it raises, after the last stored byte,
        ProducerFailedError, ProducerInterruptedError, StreamCancelledError, StreamLostError, or
        StoreUnavailableError (also when this context is closed: resume elsewhere). One thread at a time
        may use a generator; what it yields first was read by this call, and that is all it holds.
        """
        first = self._open(stream_id, after)
        return None if first is None else self._loop(stream_id).pieces(first)

    def require_resume(self, stream_id: str, after: str = "") -> Iterator[bytes]:
        """As `resume`, but raises StreamNotFoundError if there is no such stream."""
        return self._loop(stream_id).pieces(self._require_open(stream_id, after))

    def entries(self, stream_id: str, after: str = "") -> Iterator[Entry]:
        """As `require_resume`, chunk by chunk as the producer made them, each with the cursor after it."""
        return self._loop(stream_id).entries(self._require_open(stream_id, after))

    def batches(self, stream_id: str, after: str = "", *, heartbeat: float | None = None) -> Iterator[Batch]:
        """As `require_resume`, but yields what each read found.

        A batch tells its cursor, and where replay ends and live begins: `batch.offset == batch.size` says that
        everything stored so far was delivered. With `heartbeat`, an empty batch is yielded whenever that
        many seconds brought nothing.
        """
        return self._loop(stream_id).batches(self._require_open(stream_id, after), heartbeat)

    def status(self, stream_id: str) -> Status:
        """Where the stream stands; MISSING where there is none."""
        return self.store.status(stream_id)

    def info(self, stream_id: str) -> StreamInfo | None:
        """A snapshot of the stream, None where there is none."""
        return self.store.info(stream_id)

    def cancel(self, stream_id: str) -> bool:
        """End a running stream as `cancelled`, whoever produces it; True if this call did.

        Durable at once. Its source is closed at its next chunk; a silent one is told within one heartbeat, at
        once if it runs in this process.
        """
        reason = StreamFinalizedError(f"stream {stream_id} was cancelled", status=Status.CANCELLED)
        return end_and_tell(self.store, stream_id, self.store.cancel, reason)

    def delete(self, stream_id: str) -> bool:
        """Remove a stream, whatever its state; its viewers get StreamLostError. True if it was there."""
        reason = StreamLostError(f"stream {stream_id} was deleted")
        return end_and_tell(self.store, stream_id, self.store.delete, reason)

    def report_error(self, stream_id: str, error: BaseException) -> None:
        """Call the `on_error` hook: for a source that deals with an exception itself instead of raising it.

        The stream's status stays its own affair. Runs the hook in the calling thread; raises nothing.
        """
        call_hook(self._hooks.on_error, stream_id, error)

    @property
    def closed(self) -> bool:
        """Whether this process's part of the context was closed: it starts and follows nothing any more."""
        return self._running.get().reads.closed.is_set()

    def close(self, timeout: float | None = None) -> None:
        """End what runs here: producers as `interrupted`, after all they made is stored; viewers of this process
        with StoreUnavailableError. Idempotent.

        Returns within about `timeout` seconds (default 2), even if a source blocks: its stream is ended all
        the same and its thread, a daemon, closes it as soon as it returns. Where the store does not answer in
        that time, the endings are tried on in the background; at interpreter exit, where Python may start no
        thread any more, one call of the store is waited for.
        """
        seconds = 2.0 if timeout is None else timeout
        deadline = time.monotonic() + seconds
        running = self._running.get()
        with running.lock:
            running.reads.close()
            producers = list(running.producers)
        for producer in producers:
            producer.stop()
        self._wake()
        for producer in producers:  # half of the time for sources to return by themselves
            producer.ended.wait(max(0.0, deadline - seconds / 2 - time.monotonic()))
        blocked = [producer for producer in producers if not producer.ended.is_set()]
        if blocked:
            self._interrupt(blocked, deadline)
        # A viewer that was on its way into a wait was not reached by the wake.
        while running.reads.viewers and time.monotonic() < deadline:
            self._wake()
            time.sleep(
                _WAKE_SECONDS
            )  # nothing tells that a read has begun to wait; the set tells that none is left

    def _interrupt(self, producers: Collection[Pump], deadline: float) -> None:
        """End what these produce although their sources do not return; waits until `deadline` at most."""

        def interrupt(until: float = math.inf) -> None:
            for producer in producers:
                if time.monotonic() < until:
                    producer.interrupt(max(0.05, deadline - time.monotonic()))

        try:
            threading.Thread(target=interrupt, name="resumable-sync-close", daemon=True).start()
        except RuntimeError:  # the interpreter is ending: what is left is ended with the store or its leases
            interrupt(deadline)
        for producer in producers:
            producer.ended.wait(max(0.0, deadline - time.monotonic()))

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
        *,
        ttl: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> bool:
        """As `run`, for a caller that does not follow, or follows by itself: nothing is read.

        True if this call was elected and now produces; False if somebody else does, or did.
        """
        elected = self._elect(stream_id, make_stream, ttl, metadata) is not None
        if not elected:
            call_hook(self._hooks.on_acquire, stream_id, "consumer")
        return elected

    def _elect(
        self, stream_id: str, make_stream: Source, ttl: float | None, metadata: Mapping[str, str] | None
    ) -> Lease | None:
        """Stand for the election and produce if it was won. None if somebody else produces the stream, or did."""
        running = self._running.get()
        if running.reads.closed.is_set():
            raise StoreUnavailableError("the context is closed", transient=False)
        lease = self.store.acquire(stream_id, ttl=self._ttl if ttl is None else ttl, metadata=metadata)
        if lease is None:
            return None
        pump: Pump | None = None
        try:
            call_hook(self._hooks.on_acquire, stream_id, "producer")
            pump = Pump(
                self.store,
                lease,
                make_stream,
                self._hooks,
                heartbeat=self._heartbeat,
                max_pending_bytes=self._max_pending_bytes,
            )
            self._launch(running, pump)
        except (
            BaseException
        ):  # no half-started producer: it would be renewed, or waited for until the grace is over
            if pump is not None:
                pump.stop()
                pump.interrupt(1.0)
                with running.lock:
                    running.producers.discard(pump)
            else:
                with contextlib.suppress(ResumableStreamError):  # then the lease runs out
                    self.store.finalize(lease, Status.INTERRUPTED, "the producer could not be started")
            raise
        return lease

    def _launch(self, running: _Running, pump: Pump) -> None:
        """Give a pump its thread."""
        with running.lock:
            running.producers.add(pump)
            closed = running.reads.closed.is_set()
        if closed:  # close() came in between and has not seen this producer
            pump.stop()
        scope = contextvars.copy_context()

        # The argument keeps the context while it produces, so that the interpreter's exit finds it to close it.
        def run(_context: ResumableStreamContext = self) -> None:
            try:
                scope.run(pump.run)
            finally:
                with running.lock:
                    running.producers.discard(pump)

        def give_up(future: Future[None]) -> None:
            if future.cancelled():  # the executor was shut down: nobody else would ever end the stream
                pump.stop()
                run()

        if self._executor is not None:
            self._executor.submit(run).add_done_callback(give_up)
        else:
            # A daemon: a source that blocks must not keep the process; close() ends its stream at exit.
            name = f"resumable-sync-producer-{pump.stream_id}"
            start_thread(run, name)

    def _open(self, stream_id: str, after: str) -> Batch | None:
        """Check id and cursor against the store: what a viewer gets first; None if there is no such stream."""
        try:
            return self._require_open(stream_id, after)
        except StreamNotFoundError:
            return None

    def _require_open(self, stream_id: str, after: str) -> Batch:
        return self.store.read(stream_id, after, max_bytes=self._read_bytes)

    def _loop(self, stream_id: str) -> ViewerLoop:
        return ViewerLoop(self.store, self._running.get().reads, stream_id, self._read_bytes)


def _close_at_exit(context: ResumableStreamContext) -> None:
    """End what still runs when the interpreter exits; daemon threads live until then."""
    if context._running.peek() is not None:
        context.close()
