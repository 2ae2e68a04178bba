"""Assistant streams as responses: produced once, replayed byte for byte, ended so that clients take it.

What is stored is what the encoder wrote. Two things go out that are not stored: the format's heartbeats while the
stream is silent, and, after a stream that was cancelled or whose producer was lost, the format's closing frames.
Plain text has neither: it ends where it was cancelled, and is broken off where its producer was lost.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

from ...context import ResumableStreamContext
from ...contract import Status
from ...errors import ProducerFailedError, ProducerInterruptedError, ResumableStreamError, StreamCancelledError
from ...producer import current_producer
from ...wsgi import STREAM_ID_HEADER, ResponseAbortedError, StreamResponse, ViewerCap
from ...wsgi.bodies import Viewer, broken_off, raw_body
from ...wsgi.headers import CONTENT_TYPE_KEY, HeaderInput, Headers, Opening, checked_headers
from ...wsgi.response import Begin, Endpoint, Options
from ..continued import CONTINUES_KEY, kept_message
from ..controller import AssistantStreamController
from ..error_text import ErrorFormatter, error_text
from ..formats.base import INTERRUPTED_TEXT, AssistantStreamEncoder, Pieces
from ..formats.data_stream import DataStreamEncoder
from ..formats.registry import DEFAULT, HEADERS_KEY, closes, encoder_of, kept_by
from ..formats.ui_message.replay import message_frames
from ..stored import stored_pieces
from ..stream import create_assistant_stream

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

RESUMABLE_STREAM_ID_HEADER = STREAM_ID_HEADER
"""The header that names the stream of a response. assistant-ui keeps its value and resumes by it."""
REPLAY_CONTENT_LENGTH_HEADER = "Aui-Replay-Content-Length"
"""How many bytes of a resumed body are replay. assistant-ui shows them without animation."""

EncoderFactory = Callable[[], AssistantStreamEncoder]
"""An encoder's class, or any callable without arguments that makes an encoder."""
MissingResponse: TypeAlias = "WSGIApplication | int | None"
Callback = Callable[[AssistantStreamController], object]
Starter = Callable[[Callable[[], Iterable[bytes]], "dict[str, str]"], object]
"""Starts the producer of `make_stream`, with the metadata to keep. True says that it was elected and kept that."""


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

    The other options, what is refused and how, and when the election happens: `resumable_sync.wsgi.views`. `start`
    is called in place of `context.run`, with the source and the metadata. TypeError at once for an `encoder` or a
    callback that cannot be used, ValueError for bad options.
    """
    make_encoder = encoder_factory(encoder) or DataStreamEncoder
    example = make_encoder()
    create_assistant_stream(callback, format_error=format_error).close()  # says now what is wrong with it
    options = Options(headers=headers, heartbeat=heartbeat, max_seconds=max_seconds, viewers=viewers)
    kept = _metadata(example, options.headers, metadata)
    make_stream = partial(_make_stream, context, stream_id, callback, make_encoder, format_error)
    if start is None:
        start_producer: Callable[[], object] = partial(
            context.start, stream_id, make_stream, ttl=ttl, metadata=kept
        )
    else:
        start_producer = partial(start, make_stream, kept)
    begin = Begin(start_producer, kept)
    return StreamResponse(_MessageEndpoint(context, stream_id, options, begin, example, format_error), environ)


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
    wait: float = 0.0,
) -> StreamResponse:
    """Answer an existing stream from its first byte, then live, with the headers it began with.

    `encoder` matters only for streams in a format of the application's own, for its heartbeats and closing
    frames. `missing_response` answers when there is no such stream: a WSGI application (a Flask Response is
    one), or a status such as 204 for an empty answer with `headers`; by default 404 and
    `{"error":"stream not found"}`. None of these names the stream, lest assistant-ui keep asking for it.
    `after`, a Last-Event-ID and the query parameter `after` begin after a cursor, as for
    `resumable_sync.wsgi.resume_response`, where `wait` is explained, too. The header `Aui-Replay-Content-Length`
    says how much is replay.
    """
    make_encoder = encoder_factory(encoder)
    given = None if make_encoder is None else make_encoder()
    missing = missing_response
    if missing is None:
        missing = _not_found(checked_headers(headers))
    elif isinstance(missing, int):
        missing = _empty_response(missing, checked_headers(headers))
    options = Options(
        headers=headers,
        heartbeat=heartbeat,
        max_seconds=max_seconds,
        viewers=viewers,
        after=after,
        missing_response=missing,
        wait=wait,
    )
    return StreamResponse(_MessageEndpoint(context, stream_id, options, None, given, format_error), environ)


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
    return {**kept, **kept_by(encoder)}


@dataclass
class _MessageEndpoint(Endpoint):
    """The stored message: heartbeats between its frames, closing frames after an ending that is not `done`."""

    given: AssistantStreamEncoder | None
    """For the heartbeats and closing frames of a foreign format, and its headers before it has begun."""
    format_error: ErrorFormatter | None

    def content(self, opening: Opening) -> Headers:
        """The headers that the stream began with; those of the given encoder where none were kept that will do."""
        headers = _kept_headers(opening.metadata.get(HEADERS_KEY))
        if headers is None:
            headers = checked_headers((self.given or DEFAULT.encoder_for({})).headers)
        replay = opening.size - opening.start.offset + len(self._before(opening))
        if self.begin is None and replay > 0:
            headers.append((REPLAY_CONTENT_LENGTH_HEADER, str(replay)))
        return headers

    def length(self, opening: Opening) -> int | None:
        length = super().length(opening)
        return None if length is None else length + len(self._before(opening))

    def _before(self, opening: Opening) -> bytes:
        """What one who resumes from the start lacks: the message of earlier responses that the stream goes on
        with.

        Who sent the message has it."""
        continues = CONTINUES_KEY in opening.metadata
        if self.begin is not None or opening.start.offset or not continues:
            return b""
        message = kept_message(self.context.store, self.stream_id, opening.metadata)
        return b"" if message is None else message_frames(message)

    def body(self, viewer: Viewer) -> Iterator[bytes]:
        pieces = self._stored(viewer)
        before = self._before(viewer.opening)
        return chain([before], pieces) if before else pieces

    def _stored(self, viewer: Viewer) -> Iterator[bytes]:
        encoder = encoder_of(viewer.opening.metadata, self.given)
        # A stream that is done has no silence, and a length that a heartbeat would exceed.
        done = viewer.opening.status is Status.DONE
        heartbeat = b"" if encoder is None or done else encoder.heartbeat
        close = partial(self._close, viewer.opening, encoder)
        return raw_body(viewer, heartbeat, framed=True, close=close)  # every format's frames end with a line end

    def _close(
        self, opening: Opening, encoder: AssistantStreamEncoder | None, ending: ResumableStreamError
    ) -> bytes:
        stream_id, cancelled = self.stream_id, isinstance(ending, StreamCancelledError)
        if encoder is None or not isinstance(ending, (ProducerFailedError, StreamCancelledError)):
            raise broken_off(stream_id, ending, opening.start.generation) from ending
        if not (cancelled or closes(encoder)):
            raise broken_off(stream_id, ending, opening.start.generation) from ending
        lost = isinstance(ending, ProducerInterruptedError)
        text = INTERRUPTED_TEXT if lost or cancelled else error_text(ending, self.format_error)
        stored = stored_pieces(self.context.store, stream_id, opening.start.generation)
        try:
            return encoder.closing_frames(stored, ending.code, text)
        except ResumableStreamError as error:
            raise ResponseAbortedError(f"what is stored of stream {stream_id} cannot be read: {error}") from error


def _kept_headers(kept: str | None) -> Headers | None:
    """What a stream's metadata says; None if that is nothing, or what no response can have: a stream may have been
    begun with any metadata."""
    try:
        headers = json.loads(kept or "null")
        return checked_headers(headers) if isinstance(headers, dict) else None
    except (ValueError, TypeError):
        return None


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
