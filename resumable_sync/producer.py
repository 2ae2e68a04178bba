"""What a running source sees of its producer, and the application's hooks."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from .contract import Lease, Notes, Status, check_notes
from .errors import UnsupportedError
from .interrupts import Event, was_thrown_in
from .logs import Extra, about

logger = logging.getLogger("resumable_sync")

Source = Callable[[], Iterable["bytes | str"]]
"""Makes the iterable of a stream's chunks; `str` is stored as UTF-8."""

current: ContextVar[Producer] = ContextVar("resumable_sync_producer")


@dataclass(frozen=True)
class Hooks:
    """The application's callbacks. They run in the producer's thread (`on_acquire`: in the caller's), outside
    all locks; one that raises is logged and changes nothing."""

    on_acquire: Callable[[str, str], object] | None = None
    on_append: Callable[[str, int], object] | None = None
    on_finalize: Callable[[str, Status, str | None], object] | None = None
    on_error: Callable[[str, BaseException], object] | None = None

    def __post_init__(self) -> None:
        for name, hook in vars(self).items():
            check_callback(name, hook)


_Cached = type(functools.cache(lambda: None))


def is_asynchronous(function: Any) -> bool:
    """Whether calling it gives something to await, or to iterate asynchronously."""
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif isinstance(function, (staticmethod, classmethod, _Cached)):
            function = function.__wrapped__
        else:
            break
    if not inspect.isroutine(function) and not inspect.isclass(function):
        function = getattr(function, "__call__", None)  # of an object that can be called
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def check_callback(name: str, callback: object) -> None:
    """TypeError for what can never be called later; None is none."""
    if callback is None:
        return
    if not callable(callback):
        raise TypeError(f"{name} must be a function, not {type(callback).__name__}")
    if is_asynchronous(callback):
        raise TypeError(f"{name} must not be asynchronous: it is called by threads, which await nothing")


def call_hook(hook: Callable[..., object] | None, *arguments: object) -> None:
    """Call `hook` if there is one; log what it raises.

    SystemExit and its like pass: in the application's own thread they are for the application. So does what a
    signal handler throws in.
    """
    if hook is not None:
        try:
            hook(*arguments)
        except Exception as error:
            if was_thrown_in(error):
                raise
            logger.exception("a hook of resumable_sync raised", extra=_about_hook(arguments))


def call_hook_in_thread(hook: Callable[..., object] | None, *arguments: object) -> None:
    """As `call_hook`, in a thread of ours: nothing passes, as there is nobody above who could want it, but what a
    signal handler throws in: then it is the caller's."""
    try:
        call_hook(hook, *arguments)
    except BaseException as error:
        if was_thrown_in(error):
            raise
        with contextlib.suppress(BaseException):  # logging may be what failed
            logger.exception("a hook of resumable_sync raised", extra=_about_hook(arguments))


def _about_hook(arguments: tuple[object, ...]) -> Extra:
    """All hooks begin with the stream's id; callbacks of a source take nothing."""
    return about("hook-failed", str(arguments[0]) if arguments else "")


def current_producer() -> Producer:
    """The handle of the producer that runs the calling source; LookupError outside one.

    Works in `make_stream`, in the generator it returns and in what these call. A thread that the source
    starts does not inherit it: hand the Producer over.
    """
    producer = current.get(None)
    if producer is None:
        raise LookupError("current_producer() is only there inside the make_stream of a running producer")
    return producer


class Producer:
    """What a running source sees of itself through `current_producer()`. Thread-safe.

    `stream_id`: the stream that it produces. `cancelled`, a `threading.Event`: set once the stream was stopped:
    cancelled, taken over, lost, or the context is closing. The source is closed (`GeneratorExit` in a generator)
    at its next chunk; one that blocks for long should check `cancelled`, or have `on_cancel` break its wait.
    `ended`, a `threading.Event`: set once the ending is stored, or was given up, and the hooks have run.
    `generation`, `term`: which life of the stream it produces, and how many producers that has had, with this one.
    """

    def __init__(self, lease: Lease, read_notes: Callable[[], Mapping[str, str]] | None = None) -> None:
        self.stream_id = lease.stream_id
        self.generation = lease.generation
        self.term = lease.term
        self.cancelled = Event()
        self.ended = Event()
        self._lease = lease
        self._read_notes = read_notes  # None: the store has none
        self._notes: dict[str, str | None] = {}  # for the next chunk; replaced as a whole, in the source's thread
        self._must_ask = lease.offset > 0  # until the source has asked where it goes on
        self._lock = threading.Lock()  # guards _callbacks and _at_end, and that `cancelled` is set
        self._callbacks: list[Callable[[], object]] = []
        self._at_end: list[Callable[[], object]] = []

    @property
    def offset(self) -> int:
        """Bytes of this stream that the store has acknowledged.

        A source that continues a stream (see `handover` of `ResumableStreamContext.run`) begins above 0, and goes
        on right there: at the end of a chunk that an earlier producer yielded, unless that one was split.
        """
        self._must_ask = False
        return self._lease.offset

    def notes(self) -> Mapping[str, str]:
        """The notes of the stream, as they are stored now. Asks the store: StoreUnavailableError, StreamLostError,
        and UnsupportedError if it has no notes."""
        return self._notes_of_store()()

    def set_notes(self, notes: Notes) -> None:
        """Store these notes in the same step as the chunk that is yielded next, or as the ending (None takes one
        away). For what a source must know to go on that its bytes do not tell.

        Call it in the thread that makes the chunks. ValueError for a malformed note (see `SharedStore`),
        UnsupportedError if the store has none.
        """
        self._notes_of_store()
        self._notes = {**self._notes, **check_notes(notes)}

    def _notes_of_store(self) -> Callable[[], Mapping[str, str]]:
        if self._read_notes is None:
            raise UnsupportedError("this store keeps no notes")
        return self._read_notes

    def _take_notes(self) -> dict[str, str | None]:
        notes, self._notes = self._notes, {}
        return notes

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

    def _on_end(self, callback: Callable[[], object]) -> None:
        """Call `callback()` once, before `ended` is set: when the ending is stored, or was given up, and the hooks
        have run. In whichever thread ends the stream, outside all locks; what it raises is logged."""
        with self._lock:
            if not self.ended.is_set():
                self._at_end.append(callback)
                return
        call_hook_in_thread(callback)

    def _cancel(self) -> None:
        """Set `cancelled` and have the callbacks called. Does not wait for them. Idempotent."""
        with self._lock:
            self.cancelled.set()
            callbacks, self._callbacks = self._callbacks, []
        if not callbacks:
            return

        def call_all() -> None:
            for callback in callbacks:
                call_hook_in_thread(callback)

        try:
            threading.Thread(target=call_all, name="resumable-sync-on-cancel", daemon=True).start()
        except RuntimeError:  # the interpreter is ending and starts no more threads
            call_all()

    def _end(self) -> None:
        """Nothing is left to cancel."""
        with self._lock:
            self._callbacks.clear()
            at_end, self._at_end = self._at_end, []
        for callback in at_end:
            call_hook_in_thread(callback)
        self.ended.set()
