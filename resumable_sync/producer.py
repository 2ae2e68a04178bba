"""The producer: a background thread that pumps a source into the store and ends the stream."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass

from .committer import committer_for
from .contract import Lease, Status, Store
from .errors import (
    LimitExceededError,
    ProducerInterruptedError,
    ResumableStreamError,
    StoreUnavailableError,
    StreamFinalizedError,
)
from .process import process_identity

logger = logging.getLogger("resumable_sync")

Source = Callable[[], Iterable["bytes | str"]]
"""Makes the iterable of a stream's chunks; `str` is stored as UTF-8."""

_current: ContextVar[Producer] = ContextVar("resumable_sync_producer")

_FINALIZE_RETRY_SECONDS = 0.2
_SHUT_DOWN = "the producing process was shut down"


@dataclass(frozen=True)
class Hooks:
    """The application's callbacks. They run in the producer's thread (`on_acquire`: in the caller's), outside
    all locks; one that raises is logged and changes nothing."""

    on_acquire: Callable[[str, str], object] | None = None
    on_append: Callable[[str, int], object] | None = None
    on_finalize: Callable[[str, Status, str | None], object] | None = None
    on_error: Callable[[str, BaseException], object] | None = None


def call_hook(hook: Callable[..., object] | None, *arguments: object) -> None:
    """Call `hook` if there is one; log what it raises.

    SystemExit and its like pass: in the application's own thread they are for the application.
    """
    if hook is not None:
        try:
            hook(*arguments)
        except Exception:
            logger.exception("a hook of resumable_sync raised")


def _call_hook(hook: Callable[..., object] | None, *arguments: object) -> None:
    """As `call_hook`, in a thread of ours: nothing passes, as there is nobody above who could want it."""
    try:
        call_hook(hook, *arguments)
    except BaseException:
        logger.exception("a hook of resumable_sync raised")


def current_producer() -> Producer:
    """The handle of the producer that runs the calling source; LookupError outside one.

    Works in `make_stream`, in the generator it returns and in what these call. A thread that the source
    starts does not inherit it: hand the Producer over.
    """
    producer = _current.get(None)
    if producer is None:
        raise LookupError("current_producer() is only there inside the make_stream of a running producer")
    return producer


class Producer:
    """What a running source sees of itself through `current_producer()`. Thread-safe.

    `stream_id`: the stream that it produces. `cancelled`, a `threading.Event`: set once the stream was stopped:
    cancelled, taken over, lost, or the context is closing. The source is closed (`GeneratorExit` in a generator)
    at its next chunk; one that blocks for long should check `cancelled`, or have `on_cancel` break its wait.
    `ended`, a `threading.Event`: set once the ending is stored, or was given up, and the hooks have run.
    """

    def __init__(self, lease: Lease) -> None:
        self.stream_id = lease.stream_id
        self.cancelled = threading.Event()
        self.ended = threading.Event()
        self._lease = lease
        self._lock = threading.Lock()  # guards _callbacks, and that `cancelled` is set
        self._callbacks: list[Callable[[], object]] = []

    @property
    def offset(self) -> int:
        """Bytes of this stream that the store has acknowledged."""
        return self._lease.offset

    def on_cancel(self, callback: Callable[[], object]) -> None:
        """Call `callback()` once, in a thread of its own, when `cancelled` is set; at once if it is already.

        For breaking a wait of the source, such as closing its upstream connection. What it raises is logged.
        It should not block: at interpreter exit, where Python may start no thread any more, exit waits for it.
        """
        with self._lock:
            if not self.cancelled.is_set():
                self._callbacks.append(callback)
                return
        call_hook(callback)

    def _cancel(self) -> None:
        """Set `cancelled` and have the callbacks called. Does not wait for them. Idempotent."""
        with self._lock:
            self.cancelled.set()
            callbacks, self._callbacks = self._callbacks, []
        if not callbacks:
            return

        def call_all() -> None:
            for callback in callbacks:
                _call_hook(callback)

        try:
            threading.Thread(target=call_all, name="resumable-sync-on-cancel", daemon=True).start()
        except RuntimeError:  # the interpreter is ending and starts no more threads
            call_all()

    def _end(self) -> None:
        """Nothing is left to cancel."""
        with self._lock:
            self._callbacks.clear()
        self.ended.set()


