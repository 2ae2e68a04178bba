"""StreamResponse, a WSGI application that decides what to answer when it learns of the request, and the endpoint
that decides it."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple
from urllib.parse import parse_qs
from wsgiref.util import setup_testing_defaults

from ..context import ResumableStreamContext
from ..contract import Batch, Position, Status, parse_cursor, validate_stream_id
from ..errors import ResumableStreamError, StoreUnavailableError, StreamNotFoundError
from ..logs import about
from ..producer import check_callback
from .bodies import END_SUFFIX, Body, Viewer
from .cap import Place, ViewerCap
from .headers import (
    EVENT_STREAM,
    STREAM_ID_HEADER,
    HeaderInput,
    Headers,
    Opening,
    checked_headers,
    error_headers,
    position_headers,
    streaming_headers,
    unchanged_headers,
)
from .probe import find_probe
from .ranges import Part, part_headers
from .reset import find_reset
from .threads import warn_of_single_thread

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

logger = logging.getLogger("resumable_sync")

DEFAULT_HEARTBEAT = 15.0
"""Seconds of silence after which a response looks after its viewer."""
RETRY_AFTER = 5
"""Seconds in `Retry-After` while the store is unavailable or a limit is reached."""

_ELECTION_ROUNDS = 5  # in which a stream may be deleted between a lost election and the read of the winner's
REASONS = {  # the error's own text may say what only the server should know
    "invalid-id": "invalid stream id",
    "invalid-cursor": "invalid cursor",
    "missing": "stream not found",
    "lost": "stream lost",
    "limit": "limit reached",
    "taken": "stream taken",
    "unavailable": "stream store unavailable",
}

_PARTS_REFUSED = {409: "range beyond what is stored", 416: "range not satisfiable"}


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
        warn_of_single_thread(environ)
        if answer is None:
            answer = self._prepare(environ)
        if environ.get("REQUEST_METHOD") == "HEAD":
            answer.close()
            answer.body = ()
        start_response(answer.status, answer.headers)
        return answer.body or (b"",)  # hypercorn sends a status only with a body

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


class Options:
    """What every response can be told; see `views`. ValueError for what it cannot."""

    def __init__(
        self,
        *,
        headers: HeaderInput = None,
        heartbeat: float | None = None,
        max_seconds: float | None = None,
        viewers: ViewerCap | None = None,
        after: str | None = None,
        missing_response: WSGIApplication | None = None,
        wait: float = 0.0,
    ) -> None:
        if not (math.isfinite(wait) and wait >= 0):
            raise ValueError(f"wait must be a number of seconds, not {wait!r}")
        for name, seconds in (("heartbeat", heartbeat), ("max_seconds", max_seconds)):
            if seconds is not None and not (math.isfinite(seconds) and seconds > 0):
                raise ValueError(f"{name} must be a positive number of seconds, not {seconds!r}")
        check_callback("missing_response", missing_response)
        self.headers = checked_headers(headers)
        heartbeat = heartbeat or DEFAULT_HEARTBEAT
        self.heartbeat = min(heartbeat, max_seconds or heartbeat)
        self.max_seconds = max_seconds
        self.viewers = viewers
        self.after = after
        self.missing_response = missing_response
        self.wait = wait


class Begin(NamedTuple):
    """What a response does to begin its stream, should nobody have done so."""

    start: Callable[[], object]
    """Elects and starts the producer: True if this call did, False if somebody else did before."""
    metadata: Mapping[str, str]
    """What is kept with the stream then."""


@dataclass
class Endpoint:
    """What one function was asked for. Called with `environ`, it gives the answer; that may be repeated, and
    concurrently. A subclass says what is sent: `content`, `body`, and what else differs."""

    context: ResumableStreamContext
    stream_id: str
    options: Options
    begin: Begin | None

    events: ClassVar[bool] = False
    """Whether viewers come back to the very address that began the stream, and with the id of an event."""

    @property
    def needs_metadata(self) -> bool:
        """Whether `content` or `body` look at the stream's metadata, which costs a call of the store."""
        return True

    def content(self, opening: Opening) -> Headers:
        """Headers that describe the body. The application's override them."""
        raise NotImplementedError

    def body(self, viewer: Viewer) -> Iterator[bytes]:
        """What is sent."""
        raise NotImplementedError

    def own_headers(self) -> Headers:
        """The application's headers."""
        return self.options.headers

    def length(self, opening: Opening) -> int | None:
        """The number of bytes in the body, where it is known."""
        return opening.size - opening.start.offset if opening.status is Status.DONE else None

    def part(self, environ: Mapping[str, Any], opening: Opening) -> Part | None:
        """What the request gets of the body that begins with `opening`, for endpoints that know parts."""
        return None

    def goes_on(self, environ: Mapping[str, Any]) -> bool:
        """Whether the viewer goes on with what it has, although it has no cursor: nothing may begin for it."""
        return False

    def over(self, opening: Opening, seen_end: bool) -> bool:
        """Whether a viewer that came with a cursor has everything and must be told to stop (204)."""
        return False

    def __call__(self, environ: dict[str, Any]) -> Answer:
        head = environ.get("REQUEST_METHOD") == "HEAD"
        viewers = self.options.viewers
        place: Place | None = None
        try:
            validate_stream_id(self.stream_id)
            position, seen_end = self._asked(environ)
            if viewers is not None and not head:
                place = viewers.enter()
                if place is None:
                    return self._turn_away(viewers, position)
            answer = (
                self._answer_head(environ, position, seen_end)
                if head
                else self._open(environ, position, seen_end, place)
            )
            if place is not None and not isinstance(answer.body, Body):
                place.release()
            return answer
        except StreamNotFoundError:
            if place is not None:
                place.release()
            return self._missing(environ)
        except ResumableStreamError as error:
            if place is not None:
                place.release()
            if error.http_status >= 500:
                extra = about("not-served", self.stream_id)
                logger.warning("stream %.256r cannot be served: %s", self.stream_id, error, extra=extra)
            retry_after = RETRY_AFTER if error.http_status == 503 else None
            return self._refuse(error.http_status, REASONS.get(error.code, error.code), retry_after)
        except BaseException:
            if place is not None:
                place.release()
            raise

    def _turn_away(self, viewers: ViewerCap, position: Position | None) -> Answer:
        """All places are taken."""
        if not (self.events and viewers.event_source):
            return self._refuse(503, "too many viewers", viewers.retry_after)
        if self.begin is not None and position is None:
            self.begin.start()
        return come_back([(STREAM_ID_HEADER, self.stream_id), *self.own_headers()], viewers.retry_after)

    def _asked(self, environ: dict[str, Any]) -> tuple[Position | None, bool]:
        """The position asked for, and whether the viewer has seen the stream's `end` event.

        First `after`, then Last-Event-ID (EventSource reconnects to an address that still says where it once
        began), then the query. A response that begins a stream of raw bytes takes `after` alone.
        """
        cursor = self.options.after
        if cursor is None and (self.events or self.begin is None):
            cursor = environ.get("HTTP_LAST_EVENT_ID", "").strip()
            if cursor == "-1":  # how LangGraph's clients say "from the start"
                cursor = ""
            query = parse_qs(environ.get("QUERY_STRING", ""))
            cursor = cursor or query.get("after", [""])[-1]
        cursor = cursor or ""
        bare = cursor.removesuffix(END_SUFFIX)
        # The suffix alone is no cursor: whoever has seen an ending has seen where it was.
        return parse_cursor(bare or cursor), bare != cursor

    def _answer_head(self, environ: dict[str, Any], position: Position | None, seen_end: bool) -> Answer:
        """Where the stream stands. StreamNotFoundError if there is none and this would not begin it."""
        info = self.context.info(self.stream_id)
        if info is None:
            if self.begin is None or position is not None:
                raise StreamNotFoundError(f"there is no stream {self.stream_id}")
            return Answer(status_line(200), self._headers(Opening(self.stream_id)))
        if position is not None:  # the store refuses a cursor that the stream does not have
            self.context.store.read(self.stream_id, str(position), max_bytes=1)
        start = position or Position(info.generation, 0)
        opening = Opening(self.stream_id, info.status, info.size, start, info.metadata)
        if position is not None and self.over(opening, seen_end):
            return self._over(opening)
        part = self.part(environ, opening)
        if part is not None and part.status == 304:
            return self._without_body(part, opening)
        # The length that is announced for what did not end well is not its length.
        length = self.length(opening) if opening.status is Status.DONE else None
        return self._ok(opening, [] if part is None else part_headers(part, opening), length)

    def _open(
        self, environ: dict[str, Any], position: Position | None, seen_end: bool, place: Place | None
    ) -> Answer:
        first, metadata = self._fetch(environ, position)
        start = Position(first.generation, first.offset - first.length)
        opening = Opening(self.stream_id, first.status, first.size, start, metadata)
        if position is not None and self.over(opening, seen_end):  # else it has seen nothing, not even the ending
            return self._over(opening)
        if self.context.closed:
            raise StoreUnavailableError("the context is closed", transient=False)
        part = self.part(environ, opening)
        length, stop, status = self.length(opening), None, 200
        headers: Headers = []
        if part is not None:
            if part.status not in (200, 206):
                return self._without_body(part, opening)
            headers, status = part_headers(part, opening), part.status
            length, stop = part.length, None if part.stop is None else start.offset + part.stop
            if part.first:  # what was read lies before it
                opening = opening._replace(start=Position(start.generation, start.offset + part.first))
                first = self.context._require_open(self.stream_id, str(opening.start))
        batches = self.context._loop(self.stream_id).batches(first, self.options.heartbeat)
        probe = find_probe(environ)
        viewer = Viewer(opening, batches, probe, self.options.max_seconds, stop)
        reset = find_reset(environ, probe) if length is None and not self.events else None
        body = Body(self.body(viewer), place, probe, reset)
        return self._ok(opening, headers, length, body, status)

    def _fetch(self, environ: dict[str, Any], position: Position | None) -> tuple[Batch, Mapping[str, str]]:
        """Begin the stream if that was asked for, and read what the viewer gets first. StreamNotFoundError."""
        begin = self.begin if position is None and not self.goes_on(environ) else None
        for _ in range(_ELECTION_ROUNDS):
            started = begin.start() if begin is not None else None
            try:
                return self._read(environ, position, begin.metadata if begin and started is True else None)
            except StreamNotFoundError:
                if started is not False:
                    raise
            # It was deleted or expired since the election was lost: the id is free again.
        raise StreamNotFoundError(f"stream {self.stream_id} was deleted again and again")

    def _read(
        self, environ: dict[str, Any], position: Position | None, metadata: Mapping[str, str] | None
    ) -> tuple[Batch, Mapping[str, str]]:
        after = "" if position is None else str(position)
        first: Batch | None = None
        if self.options.wait and position is None and self.begin is None:
            first = self._wait(environ)
        if metadata is None and self.needs_metadata:
            info = self.context.info(self.stream_id)
            if info is None:
                raise StreamNotFoundError(f"there is no stream {self.stream_id}")
            # Of this very generation: should the stream be replaced meanwhile, the read says so.
            metadata, after = info.metadata, after or f"{info.generation}-0"
            if first is not None and first.generation != info.generation:
                first = None
        if first is None:
            first = self.context._require_open(self.stream_id, after)
        return first, metadata or {}

    def _wait(self, environ: dict[str, Any]) -> Batch:
        """What a viewer gets first of a stream that may begin within `wait` seconds. StreamNotFoundError: it did
        not, or the viewer has left, which is noticed within a heartbeat."""
        deadline = time.monotonic() + self.options.wait
        probe = find_probe(environ)
        try:
            while True:
                left = max(0.0, deadline - time.monotonic())
                seconds = min(left, self.options.heartbeat)
                try:
                    return self.context._require_open(self.stream_id, "", seconds)
                except StreamNotFoundError as missing:
                    if self.context.closed:  # it may well begin, but not here
                        raise StoreUnavailableError("the context is closed", transient=False) from missing
                    if seconds == left or (probe is not None and probe.gone()):
                        raise
        finally:
            if probe is not None:
                probe.close()

    def _ok(
        self,
        opening: Opening,
        more: Headers,
        length: int | None,
        body: Iterable[bytes] = (),
        status: int = 200,
    ) -> Answer:
        headers = self._headers(opening) + more
        if length is not None:
            headers.append(("Content-Length", str(length)))
        return Answer(status_line(status), headers, body)

    def _without_body(self, part: Part, opening: Opening) -> Answer:
        headers = part_headers(part, opening)
        if part.status == 304:
            own = unchanged_headers(self.own_headers())
            return Answer(status_line(304), own + headers + position_headers(opening))
        refused = self._refuse(part.status, _PARTS_REFUSED[part.status], None)
        refused.headers += headers + position_headers(opening)[1:]  # the stream is named already
        return refused

    def _over(self, opening: Opening) -> Answer:
        own = [pair for pair in self.own_headers() if not pair[0].lower().startswith("content-")]
        return Answer(status_line(204), own + position_headers(opening))

    def _headers(self, opening: Opening) -> Headers:
        own = self.own_headers()
        names = {name.lower() for name, _ in own}
        content = [pair for pair in self.content(opening) if pair[0].lower() not in names]
        return streaming_headers(content + own) + position_headers(opening)

    def _missing(self, environ: dict[str, Any]) -> Answer:
        if self.options.missing_response is None:
            return self._refuse(404, REASONS["missing"], None)
        complete = dict(environ)
        setup_testing_defaults(complete)  # fills in what is absent: a request is known only in part, perhaps
        return _run(self.options.missing_response, complete)

    def _refuse(self, status: int, reason: str, retry_after: int | None) -> Answer:
        body = json.dumps({"error": reason}, separators=(",", ":")).encode()
        headers = error_headers(self.own_headers(), len(body))
        if status != 400:  # there the id itself may be what no header can hold
            headers.append((STREAM_ID_HEADER, self.stream_id))
        if retry_after is not None:
            headers.append(("Retry-After", str(retry_after)))
        return Answer(status_line(status), headers, [body])


def come_back(own: Headers, retry_after: int) -> Answer:
    """Server-sent events that hold none: EventSource comes back, after so many seconds. `own`: without a type.

    No blank line follows the field, which counts without one: at a blank line some clients would dispatch, or
    forget their last id.
    """
    body = f": too many viewers\nretry: {retry_after * 1000}\n".encode("ascii")
    headers = streaming_headers([("Content-Type", EVENT_STREAM), *own])
    headers += [("Retry-After", str(retry_after)), ("Content-Length", str(len(body)))]
    return Answer(status_line(200), headers, [body])


def status_line(code: int) -> str:
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
