"""SIGINT, SIGTERM and SIGHUP as one exception, raised only where the program can bear it."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from .exits import SIGNALLED

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_CLEANING_SECONDS = 5.0  # more than ending a stream and its command takes


class Stopped(BaseException):
    """The user, or the system, asked the program to stop."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = SIGNALLED + signum


class Signals:
    """Raises `Stopped` in the main thread, once: at the first signal, or at the end of a `deferred()` block.

    Signals come in company: a closing terminal and a service manager send one each, and people press Ctrl-C
    twice. Those within five seconds of the first ask for what is being done already, and change nothing. A later
    one kills the program the hard way. A signal that is ignored when the program starts, as under nohup, stays
    ignored. For the main thread alone.
    """

    def __init__(self) -> None:
        self._first: int | None = None
        self._first_at = 0.0
        self._raised = False
        self._disarmed = False
        self._deferring = False
        self._hurried = False
        self._on_signal: Callable[[], object] | None = None

    def install(self) -> None:
        """Handle the signals from now on."""
        for signum in _SIGNALS:
            if signal.getsignal(signum) not in (signal.SIG_IGN, None):
                signal.signal(signum, self._handle)
        atexit.register(self._ignore)

    def _ignore(self) -> None:
        """The exit code is certain. The interpreter, which is about to go, would put the default action in place
        of our handler, and one more signal then would change the code."""
        for signum in _SIGNALS:
            if signal.getsignal(signum) == self._handle:
                signal.signal(signum, signal.SIG_IGN)

    @contextlib.contextmanager
    def announced(self) -> Iterator[tuple[int, int]]:
        """A pipe that gets the number of each signal that comes during the block, to whichever thread.

        One that another thread got does not break a wait of the main thread, whose handler then does not run:
        `wake` makes it.
        """
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        try:
            yield reader, writer
        finally:
            signal.set_wakeup_fd(before)
            os.close(reader)
            os.close(writer)

    def wake(self, signum: int) -> None:
        """Have the main thread handle a signal that was announced. For another thread."""
        main = threading.main_thread().ident
        if self._first is None and main is not None:
            signal.pthread_kill(main, signum)

    @property
    def pending(self) -> Stopped | None:
        """What the first signal asks for; None if none has come."""
        return None if self._first is None else Stopped(self._first)

    def hurry(self) -> None:
        """Raise `Stopped` in the main thread now, in a `deferred` block or not, and again at each call: what it
        does may take one for a fault of its own and go on. For another thread; not after `disarm`."""
        main = threading.main_thread().ident
        if self._first is not None and main is not None:
            self._hurried = True
            signal.pthread_kill(main, self._first)  # breaks a wait that a flag alone would not

    def disarm(self) -> None:
        """Raise nothing from now on: the outcome is certain, and only to be told."""
        self._raised = self._disarmed = True

    @contextlib.contextmanager
    def deferred(self, on_signal: Callable[[], object] | None = None) -> Iterator[None]:
        """Hold `Stopped` back until the end of the block. Each signal calls `on_signal` in its handler.

        A handler may interrupt another one, so `on_signal` must take no lock, not even that of an Event.
        """
        self._on_signal, self._deferring = on_signal, True
        try:
            yield
        finally:
            self._on_signal, self._deferring = None, False
        self._raise()

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._hurried and not self._disarmed and self._first is not None:
            raise Stopped(self._first)
        if self._first is None:
            self._first, self._first_at = signum, now
        elif now - self._first_at > _CLEANING_SECONDS:
            signal.signal(signum, signal.SIG_DFL)
            signal.raise_signal(signum)
        if not self._deferring:
            self._raise()
        elif self._on_signal is not None:
            self._on_signal()

    def _raise(self) -> None:
        if self._first is not None and not self._raised:
            self._raised = True
            raise Stopped(self._first)