class Pump:
    """Pumps one source into the store, in the producer's thread, and ends the stream.

    Renews its lease from the beginning, also while it waits for a thread. `stop` and `interrupt` are for other
    threads. Thread-safe: `_lock` guards `_ending_claimed`; everything else is fixed, or synchronises itself.

    Whatever raises, and wherever, the stream ends or its lease is renewed no longer: `run` reaches `_end`, and
    `_end` closes the outbox. A child that the source forks carries a copy of this pump: it touches nothing, since
    the stream is the parent's.
    """

    def __init__(
        self,
        store: Store,
        lease: Lease,
        make_stream: Source,
        hooks: Hooks,
        *,
        heartbeat: float,
        max_pending_bytes: int,
    ) -> None:
        self.stream_id = lease.stream_id
        self.producer = Producer(lease)
        self.ended = self.producer.ended
        self._store = store
        self._lease = lease
        self._make_stream = make_stream
        self._hooks = hooks
        self._lock = threading.Lock()
        self._ending_claimed = False
        self._process = process_identity()
        self._committer = committer_for(store, lease.stream_id)
        self._outbox = self._committer.open(lease, heartbeat, self.producer._cancel, max_pending_bytes)

    def run(self) -> None:
        """Pump the source to its end and end the stream. Never raises; runs in the producer's thread."""
        status: Status = Status.INTERRUPTED
        error: str | None = "the producer failed"
        try:
            status, error = self._pump()
        except BaseException:  # such as a logging handler that raises
            with contextlib.suppress(BaseException):
                logger.exception("the producer of stream %s failed", self.stream_id)
        finally:
            try:
                self._end(status, error)
            except BaseException:
                with contextlib.suppress(BaseException):
                    logger.exception("stream %s could not be ended", self.stream_id)

    def _pump(self) -> tuple[Status, str | None]:
        """Pump the source, close it, and return how the stream is to end."""
        _current.set(self.producer)
        cancelled = self.producer.cancelled
        status: Status = Status.DONE
        error: str | None = None
        closers: list[object] = []
        try:
            if cancelled.is_set():  # stopped while it waited for a thread: the source never runs
                raise _Stopped
            source = self._make_stream()
            closers.append(source)
            chunks = iter(source)
            if chunks is not source:
                closers.insert(0, chunks)
            for chunk in chunks:
                self._put(chunk)
            if cancelled.is_set():  # it may have returned because it was told to: then it is not done
                raise _Stopped
        except _Stopped:
            status, error = Status.INTERRUPTED, _SHUT_DOWN
        except BaseException as raised:  # whatever a source raises, also SystemExit, ends its stream
            if self._forked:
                return status, error
            status, error = Status.ERROR, _describe(raised)
            if cancelled.is_set():  # most likely on_cancel has broken its wait: no fault of its own
                status = Status.INTERRUPTED
            logger.info("the source of stream %s raised", self.stream_id, exc_info=True)
            _call_hook(self._hooks.on_error, self.stream_id, raised)
        finally:
            for closer in closers:
                self._close_source(closer)
        return status, error

    @property
    def _forked(self) -> bool:
        """Whether this is a child of the process that produces."""
        return process_identity() != self._process

    def stop(self) -> None:
        """Take no more from the source: the stream is to end as `interrupted`. Does not wait."""
        self._committer.refuse(self._outbox, ProducerInterruptedError("the context was closed"))
        self.producer._cancel()

    def interrupt(self, timeout: float) -> None:
        """After `stop`: end the stream as `interrupted` even though its source does not return, within
        `timeout` seconds. What was handed over is stored first."""
        self._end(Status.INTERRUPTED, _SHUT_DOWN, timeout)

    def _put(self, chunk: bytes | str) -> None:
        if isinstance(chunk, str):
            data = chunk.encode("utf-8")
        elif isinstance(chunk, (bytes, bytearray, memoryview)):
            data = bytes(chunk)  # a copy of what the source may change; bytes themselves are not copied
        else:
            raise TypeError(f"a source must yield bytes or str, not {type(chunk).__name__}")
        if self._forked or (not data and self.producer.cancelled.is_set()):
            raise _Stopped  # a chunk that stores nothing is a point at which a source is stopped, like any other
        size = self._store.max_chunk_bytes
        try:
            if len(data) <= size:
                if data:
                    self._committer.put(self._outbox, data)
            else:
                for begin in range(0, len(data), size):  # split, never dropped
                    self._committer.put(self._outbox, data[begin : begin + size])
        except ResumableStreamError as reason:
            raise _Stopped from reason
        self._report_appends()

    def _report_appends(self) -> None:
        acknowledged = self._outbox.acknowledged  # a deque: thread-safe
        try:
            while True:
                _call_hook(self._hooks.on_append, self.stream_id, acknowledged.popleft())
        except IndexError:
            pass

    def _close_source(self, source: object) -> None:
        try:
            close = getattr(source, "close", None)
            if callable(close):
                close()
        except BaseException as raised:  # the ending is decided; a failing close must not hide it
            logger.warning("closing the source of stream %s failed", self.stream_id, exc_info=True)
            if not self._forked:
                _call_hook(self._hooks.on_error, self.stream_id, raised)

    def _end(self, status: Status, error: str | None, timeout: float | None = None) -> None:
        """Store what is pending, then the ending, then call the hooks. Only the first call does it.

        The pump calls it when the source is through; `interrupt` when the source does not come back.
        """
        if self._forked:
            return
        with self._lock:
            if self._ending_claimed:
                return
            self._ending_claimed = True
        try:
            self._store_ending(status, error, timeout)
        finally:
            self._committer.close(self._outbox)
            self.producer._end()

    def _store_ending(self, status: Status, error: str | None, timeout: float | None) -> None:
        deadline = time.monotonic() + (self._store.grace if timeout is None else timeout)
        try:
            # The ending comes after all that was made: it is last, and `done` means that everything is there.
            self._committer.flush(self._outbox, timeout)
        except StreamFinalizedError:
            pass  # cancelled, or declared lost: finalize tells which
        except ResumableStreamError as refused:
            status = Status.ERROR if isinstance(refused, LimitExceededError) else Status.INTERRUPTED
            error = str(refused)
            _call_hook(self._hooks.on_error, self.stream_id, refused)
        self._report_appends()
        try:
            self._finalize(status, error, deadline)
        except StreamFinalizedError as ended:
            status, error = Status(ended.status or status), None  # that ending stands
        except ResumableStreamError as refused:
            # Nothing more can be done here: readers see the loss, or the lease runs out and they see
            # `interrupted`.
            logger.warning("stream %s could not be ended as %s: %s", self.stream_id, status, refused)
            return
        except Exception:  # a fault in the store: the same
            logger.exception("stream %s could not be ended as %s", self.stream_id, status)
            return
        _call_hook(self._hooks.on_finalize, self.stream_id, status, error)

    def _finalize(self, status: Status, error: str | None, deadline: float) -> None:
        while True:
            try:
                return self._store.finalize(self._lease, status, error)
            except StoreUnavailableError as unavailable:
                if not unavailable.transient or time.monotonic() >= deadline:
                    raise
            # A store does not tell when it is back, so there is nothing to wait for but time.
            time.sleep(_FINALIZE_RETRY_SECONDS)


def _describe(raised: BaseException) -> str:
    """The exception in words; its name alone if its own text cannot be had."""
    name = type(raised).__name__
    try:
        return f"{name}: {raised}"
    except BaseException:
        return name


class _Stopped(Exception):
    """The outbox takes no more chunks; why, `Committer.flush` says."""
