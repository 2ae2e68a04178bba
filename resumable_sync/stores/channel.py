"""Where the waiting readers of one stream in one process are woken."""

from __future__ import annotations

import threading
import time


class Channel:
    """The readers of one stream in this process. Its lock guards `version` and `waiting`."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self.version = 0  # grows with every wake-up; a reader takes it before it looks at the store
        self._waiting = 0
        self.listeners = 0  # guarded by the lock of whoever hands channels out

    def bump(self) -> None:
        """Wake all that wait."""
        with self._changed:
            self.version += 1
            if self._waiting:
                self._changed.notify_all()

    def wait(self, version: int, timeout: float) -> bool:
        """Wait until the version is another than `version`, `timeout` seconds at most; False if it is not."""
        deadline = time.monotonic() + timeout
        with self._changed:
            self._waiting += 1
            try:
                while self.version == version:
                    left = deadline - time.monotonic()
                    if left <= 0:
                        return False
                    self._changed.wait(left)
                return True
            finally:
                self._waiting -= 1
