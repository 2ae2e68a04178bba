"""The inspector as a WSGI application: which address gives what, and who may."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cache
from heapq import nlargest
from http import HTTPStatus
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qs, quote

from ..context import ResumableStreamContext
from ..contract import INTERNAL_PREFIXES, Listing, Status, StreamInfo, validate_stream_id
from ..errors import InvalidStreamIdError, ResumableStreamError, UnsupportedError
from ..logs import about
from ..wsgi import ViewerCap, resume_sse_response
from .guard import HEADERS, from_other_site, may_change
from .pages import Allowed, Filters, Found, list_document, list_page, message_page, stream_page

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

logger = logging.getLogger("resumable_sync")

Action = Literal["list", "view", "follow", "cancel", "delete"]

Authorize = Callable[["WSGIEnvironment", Action, str], object]
"""Called with the request, what it wants, and the stream's id ("" for `list`); a true value allows it."""

_ASSETS = {
    "/inspector.css": "text/css; charset=utf-8",
    "/inspector.js": "text/javascript; charset=utf-8",
    "/inspector.svg": "image/svg+xml",
}
_METHODS = {
    "/": "GET",
    "/list.json": "GET",
    "/stream": "GET",
    "/events": "GET",
    "/cancel": "POST",
    "/delete": "POST",
}
_FOLLOWERS = 16


