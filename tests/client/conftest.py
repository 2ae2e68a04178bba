"""An application for clients to follow, in this process: its streams are made by the tests."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from resumable_sync import MemoryStore, ResumableStreamContext, client
from resumable_sync.wsgi import (
    StreamResponse,
    ViewerCap,
    resume_response,
    resume_sse_response,
    sse_response,
    stream_response,
)

from ..wsgi.servers import serving

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

Answer = tuple[str, list[tuple[str, str]], bytes]
FORMATS = ["raw", "text", "json", "base64"]


class Site:
    """`/FORMAT/ID`: GET resumes, POST begins a stream that gives back its body. What is in `answers` is answered
    first. Below `/private` it takes a token."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.context = ResumableStreamContext(self.store, on_error=lambda *_: None)
        self.answers: deque[Answer] = deque()
        self.viewers: ViewerCap | None = None
        self.requests: list[tuple[str, str, str]] = []
        self.port = 0

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def url(self, format: str, stream_id: str) -> str:
        return f"{self.base}/{format}/{stream_id}"

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests.append((method, path, environ.get("HTTP_LAST_EVENT_ID", "")))
        if path.startswith("/private") and environ.get("HTTP_AUTHORIZATION") != "Bearer token":
            self.answers.append(("401 Unauthorized", [("Content-Type", "text/plain")], b"who are you? " * 100))
        if self.answers:
            status, headers, body = self.answers.popleft()
            start_response(status, [*headers, ("Content-Length", str(len(body)))])
            return [body]
        format, _, stream_id = path.removeprefix("/private").lstrip("/").partition("/")
        options: dict[str, Any] = {"heartbeat": 0.2, "viewers": self.viewers}
        if format != "raw":
            options |= {"encode": format, "retry": 0.01, "format_error": str}
        if method == "POST":
            body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
            begin: Callable[..., StreamResponse] = stream_response if format == "raw" else sse_response
            return begin(self.context, stream_id, lambda: [body[:5], body[5:]], **options)(environ, start_response)
        resume: Callable[..., StreamResponse] = resume_response if format == "raw" else resume_sse_response
        return resume(self.context, stream_id, **options)(environ, start_response)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that does not wait long: what is tested is what it does after that."""
    monkeypatch.setattr(client, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(client, "_LONGEST_PAUSE", 0.2)
    monkeypatch.setattr(client, "_MISSING_PAUSE", 0.2)


@pytest.fixture(params=["waitress"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """Served by waitress, unless parametrised."""
    made = Site()
    with serving(request.param, made) as port:
        made.port = port
        try:
            yield made
        finally:
            made.context.close()
    made.store.close()
