"""The application of the takeovers: streams whose source can continue, each chunk made of its offset.

/start/ID/COUNT  begin a stream of so many chunks, without following it
/begin/ID        follow it as raw bytes; as events where ID begins with "events"
anything else    this process's id

What happens to a stream is written down in TEST_DIRECTORY: a line for each term, and for each error.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resumable_sync import ResumableStreamContext, StreamInfo, current_producer, open_store
from resumable_sync.wsgi import resume_response, resume_sse_response

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

CHUNK_SECONDS = 0.02
HANDOVER = 60.0
_LENGTH = 7


def text(count: int) -> bytes:
    """All of a stream of `count` chunks."""
    return b"".join(map(_chunk, range(count)))


def _chunk(number: int) -> bytes:
    return b"%06d;" % number


def source(count: int) -> Callable[[], Iterator[bytes]]:
    """Goes on from its offset."""

    def make_stream() -> Iterator[bytes]:
        producer = current_producer()
        for number in range(producer.offset // _LENGTH, count):
            yield _chunk(number)
            if producer.cancelled.wait(CHUNK_SECONDS):
                return

    return make_stream


def recover(info: StreamInfo) -> Callable[[], Iterator[bytes]]:
    return source(int(info.metadata["count"]))


class Application:
    def __init__(self, store: str, directory: Path, grace: float) -> None:
        self._directory = directory
        self._heartbeat = grace / 4
        self.context = ResumableStreamContext(
            open_store(store),
            heartbeat=self._heartbeat,
            recover=recover,
            on_acquire=lambda stream_id, role: self._write(f"{role}-{stream_id}", str(os.getpid())),
            on_error=lambda stream_id, error: self._write(f"error-{stream_id}", f"{os.getpid()} {error!r}"),
        )

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *raised: Any) -> Any:
            return start_response(status, [*headers, ("X-Worker", str(os.getpid()))], *raised)

        route, stream_id, count = (environ["PATH_INFO"][1:].split("/") + ["", ""])[:3]
        if route == "begin":
            follow = resume_sse_response if stream_id.startswith("events") else resume_response
            return follow(self.context, stream_id, heartbeat=self._heartbeat)(environ, start)
        if route == "start":
            self.context.start(stream_id, source(int(count)), metadata={"count": count}, handover=HANDOVER)
        body = b"%d" % os.getpid()
        start("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    def _write(self, name: str, line: str) -> None:
        with (self._directory / name).open("a") as file:
            file.write(line + "\n")


def from_environment() -> Application:
    """For gunicorn."""
    directory, grace = Path(os.environ["TEST_DIRECTORY"]), float(os.environ["TEST_GRACE"])
    return Application(os.environ["TEST_STORE"], directory, grace)
