"""Where the waiting readers of one stream in one process are woken."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable
from itertools import islice

_SLOW_SECONDS = 0.002  # for one reader to wake, which mostly takes 0.02 to 0.1 ms


class Channel:
    """The readers of one stream in this process. `_turn` guards all fields, but for the version of a subclass that
    counts under a lock of its own.

    Each waiting reader blocks on a lock of its own, its gate. Whoever wakes them opens the first gate, and each
    reader that wakes opens the next: hundreds that woke at once would mostly wake to wait for the GIL, at twice
    the CPU time. If one takes long to wake, because another thread computes and lets the GIL go only now and then,
    it opens all the others, so that they do not all wait as long, one after the other. Nobody depends on the main
    thread, which may have a signal handler to run first.

    Such a handler may also raise, anywhere in a call of the main thread. So each change is one assignment, and
    nobody takes a gate out of the queue but the reader whose gate it is: what a call that was broken off has left
    shut is opened by the next.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        # First those whose gates are open, then those that are to be woken, too, then those that wait.
        self._waiting: deque[threading.Lock] = deque()
        self._opened = 0  # while there are any, one of their readers has yet to open the next gate
        self._called = 0  # with those opened
        self._main: list[threading.Lock] = []  # the gate of the main thread, if it waits here
        self._opened_at = 0.0  # monotonic: when the last gate was
        self.version = 0  # grows with every change; a reader takes it before it asks the store

    def bump(self) -> None:
        """Count a change of the version, and wake all that wait."""
        with self._turn:
            self.version += 1
            gates = self._call() if self._waiting or self._main else None
        if gates:
            _open(gates)

    def wake(self) -> None:
        """Wake all that wait, where somebody has counted the change under a lock of their own."""
        with self._turn:
            gates = self._call()
        _open(gates)

    def wait(self, version: int, timeout: float) -> bool:
        """Wait until the version is another than `version`, `timeout` seconds at most; False if it is not."""
        if self.version != version:
            return True
        gate = threading.Lock()
        gate.acquire()
        try:
            with self._turn:
                if self.version != version:
                    return True
                is_main = threading.get_ident() == threading.main_thread().ident
                (self._main if is_main else self._waiting).append(gate)
            gate.acquire(timeout=max(0.0, timeout))
        finally:
            with self._turn:
                gates = self._withdraw(gate)
            if gates:
                _open(gates)
        return self.version != version

    # The helpers below are called with the lock held.

    def _call(self) -> list[threading.Lock]:
        """Have all that wait woken; returns the gates to open now."""
        if len(self._waiting) == 1 and not (self._called or self._main):  # as most often; the same, in fewer steps
            self._called = 1
            self._opened_at = time.monotonic()
            self._opened = 1
            return list(self._waiting)
        follows = self._called > 0  # those called before
        self._called = len(self._waiting)
        gates = self._next(follows)
        if self._opened > len(gates):
            gates += [
                gate for gate in islice(self._waiting, self._opened - len(gates)) if gate.locked()
            ]  # left shut
        if self._main:
            gates, self._main = gates + self._main, []
        return gates

    def _next(self, follows: bool) -> list[threading.Lock]:
        """The gates to open now: one, or all if this one `follows` others that take long."""
        opened, called = self._opened, self._called
        if opened == called:
            return []
        now = time.monotonic()
        slow = follows and now - self._opened_at > _SLOW_SECONDS
        if opened and not slow:
            return []
        self._opened_at = now
        self._opened = called if slow else opened + 1
        return list(islice(self._waiting, opened, self._opened))

    def _withdraw(self, gate: threading.Lock) -> list[threading.Lock]:
        """Take out this gate, whose reader is awake; returns those to open now. Also where the reader has timed
        out: if it was called its gate may be open, and the others count on it."""
        if self._main and gate in self._main:
            self._main.remove(gate)
        try:
            place = self._waiting.index(gate)  # mostly the first
        except ValueError:
            return []
        if place < self._opened:
            self._opened -= 1
        if place < self._called:
            self._called -= 1
        del self._waiting[place]
        return self._next(True) if self._opened != self._called else []


def _open(gates: Iterable[threading.Lock]) -> None:
    for gate in gates:
        try:  # not `suppress`: three calls on the way of every live chunk
            gate.release()
        except RuntimeError:  # another thread has opened it at the same moment
            pass
