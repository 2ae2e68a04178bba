"""`follow`: write a stream's bytes to stdout, and tell how to go on after an interruption."""

from __future__ import annotations

import argparse
import os
import select
import shlex
import threading
import time
from collections.abc import Iterator

from ..context import ResumableStreamContext
from ..contract import Batch
from ..errors import ResumableStreamError, StreamNotFoundError
from .exits import OUTPUT_CLOSED, PROGRAM, Exit, exit_code, id_argument, say
from .location import named_store
from .signals import Signals, Stopped

_STDOUT = 1
_READ_BYTES = 1024 * 1024
_CHECK_SECONDS = 1.0  # between checks that somebody still reads the output of a silent stream
_MISSING_SECONDS = 0.1  # between checks for a stream that does not exist yet


class _Output:
    """Writes batches to stdout. `cursor` is the one after the last byte that went out."""

    def __init__(self, signals: Signals, after: str) -> None:
        self._signals = signals
        self._poller = select.poll()
        self._poller.register(_STDOUT, 0)  # POLLERR is reported unasked
        self.cursor = after
        self.written = 0

    def write(self, batch: Batch) -> None:
        """Write all of it. A signal ends it between two bytes, and the cursor says where."""
        begin = batch.offset - len(batch.data)
        self.cursor = batch.start
        rest = memoryview(batch.data)
        stop = threading.Event()

        def unblock() -> None:
            stop.set()
            # Python repeats a write that waited for a slow reader; it returns if it may not wait.
            os.set_blocking(_STDOUT, False)

        try:
            with self._signals.deferred(unblock):
                while rest and not stop.is_set():
                    try:
                        count = os.write(_STDOUT, rest)
                    except BlockingIOError:
                        # A signal, or somebody who shares the terminal, made stdout non-blocking.
                        if not stop.is_set():
                            select.select([], [_STDOUT], [], _CHECK_SECONDS)
                        continue
                    rest = rest[count:]
                    begin += count
                    self.written += count
                    self.cursor = f"{batch.generation}-{begin}"
        finally:
            if stop.is_set():
                os.set_blocking(_STDOUT, True)

    def check(self) -> None:
        """Raise BrokenPipeError if nobody reads any more."""
        for _, events in self._poller.poll(0):
            if events & select.POLLERR:
                raise BrokenPipeError


def follow(arguments: argparse.Namespace, signals: Signals) -> int:
    """Run the command `follow`; returns the exit code."""
    output = _Output(signals, arguments.after)
    try:
        with named_store(arguments.store) as store:
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
        # After an ending, or without a stream, there is nothing to go on with.
        if exit_code(error) == Exit.UNAVAILABLE and output.written:
            _tell(arguments, output, str(error))
        else:
            say(f"stream {arguments.id} ended as error: {error}" if error.code == "error" else str(error))
        return exit_code(error)
    except OSError as error:
        _tell(arguments, output, f"cannot write the output: {error.strerror}")
        return Exit.FAILED


def _open(context: ResumableStreamContext, arguments: argparse.Namespace) -> Iterator[Batch]:
    """Check the id and the cursor, and wait for the stream to begin.

    So a follower may be started before its publisher. With a cursor there is no wait: its stream had begun.
    """
    deadline = time.monotonic() + (0.0 if arguments.after else arguments.wait)
    while True:
        try:
            return context.batches(arguments.id, arguments.after, heartbeat=_CHECK_SECONDS)
        except StreamNotFoundError:
            left = deadline - time.monotonic()
            if left <= 0:
                raise
            time.sleep(min(left, _MISSING_SECONDS))  # no store announces that a stream begins


def _tell(arguments: argparse.Namespace, output: _Output, why: str) -> None:
    store = f"--store {shlex.quote(arguments.store)} " if arguments.store else ""
    after = f" --after {output.cursor}" if output.cursor else ""
    stream_id = id_argument(arguments.id)
    words = f"{after} {stream_id}" if stream_id.startswith("-") else f" {stream_id}{after}"
    say(f"{why}; {output.written} bytes were written; go on with: {PROGRAM} {store}follow{words}")
