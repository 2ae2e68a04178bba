"""How often a response asks the store before its headers go out, and what a waiting viewer keeps of its pieces."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from resumable_sync import MemoryStore, ResumableStreamContext
from resumable_sync.assistant import (
    AssistantEndpoints,
    AssistantStreamController,
    ChatRequest,
    create_resumable_assistant_stream_response,
    create_resume_assistant_stream_response,
)
from resumable_sync.contract import Batch
from resumable_sync.wsgi import (
    StreamResponse,
    resume_response,
    resume_sse_response,
    sse_response,
    stream_response,
)

from ..assistant.http import support as assistant
from ..support import PATIENCE
from .support import Feed, call, ended

Make = Callable[[ResumableStreamContext, str], StreamResponse]

RESPONSES: dict[str, Make] = {
    "raw": lambda context, stream_id: stream_response(context, stream_id, Feed(b"x")),
    "events": lambda context, stream_id: sse_response(context, stream_id, Feed(b"x")),
    "assistant": lambda context, stream_id: create_resumable_assistant_stream_response(
        context=context, stream_id=stream_id, callback=assistant.Script("x")
    ),
}
RESUMED: dict[str, Make] = {
    "raw": resume_response,
    "raw of a known type": lambda context, stream_id: resume_response(context, stream_id, content_type="a/b"),
    "events": resume_sse_response,
    "assistant": lambda context, stream_id: create_resume_assistant_stream_response(
        context=context, stream_id=stream_id
    ),
}


class Counting(MemoryStore):
    """Notes the calls that the thread which made it makes, and tells when any thread waits in a read."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.waiting = threading.Event()
        self._thread = threading.get_ident()

    def _note(self, name: str) -> None:
        if threading.get_ident() == self._thread:
            self.calls.append(name)

    def acquire(self, stream_id: str, **options: Any) -> Any:
        self._note("acquire")
        return super().acquire(stream_id, **options)

    def info(self, stream_id: str) -> Any:
        self._note("info")
        return super().info(stream_id)

    def status(self, stream_id: str) -> Any:
        self._note("status")
        return super().status(stream_id)

    def read(self, stream_id: str, after: str = "", **options: Any) -> Batch:
        self._note("read")
        if options.get("timeout"):
            self.waiting.set()
        return super().read(stream_id, after, **options)


@pytest.fixture
def store() -> Iterator[Counting]:
    made = Counting()
    yield made
    made.close()


@pytest.fixture
def context(store: Counting) -> Iterator[ResumableStreamContext]:
    with ResumableStreamContext(store) as made:
        yield made


@pytest.mark.parametrize("kind", RESPONSES)
def test_a_free_id_takes_an_election_and_a_read(
    context: ResumableStreamContext, store: Counting, kind: str
) -> None:
    reply = call(RESPONSES[kind](context, "s"))
    assert reply.status == 200 and store.calls == ["acquire", "read"]
    reply.close()


@pytest.mark.parametrize("kind", RESPONSES)
def test_a_taken_id_is_read_once(context: ResumableStreamContext, store: Counting, kind: str) -> None:
    first = call(RESPONSES[kind](context, "s"))
    first.read_until(b"x")
    store.calls.clear()
    reply = call(RESPONSES[kind](context, "s"))
    # Only a message needs the metadata: it says in which format the first one began.
    assert store.calls == (["acquire", "info", "read"] if kind == "assistant" else ["acquire", "read"])
    store.calls.clear()
    assert reply.read_until(b"x").strip() and store.calls == []  # what was read is what is sent
    reply.close()
    first.close()


@pytest.mark.parametrize("kind", RESUMED)
def test_a_resumed_stream_is_read_once(context: ResumableStreamContext, store: Counting, kind: str) -> None:
    list(context.run("s", ended(b"x")))
    store.calls.clear()
    reply = call(RESUMED[kind](context, "s"))
    # The metadata holds the content type, or the format.
    assert store.calls == (["info", "read"] if kind in ("raw", "assistant") else ["read"])
    reply.close()


@pytest.mark.parametrize("kind", RESUMED)
def test_head_reads_no_bytes(context: ResumableStreamContext, store: Counting, kind: str) -> None:
    list(context.run("s", ended(b"x")))
    store.calls.clear()
    assert call(RESUMED[kind](context, "s"), "HEAD").status == 200
    assert store.calls == ["info"]


def test_a_message_sent_to_the_endpoints_reads_its_stream_once(
    context: ResumableStreamContext, store: Counting
) -> None:
    over = threading.Event()

    def answer(controller: AssistantStreamController, chat: ChatRequest) -> None:
        controller.append_text("x")
        over.wait(PATIENCE)  # after its end the message is read once more, for what it says of itself

    endpoints = AssistantEndpoints(context, answer, authorize=None, protocol="data-stream")
    reply = assistant.call(endpoints, "POST", body={"commands": []})  # no chat, nothing to remember
    assert reply.status == 200 and store.calls == ["acquire", "read"]
    reply.close()
    store.calls.clear()
    reply = assistant.call(endpoints, "POST", body={"threadId": "t", "commands": []})
    assert reply.status == 200 and store.calls.count("read") == 1
    assert store.calls[0] == "acquire" and store.calls[-1] == "read"  # between them: the chat's two records
    over.set()
    reply.close()


def test_a_stream_that_was_deleted_after_a_lost_election_is_begun_anew(
    context: ResumableStreamContext, store: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(context.run("s", ended(b"old")))
    read = store.read

    def deleted(*arguments: Any, **options: Any) -> Batch:
        monkeypatch.undo()
        store.delete("s")
        return read(*arguments, **options)

    monkeypatch.setattr(store, "read", deleted)
    assert call(stream_response(context, "s", ended(b"new"))).read() == b"new"


@pytest.mark.parametrize("kind", RESUMED)
def test_a_waiting_viewer_keeps_nothing_of_what_it_sent(
    context: ResumableStreamContext, store: Counting, kind: str
) -> None:
    lease = store.acquire("s")
    for number in range(64):
        store.append(lease, b"%063d\n" % number * 64)  # what is read is joined, and so a copy
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        pieces = iter(call(RESUMED[kind](context, "s")).body)
        sent = 0
        while sent < 64 * 4096:
            sent += len(next(pieces))
        store.waiting.clear()
        waiting = threading.Thread(target=lambda: list(pieces))
        waiting.start()
        assert store.waiting.wait(20)
        gc.collect()
        kept = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert kept < 64 * 1024
    store.finalize(lease, "done")
    waiting.join(20)
    assert not waiting.is_alive()
