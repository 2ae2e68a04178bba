"""`publish`: stdin, a file or a command's output becomes a stream."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
from collections.abc import Iterator

from ..context import ResumableStreamContext
from ..contract import Status, Store
from ..errors import ProducerInterruptedError, ResumableStreamError, StreamFinalizedError
from ..interrupts import Event
from ..process import start_thread
from ..producer import Producer, current_producer
from ..sources import CommandFailed, CommandSource, DescriptorSource
from .exits import CommandError, Exit, check_command, exit_code, say
from .location import named_store
from .progress import Progress
from .signals import Signals, Stopped
from .tee import Tee

_HEARTBEAT_SECONDS = 1.0  # so that a silent source learns within this time that its stream was cancelled
_PENDING_BYTES = 1024 * 1024
_PROGRESS_SECONDS = 0.2
# After a close, which takes 2 s at most: for a command to be gone, before a store is given up.
_HURRY_SECONDS = 1.0


class SourceTooShort(Exception):
    """The source does not give what it gave before."""


class _Publication:
    """A source on its way into a stream, and what becomes of it.

    The main thread produces, with signals deferred: none breaks into the store's work or the start of a command. A
    thread beside it shows the progress, and closes the context when a signal has come.
    """

    def __init__(
        self, source: DescriptorSource | CommandSource, tee: Tee | None, signals: Signals, handover: float
    ) -> None:
        self._source = source
        self.handover = handover
        self._tee = tee
        self._signals = signals
        self._producer: Producer | None = None
        self._over = Event()
        self.elected = False
        self.ending: Status | None = None  # that is stored

    @property
    def stored(self) -> int:
        return self._producer.offset if self._producer is not None else 0

    def on_acquire(self, stream_id: str, role: str) -> None:
        self.elected = role == "producer"

    def on_finalize(self, stream_id: str, status: Status, error: str | None) -> None:
        self.ending = status

    def make_stream(self) -> Iterator[bytes]:
        self._producer = producer = current_producer()
        stored = producer.offset
        left = stored  # of what is to be skipped
        try:
            for piece in self._source.chunks():
                fresh, left = piece[left:], max(0, left - len(piece))
                yield fresh  # an empty one says that the source is not silent while it is skipped
                if self._tee is not None:
                    self._tee.write(piece, producer.cancelled)
        finally:
            self._source.stop()
        if left and not producer.cancelled.is_set():
            raise SourceTooShort(f"the source has only {stored - left} of the {stored} bytes that are stored")
        # Ctrl-C in a terminal reaches a whole pipeline at once: the program that feeds us dies of it, and its end
        # of file is not to be taken for `done`. The kernel has sent our signal by then; its handler runs here.
        if self._signals.pending is not None:
            producer.cancelled.wait()  # the thread of `attended` is closing the context

    @contextlib.contextmanager
    def attended(self, context: ResumableStreamContext, progress: Progress) -> Iterator[None]:
        """Defer signals during the block, and have a thread attend to them and to the progress."""

        def attend(announced: int) -> None:
            while not self._over.is_set():
                if not select.select([announced], [], [], _PROGRESS_SECONDS)[0]:
                    progress.show(self.stored)
                    continue
                signum = os.read(announced, 1)[0]
                if not signum:  # it is over
                    break
                self._signals.wake(signum)
                context.close()  # stores what was read, ends the stream as interrupted, stops the source
                while not self._over.wait(_HURRY_SECONDS):
                    if self.ending is None:  # the store does not answer; otherwise the command takes its time
                        self._signals.hurry()

        with self._signals.announced() as (announced, announce), self._signals.deferred():
            thread = start_thread(lambda: attend(announced), "resumable-sync-publish")
            try:
                yield
            finally:
                self._signals.disarm()  # the outcome is certain
                self._over.set()
                os.write(announce, b"\0")
                thread.join()


def publish(arguments: argparse.Namespace, signals: Signals) -> int:
    """Run the command `publish`; returns the exit code."""
    metadata = dict(arguments.metadata)
    if arguments.content_type:
        metadata["content-type"] = arguments.content_type
    # On a terminal that shows the bytes themselves, the line of progress would overwrite them.
    progress = Progress(arguments.id, arguments.quiet or (arguments.tee and os.isatty(1)))
    tee = Tee(progress.say) if arguments.tee else None
    handover = arguments.handover if arguments.continues else 0.0
    publication = _Publication(_open_source(arguments), tee, signals, handover)
    failure: BaseException | None = None
    with named_store(arguments.store) as store:
        context = ResumableStreamContext(
            store,
            on_acquire=publication.on_acquire,
            on_finalize=publication.on_finalize,
            heartbeat=_HEARTBEAT_SECONDS,
            max_pending_bytes=_PENDING_BYTES,
        )
        with publication.attended(context, progress):
            try:
                context.produce(
                    arguments.id,
                    publication.make_stream,
                    ttl=arguments.ttl,
                    metadata=metadata,
                    restart=arguments.restart,
                    idle_timeout=arguments.idle_timeout,
                    handover=handover,
                )
            except (Exception, Stopped) as raised:
                failure = raised
        stopped = signals.pending
        if publication.ending is Status.DONE:  # also if a signal came too late
            progress.show(publication.stored, "done")
            return Exit.DONE
        progress.clear()
        if not publication.elected:
            raise stopped or _refusal(store, arguments.id, failure)
    if stopped is not None:
        say(f"stopped by {stopped}: {_outcome(arguments.id, publication)} after {publication.stored} bytes")
        return stopped.exit_code
    return _tell_failure(arguments.id, publication, failure)


def _outcome(stream_id: str, publication: _Publication) -> str:
    """What becomes of a stream that was stopped."""
    if publication.handover and publication.ending is None:
        return f"publish --continue {stream_id} may go on with the stream for {publication.handover:g} s,"
    return f"stream {stream_id} ends as {publication.ending or Status.INTERRUPTED}"


def _refusal(store: Store, stream_id: str, failure: BaseException | None) -> BaseException:
    """Why nothing was published."""
    if failure is None:
        info = store.info(stream_id)
        now, instead = "in use", "delete that stream first"
        if info is not None:
            now = f"in use ({info.status}, {info.size} bytes)"
            if info.status.ended:
                instead += f", or replace it with --restart {info.status}"
            elif info.handover:
                instead += "; if the process that publishes it is gone, --continue goes on with it soon"
        return CommandError(f"the id {stream_id} is {now}; choose another one, or {instead}", Exit.TAKEN)
    if isinstance(failure, ValueError):  # of the ttl or the metadata
        return CommandError(str(failure), Exit.USAGE)
    return failure


def _tell_failure(stream_id: str, publication: _Publication, failure: BaseException | None) -> int:
    """Say why the stream is not done."""
    stored = f"{publication.stored} bytes of stream {stream_id} are stored"
    ended = f"ended as {publication.ending}" if publication.ending else "its end could not be stored"
    if publication.ending is Status.CANCELLED:
        say(f"stream {stream_id} was cancelled by somebody else; the source is closed; {stored}")
        return Exit.CANCELLED
    if isinstance(failure, CommandFailed):
        say(f"{failure}; {stored}, {ended}")
        return failure.exit_code
    refused = failure.__cause__ if isinstance(failure, ProducerInterruptedError) else failure
    if isinstance(refused, ResumableStreamError) and not isinstance(refused, StreamFinalizedError):
        code = exit_code(refused)
        # A lost stream's bytes are gone, or another stream's.
        say(
            f"{refused}; the source is closed"
            if code == Exit.LOST
            else f"{refused}; {stored}, the source is closed"
        )
        return code
    if isinstance(failure, ProducerInterruptedError):
        say(f"stream {stream_id} was declared lost: its heartbeats came too late; the source is closed; {stored}")
        return Exit.INTERRUPTED
    what = "the source was silent for too long" if isinstance(failure, TimeoutError) else "reading failed"
    say(f"{what}: {failure}; {stored}, {ended}")
    return Exit.ERROR


def _open_source(arguments: argparse.Namespace) -> DescriptorSource | CommandSource:
    """Open the source, and find what is wrong with it before an id is taken."""
    if arguments.command:
        if arguments.file is not None:
            raise CommandError("give a file or a command, not both", Exit.USAGE)
        check_command(arguments.command[0])
        return CommandSource(arguments.command, stderr=arguments.stderr)
    if arguments.stderr:
        raise CommandError("--stderr needs a command: publish ID --stderr -- COMMAND", Exit.USAGE)
    stdin = arguments.file in (None, "-")
    try:
        descriptor = os.dup(0) if stdin else os.open(arguments.file, os.O_RDONLY | os.O_CLOEXEC)
        os.read(descriptor, 0)  # a directory opens, but cannot be read; nor can a closed stdin
    except OSError as error:
        name = "standard input" if stdin else arguments.file
        raise CommandError(f"cannot read {name}: {error.strerror}") from error
    return DescriptorSource(descriptor)
