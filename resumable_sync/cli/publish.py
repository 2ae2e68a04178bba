"""`publish`: stdin, a file or a command's output becomes a stream."""

from __future__ import annotations

import argparse
import os
import shutil
import threading
import time
from collections.abc import Iterator

from ..context import ResumableStreamContext
from ..contract import Status, Store
from ..errors import ResumableStreamError
from ..producer import Producer, current_producer
from ..sources import CommandFailed, CommandSource, DescriptorSource
from .exits import CommandError, Exit, exit_code, say
from .location import named_store
from .signals import Signals, Stopped
from .terminal import terminal_columns, write_stderr

_HEARTBEAT_SECONDS = 1.0  # so that a silent source learns within this time that its stream was cancelled
_PENDING_BYTES = 1024 * 1024
_PROGRESS_SECONDS = 0.2


class _Publication:
    """What becomes of the producer. Written by its thread; the main thread reads it after the end.

    The source's end counts only when the main thread has confirmed it. Ctrl-C in a terminal reaches a whole
    pipeline at once: the program that feeds us dies of it, and its end of file must not be taken for `done`
    before our own signal has been seen.
    """

    def __init__(self, source: DescriptorSource | CommandSource) -> None:
        self._source = source
        self._through = threading.Event()  # the source has ended or failed, or was never run
        self._confirmed = threading.Event()
        self.producer: Producer | None = None
        self.status: Status | None = None
        self.error: BaseException | None = None

    def make_stream(self) -> Iterator[bytes]:
        self.producer = current_producer()
        self.producer.on_cancel(self.stop)
        return self._chunks()

    def _chunks(self) -> Iterator[bytes]:
        try:
            yield from self._source.chunks()
            self._through.set()
            self._confirmed.wait()  # the main thread confirms, or stops the source
        finally:
            self._through.set()

    def stop(self) -> None:
        """Stop the source and wait until its command is gone. Idempotent."""
        self._source.stop()
        self._confirmed.set()

    def on_finalize(self, stream_id: str, status: Status, error: str | None) -> None:
        self.status = status
        self._through.set()

    def on_error(self, stream_id: str, error: BaseException) -> None:
        self.error = error
        self._through.set()

    @property
    def stored(self) -> int:
        return self.producer.offset if self.producer is not None else 0

    def wait(self, seconds: float) -> bool:
        """Wait for the end, and tell whether it has come. For the main thread: pending signals are raised here."""
        if not self._through.wait(seconds):
            return False
        self._confirmed.set()
        return self.producer is None or self.producer.ended.wait(seconds)


class _Progress:
    """Bytes and rate on one line of a terminal, rewritten in place."""

    def __init__(self, stream_id: str, quiet: bool) -> None:
        self._stream_id = stream_id
        self._shown = os.isatty(2) and not quiet
        self._began = time.monotonic()

    def show(self, size: int, ending: str = "") -> None:
        """Rewrite the line; with `ending` it stays."""
        if not self._shown:
            return
        seconds = max(time.monotonic() - self._began, 1e-3)
        figures = f": {human_bytes(size)}, {human_bytes(size / seconds)}/s"
        if ending:
            figures += f" {ending} in {seconds:.1f} s"
        # A line that wraps could not be rewritten in place.
        room = max(terminal_columns() - len(figures) - 1, 4)
        name = self._stream_id if len(self._stream_id) <= room else f"{self._stream_id[: room - 3]}..."
        write_stderr(f"\r\x1b[K{name}{figures}" + "\n" * bool(ending))

    def clear(self) -> None:
        """Remove the line, for a message to take its place."""
        if self._shown:
            write_stderr("\r\x1b[K")


