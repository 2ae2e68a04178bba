"""`follow`: write a stream's bytes to stdout, and tell how to go on after an interruption."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import shlex

from ..context import ResumableStreamContext
from ..contract import Batch, Status, Store
from ..errors import ProducerInterruptedError, ResumableStreamError
from .exits import OUTPUT_CLOSED, PROGRAM, Exit, exit_code, id_argument, say
from .location import named_store
from .signals import Signals, Stopped

_STDOUT = 1
_READ_BYTES = 1024 * 1024
_CHECK_SECONDS = 1.0  # between checks that somebody still reads the output of a silent stream


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
        stopped = False

        def unblock() -> None:
            nonlocal stopped
            stopped = True
            # Python repeats a write that waited for a slow reader; it returns if it may not wait.
            os.set_blocking(_STDOUT, False)

        try:
            with self._signals.deferred(unblock):
                while rest and not stopped:
                    try:
                        count = os.write(_STDOUT, rest)
                    except BlockingIOError:
                        # A signal, or somebody who shares the terminal, made stdout non-blocking.
                        if not stopped:
                            select.select([], [_STDOUT], [], _CHECK_SECONDS)
                        continue
                    rest = rest[count:]
                    begin += count
                    self.written += count
                    self.cursor = f"{batch.generation}-{begin}"
        finally:
            if stopped:
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
                # A follower may be started before its publisher.
                batches = context.batches(
                    arguments.id, arguments.after, wait=arguments.wait, heartbeat=_CHECK_SECONDS
                )
                try:
                    for batch in batches:
                        if batch.data:
                            output.write(batch)
                        else:
                            output.cursor = batch.cursor
                            output.check()
                except ProducerInterruptedError as error:
                    say(_interruption(store, error, arguments.id))
                    return exit_code(error)
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


def _interruption(store: Store, error: ProducerInterruptedError, stream_id: str) -> str:
    """Why the producer did not come to its end: stopped in order, it has said so; one that is dead could not."""
    with contextlib.suppress(ResumableStreamError):
        info = store.info(stream_id)
        if info is not None and info.status is Status.INTERRUPTED and info.error:
            return f"stream {stream_id} was interrupted at {info.cursor}: {info.error}"
    return str(error)


def _tell(arguments: argparse.Namespace, output: _Output, why: str) -> None:
    store = f"--store {shlex.quote(arguments.store)} " if arguments.store else ""
    after = f" --after {output.cursor}" if output.cursor else ""
    stream_id = id_argument(arguments.id)
    words = f"{after} {stream_id}" if stream_id.startswith("-") else f" {stream_id}{after}"
    say(f"{why}; {output.written} bytes were written; go on with: {PROGRAM} {store}follow{words}")
