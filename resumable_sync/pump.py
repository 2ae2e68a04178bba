"""The pump: takes what a source makes, chunk by chunk, into a production, and ends the stream with the source."""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import Iterable
from typing import Any

from .contract import Status
from .errors import LeaseLostError, ProducerInterruptedError, ResumableStreamError
from .logs import about
from .producer import Source, current, is_asynchronous
from .production import SHUT_DOWN, Production, Stopped, describe

logger = logging.getLogger("resumable_sync")

_USE_ASYNC = "wrap it: resumable_sync.async_source.from_async(make_stream)"


def check_source(make_stream: object) -> None:
    """TypeError for what can never be a `make_stream`, with what to do instead."""
    if not callable(make_stream):
        kind = type(make_stream).__name__
        raise TypeError(
            f"make_stream must be a function that returns the chunks, not {kind}: only the elected producer calls "
            "it. Write `lambda: chunks`, or hand over the generator function itself, without calling it"
        )
    if is_asynchronous(make_stream):
        raise TypeError(f"make_stream is asynchronous, and producers are threads; {_USE_ASYNC}")


def as_bytes(chunk: object) -> bytes:
    """A chunk as bytes of its own; TypeError for what is neither bytes nor text."""
    if isinstance(chunk, bytes):
        return chunk
    if isinstance(chunk, str):
        return chunk.encode("utf-8")
    if isinstance(chunk, (bytearray, memoryview)):
        return bytes(chunk)  # a copy of what the source may change
    raise TypeError(
        f"a source must yield bytes or str, not {type(chunk).__name__}; encode each chunk first, for example with "
        "json.dumps"
    )


class Pump:
    """Pumps one source into the store and ends the stream, in a producer's thread or in its caller's.

    Whatever raises, and wherever, the stream ends or its lease is renewed no longer: `run` reaches the
    production's `end`. `foreground`: the caller wants the source's exception, see `result`, so it is not logged as
    an error; and KeyboardInterrupt and SystemExit are the caller's own end, not a fault of the source.
    `owner`: the production's, which lives on with the pump.
    """

    def __init__(
        self, production: Production, make_stream: Source, owner: object, *, foreground: bool = False
    ) -> None:
        self.production = production
        self._owner = owner
        self._make_stream = make_stream
        self._foreground = foreground

    def run(self) -> None:
        """Pump the source to its end and end the stream. Never raises."""
        status: Status = Status.INTERRUPTED
        error: str | None = "the producer failed"
        failure: BaseException | None = None
        try:
            status, error, failure = self._pump()
        except BaseException as broken:  # such as a logging handler that raises
            failure = broken
            self._log("the producer of stream %s failed", "producer-failed")
        finally:
            try:
                self.production.end(status, error, failure)
            except BaseException as broken:
                self.production.failure = self.production.failure or broken
                self._log("stream %s could not be ended", "not-ended")
                self.production.abandon()

    def result(self) -> Status:
        """After `run`: the ending that is stored. Raises what kept the stream from its end, unless it was
        cancelled; see `ResumableStreamContext.produce`."""
        production = self.production
        if production.forked:
            raise production.parents
        production.ended.wait()  # another thread may be storing it
        status, failure = production.status, production.failure
        if status is Status.DONE or status is Status.CANCELLED:
            if failure is not None and not isinstance(failure, Exception):
                raise failure
            return status
        if failure is not None and not isinstance(failure, ResumableStreamError):
            raise failure
        if status is Status.INTERRUPTED:
            raise ProducerInterruptedError(
                f"stream {production.stream_id} was interrupted: {failure or SHUT_DOWN}"
            ) from failure
        raise failure or LeaseLostError(f"stream {production.stream_id} is not this producer's any more")

    def _log(self, message: str, code: str) -> None:
        extra = about(code, self.production.stream_id, self.production.generation)
        with contextlib.suppress(BaseException):  # logging may be what failed
            logger.exception(message, self.production.stream_id, extra=extra)

    def _pump(self) -> tuple[Status, str | None, BaseException | None]:
        """Pump the source, close it, and return how the stream is to end, and why if it is not done."""
        production = self.production
        current.set(production.producer)
        cancelled = production.producer.cancelled
        status: Status = Status.DONE
        error: str | None = None
        failure: BaseException | None = None
        closers: list[object] = []
        try:
            if cancelled.is_set():  # stopped while it waited for a thread: the source never runs
                raise Stopped
            production.wait_for_chunk()
            source = self._make_stream()
            closers.append(source)
            chunks = iter(_checked(source))
            if chunks is not source:
                closers.insert(0, chunks)
            put = production.put
            for chunk in chunks:
                put(chunk if type(chunk) is bytes else as_bytes(chunk))
            if cancelled.is_set():  # it may have returned because it was told to: then it is not done
                raise Stopped
        except Stopped:
            status, error = Status.INTERRUPTED, SHUT_DOWN
        except BaseException as raised:  # whatever a source raises, also SystemExit, ends its stream
            if production.forked:
                return status, error, raised
            failure = raised
            status, error = Status.ERROR, describe(raised)
            leaving = self._foreground and isinstance(raised, (KeyboardInterrupt, SystemExit))
            if leaving or cancelled.is_set():  # most likely on_cancel has broken its wait: no fault of its own
                status = Status.INTERRUPTED
            production.report_failure(raised, loud=not self._foreground and not cancelled.is_set())
        finally:
            for closer in closers:
                self._close_source(closer)
        return status, error, failure

    def _close_source(self, source: object) -> None:
        try:
            close = getattr(source, "close", None)
            if callable(close):
                close()
        except BaseException as raised:  # the ending is decided; a failing close must not hide it
            if not self.production.forked:
                stream_id = self.production.stream_id
                extra = about("source-close-failed", stream_id, self.production.generation)
                logger.warning("closing the source of stream %s failed", stream_id, exc_info=True, extra=extra)
                self.production.report_failure(raised, loud=False)


def _checked(source: Any) -> Iterable[bytes | str]:
    """What `make_stream` returned, if it can be iterated; TypeError with what to do instead."""
    if inspect.iscoroutine(source):
        source.close()  # or Python warns that it was never awaited
        raise TypeError(f"make_stream returned a coroutine; {_USE_ASYNC}")
    kind = type(source)
    if hasattr(kind, "__aiter__"):
        raise TypeError(f"make_stream returned an asynchronous iterable; {_USE_ASYNC}")
    if source is None:
        raise TypeError("make_stream returned None; it must return an iterable of chunks: is a return missing?")
    if isinstance(source, (bytes, bytearray, memoryview)):
        raise TypeError("make_stream returned bytes; it must return an iterable of chunks: return [data]")
    if not hasattr(kind, "__iter__") and not hasattr(kind, "__getitem__"):
        raise TypeError(f"make_stream returned {kind.__name__}, which is no iterable of chunks")
    chunks: Iterable[bytes | str] = source
    return chunks
