"""The functions that make responses, and what they promise.

Two formats. **Raw** responses carry the stream's bytes as they are; a viewer that was cut comes back with the
cursor it has reached (the response's `x-resumable-cursor` plus the bytes received), or, like `curl -C -`,
`wget -c` and browsers' downloads, with a Range (`ranges` has the rules). A raw response whose stream did not end
as `done` is broken off: what had ended before announces a byte that never comes; what is followed live ends
without its last chunk, and where there are no chunks (HTTP/1.0, which nginx asks by, wsgiref, uWSGI) by a reset
(`reset`). Where a server does not show its connection (granian and mod_wsgi over HTTP/1.0), or that is a Unix
socket, one warning is logged, and HEAD tells: whoever has `x-resumable-size` bytes of a stream with
`x-resumable-status: done` has it all. **Server-sent events** say in band how the stream ended.

A Range without If-Range does not say which life of the stream it goes on with. Nothing begins anew for it; but to
a file of a life before, it adds the rest of a stream that somebody else began anew. Browsers send If-Range; for
curl and wget let each life have an id of its own. There are no ranges with `heartbeat_bytes`, for POST, and where
`headers` has an Accept-Ranges, ETag or Last-Modified.

The keyword options that several functions share:

`environ`       the request, where the response is not called as a WSGI application (which gets it anyway).
`headers`       further headers; ValueError for hop-by-hop ones and Content-Length. The `x-resumable-*` headers
                cannot be overridden.
`heartbeat`     seconds (default 15) of silence after which the response looks whether its viewer is still
                there, and, if the format allows, sends something. A viewer that has left gives its thread back
                within two heartbeats under all servers of README's table but mod_wsgi, also when nothing can be
                sent. There a raw response without `heartbeat_bytes` learns of it
                only from the next bytes of the stream: set `max_seconds`. A viewer that stays connected and does
                not read keeps its thread until the server or the proxy in front gives it up.
`max_seconds`   how long a response lasts at most (default: as long as its stream). It ends at the first piece or
                heartbeat after that, and the viewer comes back: server-sent events simply end, without an `end`
                event; raw bytes are broken off, so as not to look complete.
`viewers`       a ViewerCap; those that wait for a stream to begin take a place, too. See there for a full house.
`wait`          seconds that a request without a cursor waits, at most, for a stream that has not begun yet, as
                where a worker is about to produce it, before it is answered 404.

Refusals, before anything was started, as JSON `{"error": …}`: 400 malformed id or cursor, 404 missing stream,
409 and 416 a Range (`ranges`), 410 a cursor of a life of the stream that is gone, 503 with `Retry-After` when the
cap or a store's limit is reached or the store is unavailable. EventSource gives up at any status but 200: make a
new one after a while; of a cap it need not know (`event_source` of ViewerCap).
HEAD starts nothing, takes no place under a cap, and answers where the stream stands.

Compressing extensions and middleware leave these responses alone: they have a Content-Encoding. What reads a
body holds it up to its end: in Flask look at `response.is_streamed` before a handler of `after_request` calls
`get_data` or `add_etag`.

For a page of another origin add `Access-Control-Expose-Headers` with the `x-resumable-*` headers it reads. With
waitress set `log_socket_errors` to false, or it logs every raw response that is broken off as an error.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ..context import ResumableStreamContext
from ..contract import Status
from ..producer import Source, check_callback
from ..pump import check_source
from .bodies import FormatError, Viewer, check_encoding, raw_body, sse_body
from .cap import ViewerCap
from .headers import (
    CONTENT_TYPE_KEY,
    EVENT_STREAM,
    HeaderInput,
    Headers,
    Opening,
    checked_headers,
    kept_content_type,
)
from .ranges import APPLICATION_S, Part, goes_on, select, whole_length
from .response import Begin, Endpoint, Options, StreamResponse

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


@dataclass
class RawEndpoint(Endpoint):
    """The stream's bytes as they are, with `content_type` or else the one that was kept."""

    content_type: str | None
    heartbeat_bytes: bytes

    @property
    def needs_metadata(self) -> bool:
        return self.content_type is None

    def content(self, opening: Opening) -> Headers:
        return [("Content-Type", self.content_type or kept_content_type(opening.metadata))]

    def body(self, viewer: Viewer) -> Iterator[bytes]:
        return raw_body(viewer, self.heartbeat_bytes)

    def length(self, opening: Opening) -> int | None:
        return None if self.heartbeat_bytes else whole_length(opening)

    def part(self, environ: Mapping[str, Any], opening: Opening) -> Part | None:
        """None where bytes cannot be counted, for POST and its like, and where the application sees to it."""
        return select(environ, opening) if self._has_parts(environ) else None

    def goes_on(self, environ: Mapping[str, Any]) -> bool:
        return self._has_parts(environ) and goes_on(environ)

    def _has_parts(self, environ: Mapping[str, Any]) -> bool:
        own = {name.lower() for name, _ in self.own_headers()}
        reads = environ.get("REQUEST_METHOD", "GET") in ("GET", "HEAD")
        return reads and not self.heartbeat_bytes and not own & APPLICATION_S


