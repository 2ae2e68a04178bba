"""A stream that is pushed, not pulled: the application writes, where a source would yield."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import NoReturn

from .contract import Notes, Status
from .errors import ProducerInterruptedError, StreamFinalizedError
from .production import SHUT_DOWN, Production, Stopped, describe
from .pump import as_bytes


class Writer:
    """Writes one stream, as a context manager made by `ResumableStreamContext.writer`. Thread-safe.

    Entering elects it; StreamTakenError if somebody produces the stream, or did. Leaving the block ends the stream
    as `done`, or as `error` if an exception leaves it (`interrupted` for KeyboardInterrupt, SystemExit,
    GeneratorExit, and what `write` raises when the context is closed; a stream with a handover is let go of
    instead, for another producer). One that is dropped without being left lets go: its stream ends as
    `interrupted` once the lease has run out. In a forked child leaving ends nothing: the stream is the parent's.

    It is enough of a file for csv.writer, print, logging.StreamHandler and shutil.copyfileobj. `stream_id`,
    `offset`, `cancelled`, `ended` and `on_cancel` are those of a Producer.
    """

    def __init__(self, elect: Callable[[Writer], Production], on_closed: Callable[[Production], object]) -> None:
        self._elect = elect
        self._on_closed = on_closed
        self._entered: Production | None = None
        self._left = False  # by the application: whoever leaves again has been told how it ended

    def __getstate__(self) -> NoReturn:
        raise TypeError(
            "a Writer cannot be pickled: it is for the process that has entered it. In the other process open the "
            "store with open_store(url), and a context and a writer there"
        )

    @property
    def _production(self) -> Production:
        if self._entered is None:
            raise ValueError("enter the writer first: with context.writer(stream_id) as out")
        return self._entered

    @property
    def stream_id(self) -> str:
        """The stream that it writes."""
        return self._production.stream_id

    @property
    def offset(self) -> int:
        """Bytes of this stream that the store has acknowledged; where a continued one goes on (see
        `Producer.offset`)."""
        return self._production.producer.offset

    @property
    def cancelled(self) -> threading.Event:
        """Set once the stream was stopped: cancelled, lost, or the context is closing."""
        return self._production.producer.cancelled

    @property
    def ended(self) -> threading.Event:
        """Set once the ending is stored, or was given up, and the hooks have run."""
        return self._production.ended

    @property
    def closed(self) -> bool:
        """Whether nothing can be written any more."""
        return self._production.ended.is_set()

    def on_cancel(self, callback: Callable[[], object]) -> None:
        """Call `callback()` once, in a thread of its own, when `cancelled` is set; see `Producer.on_cancel`."""
        self._production.producer.on_cancel(callback)

    def notes(self) -> Mapping[str, str]:
        """The notes of the stream, as they are stored now; see `Producer.notes`."""
        return self._production.producer.notes()

    def set_notes(self, notes: Notes) -> None:
        """Store these notes in the same step as what is written next, or as the ending; see `Producer.set_notes`.
        Of several threads that write, each may set those that another one meant for its chunk."""
        self._production.producer.set_notes(notes)

    def writable(self) -> bool:
        """True: for what asks a file."""
        return True

    def write(self, data: bytes | str) -> int:
        """Hand over a chunk (text as UTF-8), to be stored soon, and return its length.

        Waits while too much is pending. Up to the store's `max_chunk_bytes` it is one chunk, whatever other
        threads write; more is split. Raises StreamFinalizedError once the stream has ended, here or elsewhere, or
        the error with which the store refused; TypeError for what is neither bytes nor text.
        """
        production = self._production
        chunk = as_bytes(data)
        if production.ended.is_set():
            raise self._ended_error(production)
        try:
            production.put(chunk)
        except Stopped as stopped:
            raise stopped.__cause__ or self._ended_error(production) from None
        return len(data)

    def flush(self) -> None:
        """Wait until all that was written is stored. Raises what the store refused with, after the grace time if
        it stays away."""
        self._production.flush()

    def fail(self, error: str | BaseException) -> None:
        """End the stream as `error` now. What was written is stored first; nothing can be written afterwards.

        `error` is kept for the server's side, and given to the `on_error` hook (a text as a RuntimeError).
        Does nothing if the stream has ended.
        """
        failure = error if isinstance(error, BaseException) else RuntimeError(error)
        text = error if isinstance(error, str) else describe(error)
        if self._end(Status.ERROR, text, failure):
            self._left = True
            if self._production.status is Status.ERROR:
                self._production.report_failure(failure, loud=False)

    def close(self) -> None:
        """End the stream as `done`, as leaving the block does. Idempotent.

        Raises StreamFinalizedError if it has another ending, which stands, or the error of the store that could
        not take the rest or the ending.
        """
        production = self._production
        if self._left:
            return
        self._end(Status.DONE)
        self._left = True
        if production.status is not Status.DONE:
            raise production.failure or self._ended_error(production)

    def __enter__(self) -> Writer:
        if self._entered is not None:
            raise ValueError("a writer can be entered once")
        self._entered = self._elect(self)
        self._entered.wait_for_chunk()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        if raised is None:
            self.close()
        elif isinstance(raised, Exception) and raised is not self._production.refusal:
            if self._end(Status.ERROR, describe(raised), raised) and self._production.status is Status.ERROR:
                self._production.report_failure(raised, loud=False)
        else:
            self._end(Status.INTERRUPTED, SHUT_DOWN, raised)

    def _end(self, status: Status, error: str | None = None, failure: BaseException | None = None) -> bool:
        """True if this call ended the stream."""
        production = self._production
        if production.forked:  # whoever comes here in a child leaves the stream to the parent
            return False
        try:
            first = production.end(status, error, failure)
        except BaseException:  # thrown in
            production.abandon()
            raise
        finally:
            self._on_closed(production)
        if not first:
            production.ended.wait()  # another thread is at it
        return first

    @staticmethod
    def _ended_error(production: Production) -> Exception:
        if production.forked:
            return production.parents
        status = production.status
        if status is Status.INTERRUPTED or production.released:
            return ProducerInterruptedError(f"stream {production.stream_id} was interrupted: {SHUT_DOWN}")
        return StreamFinalizedError(f"stream {production.stream_id} has ended: {status}", status=status)
