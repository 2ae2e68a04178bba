"""The demo's addresses without Flask and without the page: for `demo --check` where Flask is not installed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..context import ResumableStreamContext
from ..wsgi import javascript_response, resume_response, resume_sse_response, sse_response
from .answers import AnswerSource

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_ADDRESS = re.compile(r"/answers/([^/]+)(/raw|/cancel|)")


def create_bare_app(context: ResumableStreamContext, source: AnswerSource) -> WSGIApplication:
    """A WSGI application that answers what the story asks for."""

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("PATH_INFO") == "/resumable.js":
            return javascript_response()(environ, start_response)
        address = _ADDRESS.fullmatch(environ.get("PATH_INFO", ""))
        if address is None:
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"not found"]
        stream_id, action = address[1], (environ["REQUEST_METHOD"], address[2])
        if action == ("POST", ""):
            response = sse_response(
                context, stream_id, source.make_stream, encode="json", metadata=source.metadata, format_error=str
            )
            return response(environ, start_response)
        if action == ("GET", ""):
            resumed = resume_sse_response(context, stream_id, encode="json", format_error=str)
            return resumed(environ, start_response)
        if action == ("GET", "/raw"):
            return resume_response(context, stream_id)(environ, start_response)
        if action == ("POST", "/cancel"):
            body = json.dumps({"cancelled": context.cancel(stream_id)}).encode()
            start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
            return [body]
        start_response("405 Method Not Allowed", [("Content-Type", "text/plain")])
        return [b"method not allowed"]

    return application
