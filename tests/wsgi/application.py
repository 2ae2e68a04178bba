"""The application that the servers of these tests serve. Its settings come from the environment.

/raw/ID /sse/ID       produce (`?source=…` names one of SOURCES) and follow
/resume/ID /again/ID  resume as raw bytes, as events
/several              follow those that `?id=…&id=…` names, as events
/cancel/ID            cancel
/viewers              how many follow in this process, and its id
/status/ID            the stream's status
/resumable.js         the JavaScript client
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from resumable_sync import ResumableStreamContext, current_producer, open_store
from resumable_sync.wsgi import (
    StreamResponse,
    ViewerCap,
    javascript_response,
    resume_response,
    resume_sse_response,
    several_sse_response,
    sse_response,
    stream_response,
)

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

TEXT = [f"{number}: the quick brown fox – ünïcödé\n".encode() for number in range(300)]


def whole() -> Iterator[bytes]:
    """All of TEXT, at once."""
    yield from TEXT


def slow() -> Iterator[bytes]:
    """All of TEXT, over half a second or so."""
    stopped = current_producer().cancelled
    for chunk in TEXT:
        yield chunk
        if stopped.wait(0.001):
            return


EXPORT = random.Random(1).randbytes(60_000)


def export() -> Iterator[bytes]:
    """EXPORT, over a tenth of a second or more."""
    stopped = current_producer().cancelled
    for begin in range(0, len(EXPORT), 1000):
        yield EXPORT[begin : begin + 1000]
        if stopped.wait(0.002):
            return


def failing_export() -> Iterator[bytes]:
    """The first half of EXPORT, as `export`, and an error."""
    for number, chunk in enumerate(export()):
        if number == 30:
            raise ValueError("secret")
        yield chunk


def silent() -> Iterator[bytes]:
    """A few bytes, then nothing until it is stopped."""
    yield b"hello"
    current_producer().cancelled.wait(60)


def mute() -> Iterator[bytes]:
    """Nothing, until it is stopped."""
    current_producer().cancelled.wait(60)
    yield from ()


def failing() -> Iterator[bytes]:
    yield b"hello"
    raise ValueError("secret")


SOURCES = {"whole": whole, "slow": slow, "silent": silent, "mute": mute, "failing": failing}
SOURCES |= {"export": export, "failing_export": failing_export}


class Application:
    def __init__(self, context: ResumableStreamContext, cap: ViewerCap, heartbeat: float) -> None:
        self.context = context
        self.options: dict[str, Any] = {"viewers": cap, "heartbeat": heartbeat}
        self.cap = cap

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        route, _, stream_id = environ["PATH_INFO"][1:].partition("/")
        query = parse_qs(environ.get("QUERY_STRING", ""))
        source = SOURCES[query.get("source", ["silent"])[0]]
        response: StreamResponse
        if route == "raw":
            response = stream_response(self.context, stream_id, source, **self.options)
        elif route == "sse":
            response = sse_response(self.context, stream_id, source, **self.options)
        elif route == "resume":
            response = resume_response(self.context, stream_id, **self.options)
        elif route == "again":
            response = resume_sse_response(self.context, stream_id, **self.options)
        elif route == "resumable.js":
            response = javascript_response()
        elif route == "several":
            response = several_sse_response(self.context, query.get("id", []), **self.options)
        else:
            answer: dict[str, int | str] = {"pid": os.getpid(), "viewers": self.cap.viewers}
            if route == "cancel":
                answer["cancelled"] = self.context.cancel(stream_id)
            if route == "status":
                answer["status"] = self.context.status(stream_id)
            body = json.dumps(answer).encode()
            start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
            return [body]
        return response(environ, start_response)


def from_environment() -> Application:
    """For gunicorn, also with --preload: made once, used in each worker."""
    context = ResumableStreamContext(open_store(os.environ["TEST_STORE"]), heartbeat=0.5)
    return Application(context, ViewerCap(int(os.environ["TEST_VIEWERS"])), float(os.environ["TEST_HEARTBEAT"]))
