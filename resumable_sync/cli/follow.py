"""`follow`: a stream's bytes to stdout, and how to go on when that is cut short."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import shlex
import threading
import time
from collections.abc import Iterator

from ..context import ResumableStreamContext
from ..contract import Batch
from ..errors import ResumableStreamError, StreamNotFoundError
from .exits import OUTPUT_CLOSED, PROGRAM, CommandError, Exit, exit_code, say
from .location import open_named_store
from .signals import Signals, Stopped

_STDOUT = 1
_READ_BYTES = 1024 * 1024
_LOOK_SECONDS = 1.0  # between looks whether anybody still reads a silent stream's output
_MISSING_SECONDS = 0.1  # between looks for a stream that is not there yet


class _Output:
    """Writes batches to stdout and knows the cursor behind the last byte that went out."""

    def __init__(self, signals: Signals, after: str) -> None:
        self._signals = signals
        self._poller = select.poll()
        self._poller.register(_STDOUT, 0)  # POLLERR is told without being asked for
        self.cursor = after
        self.written = 0

    def write(self, batch: Batch) -> None:
        """Write all of it. A signal ends it between two bytes, with the cursor right."""
        begin = batch.offset - len(batch.data)
        self.cursor = batch.start
        rest = memoryview(batch.data)
        stop = threading.Event()

        def unblock() -> None:
            stop.set()
            # A write that waits for a slow reader is repeated after the handler unless it cannot wait.
            os.set_blocking(_STDOUT, False)

        try:
            with self._signals.deferred(unblock):
                while rest and not stop.is_set():
                    try:
                        count = os.write(_STDOUT, rest)
                    except BlockingIOError:
                        # A signal, or somebody who shares the terminal, made stdout non-blocking.
                        if not stop.is_set():
                            select.select([], [_STDOUT], [], _LOOK_SECONDS)
                        continue
                    rest = rest[count:]
                    begin += count
                    self.written += count
                    self.cursor = f"{batch.generation}-{begin}"
        finally:
            if stop.is_set():
                os.set_blocking(_STDOUT, True)

    def check(self) -> None:
        """BrokenPipeError if nobody reads any more."""
        for _, events in self._poller.poll(0):
            if events & select.POLLERR:
                raise BrokenPipeError


def follow(arguments: argparse.Namespace, signals: Signals) -> int:
    """Run the command `follow`; returns the exit code."""
    if _STDOUT in arguments.closed_descriptors:
        raise CommandError("standard output is closed")
    output = _Output(signals, arguments.after)
    try:
        with contextlib.closing(open_named_store(arguments.store)) as store:
            with ResumableStreamContext(store, read_bytes=_READ_BYTES) as context:
                for batch in _open(context, arguments):
                    if batch.data:
                        output.write(batch)
                    else:
                        output.cursor = batch.cursor
                        output.check()
        return Exit.DONE
    except Stopped as stopped:
        _tell(arguments, output, f"stopped by {stopped}")
        return stopped.exit_code
    except BrokenPipeError:
        _tell(arguments, output, "nobody reads the output any more")
        return OUTPUT_CLOSED
    except ResumableStreamError as error:
        # Behind an ending, or without a stream, there is nothing to go on to.
        if exit_code(error) == Exit.UNAVAILABLE and output.written:
            _tell(arguments, output, str(error))
        else:
            say(f"stream {arguments.id} ended as error: {error}" if error.code == "error" else str(error))
        return exit_code(error)
    except OSError as error:
        _tell(arguments, output, f"cannot write the output: {error.strerror}")
        return Exit.FAILED


def _open(context: ResumableStreamContext, arguments: argparse.Namespace) -> Iterator[Batch]:
    """Check the id and the cursor, and wait a while until there is such a stream.

    So a follower may be started in front of its publisher. A cursor says that the stream was there: no wait.
    """
    deadline = time.monotonic() + (0.0 if arguments.after else arguments.wait)
    while True:
        try:
            return context.batches(arguments.id, arguments.after, heartbeat=_LOOK_SECONDS)
        except StreamNotFoundError:
            left = deadline - time.monotonic()
            if left <= 0:
                raise
            # No store tells of a stream that begins, so there is nothing to wait for but time.
            threading.Event().wait(min(left, _MISSING_SECONDS))


def _tell(arguments: argparse.Namespace, output: _Output, why: str) -> None:
    store = f"--store {shlex.quote(arguments.store)} " if arguments.store else ""
    after = f" --after {output.cursor}" if output.cursor else ""
    say(f"{why}; {output.written} bytes were written; go on with: {PROGRAM} {store}follow {arguments.id}{after}")