class _Refused(Exception):
    """Answer with this status, and a page that says why."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Inspector:
    """A WSGI application for operators: lists streams by prefix, status and metadata, shows one of them live,
    as text or hex, cancels and deletes.

    `authorize(environ, action, stream_id)` decides about every request; there is no default. Who may `list` sees
    the ids, statuses, sizes and metadata of all streams; who may `view` one sees its error and notes, too;
    `follow` is its bytes. It runs in the server's thread; what it raises goes to the server. Refused: 403. Records
    that the library keeps for itself are not there.

    Changes are made by POST alone, and only from pages of this application's own origin, as the browser says
    (Sec-Fetch-Site, Origin), or of `origins`, such as `"https://ops.example.com"`, for a proxy that hides the
    host by which the browser addresses it. Every answer has a strict Content-Security-Policy; nothing is inline,
    nothing comes from elsewhere. It works below any prefix (SCRIPT_NAME).

    A list counts and pages through `scan_limit` streams at most, and so costs a listing of that many. Below
    `list.json` it stands as JSON, with the same query (`prefix`, `status`, `metadata=key=value`, `order=newest`,
    `page`): an object of `count`, `whole` (whether that is all), `page` and `streams`. `viewers`: a cap for those
    who follow, each of whom holds a thread; by default 16 in each process. Thread-safe.
    """

    def __init__(
        self,
        context: ResumableStreamContext,
        *,
        authorize: Authorize,
        origins: Collection[str] = (),
        viewers: ViewerCap | None = None,
        per_page: int = 50,
        scan_limit: int = 10_000,
    ) -> None:
        if not callable(authorize):
            raise TypeError("authorize must be a function of environ, action and stream_id")
        if isinstance(origins, str):
            raise ValueError("origins must be a collection of origins, not one of them")
        if per_page < 1 or scan_limit < 1:
            raise ValueError("per_page and scan_limit must be positive")
        self._context = context
        self._authorize = authorize
        self._origins = frozenset(origins)
        self._viewers = viewers or ViewerCap(_FOLLOWERS)
        self._per_page = per_page
        self._scan_limit = scan_limit

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        root = _root(environ.get("SCRIPT_NAME", ""))
        head = environ.get("REQUEST_METHOD") == "HEAD"
        try:
            return self._answer(environ, start_response, root, head)
        except _Refused as refused:
            code, message = refused.code, str(refused)
        except ResumableStreamError as error:  # what it says is for the log
            code, message = error.http_status, f"The store refused: {error.code}."
            extra = about("not-served", _id_of(environ))
            logger.warning("the inspector cannot serve %.256r: %s", _id_of(environ), error, extra=extra)
        title = HTTPStatus(code).phrase
        more = [("Allow", _METHODS.get(_path(environ), "GET"))] if code == 405 else []
        return _send(start_response, code, message_page(root, title, message), more, head=head)

    def _answer(
        self, environ: WSGIEnvironment, start_response: StartResponse, root: str, head: bool
    ) -> Iterable[bytes]:
        path, method = _path(environ), environ.get("REQUEST_METHOD", "GET")
        if path in _ASSETS and method in ("GET", "HEAD"):
            return _send(start_response, 200, _asset(path[1:]), [], _ASSETS[path], head=head)
        wanted = _METHODS.get(path)
        if wanted is None:
            raise _Refused(404, "There is no such page.")
        if method != wanted and not (head and wanted == "GET"):
            raise _Refused(405, f"This address wants {wanted}.")
        if wanted == "POST" and not may_change(environ, self._origins):
            raise _Refused(403, "This request does not come from a page of the inspector.")
        if path in ("/", "/list.json"):
            self._require(environ, "list", "")
            filters, page = _filters(environ)
            found = self._find(filters, page)
            if path == "/":
                return _send(start_response, 200, list_page(root, filters, found), head=head)
            return _send(start_response, 200, list_document(found), kind="application/json", head=head)
        stream_id = self._stream_id(environ)
        if path == "/stream":
            self._require(environ, "view", stream_id)
            return _send(start_response, 200, stream_page(root, *self._show(environ, stream_id)), head=head)
        if path == "/events":
            self._require(environ, "follow", stream_id)
            if from_other_site(environ):
                raise _Refused(403, "Only the inspector's own pages may follow.")
            response = resume_sse_response(
                self._context, stream_id, encode="base64", viewers=self._viewers, headers=HEADERS[1:]
            )
            return response(environ, start_response)
        if path == "/cancel":
            self._require(environ, "cancel", stream_id)
            self._context.cancel(stream_id)
            return _redirect(start_response, f"{root}/stream?id={quote(stream_id)}")
        self._require(environ, "delete", stream_id)
        self._context.delete(stream_id)
        return _redirect(start_response, f"{root}/")

    def _require(self, environ: WSGIEnvironment, action: Action, stream_id: str) -> None:
        if not self._authorize(environ, action, stream_id):
            raise _Refused(403, f"You may not {action} this." if stream_id else "You may not see the streams.")

    def _stream_id(self, environ: WSGIEnvironment) -> str:
        stream_id = _id_of(environ)
        try:
            validate_stream_id(stream_id)
        except InvalidStreamIdError as error:
            raise _Refused(404, "There is no such stream.") from error
        if stream_id.startswith(INTERNAL_PREFIXES):
            raise _Refused(404, "There is no such stream.")
        return stream_id

    def _show(self, environ: WSGIEnvironment, stream_id: str) -> tuple[StreamInfo, Allowed]:
        info = self._context.info(stream_id)
        if info is None:
            raise _Refused(404, "There is no such stream, or it is gone.")
        follow, cancel, delete = (
            bool(self._authorize(environ, action, stream_id)) for action in ("follow", "cancel", "delete")
        )
        return info, Allowed(follow, cancel, delete)

    def _find(self, filters: Filters, page: int) -> Found:
        store: object = self._context.store
        if not isinstance(store, Listing):
            raise UnsupportedError(f"{type(store).__name__} has no listing")
        found: Iterator[StreamInfo] = store.streams(
            prefix=filters.prefix, status=filters.status, metadata=dict(filters.metadata)
        )
        count = 0

        def scanned() -> Iterator[StreamInfo]:
            nonlocal count
            for info in islice(found, self._scan_limit):
                count += 1
                yield info

        first, last = (page - 1) * self._per_page, min(page * self._per_page, self._scan_limit)
        if filters.newest:
            shown = nlargest(last, scanned(), key=lambda info: info.generation)[first:]
        else:
            numbered = enumerate(scanned())
            shown = [info for place, info in numbered if first <= place < last]
        return Found(shown, page, self._per_page, count, count < self._scan_limit or next(found, None) is None)


def _root(script_name: str) -> str:
    """The prefix below which the application is mounted, as it stands in an address; safe in HTML."""
    path = quote(script_name.strip("/").encode("latin-1", "replace"), safe="/~:@!$*(),")
    return f"/{path}" if path else ""  # not two slashes, which would begin a host


def _path(environ: WSGIEnvironment) -> str:
    path: str = environ.get("PATH_INFO", "")
    return path or "/"


def _id_of(environ: WSGIEnvironment) -> str:
    query: str = environ.get("QUERY_STRING", "")
    return parse_qs(query).get("id", [""])[-1]


def _filters(environ: WSGIEnvironment) -> tuple[Filters, int]:
    query = parse_qs(environ.get("QUERY_STRING", ""))
    status, number, order = (query.get(name, [""])[-1] for name in ("status", "page", "order"))
    pairs = []
    for pair in query.get("metadata", []):
        name, separator, value = pair.partition("=")
        if not separator:
            raise _Refused(400, "Metadata is chosen by key=value.")
        pairs.append((name, value))
    if status and status not in [*Status] or status == Status.MISSING:
        raise _Refused(400, "There is no such status.")
    if order not in ("", "newest"):
        raise _Refused(400, "There is no such order.")
    page = int(number) if number.isascii() and number.isdecimal() and len(number) < 10 else int(not number)
    if page < 1:
        raise _Refused(400, "There is no such page.")
    prefix = query.get("prefix", [""])[-1]
    return Filters(prefix, Status(status) if status else None, tuple(pairs), order == "newest"), page


@cache
def _asset(name: str) -> str:
    return Path(__file__).with_name(name).read_text("utf-8")


def _send(
    start_response: StartResponse,
    code: int,
    text: str,
    headers: Iterable[tuple[str, str]] = (),
    kind: str = "text/html; charset=utf-8",
    *,
    head: bool = False,
) -> Iterable[bytes]:
    body = text.encode("utf-8", "replace")
    own = [("Content-Type", kind), ("Content-Length", str(len(body)))]
    start_response(f"{code} {HTTPStatus(code).phrase}", [*own, *HEADERS, *headers])
    return [] if head else [body]


def _redirect(start_response: StartResponse, address: str) -> Iterable[bytes]:
    headers: list[Any] = [("Location", address), ("Content-Length", "0"), *HEADERS]
    start_response("303 See Other", headers)
    return []
