"""Answers that a test steers, hooks that remember, requests without a server."""

from __future__ import annotations

import io
import json
import queue
import re
import threading
from typing import Any
from wsgiref.util import setup_testing_defaults

from resumable_sync import current_producer
from resumable_sync.assistant import AssistantStreamController
from resumable_sync.contract import Lease, Status

from ...wsgi.support import Reply


class Hooks:
    """Remembers what the hooks of a context were told."""

    def __init__(self) -> None:
        self.errors: list[tuple[str, BaseException]] = []
        self.appended: list[int] = []
        self._ended: queue.Queue[tuple[str, Status, str | None]] = queue.Queue()

    def on_error(self, stream_id: str, error: BaseException) -> None:
        self.errors.append((stream_id, error))

    def on_append(self, stream_id: str, length: int) -> None:
        self.appended.append(length)

    def on_finalize(self, stream_id: str, status: Status, error: str | None) -> None:
        self._ended.put((stream_id, status, error))

    def ended(self) -> tuple[str, Status, str | None]:
        """What the next ending was."""
        return self._ended.get(timeout=20)


class Script:
    """A callback that performs what the test puts in: a text is appended, an exception raised, None ends it."""

    def __init__(self, *steps: Any) -> None:
        self.runs = 0
        self.stopped = threading.Event()
        self.lease: Lease | None = None
        """Of the stream that it writes."""
        self._steps: queue.Queue[Any] = queue.Queue()
        for step in steps:
            self.put(step)

    def put(self, step: Any) -> None:
        self._steps.put(step)

    def _stop(self) -> None:
        self.stopped.set()
        self.put(None)

    def __call__(self, controller: AssistantStreamController, *_: object) -> None:
        self.runs += 1
        self.lease = current_producer()._lease
        current_producer().on_cancel(self._stop)
        while (step := self._steps.get(timeout=30)) is not None:
            if isinstance(step, BaseException):
                raise step
            if callable(step):
                step(controller)
            else:
                controller.append_text(step)


def call(
    application: Any, method: str = "GET", path: str = "/", body: object = None, query: str = "", **headers: str
) -> Reply:
    """The answer to one request; `body` goes as JSON, or as it is if it is bytes."""
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path.encode().decode("latin-1"),
        "QUERY_STRING": query,
        "wsgi.input": io.BytesIO(data),
        "CONTENT_LENGTH": str(len(data)),
        "CONTENT_TYPE": headers.pop("content_type", "application/json"),
        **{f"HTTP_{name.upper()}": value for name, value in headers.items()},
    }
    setup_testing_defaults(environ)
    started: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(status: str, pairs: list[tuple[str, str]], exc_info: object = None) -> object:
        started.append((status, pairs))
        return None

    answered = application(environ, start_response)
    ((status, pairs),) = started
    return Reply(status, pairs, answered)


def unescaped(body: bytes) -> str:
    """JSON may escape these characters or not."""
    return re.sub(r"\\u(0085|2028|2029)", lambda match: chr(int(match[1], 16)), body.decode())
