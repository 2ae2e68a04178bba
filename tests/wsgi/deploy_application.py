"""The application of the deploys: answers of a known length, a chunk every 50 ms.

/start/ID/SECONDS  begin the answer, without following it
/begin/ID/SECONDS  begin it and follow; as events where ID begins with "events"
/again/ID/SECONDS  resume it
/viewers           this process's id, and whether its context takes anything
/short             anything else that is asked for
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from resumable_sync import ResumableStreamContext, current_producer, open_store
from resumable_sync.wsgi import resume_response, resume_sse_response, sse_response, stream_response

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

CHUNK_SECONDS = 0.05


def chunks(stream_id: str, seconds: float) -> list[bytes]:
    """What the answer is made of."""
    return [f"{stream_id}:{number};".encode() for number in range(round(seconds / CHUNK_SECONDS))]


class Application:
    def __init__(self, context: ResumableStreamContext, directory: Path) -> None:
        self.context = context
        self._directory = directory

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        route, stream_id, seconds = (environ["PATH_INFO"][1:].split("/") + ["", ""])[:3]
        context = self.context
        if route == "begin":
            begin = sse_response if stream_id.startswith("events") else stream_response
            return begin(context, stream_id, self._source(stream_id, seconds))(environ, start_response)
        if route == "again":
            again = resume_sse_response if stream_id.startswith("events") else resume_response
            return again(context, stream_id)(environ, start_response)
        body = b"short"
        if route == "start":
            context.start(stream_id, self._source(stream_id, seconds))
        elif route == "viewers":
            body = json.dumps({"pid": os.getpid(), "closed": context.closed}).encode()
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]

    def _source(self, stream_id: str, seconds: str) -> "Source":
        return Source(self._directory, stream_id, float(seconds))


class Source:
    """Makes the answer, and writes down when it was complete."""

    def __init__(self, directory: Path, stream_id: str, seconds: float) -> None:
        self._directory = directory
        self._stream_id = stream_id
        self._seconds = seconds

    def __call__(self) -> Iterator[bytes]:
        stopped = current_producer().cancelled
        for chunk in chunks(self._stream_id, self._seconds):
            yield chunk
            if stopped.wait(CHUNK_SECONDS):
                return
        if self._stream_id == "failing":
            raise ValueError("of the source")
        (self._directory / f"ended-{self._stream_id}").write_text(str(time.monotonic()))


def from_environment() -> Application:
    """For gunicorn."""
    context = ResumableStreamContext(open_store(os.environ["TEST_STORE"]))
    return Application(context, Path(os.environ["TEST_DIRECTORY"]))
