"""`follow`: write a stream's bytes to stdout, and tell how to go on after an interruption. The stream is one of a
store, or the response at an address."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import shlex
import threading
from collections.abc import Callable

from ..context import ResumableStreamContext
from ..contract import Position, Status, Store, parse_cursor
from ..errors import ProducerInterruptedError, ResumableStreamError
from .exits import OUTPUT_CLOSED, PROGRAM, CommandError, Exit, exit_code, id_argument, say
from .location import is_address, named_store
from .signals import Signals, Stopped

_STDOUT = 1
_READ_BYTES = 1024 * 1024
_CHECK_SECONDS = 1.0  # between checks that somebody still reads the output of a silent stream


class _Output:
    """Writes what comes to stdout. `cursor` is the one after the last byte that went out."""

    def __init__(self, signals: Signals, after: str) -> None:
        self._signals = signals
        self._poller = select.poll()
        self._poller.register(_STDOUT, 0)  # POLLERR is reported unasked
        self.cursor = after
        self.written = 0

    def write(self, data: bytes, end: Position) -> None:
        """Write all of `data`, which ends at `end`. A signal ends it between two bytes: the cursor says where."""
        begin = end.offset - len(data)
        self.cursor = f"{end.generation}-{begin}"
        rest = memoryview(data)
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
                    self.cursor = f"{end.generation}-{begin}"
        finally:
            if stopped:
                os.set_blocking(_STDOUT, True)

    def check(self) -> None:
        """Raise BrokenPipeError if nobody reads any more."""
        for _, events in self._poller.poll(0):
            if events & select.POLLERR:
                raise BrokenPipeError

    def on_closed(self, tell: Callable[[], object]) -> None:
        """Call `tell` in another thread as soon as nobody reads any more."""

        def watch() -> None:
            if any(events & select.POLLERR for _, events in self._poller.poll()):
                tell()

        threading.Thread(target=watch, name="resumable-sync-output", daemon=True).start()


def follow(arguments: argparse.Namespace, signals: Signals) -> int:
    """Run the command `follow`; returns the exit code."""
    output = _Output(signals, arguments.after)
    try:
        return (_of_address if is_address(arguments.id) else _of_store)(arguments, output)
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


def _of_store(arguments: argparse.Namespace, output: _Output) -> int:
    if arguments.header:
        arguments.parser.error("--header is for streams at an address, such as https://…")
    with named_store(arguments.store) as store:
        with ResumableStreamContext(store, read_bytes=_READ_BYTES) as context:
            # A follower may be started before its publisher.
            batches = context.batches(arguments.id, arguments.after, wait=arguments.wait, heartbeat=_CHECK_SECONDS)
            try:
                for batch in batches:
                    if batch.data:
                        output.write(batch.data, Position(batch.generation, batch.offset))
                    else:
                        output.cursor = batch.cursor
                        output.check()
            except ProducerInterruptedError as error:
                say(_interruption(store, error, arguments.id))
                return exit_code(error)
    return Exit.DONE


def _of_address(arguments: argparse.Namespace, output: _Output) -> int:
    if arguments.store:
        arguments.parser.error("--store and an address exclude each other")
    try:
        from .. import client
    except ImportError as error:
        raise CommandError(str(error), Exit.UNAVAILABLE) from error
    try:
        stream = client.follow(
            arguments.id,
            after=arguments.after,
            wait=arguments.wait,
            patience=arguments.patience,
            headers=dict(arguments.header),
        )
    except ResumableStreamError:
        raise
    except ValueError as error:
        raise CommandError(str(error), Exit.USAGE) from error
    with stream:
        closed = False

        def close() -> None:
            nonlocal closed
            closed = True
            stream.close()

        output.cursor = stream.cursor
        output.on_closed(close)
        try:
            for piece in stream:
                position = parse_cursor(stream.cursor)
                assert position is not None
                output.write(piece, position)
        except client.UnreachableError as error:
            if closed:
                raise BrokenPipeError from error
            raise
    return Exit.DONE


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
    stream_id = id_argument(shlex.quote(arguments.id))
    if arguments.header:
        stream_id += " -H ..."  # a secret, perhaps
    words = f"{after} {stream_id}" if stream_id.startswith("-") else f" {stream_id}{after}"
    say(f"{why}; {output.written} bytes were written; go on with: {PROGRAM} {store}follow{words}")
