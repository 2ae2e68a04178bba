"""What the tests of the JavaScript client follow.

/raw/ID /text/ID /json/ID /base64/ID    POST begins the stream, GET resumes it
/cancel/ID                              POST cancels it
/canned/NAME                            a body of `canned`, as events
/page, *.js, *.mjs                      a page with the client, and what it loads

As a program, `python -m tests.javascript_client.application STORE PORT`, it serves a store's streams.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resumable_sync import ResumableStreamContext, open_store
from resumable_sync.demo.server import DemoServer
from resumable_sync.wsgi import (
    StreamResponse,
    ViewerCap,
    javascript_response,
    resume_response,
    resume_sse_response,
    sse_response,
    stream_response,
)

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

NODE = Path(__file__).parent.parent / "node"
PAGE = b"""<!doctype html><meta charset="utf-8"><title>followed</title><link rel="icon" href="data:,">
<script type="module">
import * as client from "./resumable.js";
import { recorder } from "./followed.mjs";
window.client = recorder(client);
</script>"""
CORS = [
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Allow-Headers", "*"),
    (
        "Access-Control-Expose-Headers",
        "x-resumable-cursor, x-resumable-status, x-resumable-size, x-resumable-replay-length, retry-after",
    ),
]


@dataclass
class Asked:
    """A request, as it came."""

    method: str
    path: str
    query: str
    body: bytes
    seconds: float


class Application:
    """Streams by id: `sources` makes them. `refusals` are answered first, each to one request."""

    def __init__(self, context: ResumableStreamContext, heartbeat: float = 0.2) -> None:
        self.context = context
        self.heartbeat = heartbeat
        self.sources: dict[str, Callable[[], Iterable[bytes]]] = {}
        self.canned: dict[str, bytes] = {}
        self.refusals: list[tuple[str, list[tuple[str, str]]]] = []
        self.viewers: ViewerCap | None = None
        self.asked: list[Asked] = []
        self._lock = threading.Lock()  # guards refusals; `asked` only grows

    def requests(self, stream_id: str, method: str = "") -> list[Asked]:
        """Those for that stream, without what browsers ask before them."""
        methods = (method,) if method else ("GET", "POST", "HEAD")
        return [
            each for each in list(self.asked) if each.path.endswith(f"/{stream_id}") and each.method in methods
        ]

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        kind, _, name = path[1:].partition("/")
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        self.asked.append(Asked(method, path, environ.get("QUERY_STRING", ""), body, time.monotonic()))
        if path == "/resumable.js":
            return javascript_response()(environ, start_response)
        if path == "/page" or path.endswith(".mjs"):
            content = PAGE if path == "/page" else (NODE / path[1:]).read_bytes()
            return self._answer(
                start_response, "200 OK", content, "text/html" if path == "/page" else "text/javascript"
            )
        if method == "OPTIONS":
            return self._answer(start_response, "200 OK", b"")
        with self._lock:
            refusal = self.refusals.pop(0) if self.refusals else None
        if refusal is not None:
            start_response(refusal[0], [*refusal[1], *CORS, ("Content-Length", "0")])
            return []
        if kind == "cancel":
            cancelled = json.dumps(self.context.cancel(name)).encode()
            return self._answer(start_response, "200 OK", cancelled)
        if kind == "canned":
            return self._answer(start_response, "200 OK", self.canned[name], "text/event-stream")
        return self._stream(kind, name, method)(environ, start_response)

    def _stream(self, kind: str, name: str, method: str) -> StreamResponse:
        options: dict[str, Any] = {"heartbeat": self.heartbeat, "headers": CORS, "viewers": self.viewers}
        if kind == "raw":
            if method == "POST":
                return stream_response(self.context, name, self.sources[name], **options)
            return resume_response(self.context, name, **options)
        options.update(encode=kind, format_error=str)
        if method == "POST":
            return sse_response(self.context, name, self.sources[name], **options)
        return resume_sse_response(self.context, name, **options)

    def _answer(
        self, start_response: StartResponse, status: str, body: bytes, content_type: str = ""
    ) -> list[bytes]:
        headers = [("Content-Type", content_type or "text/plain"), ("Content-Length", str(len(body))), *CORS]
        start_response(status, headers)
        return [body]


def lines(count: int, size: int = 200) -> Iterator[bytes]:
    """Chunks of text whose characters have one to four bytes, cut without regard for them."""
    for number in range(count):
        line = f"{number}: ünïcödé – 你好 🌊 ".encode() * (size // 30)
        yield line[: len(line) // 2 + number % 7]
        yield line[len(line) // 2 + number % 7 :] + b"\n"


def main() -> None:
    url, port = sys.argv[1:]
    with open_store(url) as store, ResumableStreamContext(store) as context:
        server = DemoServer("127.0.0.1", int(port), Application(context))
        print(server.server_port, flush=True)
        sys.stdin.read()  # until the end of it, or of this process
        server.close()


if __name__ == "__main__":
    main()
