"""A copy of what is published, on stdout."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable

_STDOUT = 1
_WRITE_BYTES = select.PIPE_BUF  # a pipe that is reported as writable takes this much at once
_CHECK_MILLISECONDS = 100  # between looks whether to go on waiting for a slow reader


class Tee:
    """Copies to stdout. An output that cannot be written is given up, once, with a message: the stream goes on.

    A slow reader slows the source down, as with tee. For one thread.
    """

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say = say
        self._open = True
        self._poller = select.poll()
        self._poller.register(_STDOUT, select.POLLOUT)

    def write(self, data: bytes, stopped: threading.Event) -> None:
        """Write all of it; once `stopped` is set, only what the reader takes without waiting."""
        rest = memoryview(data)
        try:
            while rest and self._open:
                if self._poller.poll(0 if stopped.is_set() else _CHECK_MILLISECONDS):
                    try:
                        rest = rest[os.write(_STDOUT, rest[:_WRITE_BYTES]) :]
                    except BlockingIOError:  # others share it, and were faster
                        stopped.wait(_CHECK_MILLISECONDS / 1000)
                elif stopped.is_set():
                    return
        except OSError as error:
            self._open = False
            self._say(f"cannot write to standard output: {error.strerror}; the stream goes on without it")
