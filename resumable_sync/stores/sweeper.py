"""A background thread that sweeps a store: expired streams go even when nobody asks for them."""

from __future__ import annotations

import contextlib
import logging
import threading
import weakref
from collections.abc import Callable

from ..errors import StoreUnavailableError
from ..interrupts import Alarm
from ..process import start_thread

logger = logging.getLogger("resumable_sync")

_JOIN_SECONDS = 1.0


class Sweeper:
    """Calls `work` every `interval()` seconds, or at once after `hurry()`, from a daemon thread.

    Holds `work`, a bound method, weakly: an abandoned store is collected and its thread ends. The thread
    starts with the first `start()`. All methods are thread-safe.
    """

    def __init__(self, name: str, work: Callable[[], object], interval: Callable[[], float]) -> None:
        self._name = name
        self._work = weakref.WeakMethod(work)
        self._interval = weakref.WeakMethod(interval)
        self._lock = threading.Lock()  # guards _thread
        self._thread: threading.Thread | None = None
        self._hurry = Alarm()
        self._stopped = False  # only ever goes to True

    def start(self) -> None:
        """Start the thread unless it runs, or was stopped. If the process can have no more threads, a later call
        does: sweeping can wait."""
        if self._thread is not None:  # only ever goes from None to a thread: a stale value costs a lock
            return
        with self._lock:
            if self._thread is None and not self._stopped:
                with contextlib.suppress(StoreUnavailableError):
                    self._thread = start_thread(self._run, self._name)

    def hurry(self) -> None:
        """Ask for one round now."""
        self._hurry.ring()

    def stop(self) -> None:
        """End the thread after its present round, and wait for that, a second at most. Final."""
        self._stopped = True
        self._hurry.ring()
        with self._lock:
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_JOIN_SECONDS)

    def _run(self) -> None:
        while True:
            interval = self._interval()
            if interval is None:
                return
            seconds = interval()
            del interval  # hold the store only while working for it
            self._hurry.wait(seconds)
            work = self._work()
            if work is None or self._stopped:
                return
            try:
                work()
            except Exception:
                # The next round may succeed (a locked file, a server that is away), and readers report
                # the trouble to somebody who can act on it.
                logger.warning("%s: a round of sweeping failed", self._name, exc_info=True)
            del work
