"""Assistant streams as responses: produced once, replayed byte for byte, ended so that clients take it.

What is stored is what the encoder wrote. Two things go out that are not stored: the format's heartbeats while the
stream is silent, and, behind a stream that was cancelled or whose producer was lost, the format's closing frames.
Plain text has neither: it ends where it was cancelled, and is broken off where its producer was lost.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Union

from ...context import ResumableStreamContext
from ...contract import Position, Status, StreamInfo
from ...errors import ProducerFailedError, ProducerInterruptedError, ResumableStreamError, StreamCancelledError
from ...producer import current_producer
from ...wsgi import STREAM_ID_HEADER, ResponseAbortedError, StreamResponse, ViewerCap
from ...wsgi.bodies import Following
from ...wsgi.headers import HeaderInput, Headers, checked_headers
from ...wsgi.response import CONTENT_TYPE_KEY, Endpoint
from ..controller import AssistantStreamController
from ..formats.base import INTERRUPTED_TEXT, AssistantStreamEncoder, Pieces
from ..formats.data_stream import DataStreamEncoder
from ..formats.plain_text import PlainTextEncoder
from ..formats.transport import AssistantTransportEncoder
from ..formats.ui_message import UIMessageStreamEncoder
from ..stream import ErrorFormatter, create_assistant_stream, error_text

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

logger = logging.getLogger("resumable_sync")

RESUMABLE_STREAM_ID_HEADER = STREAM_ID_HEADER
"""The header that names the stream of a response. assistant-ui keeps its value and resumes by it."""
REPLAY_CONTENT_LENGTH_HEADER = "Aui-Replay-Content-Length"
"""How many bytes of a resumed body are replay. assistant-ui shows them without animation."""

FORMAT_KEY = "assistant-format"
HEADERS_KEY = "assistant-headers"
MESSAGE_KEY = "assistant-message"
"""Where the stream's metadata keeps which encoder wrote it, with what headers, and what it named the message."""

_FORMATS: Mapping[str, type[AssistantStreamEncoder]] = {
    "data-stream": DataStreamEncoder,
    "assistant-transport": AssistantTransportEncoder,
    "ui-message-stream": UIMessageStreamEncoder,
    "plain-text": PlainTextEncoder,
}

EncoderFactory = Callable[[], AssistantStreamEncoder]
"""An encoder's class, or any callable without arguments that makes an encoder."""
MissingResponse = Union["WSGIApplication", int, None]
Callback = Callable[[AssistantStreamController], object]
Starter = Callable[[Callable[[], Iterable[bytes]], "dict[str, str]"], object]
"""Starts the producer of `make_stream`, with the metadata to keep."""


def create_resumable_assistant_stream_response(
    *,
    context: ResumableStreamContext,
    stream_id: str,
    callback: Callback,
    encoder: EncoderFactory | None = None,
    headers: HeaderInput = None,
    format_error: ErrorFormatter | None = None,
    heartbeat: float | None = None,
    max_seconds: float | None = None,
    viewers: ViewerCap | None = None,
    ttl: float | None = None,
    metadata: Mapping[str, str] | None = None,
    environ: Mapping[str, Any] | None = None,
    start: Starter | None = None,
) -> StreamResponse:
    """Produce the message that `callback(controller)` writes unless somebody does or did, and answer it.

    The callback runs once among all processes, in the background, and goes on when the viewer leaves. Everybody
    gets the stored bytes from the first one, then live. `encoder` (default DataStreamEncoder) is called afresh
    for each stream. `headers` override the encoder's; `x-resumable-stream-id` cannot be overridden. The format
    and its headers are kept in the stream's metadata, beside `metadata`, and hold for all who join or resume it.

    A callback that raises ends its message with an error chunk; the store says `done`, and the context's
    `on_error` hook gets the exception. Clients read "An error occurred." unless `format_error` makes another
    text of it. A stream that was cancelled or interrupted ends with the format's closing frames.

    The other options, what is refused and how, and when the election happens: `resumable_sync.wsgi`. `start` is
    called in place of `context.run`, with the source and the metadata. TypeError at once for an `encoder` or a
    callback that cannot be used, ValueError for bad options.
    """
    make_encoder = encoder_factory(encoder) or DataStreamEncoder
    example = make_encoder()
    create_assistant_stream(callback, format_error=format_error).close()  # says now what is wrong with it
    own = checked_headers(headers)
    kept = _metadata(example, own, metadata)
    make_stream = partial(_make_stream, context, stream_id, callback, make_encoder, format_error)
    return StreamResponse(
        Endpoint(
            context,
            stream_id,
            None,
            partial(_body, context=context, given=example, format_error=format_error),
            own,
            heartbeat,
            max_seconds,
            viewers,
            events=False,
            make_stream=make_stream,
            ttl=ttl,
            metadata=kept,
            more_headers=partial(_kept_headers, given=example, resumed=False),
            start=None if start is None else partial(start, make_stream, kept),
        ),
        environ,
    )


