"""StreamResponse: a WSGI application that decides what to answer when it learns of the request."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs
from wsgiref.util import setup_testing_defaults

from ..context import ResumableStreamContext
from ..contract import Position, Status, StreamInfo, parse_cursor, validate_stream_id
from ..errors import InvalidCursorError, ResumableStreamError, StoreUnavailableError, StreamLostError
from ..producer import Source
from .bodies import END_SUFFIX, Body, Following
from .cap import Place, ViewerCap
from .headers import STREAM_ID_HEADER, Headers, error_headers, position_headers, streaming_headers
from .probe import find_probe

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

logger = logging.getLogger("resumable_sync")

DEFAULT_HEARTBEAT = 15.0
"""Seconds of silence after which a response looks after its viewer."""
RETRY_AFTER = 5
"""Seconds in `Retry-After` while the store is unavailable or a limit is reached."""
CONTENT_TYPE_KEY = "content-type"
"""Where the stream's metadata keeps the content type, for whoever resumes it."""

_REASONS = {  # the error's own text may say what only the server should know
    "invalid-id": "invalid stream id",
    "invalid-cursor": "invalid cursor",
    "missing": "stream not found",
    "lost": "stream lost",
    "limit": "limit reached",
    "unavailable": "stream store unavailable",
}


@dataclass
class Answer:
    """What goes to the server for one request."""

    status: str
    headers: Headers
    body: Iterable[bytes] = ()

    def close(self) -> None:
        """Let go of the body."""
        close = getattr(self.body, "close", None)
        if close is not None:
            close()


class StreamResponse:
    """The response to one request, decided when the request is known. Made by the functions of this package.

    It is a WSGI application: return it from a Flask view, or call it with `environ` and `start_response`. For
    frameworks that want parts (Django's StreamingHttpResponse) it has `status_code`, `headers`, iteration and
    `close()`; give its function the request's `environ` then, or HEAD and a viewer that leaves go unnoticed.

    Nothing happens until it is called, iterated, or asked for its status or headers: then, in that thread, it
    checks the request and the store, elects the producer and starts it, and takes the viewer's place; this
    may block for a few calls of the store. From then on the body must be iterated or closed. One thread at a time.
    """

    def __init__(self, prepare: Callable[[dict[str, Any]], Answer], environ: Mapping[str, Any] | None) -> None:
        self._prepare = prepare
        self._environ = dict(environ or {})
        self._answer: Answer | None = None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer the request `environ`. A second call answers a second request."""
        answer, self._answer = self._answer, None
        if answer is None:
            answer = self._prepare(environ)
        if environ.get("REQUEST_METHOD") == "HEAD":
            answer.close()
            answer.body = ()
        start_response(answer.status, answer.headers)
        return answer.body

    @property
    def status(self) -> str:
        """The status line, such as `200 OK`."""
        return self._resolve().status

    @property
    def status_code(self) -> int:
        """The status as a number."""
        return int(self._resolve().status[:3])

    @property
    def headers(self) -> Headers:
        """The headers as a list of pairs; a copy."""
        return list(self._resolve().headers)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._resolve().body)

    def close(self) -> None:
        """Stop following and give back the viewer's place; the producer goes on. Idempotent."""
        if self._answer is not None:
            self._answer.close()

    def _resolve(self) -> Answer:
        if self._answer is None:
            self._answer = self._prepare(self._environ)
        return self._answer


