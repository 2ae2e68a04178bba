"""Where the waiting readers of one stream in one process are woken."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque

_SLOW_SECONDS = 0.002  # for one reader to wake, which mostly takes 0.02 to 0.1 ms


class Alarm:
    """Ends the wait of one thread. Any thread may ring.

    A threading.Event would do, but its lock may be left held where a signal handler raises in `set`, and then all
    who use it hang. Here each step is one call into C.
    """

    def __init__(self) -> None:
        self._gate = threading.Lock()
        self._gate.acquire()

    def ring(self) -> None:
        """End the present wait, or else the next one. Never blocks."""
        with contextlib.suppress(RuntimeError):  # it is open already
            self._gate.release()

    def wait(self, seconds: float) -> None:
        """Wait until somebody rings, `seconds` at most."""
        self._gate.acquire(timeout=max(0.0, seconds))


class Channel:
    """The readers of one stream in this process. `_turn` guards all fields, but for the version of a subclass that
    counts under a lock of its own.

    Each waiting reader blocks on a lock of its own, its gate. Whoever wakes them opens the first gate, and each
    reader that wakes opens the next: hundreds that woke at once would mostly wake to wait for the GIL, at twice
    the CPU time. If one takes long to wake, because another thread computes and lets the GIL go only now and then,
    it opens all the others, so that they do not all wait as long, one after the other. Nobody depends on the main
    thread, which may have a signal handler to run first.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        # To be woken. While there are any, a reader whose gate was opened has yet to open the next.
        self._called: deque[threading.Lock] = deque()
        self._main: list[threading.Lock] = []  # the gate of the main thread, if it waits here
        self._opened_at = 0.0  # monotonic: when the last gate was
        self.version = 0  # grows with every change; a reader takes it before it asks the store

    def bump(self) -> None:
        """Count a change of the version, and wake all that wait."""
        with self._turn:
            self.version += 1
            gates = self._call()
        for gate in gates:
            gate.release()

    def wake(self) -> None:
        """Wake all that wait, where somebody has counted the change under a lock of their own."""
        with self._turn:
            gates = self._call()
        for gate in gates:
            gate.release()

    def wait(self, version: int, timeout: float) -> bool:
        """Wait until the version is another than `version`, `timeout` seconds at most; False if it is not."""
        if self.version != version:
            return True
        gate = threading.Lock()
        gate.acquire()
        woken = False
        try:
            with self._turn:
                if self.version != version:
                    woken = True  # though not by the gate; to open another one does no harm
                else:
                    is_main = threading.current_thread() is threading.main_thread()
                    (self._main if is_main else self._waiting).append(gate)
            woken = woken or gate.acquire(timeout=max(0.0, timeout))
        finally:
            with self._turn:
                # At a timeout or an exception its gate may be open all the same: then the others count on it.
                gates = self._next(True) if woken or not self._withdraw(gate) else []
            for each in gates:
                each.release()
        return self.version != version

    # The helpers below are called with the lock held.

    def _call(self) -> list[threading.Lock]:
        """Have all that wait woken; returns the gates to open now."""
        follows = bool(self._called)  # those called before
        self._called += self._waiting
        self._waiting.clear()
        gates = self._main + self._next(follows)
        self._main = []
        return gates

    def _next(self, follows: bool) -> list[threading.Lock]:
        """The gates to open now: one, or all if this one `follows` others that take long."""
        if not self._called:
            return []
        now = time.monotonic()
        slow = follows and now - self._opened_at > _SLOW_SECONDS
        self._opened_at = now
        return [self._called.popleft() for _ in range(len(self._called) if slow else 1)]

    def _withdraw(self, gate: threading.Lock) -> bool:
        """Let nobody open this gate any more; False if somebody has."""
        for gates in (self._waiting, self._called, self._main):
            if gate in gates:
                gates.remove(gate)
                return True
        return False
