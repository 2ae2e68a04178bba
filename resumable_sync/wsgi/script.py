"""Serves the JavaScript client, which lies in `static/` of this package with its types."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import cache, partial
from importlib import resources
from typing import Any

from .headers import HeaderInput, Headers, checked_headers
from .response import Answer, StreamResponse

_TAG = re.compile(r'(?:W/)?("[^"]*")|\*')  # RFC 9110, section 8.8.3


def javascript_response(
    *, headers: HeaderInput = None, max_age: int = 0, environ: Mapping[str, Any] | None = None
) -> StreamResponse:
    """Answer the JavaScript client, `resumable.js`: an ES module without dependencies that follows streams.

    Its strong ETag is a digest of the bytes; a request that has it gets 304 (RFC 9110, section 13.1.2).
    `max_age`: seconds that browsers and proxies may use it without asking; by default they always ask, so that
    it is never older than the package. Other methods than GET and HEAD get 405. `headers` override all headers but
    Content-Length and ETag.

    ValueError for a negative `max_age` and for headers as in the other responses. Thread-safe; the file is read
    once per process. Does not block. What the client does: `resumable.d.ts` beside it.
    """
    if max_age < 0:
        raise ValueError(f"max_age must not be negative, not {max_age!r}")
    own = [pair for pair in checked_headers(headers) if pair[0].lower() != "etag"]
    control = f"public, max-age={max_age}" if max_age else "no-cache"
    return StreamResponse(partial(_answer, own, control), environ)


@cache
def _client() -> tuple[bytes, str]:
    """The file, and its entity tag."""
    script = resources.files("resumable_sync").joinpath("static").joinpath("resumable.js").read_bytes()
    return script, f'"{hashlib.sha256(script).hexdigest()[:32]}"'


def _answer(own: Headers, control: str, environ: dict[str, Any]) -> Answer:
    if environ.get("REQUEST_METHOD", "GET") not in ("GET", "HEAD"):
        return Answer("405 Method Not Allowed", [("Allow", "GET, HEAD"), ("Content-Length", "0")])
    script, tag = _client()
    names = {name.lower() for name, _ in own}
    headers = [
        ("Content-Type", "text/javascript; charset=utf-8"),
        ("X-Content-Type-Options", "nosniff"),
        ("Cache-Control", control),
    ]
    headers = [("ETag", tag), *(pair for pair in headers if pair[0].lower() not in names), *own]
    known = environ.get("HTTP_IF_NONE_MATCH", "")
    if any(found[1] in (tag, None) for found in _TAG.finditer(known)):
        return Answer("304 Not Modified", [pair for pair in headers if pair[0].lower() != "content-type"])
    return Answer("200 OK", [*headers, ("Content-Length", str(len(script)))], [script])