@dataclass
class EventEndpoint(Endpoint):
    """The stream as server-sent events, which say in band how it ended."""

    encoding: str
    errors: str
    retry: float | None
    format_error: FormatError | None

    events = True
    needs_metadata = False

    def __post_init__(self) -> None:
        check_encoding(self.encoding, self.errors)
        check_callback("format_error", self.format_error)
        if self.retry is not None and not (math.isfinite(self.retry) and self.retry >= 0):
            raise ValueError(f"retry must be a number of seconds, not {self.retry!r}")

    def own_headers(self) -> Headers:
        return [pair for pair in self.options.headers if pair[0].lower() != "content-type"]

    def content(self, opening: Opening) -> Headers:
        return [("Content-Type", EVENT_STREAM)]

    def body(self, viewer: Viewer) -> Iterator[bytes]:
        return sse_body(
            viewer,
            encoding=self.encoding,
            errors=self.errors,
            retry=self.retry,
            format_error=self.format_error,
        )

    def length(self, opening: Opening) -> int | None:
        return None

    def over(self, opening: Opening, seen_end: bool) -> bool:
        return seen_end or (opening.status is Status.DONE and opening.start.offset == opening.size)


def _begin(
    context: ResumableStreamContext,
    stream_id: str,
    make_stream: Source,
    metadata: Mapping[str, str],
    life: Mapping[str, Any],
) -> Begin:
    """How a response begins its stream; `life` goes to `context.start`. TypeError as `check_source`."""
    check_source(make_stream)
    return Begin(partial(context.start, stream_id, make_stream, metadata=metadata, **life), metadata)


def stream_response(
    context: ResumableStreamContext,
    stream_id: str,
    make_stream: Source,
    *,
    content_type: str = "application/octet-stream",
    headers: HeaderInput = None,
    heartbeat: float | None = None,
    heartbeat_bytes: bytes = b"",
    max_seconds: float | None = None,
    viewers: ViewerCap | None = None,
    ttl: float | None = None,
    metadata: Mapping[str, str] | None = None,
    restart: Collection[Status | str] = (),
    idle_timeout: float | None = None,
    handover: float = 0.0,
    environ: Mapping[str, Any] | None = None,
) -> StreamResponse:
    """Produce the stream unless somebody does or did, and answer its bytes from the start, then live.

    `content_type` is kept with the stream, in its metadata, for those who resume it; ValueError if no header can
    hold it. `heartbeat_bytes` go out at each heartbeat, between two chunks, for formats that have something to say
    nothing with; a viewer must then not count bytes. `ttl`, `metadata`, `restart`, `idle_timeout` and `handover`
    as in `ResumableStreamContext.run`.

    The election happens when the response is called as a WSGI application or first asked for its status,
    headers or body; never for HEAD, never when it is refused. ValueError at once for bad options, TypeError for a
    `make_stream` that can never be one.
    """
    kept = {CONTENT_TYPE_KEY: content_type, **(metadata or {})}
    checked_headers({"Content-Type": content_type, "content-type": kept[CONTENT_TYPE_KEY]})
    life: dict[str, Any] = {"ttl": ttl, "restart": restart, "idle_timeout": idle_timeout, "handover": handover}
    begin = _begin(context, stream_id, make_stream, kept, life)
    options = Options(headers=headers, heartbeat=heartbeat, max_seconds=max_seconds, viewers=viewers)
    endpoint = RawEndpoint(context, stream_id, options, begin, content_type, heartbeat_bytes)
    return StreamResponse(endpoint, environ)


