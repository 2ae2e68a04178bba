"""Where the waiting readers of one stream in one process are woken."""

from __future__ import annotations

import threading


class Channel:
    """The readers of one stream in this process. `_turn` guards `version` and `_waiting`.

    Each waiting reader blocks on a lock of its own, which whoever wakes it lets go: those that wake do not queue
    up for a lock that they share.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._waiting: list[threading.Lock] = []
        self.version = 0  # grows with every wake-up; a reader takes it before it looks at the store
        self.listeners = 0  # guarded by the lock of whoever hands channels out

    def bump(self) -> None:
        """Wake all that wait."""
        with self._turn:
            self.version += 1
            waiting, self._waiting = self._waiting, []
        for gate in waiting:
            gate.release()

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
            if not woken:  # also when a signal handler raised
                with self._turn:
                    if gate in self._waiting:
                        self._waiting.remove(gate)
        return self.version != version
