"""The bodies: raw bytes and server-sent events, as generators along a stream.

While one waits it keeps nothing of what it has sent: viewers are many, and a piece may be large.
"""

from __future__ import annotations

import base64
import codecs
import errno
import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .. import sse
from ..contract import Batch, Position, Status
from ..errors import (
    ProducerFailedError,
    ProducerInterruptedError,
    ResumableStreamError,
    StoreUnavailableError,
    StreamCancelledError,
    StreamLostError,
)
from ..logs import about
from .cap import Place
from .headers import Opening
from .probe import Probe
from .reset import Reset

logger = logging.getLogger("resumable_sync")

MASKED_ERROR = "An error occurred."
END_SUFFIX = "-end"
"""Follows the cursor in the id of an `end` event: whoever sends it back has seen how the stream ended."""

FormatError = Callable[[BaseException], str]


class ResponseAbortedError(ResumableStreamError, ConnectionResetError):
    """A raw response stops short of the end `done`, and its connection must not look complete.

    Raised out of the body into the server, as a ConnectionResetError because servers then cut the connection
    without more ado. `__cause__` is how the stream ended, if it did.
    """

    code = "aborted"
    http_status = 503

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.errno = errno.ECONNRESET  # by which gunicorn knows that there is nothing to log


@dataclass
class Viewer:
    """One viewer's way along a stream: everything a body needs."""

    opening: Opening
    batches: Iterator[Batch]
    probe: Probe | None
    max_seconds: float | None
    stop: int | None = None
    """The offset at which a body of bytes ends although the stream goes on."""

    def __post_init__(self) -> None:
        self._deadline = None if self.max_seconds is None else time.monotonic() + self.max_seconds

    def gone(self) -> bool:
        """Whether the viewer has left."""
        return self.probe is not None and self.probe.gone()

    def late(self) -> bool:
        """Whether the response has lasted its time."""
        return self._deadline is not None and time.monotonic() >= self._deadline


class Body:
    """An iterator over `pieces` that gives back the viewer's place and the probe at its end, on close, and at
    the latest when it is collected. If it has begun and does not come to its end, it fires `reset`. One thread at
    a time."""

    def __init__(
        self, pieces: Iterator[bytes], place: Place | None, probe: Probe | None, reset: Reset | None = None
    ) -> None:
        self._pieces: Iterator[bytes] | None = pieces
        self._place = place
        self._probe = probe
        self._reset = reset
        self._begun = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._pieces is None:
            raise StopIteration
        if not self._begun:
            self._begun = True
            if self._reset is not None:
                self._reset.arm()
        try:
            return next(self._pieces)
        except StopIteration:
            if self._reset is not None:
                self._reset.disarm()
            self.close()
            raise
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop following. The producer goes on. Idempotent."""
        self._pieces = None
        if self._reset is not None:
            self._reset.fire()
        if self._probe is not None:
            self._probe.close()
        if self._place is not None:
            self._place.release()

    def __del__(self) -> None:
        self.close()


def raw_body(
    viewer: Viewer,
    heartbeat: bytes = b"",
    *,
    framed: bool = False,
    close: Callable[[ResumableStreamError], bytes] | None = None,
) -> Iterator[bytes]:
    """The stream's bytes. Returns at the ending `done`, and at the viewer's `stop`.

    `heartbeat` goes out in silence; where the stream is `framed`, only after the end of a line, for a frame may be
    cut where a chunk was too large for the store. `close` gives what is sent after any other ending, or raises
    ResponseAbortedError, as happens without it.
    """
    stream_id, generation = viewer.opening.stream_id, viewer.opening.start.generation
    between = not framed or viewer.opening.start.offset == 0
    yield b""  # lets the server send the headers before the first byte is made
    try:
        for batch in viewer.batches:
            if viewer.gone():
                raise ResponseAbortedError(f"a viewer of stream {stream_id} left at {batch.start}")
            data, cursor = batch.data, batch.cursor
            beyond = -1 if viewer.stop is None else batch.offset - viewer.stop
            del batch
            if beyond > 0:
                data = data[:-beyond]
            between = not framed or (data.endswith(b"\n") if data else between)
            # Where empty, it is no write, but granian looks up at it.
            yield data or (heartbeat if between else b"")
            del data
            if beyond >= 0:
                return
            if viewer.late():
                raise ResponseAbortedError(f"the response lasted its time; go on from {cursor}")
        return
    except ResponseAbortedError as aborted:
        logger.debug("%s", aborted, extra=about("viewer-left", stream_id, generation))
        raise
    except ResumableStreamError as raised:
        if close is None:
            raise broken_off(stream_id, raised, generation) from raised
        ending = raised
    yield close(ending)


def broken_off(
    stream_id: str, ending: ResumableStreamError, generation: int | None = None
) -> ResponseAbortedError:
    """What a body raises, from `ending`, that has no way to tell of it."""
    extra = about("response-cut", stream_id, generation)
    logger.info("a response of stream %s is broken off: %s", stream_id, ending, extra=extra)
    return ResponseAbortedError(f"stream {stream_id} did not end as done: {ending.code}")


def _encode_text(data: bytes, final: bool, errors: str) -> tuple[str, int]:
    text, used = codecs.utf_8_decode(data, errors, final)
    if text.endswith("\r") and not final:  # half of a CR LF, perhaps: two events would make two line ends of it
        return text[:-1], used - 1
    return text, used


def _encode_json(data: bytes, final: bool, errors: str) -> tuple[str, int]:
    text, used = codecs.utf_8_decode(data, errors, final)
    return json.dumps(text) if text else "", used


def _encode_base64(data: bytes, final: bool, errors: str) -> tuple[str, int]:
    return base64.b64encode(data).decode("ascii"), len(data)


_ENCODINGS: dict[str, Callable[[bytes, bool, str], tuple[str, int]]] = {
    "text": _encode_text,
    "json": _encode_json,
    "base64": _encode_base64,
}
"""From bytes, whether they are the last, and what to do about those that are not UTF-8 (as `codecs` has it), to an
event's data and the number of bytes it stands for."""


