"""What `on_finish` gives the application to keep is what the client shows, however the answer ended."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from resumable_sync import current_producer
from resumable_sync.assistant import AssistantStreamController, ChatRequest
from resumable_sync.contract import Status

from ...javascript import JavaScript
from .support import TOOL_CALLS, VERSIONS, WITH_APPROVALS, Chat, Server, comparable, last, serving, states, texts
from .test_approvals import AUTOMATIC, pay
from .test_automatic_sending import all_mixed

each_version = pytest.mark.parametrize("version", VERSIONS)
SECONDS = 30


class Kept:
    """The application's hook: what it was called with, in the order of the calls."""

    def __init__(self) -> None:
        self._calls: queue.Queue[tuple[ChatRequest, Any, Status]] = queue.Queue()

    def __call__(self, chat: ChatRequest, message: Any, status: Status) -> None:
        self._calls.put((chat, json.loads(json.dumps(message)), status))

    def next(self, chat_id: str) -> tuple[Any, Status]:
        chat, message, status = self._calls.get(timeout=SECONDS)
        assert chat.chat_id == chat_id and (message is None or message["id"] == chat.message_id)
        return message, status

    def nothing_more(self) -> bool:
        return self._calls.empty()


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def keeping(kept: Kept, tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path / "streams.db", on_finish=kept) as server:
        yield server


class Answer:
    """Everything that a message has, then what the test says: `over` lets it end, `fails` makes it raise."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.fails = False

    def __call__(self, controller: AssistantStreamController, request: ChatRequest) -> None:
        current_producer().on_cancel(self.over.set)
        controller.append_reasoning("hm")
        with controller.add_tool_call_part("weather", tool_call_id="t1", args={"city": "Rome"}) as tool:
            tool.set_response({"sun": True})
        controller.append_source(id="s", url="https://example.org", title="T")
        controller.append_data(name="progress", data={"done": 1}, id="p")
        controller.set_message_metadata({"model": "m"})
        controller.append_text("the half")
        assert self.over.wait(60)
        if self.fails:
            raise ValueError("no more")
        if not current_producer().cancelled.is_set():
            controller.append_text(", the rest")


def end(ending: str, answer: Answer, chat: Chat, server: Server) -> None:
    if ending == "cancelled":
        chat.stop()
    elif ending == "interrupted":
        server.context.close(0)
    answer.fails = ending == "error"
    answer.over.set()


ENDINGS = {"done": "ready", "cancelled": "ready", "error": "error", "interrupted": "error"}


@each_version
@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_kept_is_what_is_shown(
    chats: JavaScript, keeping: Server, kept: Kept, version: int, ending: str, tmp_path: Path
) -> None:
    answer = Answer()
    chat = Chat(chats, keeping, version, keeping.chat_for(answer))
    chat.ask("send", text="go")
    chat.reached(type="text", text="the half")
    end(ending, answer, chat, keeping)
    message, status = kept.next(chat.chat_id)
    assert status.value == ending and kept.nothing_more()
    shown = chat.settled()
    assert (last(shown)["id"], last(shown)["metadata"]) == (message["id"], message["metadata"])
    if ending == "interrupted":  # what is broken off has no closing frames
        assert texts(last(shown)) == texts(message) and states(last(shown)) == states(message)
    else:
        assert comparable(last(shown)["parts"]) == comparable(message["parts"])
    assert texts(message) == ["the half, the rest" if ending == "done" else "the half"]
    for other in VERSIONS:
        assert chats.ask("valid", version=other, messages=[message]) is None

    # The page is loaded with what was kept, from this server or its successor, and goes on from there.
    with serving(tmp_path / "streams.db", on_finish=kept) as successor:
        asked = [shown["messages"][0], message]
        again = Chat(chats, successor, version, successor.chat_for(Answer(), chat.chat_id), messages=asked)
        again.ask("resume")
        loaded = again.settled()
        assert loaded["messages"] == asked and loaded["status"] == ENDINGS[ending]
        successor.chat_for(lambda controller, request: controller.append_text("more"), chat.chat_id)
        report = again.send("and now?")
        assert (report["status"], report["error"]) == ("ready", None)
        assert report["messages"][:2] == asked and texts(last(report)) == ["more"]
        assert successor.requests[chat.chat_id][-1].messages[:2] == asked
        assert kept.next(chat.chat_id) == (json.loads(json.dumps(last(report))), Status.DONE)


@each_version
def test_a_message_that_client_tools_continued(
    chats: JavaScript, keeping: Server, kept: Kept, version: int
) -> None:
    """Each response keeps the whole message as it is then; the last one what the client shows."""
    options = {"automatic": [TOOL_CALLS], "tools": {"ask": "yes"}}
    chat = Chat(chats, keeping, version, keeping.chat_for(all_mixed), **options)
    report = chat.send()
    messages = [kept.next(chat.chat_id) for _ in range(report["posts"])]
    assert len(messages) > 1 and kept.nothing_more()
    assert {message["id"] for message, _ in messages} == {last(report)["id"]}
    assert comparable(messages[-1][0]["parts"]) == comparable(last(report)["parts"])


@pytest.mark.parametrize("version", WITH_APPROVALS)
def test_a_message_that_an_approval_continued(
    chats: JavaScript, keeping: Server, kept: Kept, version: int
) -> None:
    chat = Chat(chats, keeping, version, keeping.chat_for(pay), automatic=AUTOMATIC)
    asked = last(chat.send())
    assert kept.next(chat.chat_id) == (asked, Status.DONE)
    chat.ask("approve", id="ap", approved=True)
    report = chat.settled()
    message, _ = kept.next(chat.chat_id)
    assert message == last(report) and states(message) == ["output-available"] and kept.nothing_more()
