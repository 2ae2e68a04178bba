"""What the endpoints read and answer beside streams: bounded JSON bodies, JSON answers, cross-origin rules."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from ...wsgi.cross_origin import CrossOrigin
from ...wsgi.headers import STREAM_ID_HEADER, Headers
from ..formats.registry import FORMATS
from .responses import REPLAY_CONTENT_LENGTH_HEADER

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_HEADER_LIST = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z, \t-]{1,2000}")


def _exposed_headers() -> list[str]:
    """What a page of another origin must be able to read."""
    of_formats = [name for format in FORMATS.values() for name in format.exposed]
    return [STREAM_ID_HEADER, *of_formats, REPLAY_CONTENT_LENGTH_HEADER]


class Refusal(Exception):
    """A request that is answered with `status` and JSON `{"error": reason}`."""

    def __init__(self, status: int, reason: str, headers: Headers | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = headers or []


def cross_origin(origins: Collection[str] | str | None, credentials: bool) -> CrossOrigin:
    """Cross-origin rules whose pages can read what formats and responses set."""
    return CrossOrigin(origins, credentials, _exposed_headers())


def preflight(rules: CrossOrigin, environ: WSGIEnvironment, methods: Iterable[str]) -> Headers:
    """What lets a page send the request it asks about, with the headers that it asks for."""
    asked = environ.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS", "")
    return rules.preflight(environ, methods, asked if _HEADER_LIST.fullmatch(asked) else "content-type")


class Request:
    """A request below the application's path."""

    def __init__(
        self, environ: WSGIEnvironment, prefix: str, max_body_bytes: int, headers: list[tuple[str, str]]
    ) -> None:
        self.environ = environ
        self.method: str = environ.get("REQUEST_METHOD", "GET")
        self.headers = headers
        self._max_body_bytes = max_body_bytes
        path = environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8", "replace")
        self._below = path == prefix or path.startswith(f"{prefix}/")
        self.path = path[len(prefix) :].strip("/") if self._below else "//"

    def allow(self, *methods: str) -> None:
        """Refusal 405 for any other method."""
        if self.method not in methods:
            raise Refusal(405, "method not allowed", [("Allow", ", ".join(methods))])

    def json(self) -> dict[str, Any]:
        """The body; Refusal as for `read_json`."""
        return read_json(self.environ, self._max_body_bytes)


def read_json(environ: WSGIEnvironment, limit: int) -> dict[str, Any]:
    """The object in the request's body. Refusal 413 for more than `limit` bytes, 415 for another content type,
    400 for anything that is no JSON object."""
    kind = environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # any page may send other types without asking first
        raise Refusal(415, "the body must be application/json")
    body = _read(environ, limit)
    try:
        value = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, "the body is not JSON") from error
    if not isinstance(value, dict):
        raise Refusal(400, "the body is not a JSON object")
    return value


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _read(environ: WSGIEnvironment, limit: int) -> bytes:
    length = environ.get("CONTENT_LENGTH") or ""
    if length.isdecimal():
        if len(length) > 15 or int(length) > limit:
            raise Refusal(413, "the body is too large")
        wanted = int(length)
    elif environ.get("wsgi.input_terminated"):
        wanted = limit + 1
    else:
        raise Refusal(400, "the body has no length")
    pieces: list[bytes] = []
    while wanted > 0:
        piece = environ["wsgi.input"].read(min(wanted, 65536))
        if not piece:
            break
        pieces.append(piece)
        wanted -= len(piece)
    body = b"".join(pieces)
    if len(body) > limit:
        raise Refusal(413, "the body is too large")
    return body


def json_answer(status: int, value: object, headers: Headers) -> WSGIApplication:
    """A WSGI application that answers `value` as JSON; for 204 nothing."""
    body = b"" if status == 204 else json.dumps(value, separators=(",", ":")).encode()
    own = [("Cache-Control", "no-store"), *headers]
    if status != 204:
        own = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *own]

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response(f"{status} {HTTPStatus(status).phrase}", own)
        return [] if environ.get("REQUEST_METHOD") == "HEAD" else [body]

    return answer