def create_resume_assistant_stream_response(
    *,
    context: ResumableStreamContext,
    stream_id: str,
    encoder: EncoderFactory | None = None,
    headers: HeaderInput = None,
    missing_response: MissingResponse = None,
    format_error: ErrorFormatter | None = None,
    after: str | None = None,
    heartbeat: float | None = None,
    max_seconds: float | None = None,
    viewers: ViewerCap | None = None,
    environ: Mapping[str, Any] | None = None,
) -> StreamResponse:
    """Answer an existing stream from its first byte, then live, with the headers it began with.

    `encoder` matters only for streams in a format of the application's own, for its heartbeats and closing
    frames. `missing_response` answers when there is no such stream: a WSGI application (a Flask Response is
    one), or a status such as 204 for an empty answer with `headers`; by default 404 and
    `{"error":"stream not found"}`. None of these names the stream, lest assistant-ui keep asking for it.
    `after`, a Last-Event-ID and the query parameter `after` begin behind a cursor, as for
    `resumable_sync.wsgi.resume_response`. The header `Aui-Replay-Content-Length` says how much is replay.
    """
    make_encoder = encoder_factory(encoder)
    given = None if make_encoder is None else make_encoder()
    own = checked_headers(headers)
    missing = missing_response
    if missing is None or isinstance(missing, int):
        missing = _empty_response(missing, own) if missing is not None else _not_found(own)
    return StreamResponse(
        Endpoint(
            context,
            stream_id,
            None,
            partial(_body, context=context, given=given, format_error=format_error),
            own,
            heartbeat,
            max_seconds,
            viewers,
            events=False,
            after=after,
            missing_response=missing,
            more_headers=partial(_kept_headers, given=given, resumed=True),
        ),
        environ,
    )


def encoder_factory(encoder: EncoderFactory | None) -> EncoderFactory | None:
    """`encoder` if it can be called, else TypeError: one that is used twice might mix two streams up."""
    if encoder is not None and not callable(encoder):
        raise TypeError("encoder must be a class or a callable that makes an encoder, not an encoder itself")
    return encoder


def _make_stream(
    context: ResumableStreamContext,
    stream_id: str,
    callback: Callback,
    make_encoder: EncoderFactory,
    format_error: ErrorFormatter | None,
) -> Iterable[bytes]:
    """The source: runs in the producer's thread."""

    def reporting(controller: AssistantStreamController) -> None:
        try:
            callback(controller)
        except BaseException as error:
            if not isinstance(error, StreamCancelledError):  # that one says: nobody reads any more
                context.report_error(stream_id, error)
            raise

    chunks = create_assistant_stream(reporting, format_error=format_error)
    pieces = make_encoder().encode(chunks)
    # The pump waits for chunks. A callback that writes none for long must not keep a stopped stream's thread.
    current_producer().on_cancel(pieces.close if isinstance(pieces, Pieces) else chunks.close)
    return pieces


def _metadata(encoder: AssistantStreamEncoder, own: Headers, more: Mapping[str, str] | None) -> dict[str, str]:
    headers = {name.lower(): value for name, value in encoder.headers.items()}
    headers.update((name.lower(), value) for name, value in own if name.lower() in headers)
    kept = {**(more or {}), HEADERS_KEY: json.dumps(headers, separators=(",", ":"))}
    kept[CONTENT_TYPE_KEY] = headers.get("content-type", "application/octet-stream")
    for name, kind in _FORMATS.items():
        if type(encoder) is kind:
            kept[FORMAT_KEY] = name
    if isinstance(encoder, UIMessageStreamEncoder) and encoder.message_id is not None:
        kept[MESSAGE_KEY] = encoder.message_id
    return kept


def _kept_headers(
    info: StreamInfo | None, position: Position | None, given: AssistantStreamEncoder | None, resumed: bool
) -> Headers:
    """The headers that the stream began with; those of the given encoder where none were kept."""
    kept = None if info is None else info.metadata.get(HEADERS_KEY)
    encoder = given or DataStreamEncoder()
    headers = checked_headers(json.loads(kept) if kept is not None else encoder.headers)
    if resumed and info is not None and position is not None and info.size > position.offset:
        headers.append((REPLAY_CONTENT_LENGTH_HEADER, str(info.size - position.offset)))
    return headers


