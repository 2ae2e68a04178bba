"""Waiting for streams that have not begun yet: of those that wait for one id in a process, one asks the store."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from .interrupts import Alarm, Roll, Waiters

_LOST_SECONDS = 1.0  # between looks whether the one that asks was broken off
_ASK_SECONDS = 0.15  # from one question to the next; with the answer a viewer comes at most 0.2 s late


class _Awaited:
    """A stream that somebody waits for. The lock of Arrivals guards all fields."""

    def __init__(self) -> None:
        self.changed = Waiters()
        self.waiting = Roll()
        self.arrived = False
        self.asking = Roll()  # the one of those that wait that is asking the store
        self.ask_at = 0.0  # monotonic: when the next one may ask it


class _Caller:
    """One that waits: an object of the calling frame alone."""


class Arrivals:
    """Those in one process that wait for streams to begin. Thread-safe; `_lock` guards all fields."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._awaited: dict[str, _Awaited] = {}
        self._closed = False

    def wait(self, stream_id: str, deadline: float, is_there: Callable[[], bool]) -> bool:
        """Wait until the stream is there, `deadline` (monotonic) or `close`. True if it is there.

        `is_there()` asks the store, by one of the waiting threads at a time; what it raises goes to that thread
        alone. In this process `tell` saves the question.
        """
        caller, alarm = _Caller(), Alarm()
        with self._lock:
            awaited = self._awaited.get(stream_id)
            if awaited is None or awaited.arrived:  # nobody waits for that one any more, or is about to
                awaited = self._awaited[stream_id] = _Awaited()
            awaited.waiting.enter(caller)
        try:
            while True:
                with self._lock:
                    now = time.monotonic()
                    if awaited.arrived or self._closed or now >= deadline:
                        return awaited.arrived
                    waits = bool(awaited.asking) or now < awaited.ask_at
                    if waits:
                        until = min(deadline, now + _LOST_SECONDS if awaited.asking else awaited.ask_at)
                        awaited.changed.expect(alarm)
                    else:
                        awaited.asking.enter(caller)
                if waits:
                    alarm.wait(until - now)
                    continue
                found = False
                try:
                    found = is_there()
                finally:
                    with self._lock:
                        awaited.asking.leave(caller)
                        awaited.ask_at = time.monotonic() + _ASK_SECONDS
                        awaited.arrived = awaited.arrived or found
                        awaited.changed.wake_all()
        finally:
            with self._lock:
                awaited.waiting.leave(caller)
                if self._awaited.get(stream_id) is awaited and (awaited.arrived or not awaited.waiting):
                    del self._awaited[stream_id]  # whoever comes now waits for another life of the id

    def waiting(self) -> int:
        """How many wait."""
        with self._lock:
            return sum(len(awaited.waiting) for awaited in self._awaited.values())

    def tell(self, stream_id: str) -> None:
        """The stream has begun in this process. Cheap where nobody waits for it."""
        if stream_id in self._awaited:  # a dict is read atomically: whoever comes later asks the store first
            with self._lock:
                awaited = self._awaited.get(stream_id)
                if awaited is not None:
                    awaited.arrived = True
                    awaited.changed.wake_all()

    def close(self) -> None:
        """Let all that wait return, also those that come later."""
        with self._lock:
            self._closed = True
            for awaited in self._awaited.values():
                awaited.changed.wake_all()
