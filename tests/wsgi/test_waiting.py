"""Viewers that come before their stream, and requests that begin a stream anew."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from resumable_sync import MemoryStore, ResumableStreamContext, Status, current_producer
from resumable_sync.assistant import create_resume_assistant_stream_response
from resumable_sync.wsgi import (
    StreamResponse,
    ViewerCap,
    resume_response,
    resume_sse_response,
    sse_response,
    stream_response,
)

from ..support import PATIENCE
from .support import Reply, call, ended, request, wait_until

Resume = Callable[..., StreamResponse]


def assistant(context: ResumableStreamContext, stream_id: str, **options: Any) -> StreamResponse:
    return create_resume_assistant_stream_response(context=context, stream_id=stream_id, **options)


each_resume = pytest.mark.parametrize("resume", [resume_response, resume_sse_response, assistant])


class Asking:
    """A request that is answered in a thread of its own."""

    def __init__(self, application: Any, method: str = "GET", connection: socket.socket | None = None) -> None:
        self.status: list[str] = []
        self.headers: dict[str, str] = {}
        self.body = b""
        self._thread = threading.Thread(target=self._run, args=(application, method, connection), daemon=True)
        self._thread.start()

    def _run(self, application: Any, method: str, connection: socket.socket | None) -> None:
        def start_response(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> None:
            self.headers = {name.lower(): value for name, value in headers}
            self.status.append(status)

        body = application({**request(method), "gunicorn.socket": connection}, start_response)
        self.body = b"".join(body)

    def code(self) -> int:
        self._thread.join(PATIENCE)
        (status,) = self.status
        return int(status[:3])


def waiting(context: ResumableStreamContext, stream_id: str = "s") -> int:
    awaited = context._running.get().arrivals._awaited.get(stream_id)
    return len(awaited.waiting) if awaited is not None else 0


@each_resume
def test_it_waits_then_answers(context: ResumableStreamContext, resume: Resume) -> None:
    asking = Asking(resume(context, "s", wait=PATIENCE))
    wait_until(lambda: waiting(context) == 1)
    context.start("s", lambda: [b"whole\n"])
    assert asking.code() == 200 and b"whole" in asking.body


@each_resume
def test_nothing_comes(context: ResumableStreamContext, resume: Resume) -> None:
    began = time.monotonic()
    assert call(resume(context, "s", wait=0.3)).status == 404
    assert time.monotonic() - began >= 0.3


@each_resume
def test_it_waits_for_longer_than_a_heartbeat(context: ResumableStreamContext, resume: Resume) -> None:
    began = time.monotonic()
    assert call(resume(context, "s", wait=0.3, heartbeat=0.05)).status == 404
    assert time.monotonic() - began >= 0.3
    asking = Asking(resume(context, "s", wait=PATIENCE, heartbeat=0.05))
    wait_until(lambda: waiting(context) == 1)
    context.start("s", lambda: [b"whole\n"])
    assert asking.code() == 200 and b"whole" in asking.body


@each_resume
def test_those_that_wait_count_as_viewers(context: ResumableStreamContext, resume: Resume) -> None:
    cap = ViewerCap(2, retry_after=7)
    options: dict[str, Any] = {"viewers": cap, "wait": PATIENCE}
    first, second = Asking(resume(context, "s", **options)), Asking(resume(context, "other", **options))
    wait_until(lambda: waiting(context) == waiting(context, "other") == 1)
    refused = call(resume(context, "s", **options))
    assert refused.status == 503 and refused.headers["retry-after"] == "7"
    context.start("s", lambda: [b"whole\n"])
    assert first.code() == 200
    wait_until(lambda: cap.viewers == 1)
    assert call(resume(context, "missing", viewers=cap, wait=0.1)).status == 404
    assert cap.viewers == 1
    context.start("other", lambda: [b"whole\n"])
    assert second.code() == 200
    wait_until(lambda: cap.viewers == 0)


@each_resume
def test_one_that_leaves_while_it_waits_frees_its_thread(context: ResumableStreamContext, resume: Resume) -> None:
    cap = ViewerCap(1)
    near, far = socket.socketpair()
    with near, far:
        response = resume(context, "s", wait=2 * PATIENCE, heartbeat=0.1, viewers=cap)
        asking = Asking(response, connection=near)
        wait_until(lambda: waiting(context) == 1)
        far.close()
        assert asking.code() == 404
    assert cap.viewers == 0 and not waiting(context)


@each_resume
@pytest.mark.parametrize("drain", [False, True])
def test_one_that_waits_in_a_process_that_ends_is_told_to_come_back(resume: Resume, drain: bool) -> None:
    with MemoryStore() as store, ResumableStreamContext(store) as context:
        asking = Asking(resume(context, "s", wait=2 * PATIENCE))
        wait_until(lambda: waiting(context) == 1)
        context.close(drain=drain)
        assert asking.code() == 503 and int(asking.headers["retry-after"]) > 0  # 404 would say that it is gone


@each_resume
def test_head_does_not_wait(context: ResumableStreamContext, resume: Resume) -> None:
    asking = Asking(resume(context, "s", wait=2 * PATIENCE), "HEAD")
    assert asking.code() == 404


@each_resume
def test_a_cursor_is_not_waited_for(context: ResumableStreamContext, resume: Resume) -> None:
    asking = Asking(resume(context, "s", wait=2 * PATIENCE, after="1-5"))
    assert asking.code() == 404


@each_resume
@pytest.mark.parametrize("wait", [-1.0, float("nan"), float("inf")])
def test_a_wait_that_is_none(context: ResumableStreamContext, resume: Resume, wait: float) -> None:
    with pytest.raises(ValueError, match="wait"):
        resume(context, "s", wait=wait)


@pytest.mark.parametrize("begin", [stream_response, sse_response])
def test_a_repeated_request_after_a_failure_begins_anew(
    context: ResumableStreamContext, begin: Callable[..., StreamResponse]
) -> None:
    def failing() -> Iterator[bytes]:
        yield b"first"
        raise ValueError("of the source")

    def post(source: Callable[[], Any], **options: Any) -> Reply:
        return call(begin(context, "s", source, **options), "POST")

    cut = post(failing, restart={"error", "interrupted"})
    assert cut.status == 200 and b"first" in cut.read_until(b"first")
    cut.close()
    wait_until(lambda: context.status("s") is Status.ERROR)
    kept = ended("never")
    followed = post(kept)  # without `restart` the failed stream stands
    followed.close()
    assert not kept.started and context.status("s") is Status.ERROR
    again = post(ended("second"), restart={"error", "interrupted"})
    assert again.status == 200
    data = again.read()
    assert b"second" in data and b"first" not in data
    assert context.status("s") is Status.DONE
    done = ended("three")
    assert b"second" in post(done, restart={"error", "interrupted"}).read() and not done.started


@pytest.mark.parametrize("respond", [stream_response, sse_response])
def test_a_response_goes_on_with_a_stream_that_has_lost_its_producer(respond: Any) -> None:
    def make_stream() -> Iterator[bytes]:
        assert current_producer().offset == 5
        yield b"half"

    with MemoryStore() as store, ResumableStreamContext(store) as context:
        lease = store.acquire("s", handover=60)
        assert lease is not None
        store.append(lease, b"half ")
        store.release(lease)
        reply = call(respond(context, "s", make_stream, handover=60)).read()
        assert b"half" in reply and b"".join(context.require_resume("s")) == b"half half"