def encoder_of(info: StreamInfo, given: AssistantStreamEncoder | None) -> AssistantStreamEncoder | None:
    """The encoder that knows the format of what is stored, None if nobody does."""
    kind = _FORMATS.get(info.metadata.get(FORMAT_KEY, ""))
    if kind is UIMessageStreamEncoder:
        # All viewers of a stream that ended before it began must be told the same name.
        return UIMessageStreamEncoder(info.metadata.get(MESSAGE_KEY))
    if kind is not None:
        return kind()
    return given or (None if HEADERS_KEY in info.metadata else DataStreamEncoder())


def _body(
    following: Following,
    *,
    context: ResumableStreamContext,
    given: AssistantStreamEncoder | None,
    format_error: ErrorFormatter | None,
) -> Iterator[bytes]:
    """The stream's bytes, heartbeats between its frames, closing frames behind an ending that is not `done`.

    Raises ResponseAbortedError where the viewer should come back, or cannot be told otherwise.
    """
    stream_id = following.info.stream_id
    encoder = encoder_of(following.info, given)
    # A frame may be cut where a chunk was too large for the store; every format's frames end with a line end.
    # A stream that is done has no silence, and a length that a heartbeat would exceed.
    between_frames = following.start.offset == 0
    heartbeat = b"" if encoder is None or following.info.status is Status.DONE else encoder.heartbeat
    yield b""  # lets the server send the headers before the first byte is made
    try:
        for batch in following.batches:
            if following.gone():
                raise ResponseAbortedError(f"a viewer of stream {stream_id} left at {batch.start}")
            if batch.data:
                between_frames = batch.data.endswith(b"\n")
            yield batch.data or (heartbeat if between_frames else b"")
            if following.late():
                raise ResponseAbortedError(f"the response lasted its time; go on from {batch.cursor}")
        return
    except ResponseAbortedError as aborted:
        logger.debug("%s", aborted)
        raise
    except (ProducerFailedError, StreamCancelledError) as raised:
        ending = raised
    except ResumableStreamError as lost:
        logger.info("a response of stream %s is cut: %s", stream_id, lost)
        raise ResponseAbortedError(f"stream {stream_id} cannot be followed further: {lost.code}") from lost
    yield _closing(context, following, encoder, ending, format_error)


def _closing(
    context: ResumableStreamContext,
    following: Following,
    encoder: AssistantStreamEncoder | None,
    ending: ProducerFailedError | StreamCancelledError,
    format_error: ErrorFormatter | None,
) -> bytes:
    stream_id, cancelled = following.info.stream_id, isinstance(ending, StreamCancelledError)
    if encoder is None or (isinstance(encoder, PlainTextEncoder) and not cancelled):
        raise ResponseAbortedError(f"stream {stream_id} did not end as done: {ending.code}") from ending
    lost = isinstance(ending, ProducerInterruptedError)
    text = INTERRUPTED_TEXT if lost or cancelled else error_text(ending, format_error)
    try:
        return encoder.closing_frames(_stored(context, following), ending.code, text)
    except ResumableStreamError as error:
        raise ResponseAbortedError(f"what is stored of stream {stream_id} cannot be read: {error}") from error


def _stored(context: ResumableStreamContext, following: Following) -> Iterator[bytes]:
    """All bytes of a stream that has ended."""
    cursor = f"{following.info.generation}-0"
    while True:
        batch = context.store.read(following.info.stream_id, cursor)
        if not batch.data:
            return
        yield batch.data
        cursor = batch.cursor


def _empty_response(status: int, own: Headers) -> WSGIApplication:
    line = {204: "204 No Content", 404: "404 Not Found", 410: "410 Gone"}.get(status)
    if line is None:
        raise ValueError(f"missing_response must be a WSGI application, 204, 404 or 410, not {status!r}")
    headers = [pair for pair in own if not pair[0].lower().startswith("content-")]

    def empty(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response(line, headers if status == 204 else [("Content-Length", "0"), *headers])
        return []

    return empty


def _not_found(own: Headers) -> WSGIApplication:
    headers = [pair for pair in own if not pair[0].lower().startswith(("content-", "cache-"))]
    body = b'{"error":"stream not found"}'

    def not_found(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response(
            "404 Not Found",
            [
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(body))),
                ("Cache-Control", "no-store"),
                *headers,
            ],
        )
        return [body]

    return not_found
