"""Where the waiting readers of one stream in one process are woken."""

from __future__ import annotations

import threading
import time
from collections import deque

_SLOW_SECONDS = 0.002  # for one reader to wake, which mostly takes 0.02 to 0.1 ms


class Channel:
    """The readers of one stream in this process. `_turn` guards all fields.

    Each waiting reader blocks on a lock of its own, its gate. Who wakes them opens the first gate, and each reader
    that wakes opens the next: hundreds that woke at once would mostly wake to wait for the GIL, at more than twice
    the CPU time. If one takes long to wake, because another thread computes and lets the GIL go only now and then,
    it opens all the others, so that they do not all wait as long, one after the other.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        # To be woken. While there are any, a reader whose gate was opened has yet to open the next.
        self._called: deque[threading.Lock] = deque()
        self._opened_at = 0.0  # monotonic: when the last gate was
        self.version = 0  # grows with every wake-up; a reader takes it before it looks at the store

    def bump(self) -> None:
        """Wake all that wait."""
        with self._turn:
            self.version += 1
            if not self._waiting:
                return
            self._called += self._waiting
            self._waiting.clear()
            self._opened_at = time.monotonic()
            first = self._called.popleft()
        first.release()

    def wait(self, version: int, timeout: float) -> bool:
        """Wait until the version is another than `version`, `timeout` seconds at most; False if it is not."""
        gate = threading.Lock()
        gate.acquire()
        with self._turn:
            if self.version != version:
                return True
            self._waiting.append(gate)
        woken = False
        try:
            woken = gate.acquire(timeout=max(0.0, timeout))
        finally:
            with self._turn:
                # At a timeout or an exception its gate may be open all the same: then the others count on it.
                following = self._following() if woken or not self._withdraw(gate) else []
            for each in following:
                each.release()
        return self.version != version

    def _following(self) -> list[threading.Lock]:
        """The gates to be opened by a reader that woke. Called with the lock held."""
        if not self._called:
            return []
        now = time.monotonic()
        count = len(self._called) if now - self._opened_at > _SLOW_SECONDS else 1
        self._opened_at = now
        return [self._called.popleft() for _ in range(count)]

    def _withdraw(self, gate: threading.Lock) -> bool:
        """Let nobody open this gate any more; False if somebody has. Called with the lock held."""
        for gates in (self._waiting, self._called):
            if gate in gates:
                gates.remove(gate)
                return True
        return False
