"""SIGINT, SIGTERM and SIGHUP as one exception, raised only where the program can bear it."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType

from .exits import SIGNALLED

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """The user, or the system, asked the program to stop."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = SIGNALLED + signum


class Signals:
    """Raises `Stopped` in the main thread at the first signal, and at once wherever it waits.

    Within `deferred()` nothing is raised until its end. The second signal is ignored, since cleaning up is
    short; the third kills the program the hard way. A signal that is ignored when the program starts, as
    under nohup, stays ignored. For the main thread alone.
    """

    def __init__(self) -> None:
        self._caught: int | None = None
        self._times = 0
        self._deferring = False
        self._on_deferred: Callable[[], object] | None = None

    def install(self) -> None:
        """Handle the signals from now on."""
        for signum in _SIGNALS:
            if signal.getsignal(signum) not in (signal.SIG_IGN, None):
                signal.signal(signum, self._handle)

    @contextlib.contextmanager
    def deferred(self, on_signal: Callable[[], object] | None = None) -> Iterator[None]:
        """Hold `Stopped` back until the end of the block. `on_signal` is called in the handler meanwhile."""
        self._on_deferred, self._deferring = on_signal, True
        try:
            yield
        finally:
            self._on_deferred, self._deferring = None, False
        if self._caught is not None and self._times == 1:
            raise Stopped(self._caught)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        self._times += 1
        if self._times > 2:
            signal.signal(signum, signal.SIG_DFL)
            signal.raise_signal(signum)
        if self._times > 1:
            return
        self._caught = signum
        if not self._deferring:
            raise Stopped(signum)
        if self._on_deferred is not None:
            self._on_deferred()
