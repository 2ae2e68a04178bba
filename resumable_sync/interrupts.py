"""What an exception thrown in by a signal handler (Celery's soft limit, Ctrl-C) cannot leave broken.

Such a handler may raise between any two steps of the main thread's Python code, also between a step and the `try`
that would undo it. So:

- Waits. Python's own Event and Condition take their lock in Python code: an exception that comes right after that
  leaves it held, and all who use it hang; or it leaves a wait without the lock that its caller is about to give
  back. Here each step is one call into C, and nobody waits with a lock held.
- Accounts. Who is inside is found out, not counted: a number that was raised and never lowered is wrong for good.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import signal
import threading
import time
import weakref
from types import CodeType, FrameType
from typing import Any

_SLICE_SECONDS = 1.0  # between looks at what a call that was broken off may not have told


class Alarm:
    """Ends the wait of one thread. Any thread may ring."""

    def __init__(self) -> None:
        self._gate = threading.Lock()
        self._gate.acquire()

    def ring(self) -> None:
        """End the present wait, or else the next one. Never blocks."""
        with contextlib.suppress(RuntimeError):  # it is open already
            self._gate.release()

    def wait(self, seconds: float) -> bool:
        """Wait until somebody rings, `seconds` at most. Whether somebody did."""
        return self._gate.acquire(timeout=min(max(0.0, seconds), threading.TIMEOUT_MAX))


class Event(threading.Event):
    """A `threading.Event` for any number of threads, which learn at most a second late of a `set` or a `wait` that
    was broken off. Thread-safe."""

    def __init__(self) -> None:
        super().__init__()
        self._alarm = Alarm()  # rung while it is on, but for the moments in which a thread passes
        self._on = False

    def is_set(self) -> bool:
        """Whether it is on."""
        return self._on

    def set(self) -> None:
        """Turn it on, and end all waits. Never blocks. Idempotent."""
        self._on = True
        self._alarm.ring()

    def clear(self) -> None:
        """Turn it off."""
        self._on = False
        self._alarm.wait(0.0)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is on, `timeout` seconds at most. Whether it is."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._on:
            left = _SLICE_SECONDS if deadline is None else min(_SLICE_SECONDS, deadline - time.monotonic())
            if left <= 0:
                break
            if self._alarm.wait(left) and self._on:
                self._alarm.ring()  # for the next one that waits
        return self._on


class Waiters:
    """The threads that wait for a change of what some lock guards, in place of a `threading.Condition`.

    That lock guards this object too. A thread says with the lock held that it will wait (`expect`), and waits on
    its alarm without it, then looks again.
    """

    def __init__(self) -> None:
        self._alarms: list[Alarm] = []

    def expect(self, alarm: Alarm) -> None:
        """Have it rung at the next change. Idempotent."""
        if alarm not in self._alarms:
            self._alarms.append(alarm)

    def wake_all(self) -> None:
        """There is a change."""
        if self._alarms:
            for alarm in self._alarms:
                alarm.ring()
            self._alarms = []  # last: those that a broken call has not rung are rung by the next


class Roll:
    """Who is inside, held weakly: whoever was broken off before it could leave goes by itself, with its frame.

    Thread-safe without a lock: each change is one call into C. Members compare by identity.
    """

    def __init__(self) -> None:
        self._members: set[weakref.ref[object]] = set()
        self.occupy = self._members.add
        self.vacate = self._members.discard

    def place(self, member: object) -> weakref.ref[object]:
        """What stands for it here. Whoever comes and goes with every chunk keeps it, for `occupy` and `vacate`:
        these cost a fraction of `enter` and `leave`."""
        place = weakref.ref(member, self._members.discard)
        hash(place)  # which it keeps: once the member is gone, it could not be had any more
        return place

    def enter(self, member: object) -> None:
        """It is inside. Idempotent."""
        self._members.add(weakref.ref(member, self._members.discard))

    def leave(self, member: object) -> None:
        """It is no longer inside. Idempotent."""
        self._members.discard(weakref.ref(member))

    def __contains__(self, member: object) -> bool:
        return weakref.ref(member) in self._members

    def __len__(self) -> int:
        return len(self._members)


def was_thrown_in(error: BaseException) -> bool:
    """Whether a signal handler has raised it, in this thread: it concerns the caller, not what it broke off."""
    if threading.current_thread() is not threading.main_thread():
        return False
    handlers = {_code(signal.getsignal(number)) for number in signal.valid_signals()}
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in handlers or _is_handler(trace.tb_frame):
            return True
        trace = trace.tb_next
    return False


def _code(handler: Any) -> CodeType | None:
    """Of the Python function that it is, or that it calls; None: it has none."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    function = handler if hasattr(handler, "__code__") else getattr(handler, "__call__", None)
    return getattr(function, "__code__", None)


def _is_handler(frame: FrameType) -> bool:
    """Whether it was called as a handler is: with a signal's number, and with the frame that it broke into. That
    tells one that is registered no more, as it has put back the handler before it."""
    code, values = frame.f_code, frame.f_locals
    given = [values.get(name) for name in code.co_varnames[: code.co_argcount]]
    if code.co_flags & inspect.CO_VARARGS:
        rest = values.get(code.co_varnames[code.co_argcount + code.co_kwonlyargcount])
        given += rest if isinstance(rest, tuple) else ()
    return frame.f_back is not None and any(
        isinstance(number, int) and broken is frame.f_back for number, broken in zip(given, given[1:])
    )