@dataclass
class Endpoint:
    """What one of the package's functions was asked for. Called with `environ`, it gives the answer."""

    context: ResumableStreamContext
    stream_id: str
    content_type: str | None
    body: Callable[[Following], Iterator[bytes]]
    headers: Headers
    heartbeat: float | None
    max_seconds: float | None
    viewers: ViewerCap | None
    events: bool
    make_stream: Source | None = None
    ttl: float | None = None
    metadata: Mapping[str, str] | None = None
    after: str | None = None
    missing_response: WSGIApplication | None = None
    exact: bool = True
    """Whether the body is the stream's bytes and nothing else, so that its length can be known."""
    more_headers: Callable[[StreamInfo | None, Position | None], Headers] | None = None
    """Headers that depend on what is stored; `headers` override them."""
    start: Callable[[], object] | None = None
    """What elects and starts the producer, instead of `context.run`."""

    def __post_init__(self) -> None:
        for name in ("heartbeat", "max_seconds"):
            seconds = getattr(self, name)
            if seconds is not None and not (math.isfinite(seconds) and seconds > 0):
                raise ValueError(f"{name} must be a positive number of seconds, not {seconds!r}")

    def __call__(self, environ: dict[str, Any]) -> Answer:
        head = environ.get("REQUEST_METHOD") == "HEAD"
        place: Place | None = None
        try:
            validate_stream_id(self.stream_id)
            position, seen_end = self._asked(environ)
            if self.viewers is not None and not head:
                place = self.viewers.enter()
                if place is None:
                    return self._refuse(503, "too many viewers", self.viewers.retry_after)
            return self._open(environ, position, seen_end, head, place)
        except ResumableStreamError as error:
            if place is not None:
                place.release()
            if error.http_status >= 500:
                logger.warning("stream %.256r cannot be served: %s", self.stream_id, error)
            retry_after = RETRY_AFTER if error.http_status == 503 else None
            return self._refuse(error.http_status, _REASONS.get(error.code, error.code), retry_after)
        except BaseException:
            if place is not None:
                place.release()
            raise

    def _asked(self, environ: dict[str, Any]) -> tuple[Position | None, bool]:
        """The position asked for, and whether the viewer has seen the stream's `end` event.

        First `after`, then Last-Event-ID (EventSource reconnects to an address that still says where it once
        began), then the query. A response that begins a stream of raw bytes takes `after` alone.
        """
        cursor = self.after
        if cursor is None and (self.events or self.make_stream is None):
            cursor = environ.get("HTTP_LAST_EVENT_ID", "").strip()
            if cursor == "-1":  # how LangGraph's clients say "from the start"
                cursor = ""
            query = parse_qs(environ.get("QUERY_STRING", ""))
            cursor = cursor or query.get("after", [""])[-1]
        bare = (cursor or "").removesuffix(END_SUFFIX)
        return parse_cursor(bare), bare != (cursor or "")

    def _open(
        self, environ: dict[str, Any], position: Position | None, seen_end: bool, head: bool, place: Place | None
    ) -> Answer:
        if self.make_stream is not None and position is None and not head:
            if self.start is not None:
                self.start()
            else:
                self.context.run(self.stream_id, self.make_stream, ttl=self.ttl, metadata=self._metadata())
        info = self.context.info(self.stream_id)
        if info is None and head and self.make_stream is not None and position is None:
            return Answer(_status_line(200), self._headers(None, None))
        if info is None:
            if place is not None:
                place.release()
            return self._missing(environ)
        position = position or Position(info.generation, 0)
        _check(info, position)
        if self.events and (seen_end or (info.status is Status.DONE and position.offset == info.size)):
            if place is not None:
                place.release()
            own = [pair for pair in self.headers if not pair[0].lower().startswith("content-")]
            return Answer(_status_line(204), own + position_headers(self.stream_id, info, position))
        if head:
            return Answer(_status_line(200), self._headers(info, position))
        if self.context.closed:
            raise StoreUnavailableError("the context is closed", transient=False)
        heartbeat = self.heartbeat or DEFAULT_HEARTBEAT
        heartbeat = min(heartbeat, self.max_seconds or heartbeat)
        following = Following(
            info,
            position,
            # From a cursor of this very generation: should the stream be replaced meanwhile, this says so.
            self.context.batches(self.stream_id, str(position), heartbeat=heartbeat),
            find_probe(environ),
            self.max_seconds,
        )
        return Answer(
            _status_line(200), self._headers(info, position), Body(self.body(following), place, following.probe)
        )

    def _metadata(self) -> dict[str, str]:
        """What stays with the stream: a later raw response has the content type of the first."""
        own = {} if self.events or self.content_type is None else {CONTENT_TYPE_KEY: self.content_type}
        return {**own, **(self.metadata or {})}

    def _headers(self, info: StreamInfo | None, position: Position | None) -> Headers:
        stored = info.metadata.get(CONTENT_TYPE_KEY) if info is not None else None
        content_type = self.content_type or stored or "application/octet-stream"
        own = list(self.headers)
        if self.more_headers is not None:
            names = {name.lower() for name, _ in own}
            own += [pair for pair in self.more_headers(info, position) if pair[0].lower() not in names]
        headers = streaming_headers(own, content_type) + position_headers(self.stream_id, info, position)
        if self.exact and info is not None and position is not None and info.status is Status.DONE:
            headers.append(("Content-Length", str(info.size - position.offset)))
        return headers

    def _missing(self, environ: dict[str, Any]) -> Answer:
        if self.missing_response is None:
            return self._refuse(404, _REASONS["missing"], None)
        complete = dict(environ)
        setup_testing_defaults(complete)  # fills in what is absent: a request is known only in part, perhaps
        return _run(self.missing_response, complete)

    def _refuse(self, status: int, reason: str, retry_after: int | None) -> Answer:
        body = json.dumps({"error": reason}, separators=(",", ":")).encode()
        headers = error_headers(self.headers, len(body))
        if status != 400:  # there the id itself may be what no header can hold
            headers.append((STREAM_ID_HEADER, self.stream_id))
        if retry_after is not None:
            headers.append(("Retry-After", str(retry_after)))
        return Answer(_status_line(status), headers, [body])


def _check(info: StreamInfo, position: Position) -> None:
    """Refuse a position that the stream does not have. It only grows, so a good one stays good."""
    if position.generation != info.generation:
        raise StreamLostError(f"stream {info.stream_id} is of generation {info.generation} now, not {position}")
    if position.offset > info.size:
        raise InvalidCursorError(f"{position} lies beyond the end of stream {info.stream_id}, {info.cursor}")


def _status_line(code: int) -> str:
    return f"{code} {HTTPStatus(code).phrase}"


def _run(application: WSGIApplication, environ: dict[str, Any]) -> Answer:
    """The answer of another WSGI application, which must call start_response before it returns."""
    started: list[tuple[str, Headers]] = []
    written: list[bytes] = []

    def start_response(status: str, headers: Headers, exc_info: object = None, /) -> Callable[[bytes], object]:
        started[:] = [(status, headers)]
        return written.append

    body = application(environ, start_response)
    if not started:
        raise RuntimeError("the missing_response application did not call start_response")
    status, headers = started[0]
    return Answer(status, list(headers), [*written, *body] if written else body)
