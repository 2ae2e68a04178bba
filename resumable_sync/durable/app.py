"""The application: who may do what, and which answer goes out."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..context import ResumableStreamContext
from ..contract import shared_store
from ..errors import LimitExceededError, ResumableStreamError, UnsupportedError
from ..stores.base import check_seconds
from ..wsgi import ViewerCap
from ..wsgi.cross_origin import CrossOrigin
from ..wsgi.headers import Headers, checked_headers
from ..wsgi.threads import warn_of_single_thread
from . import creation, reads, writes
from .answers import ALLOWED, EXPOSED, Answer, Refusal
from .creation import Creations
from .forks import Forks
from .incoming import MapPath, Names, Request
from .live import Live
from .reads import Reads
from .streams import Remembered
from .writes import Writes

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

logger = logging.getLogger("resumable_sync")

Authorize = Callable[[Mapping[str, Any], str, str], object]

_METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS")
_MOST_WRITERS = 1000


class _Answered(Exception):
    """`authorize` has returned a response of its own."""

    def __init__(self, application: Any) -> None:
        super().__init__("answered by authorize")
        self.application = application


class DurableStreamsApp:
    """A WSGI application that serves the Durable Streams protocol. What it promises and refuses: see the package.

    `authorize(environ, stream_id, action)` says whether a request may; None: everybody reads what is in the
    `namespace`, nobody writes. `prefix`: the path it is reached at where nothing has moved that to SCRIPT_NAME.
    `namespace`: what every id begins with; it ends with `.`, `:`, `_` or `-`. `stream_id(path)` makes an id of the
    decoded path below the prefix (default: `:` for each `/`).

    `cors_origins`: the origins whose pages may use this, a collection or "*"; `cors_credentials` lets them send
    cookies. `long_poll_seconds` and `sse_seconds`: how long live responses last at most. `default_ttl`: seconds
    that a stream lives after its last use where the client says nothing; None: for ever. `max_body_bytes`,
    `max_writers` (producers of a stream, at most 1000), `max_fork_bytes`: 413 for more. `read_bytes`: how much one
    response holds, but for the rest of one chunk. `viewers`: a ViewerCap for live readers. `cache_control`: of
    responses with data.

    UnsupportedError for a context whose store has no shared streams; ValueError for settings that are out of
    range. Thread-safe. Calls block for the store and for the request's body; live ones, while they last, for the
    stream. When the context is closed, they end, and further ones are 503.
    """

    def __init__(
        self,
        context: ResumableStreamContext,
        *,
        authorize: Authorize | None = None,
        prefix: str = "",
        namespace: str = "",
        stream_id: MapPath | None = None,
        cors_origins: Collection[str] | str = (),
        cors_credentials: bool = False,
        long_poll_seconds: float = 20.0,
        sse_seconds: float = 60.0,
        default_ttl: float | None = None,
        max_body_bytes: int = 16 * 1024 * 1024,
        read_bytes: int = 1024 * 1024,
        max_writers: int = 1000,
        viewers: ViewerCap | None = None,
        cache_control: str = "private, no-cache",
        max_fork_bytes: int = 64 * 1024 * 1024,
    ) -> None:
        shared = shared_store(context.store)
        if shared is None:
            raise UnsupportedError(f"{type(context.store).__name__} has no shared streams")
        if authorize is None and not namespace:
            raise ValueError("without authorize everybody reads: name the ids that may be read by a namespace")
        for name, seconds in (("long_poll_seconds", long_poll_seconds), ("sse_seconds", sse_seconds)):
            if not (math.isfinite(seconds) and seconds > 0):
                raise ValueError(f"{name} must be a positive number of seconds, not {seconds!r}")
        for name, number in (
            ("max_body_bytes", max_body_bytes),
            ("read_bytes", read_bytes),
            ("max_writers", max_writers),
            ("max_fork_bytes", max_fork_bytes),
        ):
            if not isinstance(number, int) or number < 1:
                raise ValueError(f"{name} must be a positive integer, not {number!r}")
        if max_writers > _MOST_WRITERS:
            raise ValueError(f"max_writers is at most {_MOST_WRITERS}: a stream's notes have no room for more")
        if default_ttl is not None:
            check_seconds(default_ttl, "default_ttl")
        checked_headers({"Cache-Control": cache_control})
        self.context = context
        self._authorize = authorize
        self._names = Names(prefix, namespace, stream_id)
        self._cross_origin = CrossOrigin(cors_origins, cors_credentials, EXPOSED)
        self._max_body_bytes = max_body_bytes
        remembered = Remembered()
        self._forks = Forks(context, shared, max_fork_bytes)
        self._creations = Creations(context.store, shared, remembered, self._forks, default_ttl)
        self._writes = Writes(context.store, shared, remembered, self._forks, max_writers)
        self._reads = Reads(context, shared, remembered, self._forks, read_bytes, cache_control)
        self._live = Live(
            context,
            shared,
            self._reads,
            long_poll_seconds=long_poll_seconds,
            sse_seconds=sse_seconds,
            viewers=viewers,
            cache_control=cache_control,
        )

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        try:
            answer = self._answer(environ)
        except Refusal as refusal:
            answer = refusal.answer
        except ResumableStreamError as error:
            answer = _of_error(error).answer
        except _Answered as answered:
            return self._pass_on(answered.application, environ, start_response)
        start_response(answer.line, [*answer.headers, *self._common(environ)])
        if environ.get("REQUEST_METHOD") == "HEAD":
            return []
        return answer.body

    def _common(self, environ: WSGIEnvironment) -> Headers:
        """What every answer has."""
        policy = "cross-origin" if self._cross_origin.used else "same-origin"
        return [
            ("X-Content-Type-Options", "nosniff"),
            ("Cross-Origin-Resource-Policy", policy),
            *self._cross_origin.headers(environ),
        ]

    def _pass_on(
        self, application: Any, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        def start(status: str, headers: Headers, *exc_info: Any) -> Any:
            return start_response(status, [*headers, *self._common(environ)], *exc_info)

        answer: Iterable[bytes] = application(environ, start)
        return answer

    def _answer(self, environ: WSGIEnvironment) -> Answer:
        method = environ.get("REQUEST_METHOD", "GET")
        if method == "OPTIONS":
            return Answer(204, self._preflight(environ))
        request = Request(environ, self._names, self._max_body_bytes)
        if method == "GET":
            return self._get(request)
        if method == "HEAD":
            self._check(request, request.stream_id, "read")
            return self._reads.head(request.stream_id)
        if method == "POST":
            return self._post(request)
        if method == "PUT":
            self._check(request, request.stream_id, "create")
            asked = creation.parse(request)
            if asked.source_id is not None:
                self._check(request, asked.source_id, "read")
            return self._creations.put(request, asked)
        if method == "DELETE":
            self._check(request, request.stream_id, "delete")
            self._forks.delete(request.stream_id)
            return Answer(204)
        raise Refusal(405, "method not allowed", [("Allow", ", ".join(_METHODS))])

    def _get(self, request: Request) -> Answer:
        self._check(request, request.stream_id, "read")
        asked = reads.parse(request.query)
        if asked.live is None:
            return self._reads.get(request.stream_id, asked, request.header("If-None-Match"))
        warn_of_single_thread(request.environ)
        return self._live.get(request, asked)

    def _post(self, request: Request) -> Answer:
        appends = request.has_body or not request.closes
        if appends:
            self._check(request, request.stream_id, "append")
        if request.closes:
            self._check(request, request.stream_id, "close")
        asked = writes.parse(request)
        if asked.body and not appends:
            self._check(request, request.stream_id, "append")
        return self._writes.post(request.stream_id, asked)

    def _preflight(self, environ: WSGIEnvironment) -> Headers:
        headers = self._cross_origin.preflight(environ, _METHODS, ALLOWED)
        own = {name for name, _ in self._cross_origin.headers(environ)}
        return [("Allow", ", ".join(_METHODS)), *(pair for pair in headers if pair[0] not in own)]

    def _check(self, request: Request, stream_id: str, action: str) -> None:
        """Refusal 403 if the request may not."""
        if self._authorize is None:
            if action != "read":
                raise Refusal(403, "streams can only be read here")
            return
        allowed = self._authorize(request.environ, stream_id, action)
        if callable(allowed):
            raise _Answered(allowed)
        if not allowed:
            raise Refusal(403, "forbidden")


def _of_error(error: ResumableStreamError) -> Refusal:
    """What is answered where the store refuses. A limit of one stream is no reason to try again; what the store as
    a whole cannot do now may be."""
    if isinstance(error, LimitExceededError):
        if error.limit == "max_streams":
            return Refusal(503, "the store is full")
        return Refusal(413, "a limit of the stream is reached")
    if error.http_status == 503:
        logger.warning("a request of the Durable Streams protocol failed: %s", error)
        return Refusal(503, "the store is unavailable")
    status = {404: 404, 409: 409, 410: 410, 400: 400}.get(error.http_status, 503)
    return Refusal(status, error.code)
