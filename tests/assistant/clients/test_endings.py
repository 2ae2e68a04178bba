"""How an answer ended, as useChat says it: live, after a reload, and from a second tab."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from resumable_sync import current_producer
from resumable_sync.assistant import AssistantStreamController, ChatRequest

from ...javascript import JavaScript
from .support import VERSIONS, Chat, Server, last, serving, texts

each_version = pytest.mark.parametrize("version", VERSIONS)
ASKED: dict[str, Any] = {"id": "u", "role": "user", "parts": [{"type": "text", "text": "count"}]}
LOADS = 3


class Halfway:
    """An answer that says a half and waits there, until it is stopped or told to fail."""

    def __init__(self) -> None:
        self.fails = threading.Event()

    def __call__(self, controller: AssistantStreamController, request: ChatRequest) -> None:
        producer = current_producer()
        producer.on_cancel(self.fails.set)
        controller.append_text("the half")
        assert self.fails.wait(60)
        if not producer.cancelled.is_set():
            raise ValueError("no more")


def loaded(chats: JavaScript, server: Server, version: int, chat_id: str) -> Any:
    """The chat of a page that has kept the question alone."""
    chat = Chat(chats, server, version, chat_id, messages=[ASKED])
    chat.ask("resume")
    return chat.settled()


def watched_twice(chats: JavaScript, server: Server, version: int, answer: Halfway) -> tuple[Chat, Chat]:
    """The chat that has asked, and one of a second page; both show the half."""
    chat = Chat(chats, server, version, server.chat_for(answer))
    second = Chat(chats, server, version, chat.chat_id, messages=[ASKED])
    chat.ask("send", text="go")
    chat.reached(type="text", text="the half")
    second.ask("resume")
    second.reached(type="text", text="the half")
    return chat, second


@each_version
def test_failed(chats: JavaScript, server: Server, version: int) -> None:
    answer = Halfway()
    chat, second = watched_twice(chats, server, version, answer)
    answer.fails.set()
    reports = [chat.settled(), second.settled()]
    reports += [loaded(chats, server, version, chat.chat_id) for _ in range(LOADS)]
    assert [report["status"] for report in reports] == ["error"] * len(reports)
    assert [texts(last(report)) for report in reports] == [["the half"]] * len(reports)


@each_version
def test_stopped(chats: JavaScript, server: Server, version: int) -> None:
    """It ends as the AI SDK's own abort does, at each load: ready, with the half."""
    chat, second = watched_twice(chats, server, version, Halfway())
    chat.stop()
    reports = [chat.settled(), second.settled()]
    reports += [loaded(chats, server, version, chat.chat_id) for _ in range(LOADS)]
    assert [(report["status"], report["error"]) for report in reports] == [("ready", None)] * len(reports)
    assert [texts(last(report)) for report in reports] == [["the half"]] * len(reports)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "streams.db"


@each_version
def test_interrupted(chats: JavaScript, version: int, database: Path) -> None:
    """The first server goes while it answers; its successor tells of it at every load."""
    answer = Halfway()
    with serving(database) as first:
        chat = Chat(chats, first, version, first.chat_for(answer))
        chat.ask("send", text="go")
        chat.reached(type="text", text="the half")
        first.context.close(0)
        # What is broken off, Node takes for whole where the server has said that it closes the connection, as this
        # one does: how it looks live, the tests in a browser say.
        assert texts(last(chat.settled())) == ["the half"]
        answer.fails.set()
    with serving(database) as successor:
        for _ in range(LOADS):
            report = loaded(chats, successor, version, chat.chat_id)
            assert report["status"] == "error" and texts(last(report)) == ["the half"]


@each_version
def test_done(chats: JavaScript, server: Server, version: int) -> None:
    """A page that is loaded after the end, before the application has saved the message, loses nothing."""
    chat = Chat(chats, server, version, server.chat_for(lambda controller, request: controller.append_text("all")))
    live = chat.send()
    assert live["status"] == "ready" and texts(last(live)) == ["all"]
    kept = Chat(chats, server, version, chat.chat_id, messages=live["messages"])
    kept.ask("resume")
    report = kept.settled()
    assert report["status"] == "ready" and report["messages"] == live["messages"]


@each_version
@pytest.mark.parametrize("severity", ["warning", "info"])
def test_a_warning_is_no_ending(chats: JavaScript, server: Server, version: int, severity: str) -> None:
    def answer(controller: AssistantStreamController, request: ChatRequest) -> None:
        controller.append_text("First half. ")
        controller.enqueue({"type": "error", "error": "the search tool is slow", "severity": severity})
        controller.append_text("Second half.")

    report = Chat(chats, server, version, server.chat_for(answer)).send()
    assert (report["status"], report["errors"]) == ("ready", [])
    assert "".join(texts(last(report))) == "First half. Second half."


REASONS = ["stop", "length", "content-filter", "tool-calls", "error", "other", "unknown"]
PROVIDERS = ["tool_calls", "end_turn", "max_tokens", "STOP", "MAX_TOKENS", "SAFETY", "", "eos_something"]


@each_version
@pytest.mark.parametrize("reason", [*REASONS, *PROVIDERS])
def test_a_providers_finish_reason(chats: JavaScript, server: Server, version: int, reason: str) -> None:
    def answer(controller: AssistantStreamController, request: ChatRequest) -> None:
        controller.append_text("fine")
        usage = {"inputTokens": 1, "outputTokens": 2}
        controller.enqueue({"type": "message-finish", "finishReason": reason, "usage": usage})

    report = Chat(chats, server, version, server.chat_for(answer)).send()
    assert (report["status"], report["errors"], texts(last(report))) == ("ready", [], ["fine"])