def resume_response(
    context: ResumableStreamContext,
    stream_id: str,
    *,
    environ: Mapping[str, Any] | None = None,
    after: str | None = None,
    headers: HeaderInput = None,
    missing_response: WSGIApplication | None = None,
    content_type: str | None = None,
    heartbeat: float | None = None,
    heartbeat_bytes: bytes = b"",
    max_seconds: float | None = None,
    viewers: ViewerCap | None = None,
    wait: float = 0.0,
) -> StreamResponse:
    """Answer the bytes of an existing stream after a cursor, then live.

    The cursor is `after`, or the Last-Event-ID header, or the query parameter `after`, or the start. The content
    type is the one the stream began with, unless given. `missing_response`: a WSGI application (a Flask Response
    is one) that answers when there is no such stream. When the stream is `done` the length is known and sent. A
    Range counts from the cursor.
    """
    if content_type is not None:
        checked_headers({"Content-Type": content_type})
    options = Options(
        headers=headers,
        heartbeat=heartbeat,
        max_seconds=max_seconds,
        viewers=viewers,
        after=after,
        missing_response=missing_response,
        wait=wait,
    )
    endpoint = RawEndpoint(context, stream_id, options, None, content_type, heartbeat_bytes)
    return StreamResponse(endpoint, environ)


def sse_response(
    context: ResumableStreamContext,
    stream_id: str,
    make_stream: Source,
    *,
    headers: HeaderInput = None,
    heartbeat: float | None = None,
    encode: str = "text",
    errors: str = "strict",
    retry: float | None = 2.0,
    format_error: FormatError | None = None,
    max_seconds: float | None = None,
    viewers: ViewerCap | None = None,
    ttl: float | None = None,
    metadata: Mapping[str, str] | None = None,
    restart: Collection[Status | str] = (),
    idle_timeout: float | None = None,
    handover: float = 0.0,
    missing_response: WSGIApplication | None = None,
    environ: Mapping[str, Any] | None = None,
) -> StreamResponse:
    """Produce the stream unless somebody does or did, and answer it as server-sent events from the start.

    A request with a cursor (Last-Event-ID, as EventSource sends when it reconnects, or the query parameter
    `after`) is one to `resume_sse_response` and starts nothing. When the election happens: `stream_response`.

    Events, each with the cursor after it as `id`:
    - unnamed, one per chunk. `encode="text"`: the chunk's text, where CR LF and CR arrive as LF, as the format
      has it. `"json"`: the text as a JSON string, exactly. `"base64"`: bytes, exactly. A character that is torn
      between two chunks goes into the second event. Bytes that are not UTF-8 end the response with `error`, which
      is logged, or with `errors="replace"` come as U+FFFD (the cursors count the stream's own bytes, and a client
      that checks them, as this library's in Python does, refuses them); base64 takes all bytes.
    - `live`, once, where the replay ends: everything stored so far was sent. Data `{"cursor", "size"}`.
    - `end`, last: data `{"status": "done" | "error" | "cancelled" | "interrupted" | "lost", "cursor", "error"?}`.
      Its id is the cursor followed by `-end`; a client that comes back with it gets 204, at which EventSource
      stops. 204 as well for the cursor at the end of a stream that is `done`. A response that ends without an
      `end` event was cut.

    `retry`: seconds that EventSource waits before it reconnects. `format_error(exception) -> str` makes the text
    of `error`; by default "An error occurred.". Heartbeats are comments.
    """
    kept = dict(metadata or {})
    life: dict[str, Any] = {"ttl": ttl, "restart": restart, "idle_timeout": idle_timeout, "handover": handover}
    begin = _begin(context, stream_id, make_stream, kept, life)
    options = Options(
        headers=headers,
        heartbeat=heartbeat,
        max_seconds=max_seconds,
        viewers=viewers,
        missing_response=missing_response,
    )
    return StreamResponse(
        EventEndpoint(context, stream_id, options, begin, encode, errors, retry, format_error), environ
    )


def resume_sse_response(
    context: ResumableStreamContext,
    stream_id: str,
    *,
    environ: Mapping[str, Any] | None = None,
    after: str | None = None,
    headers: HeaderInput = None,
    missing_response: WSGIApplication | None = None,
    heartbeat: float | None = None,
    encode: str = "text",
    errors: str = "strict",
    retry: float | None = 2.0,
    format_error: FormatError | None = None,
    max_seconds: float | None = None,
    viewers: ViewerCap | None = None,
    wait: float = 0.0,
) -> StreamResponse:
    """Answer an existing stream as server-sent events after a cursor; see `sse_response` for the events and
    `resume_response` for the cursor and `missing_response`. `encode` and `errors` must be what they were before
    the cut."""
    options = Options(
        headers=headers,
        heartbeat=heartbeat,
        max_seconds=max_seconds,
        viewers=viewers,
        after=after,
        missing_response=missing_response,
        wait=wait,
    )
    return StreamResponse(
        EventEndpoint(context, stream_id, options, None, encode, errors, retry, format_error), environ
    )