def human_bytes(size: float) -> str:
    """`size` with a decimal unit, for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def publish(arguments: argparse.Namespace, signals: Signals) -> int:
    """Run the command `publish`; returns the exit code."""
    metadata = dict(arguments.metadata)
    if arguments.content_type:
        metadata["content-type"] = arguments.content_type
    publication = _Publication(_open_source(arguments))
    with named_store(arguments.store) as store:
        context = ResumableStreamContext(
            store,
            ttl=arguments.ttl,
            on_finalize=publication.on_finalize,
            on_error=publication.on_error,
            heartbeat=_HEARTBEAT_SECONDS,
            max_pending_bytes=_PENDING_BYTES,
        )
        progress = _Progress(arguments.id, arguments.quiet)
        elected = False
        try:
            with signals.deferred():  # the election and the start of the producer are one step
                try:
                    elected = context.start(arguments.id, publication.make_stream, metadata=metadata)
                except ValueError as error:  # of the ttl or the metadata
                    raise CommandError(str(error), Exit.USAGE) from error
            if not elected:
                raise CommandError(_taken(store, arguments.id), Exit.TAKEN)
            while not publication.wait(_PROGRESS_SECONDS):
                progress.show(publication.stored)
            signals.disarm()  # the stream has ended, and is not to be reported as stopped
        except Stopped as stopped:
            if not elected:
                raise
            progress.clear()
            context.close()  # stores what was read, ends the stream as interrupted, stops the source
            publication.stop()
            if publication.status is Status.DONE:  # it had ended by itself
                return Exit.DONE
            ending = publication.status or Status.INTERRUPTED
            say(f"stopped by {stopped}: stream {arguments.id} ends as {ending} after {publication.stored} bytes")
            return stopped.exit_code
        if publication.status is Status.DONE:
            progress.show(publication.stored, "done")
            return Exit.DONE
        progress.clear()
        return _tell_failure(arguments.id, publication)


def _tell_failure(stream_id: str, publication: _Publication) -> int:
    """Say why the stream is not done."""
    stored = f"{publication.stored} bytes of stream {stream_id} are stored"
    error = publication.error
    if publication.status is Status.CANCELLED:
        say(f"stream {stream_id} was cancelled by somebody else; the source is closed; {stored}")
        return Exit.CANCELLED
    if isinstance(error, CommandFailed):
        say(f"{error}; {stored}, ended as error")
        return error.exit_code
    if isinstance(error, ResumableStreamError):
        code = exit_code(error)
        # A lost stream's bytes are gone, or another stream's.
        say(f"{error}; the source is closed" if code == Exit.LOST else f"{error}; {stored}, the source is closed")
        return code
    if publication.status is Status.INTERRUPTED:
        say(f"stream {stream_id} was declared lost: its heartbeats came too late; the source is closed; {stored}")
        return Exit.INTERRUPTED
    if publication.status is Status.ERROR:
        say(f"reading failed: {error}; {stored}, ended as error")
        return Exit.ERROR
    say(f"stream {stream_id} was deleted or replaced, or its end could not be stored; the source is closed")
    return Exit.LOST


def _open_source(arguments: argparse.Namespace) -> DescriptorSource | CommandSource:
    """Open the source, and find what is wrong with it before an id is taken."""
    if arguments.command:
        if arguments.file is not None:
            raise CommandError("give a file or a command, not both", Exit.USAGE)
        if shutil.which(arguments.command[0]) is None:
            raise CommandError(f"command not found: {arguments.command[0]}", 127)
        return CommandSource(arguments.command)
    stdin = arguments.file in (None, "-")
    try:
        descriptor = os.dup(0) if stdin else os.open(arguments.file, os.O_RDONLY | os.O_CLOEXEC)
        os.read(descriptor, 0)  # a directory opens, but cannot be read; nor can a closed stdin
    except OSError as error:
        name = "standard input" if stdin else arguments.file
        raise CommandError(f"cannot read {name}: {error.strerror}") from error
    return DescriptorSource(descriptor)


def _taken(store: Store, stream_id: str) -> str:
    info = store.info(stream_id)
    now = "in use" if info is None else f"in use ({info.status}, {info.size} bytes)"
    return f"the id {stream_id} is {now}; choose another one, or delete that stream first"