def check_encoding(encoding: str, errors: str) -> None:
    """ValueError for what the options `encode` and `errors` cannot be."""
    if encoding not in _ENCODINGS:
        raise ValueError(f"encode must be one of {', '.join(_ENCODINGS)}, not {encoding!r}")
    if errors not in ("strict", "replace"):
        raise ValueError(f"errors must be strict or replace, not {errors!r}")


class EventWriter:
    """Frames chunks as events. Each id is the cursor after exactly the bytes sent so far."""

    def __init__(self, start: Position, encoding: str, retry: float | None, errors: str = "strict") -> None:
        self._encode = _ENCODINGS[encoding]
        self._errors = errors
        self._position = start
        self._retry = retry  # until it was sent, inside the first event
        self._held = b""  # the beginning of a character whose end has not come, perhaps after half a line end

    @property
    def position(self) -> Position:
        """After the bytes sent so far."""
        return self._position

    @property
    def cursor(self) -> str:
        """`position`, as text."""
        return str(self._position)

    def chunk(self, data: bytes, final: bool = False) -> bytes:
        """The event for a chunk; b"" while its text is not complete. UnicodeDecodeError if it is no text and must
        be."""
        held = self._held + data if self._held else data
        text, used = self._encode(held, final, self._errors)
        self._held = held[used:]
        self._position = Position(self._position.generation, self._position.offset + used)
        return self._frame(text) if text else b""

    def held_back(self) -> bytes:
        """What was held back when the stream broke off: a line end goes out, a torn character does not."""
        self._held = self._held[: self._held.startswith(b"\r")]
        return self.chunk(b"", True)

    def live(self, size: int) -> bytes:
        """The mark where replay ends and live begins."""
        return self._frame(json.dumps({"cursor": self.cursor, "size": size}), "live")

    def end(self, status: str, error: str | None) -> bytes:
        """The ending. The last event."""
        fields = {"status": status, "cursor": self.cursor}
        if error is not None:
            fields["error"] = error
        return self._frame(json.dumps(fields), "end", END_SUFFIX)

    def _frame(self, data: str, event: str | None = None, suffix: str = "") -> bytes:
        retry, self._retry = self._retry, None
        return sse.format_event(data, event=event, event_id=self.cursor + suffix, retry=retry)


def sse_body(
    viewer: Viewer, *, encoding: str, errors: str, retry: float | None, format_error: FormatError | None
) -> Iterator[bytes]:
    """One event per chunk, `live` where replay ends, `end` with the ending. Returns without `end` when the
    viewer should come back with the last id: after `max_seconds`, and when this process can serve no more."""
    stream_id, status, size, start, _ = viewer.opening
    writer = EventWriter(start, encoding, retry, errors)
    yield b""
    live = status is Status.STREAMING and size == start.offset
    if live:
        yield writer.live(size)
    try:
        for batch in viewer.batches:
            if viewer.gone():
                return
            frames: list[bytes] = []
            try:
                frames.extend(writer.chunk(entry.chunk) for entry in batch.entries)
            except UnicodeDecodeError:
                yield b"".join(frames)  # list.extend has kept what came before
                raise
            if not live and batch.offset == batch.size and batch.status is Status.STREAMING:
                live = True
                frames.append(writer.live(batch.size))
            del batch
            piece = b"".join(frames) or sse.HEARTBEAT
            del frames
            yield piece
            del piece
            if viewer.late():
                return
        yield writer.chunk(b"", True) + writer.end("done", None)
    except StoreUnavailableError as unavailable:
        extra = about("response-cut", stream_id, start.generation)
        logger.info("a response of stream %s ends early: %s", stream_id, unavailable, extra=extra)
    except UnicodeDecodeError as error:
        extra = about("not-text", stream_id, start.generation)
        logger.error(
            "stream %s is not UTF-8 text, use encode='base64' or errors='replace': %s",
            stream_id,
            error,
            extra=extra,
        )
        yield writer.end("error", "The stream is not UTF-8 text.")
    except ResumableStreamError as ending:
        yield writer.held_back() + writer.end(*ending_fields(stream_id, start.generation, ending, format_error))


def formatted(
    error: BaseException, format_error: FormatError, stream_id: str = "", generation: int | None = None
) -> str | None:
    """What `format_error` makes of it; None, and a log record, if it raises or makes no text. Never raises. The
    stream is for the log."""
    try:
        text: object = format_error(error)
        if not isinstance(text, str):
            raise TypeError(f"format_error must return text, not {type(text).__name__}")
        return text
    except Exception:
        logger.exception("format_error raised", extra=about("format-error-failed", stream_id, generation))
        return None


def ending_fields(
    stream_id: str, generation: int, ending: ResumableStreamError, format_error: FormatError | None
) -> tuple[str, str | None]:
    """The status of an `end` event, and its error if it has one. The stream is for the log."""
    if isinstance(ending, (ProducerInterruptedError, StreamCancelledError, StreamLostError)):
        return ending.code, None
    if not isinstance(ending, ProducerFailedError):
        extra = about("viewer-failed", stream_id, generation)
        logger.error("following a stream failed", exc_info=ending, extra=extra)
        return "error", MASKED_ERROR
    text = None if format_error is None else formatted(ending, format_error, stream_id, generation)
    return "error", MASKED_ERROR if text is None else text
