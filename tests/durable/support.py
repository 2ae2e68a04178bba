"""The application called in process: requests in a few words, replies with their parts."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from wsgiref.util import setup_testing_defaults

from resumable_sync import ResumableStreamContext
from resumable_sync.contract import Store
from resumable_sync.durable import DurableStreamsApp
from resumable_sync.sse import Event, parse_events

TEXT = {"Content-Type": "text/plain"}
JSON = {"Content-Type": "application/json"}


class Reply:
    """An answer. Its body is read when it is asked for."""

    def __init__(self, status: str, pairs: list[tuple[str, str]], body: Any) -> None:
        self.status = int(status[:3])
        self.pairs = pairs
        self.headers = {name.lower(): value for name, value in pairs}
        self.body = body
        self._data: bytes | None = None

    @property
    def data(self) -> bytes:
        if self._data is None:
            try:
                self._data = b"".join(self.body)
            finally:
                self.close()
        return self._data

    @property
    def json(self) -> Any:
        return json.loads(self.data)

    @property
    def offset(self) -> str:
        return self.headers["stream-next-offset"]

    def events(self) -> Iterator[Event]:
        return parse_events(self.body)

    def close(self) -> None:
        close = getattr(self.body, "close", None)
        if close is not None:
            close()


class Client:
    """Calls an application. `last` is the environ of the request before."""

    def __init__(self, app: Any, root: str = "/") -> None:
        self.app = app
        self.root = root

    def __call__(
        self,
        method: str,
        path: str,
        body: bytes | str | None = None,
        headers: dict[str, str] | None = None,
        environ: dict[str, Any] | None = None,
    ) -> Reply:
        path, _, query = path.partition("?")
        data = body.encode() if isinstance(body, str) else body
        request: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": self.root + path,
            "QUERY_STRING": query,
            "wsgi.input": io.BytesIO(data or b""),
        }
        if data is not None:
            request["CONTENT_LENGTH"] = str(len(data))
        for name, value in (headers or {}).items():
            key = name.upper().replace("-", "_")
            request[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = value
        request.update(environ or {})
        setup_testing_defaults(request)
        started: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(status: str, pairs: list[tuple[str, str]], exc_info: object = None) -> object:
            started.append((status, pairs))
            return None

        answer = self.app(request, start_response)
        ((status, pairs),) = started
        return Reply(status, pairs, answer)

    def put(self, path: str, body: bytes | str | None = None, **headers: str) -> Reply:
        return self("PUT", path, body, _named(headers))

    def post(self, path: str, body: bytes | str | None = None, **headers: str) -> Reply:
        return self("POST", path, body, _named(headers))

    def get(self, path: str, **headers: str) -> Reply:
        return self("GET", path, headers=_named(headers))

    def head(self, path: str) -> Reply:
        return self("HEAD", path)

    def delete(self, path: str) -> Reply:
        return self("DELETE", path)


def _named(headers: dict[str, str]) -> dict[str, str]:
    """`Content_Type` is `Content-Type`; without one, a body is text."""
    return {"Content-Type": "text/plain", **{name.replace("_", "-"): value for name, value in headers.items()}}


def everybody(environ: Any, stream_id: str, action: str) -> bool:
    return True


def client(store: Store, **options: Any) -> Client:
    """A client of an application that lets everybody do everything, with a context of its own."""
    settings = {"authorize": everybody, "long_poll_seconds": 0.2, "sse_seconds": 0.3, **options}
    return Client(DurableStreamsApp(ResumableStreamContext(store), **settings))


def producer(number: int, epoch: int = 0, name: str = "p") -> dict[str, str]:
    """The headers of an idempotent producer's append."""
    return {"Producer_Id": name, "Producer_Epoch": str(epoch), "Producer_Seq": str(number)}


def read_all(client: Client, path: str) -> bytes:
    """What the stream holds, by as many requests as that takes."""
    data, offset = b"", "-1"
    while True:
        with closing(client.get(f"{path}?offset={offset}")) as reply:
            assert reply.status == 200, reply.data
            data, offset = data + reply.data, reply.offset
            if "stream-up-to-date" in reply.headers:
                return data
