"""What follows the end of an answer: replays, on_finish, messages that go on, repeated requests."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest

from resumable_sync import MemoryStore, ResumableStreamContext
from resumable_sync.assistant import (
    AssistantEndpoints,
    AssistantStreamController,
    ChatRequest,
    create_resumable_assistant_stream_response,
    read_ui_message,
)
from resumable_sync.assistant.formats.registry import FORMATS
from resumable_sync.assistant.formats.ui_message import UIMessageStreamEncoder
from resumable_sync.assistant.message.ui_message import UIMessageAccumulator
from resumable_sync.contract import Store
from resumable_sync.sse import EventParser

from ...backends import Backend
from ...wsgi.support import wait_until
from .support import Script, call

SEND: dict[str, Any] = {"id": "c", "messages": [{"id": "u", "role": "user", "parts": []}]}
TRANSPORTS = [name for name, format in FORMATS.items() if format.front_end == "transport"]


def endpoints(context: ResumableStreamContext, answer: Any, **options: Any) -> AssistantEndpoints:
    options.setdefault("authorize", None)
    return AssistantEndpoints(context, answer, **options)


def shown(body: bytes) -> UIMessageAccumulator:
    """What a client that begins with nothing has of these bytes."""
    accumulator = UIMessageAccumulator()
    for event in EventParser().feed(body):
        if event.data != "[DONE]":
            accumulator.add(json.loads(event.data))
    return accumulator


def settled(app: AssistantEndpoints) -> bool:
    return call(app, "GET", "/c/stream").status == 204


class Finished:
    """An on_finish hook that remembers, and waits until it may return."""

    def __init__(self, *, held: bool = False) -> None:
        self.calls: list[tuple[ChatRequest, Any, str]] = []
        self.called, self.may_return = threading.Event(), threading.Event()
        if not held:
            self.may_return.set()

    def __call__(self, chat: ChatRequest, message: Any, status: str) -> None:
        self.calls.append((chat, message, status))
        self.called.set()
        assert self.may_return.wait(30)


def fails(controller: AssistantStreamController, request: ChatRequest) -> None:
    controller.append_text("half")
    raise ValueError("secret")


def test_a_failed_answer_is_told_at_every_load(context: ResumableStreamContext) -> None:
    finished = Finished()
    app = endpoints(context, fails, on_finish=finished)
    sent = call(app, "POST", "/", SEND)
    live = sent.read()
    assert finished.called.wait(20)
    ((chat, message, status),) = finished.calls
    assert (chat.chat_id, chat.stream_id, status) == ("c", sent.headers["x-resumable-stream-id"], "error")
    assert message == read_ui_message(context, chat.stream_id) and message["id"] == chat.message_id
    assert [part["text"] for part in message["parts"] if part["type"] == "text"] == ["half"]
    for _ in range(2):
        again = call(app, "GET", "/c/stream")
        assert again.status == 200 and again.read() == live
    assert shown(live).error == "An error occurred." and b"secret" not in live
    # The record is noted once the hook has returned.
    wait_until(partial(settled, endpoints(context, fails, ending_seconds=0)), 20)
    with pytest.raises(ValueError, match="ending_seconds"):
        endpoints(context, fails, ending_seconds=-1)


@pytest.mark.parametrize("protocol", TRANSPORTS)
def test_a_failed_answer_of_the_transport(context: ResumableStreamContext, protocol: str) -> None:
    finished = Finished()
    app = endpoints(context, fails, protocol=protocol, on_finish=finished)
    sent = call(app, "POST", "/", {"threadId": "t", "state": {"a": 1}, "commands": []})
    live = sent.read()
    assert finished.called.wait(20)
    ((_, message, status),) = finished.calls
    assert status == "error" and message["status"]["type"] == "incomplete"
    state = json.loads(call(app, "POST", "/resume-state", {"threadId": "t"}).read())
    assert state == {"state": {"a": 1}, "runId": sent.headers["x-resumable-stream-id"]}
    assert call(app, "POST", "/resume", {"threadId": "t"}).read() == live


def test_replayed_until_the_application_has_it(backend: Backend, store: Store) -> None:
    """Between the ending and the return of on_finish a page that is loaded has the message from here, from any
    process."""
    other = backend.second(store)
    with ResumableStreamContext(store) as context, ResumableStreamContext(other) as elsewhere:
        finished = Finished(held=True)
        apps = [endpoints(at, Script("Hello", None), on_finish=finished) for at in (context, elsewhere)]
        live = call(apps[0], "POST", "/", SEND).read()
        assert finished.called.wait(20)
        for app in apps:
            assert call(app, "GET", "/c/stream").read() == live
        finished.may_return.set()
        for app in apps:
            wait_until(partial(settled, app), 20)
        assert [status for _, _, status in finished.calls] == ["done"]
    other.close()


def test_what_on_finish_raises(context: ResumableStreamContext, caplog: pytest.LogCaptureFixture) -> None:
    def raises(chat: ChatRequest, message: Any, status: str) -> None:
        raise LookupError("no database")

    app = endpoints(context, Script("Hello", None), on_finish=raises)
    with caplog.at_level(logging.ERROR, "resumable_sync"):
        sent = call(app, "POST", "/", SEND)
        live = sent.read()
        stream_id = sent.headers["x-resumable-stream-id"]
        wait_until(lambda: stream_id in caplog.text and "no database" in caplog.text, 20)
    assert context.status(stream_id) == "done"
    assert call(app, "GET", "/c/stream").read() == live  # the application may not have it


def test_stopped(context: ResumableStreamContext) -> None:
    finished = Finished()
    app = endpoints(context, Script("half"), on_finish=finished)
    sent = call(app, "POST", "/", SEND)
    sent.read_until(b"half")
    assert app.stop("c")
    sent.read()
    assert finished.called.wait(20) and finished.calls[0][2] == "cancelled"
    replay = shown(call(app, "GET", "/c/stream").read())
    assert replay.aborted and replay.error is None and replay.message == finished.calls[0][1]


def test_a_producer_that_was_lost(context: ResumableStreamContext, store: Store) -> None:
    """Nobody calls on_finish for it; viewers are told, and read_ui_message has the half."""
    app = endpoints(context, Script("half"), on_finish=Finished())
    sent = call(app, "POST", "/", SEND)
    sent.read_until(b"half")
    context.close(0)
    with ResumableStreamContext(store) as after:
        again = endpoints(after, Script(), on_finish=Finished())
        replay = shown(call(again, "GET", "/c/stream").read())
        assert replay.error == "The response was interrupted."
        assert replay.message == read_ui_message(after, sent.headers["x-resumable-stream-id"])


def test_who_asked(context: ResumableStreamContext) -> None:
    def authorize(environ: Mapping[str, Any], chat_id: str, action: str) -> object:
        return {"name": environ.get("HTTP_AUTHORIZATION")}

    finished = Finished()
    users = []

    def answer(controller: AssistantStreamController, request: ChatRequest) -> None:
        users.append(request.user)

    app = endpoints(context, answer, authorize=authorize, on_finish=finished)
    call(app, "POST", "/", {**SEND, "extra": 1}, authorization="me").read()
    assert finished.called.wait(20)
    chat = finished.calls[0][0]
    assert users == [chat.user] == [{"name": "me"}] and chat.body["extra"] == 1
    assert chat.environ["HTTP_AUTHORIZATION"] == "me"


CALL = {"type": "tool-pay", "toolCallId": "t1", "state": "approval-responded", "input": {"eur": 5}}
APPROVED = {**CALL, "approval": {"id": "ap", "approved": True}}
EARLIER: dict[str, Any] = {
    "id": "A",
    "role": "assistant",
    "metadata": {"cost": 1},
    "parts": [{"type": "step-start"}, {"type": "text", "text": "May I? ", "state": "done"}, APPROVED],
}


def test_a_message_goes_on_in_a_second_stream(context: ResumableStreamContext) -> None:
    def answer(controller: AssistantStreamController, request: ChatRequest) -> None:
        controller.add_tool_call_part("pay", tool_call_id="t1", args={"eur": 5}).set_response({"paid": True})
        controller.append_text("Paid.")

    finished = Finished(held=True)
    app = endpoints(context, answer, on_finish=finished)
    sent = call(app, "POST", "/", {"id": "c", "messages": [*SEND["messages"], EARLIER]})
    live = sent.read()
    assert b"tool-input" not in live and b"May I" not in live
    assert finished.called.wait(20)
    message = finished.calls[0][1]
    assert message == read_ui_message(context, sent.headers["x-resumable-stream-id"])
    cards = [part for part in message["parts"] if part["type"].startswith("tool-")]
    assert cards == [{**APPROVED, "state": "output-available", "output": {"paid": True}}]
    assert message["id"] == "A" and message["metadata"] == {"cost": 1}
    assert [part["text"] for part in message["parts"] if part["type"] == "text"] == ["May I? ", "Paid."]
    for path in ("/c/stream", f"/streams/{sent.headers['x-resumable-stream-id']}"):
        reply = call(app, "GET", path)
        length, body = int(reply.headers["content-length"]), reply.read()
        assert length == len(body) == int(reply.headers["aui-replay-content-length"])
        assert body.endswith(live) and b"tool-input-available" not in body  # which would have a client run it
        resumed = shown(body).message
        del cards[0]["approval"]
        assert resumed["parts"] == message["parts"] and resumed["metadata"] == {"cost": 1}
        cards[0]["approval"] = APPROVED["approval"]
    finished.may_return.set()


def test_made_anew(context: ResumableStreamContext) -> None:
    app = endpoints(context, lambda controller, request: controller.append_text("new"))
    body = {**SEND, "messages": [*SEND["messages"], EARLIER], "trigger": "regenerate-message"}
    sent = call(app, "POST", "/", {**body, "messageId": "B"})
    message = shown(sent.read()).message
    assert message["id"] not in ("", "A", "B", "u") and [part["type"] for part in message["parts"]][-1] == "text"
    assert read_ui_message(context, sent.headers["x-resumable-stream-id"]) == message


def assistant_message(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "assistant", "id": "a", "parts": [], **fields}]}


@pytest.mark.parametrize(
    "wrong",
    [
        {"trigger": 5},
        {"messageId": 5},
        {"messageId": ""},
        {"messages": 5},
        {"messages": {"0": {}}},
        {"messages": [None]},
        assistant_message(id=5),
        assistant_message(id="\ud800"),
        assistant_message(id="x" * 2000),
        assistant_message(parts=5),
        assistant_message(parts=[5]),
        assistant_message(parts=[{}]),
        assistant_message(parts=[{"type": 5}]),
        assistant_message(parts=[{"type": "tool-a"}]),
        assistant_message(parts=[{"type": "tool-a", "toolCallId": []}]),
        assistant_message(parts=[{"type": "dynamic-tool", "toolCallId": "t"}]),
    ],
)
def test_what_is_no_request_of_use_chat(wrong: dict[str, Any]) -> None:
    with ResumableStreamContext(MemoryStore()) as context:
        reply = call(endpoints(context, Script(None)), "POST", "/", {**SEND, **wrong})
        assert reply.status == 400
        assert len(json.loads(reply.read())["error"]) > 10
        assert list(context.store.streams()) == []


def test_a_repeated_request_is_one_run(backend: Backend, store: Store) -> None:
    """At once from two processes, and once more at the end: one run, and the same bytes."""
    other = backend.second(store)
    with ResumableStreamContext(store) as context, ResumableStreamContext(other) as elsewhere:
        script = Script("Hello")
        apps = [
            endpoints(at, script, idempotency_member="key", on_finish=Finished()) for at in (context, elsewhere)
        ]
        replies: list[Any] = []
        start = threading.Barrier(4)

        def send(number: int) -> None:
            start.wait(20)
            replies.append(call(apps[number % 2], "POST", "/", SEND, idempotency_key="k"))

        threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        script.put(None)
        bodies = {reply.read() for reply in replies}
        assert len(bodies) == 1 and script.runs == 1
        assert len({reply.headers["x-resumable-stream-id"] for reply in replies}) == 1
        assert {call(apps[1], "POST", "/", {**SEND, "key": "k"}).read()} == bodies
        assert apps[0].newest_stream("c") == replies[0].headers["x-resumable-stream-id"]
        wait_until(partial(settled, apps[0]), 20)
        script.put(None)
        assert call(apps[0], "POST", "/", {**SEND, "id": "d"}, idempotency_key="k").read() not in bodies
        assert call(apps[0], "POST", "/", {**SEND, "key": 5}).status == 400
        assert script.runs == 2
    other.close()


def test_a_repeated_request_does_not_become_the_newest(context: ResumableStreamContext) -> None:
    script = Script(None, None)
    app = endpoints(context, script)
    call(app, "POST", "/", SEND, idempotency_key="first").read()
    newer = call(app, "POST", "/", SEND)
    newer.read()
    call(app, "POST", "/", SEND, idempotency_key="first").read()
    assert app.newest_stream("c") == newer.headers["x-resumable-stream-id"] and script.runs == 2


@pytest.mark.parametrize("name", list(FORMATS))
def test_a_ui_message_of_every_format(context: ResumableStreamContext, name: str) -> None:
    response = create_resumable_assistant_stream_response(
        context=context,
        stream_id="s",
        callback=lambda controller: controller.append_text("Hello"),
        encoder=FORMATS[name].encoder,
    )
    b"".join(response)
    wait_until(lambda: context.status("s").ended, 20)
    message = read_ui_message(context, "s")
    assert message["id"] == "s" and message["role"] == "assistant"
    assert {"type": "text", "text": "Hello", "state": "done"} in message["parts"]
    continued = read_ui_message(context, "s", message=EARLIER)
    assert continued["id"] == "A" and continued["parts"][: len(EARLIER["parts"])] == EARLIER["parts"]


def test_an_encoder_that_knows_earlier_calls() -> None:
    assert UIMessageStreamEncoder("m", earlier_calls=["t"]).earlier_calls == ["t"]
