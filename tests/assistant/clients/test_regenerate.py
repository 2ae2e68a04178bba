"""`regenerate` in useChat: the message that is made anew gets an id of its own, and the others stay."""

from __future__ import annotations

from typing import Any

import pytest

from ...javascript import JavaScript
from .support import VERSIONS, Chat, Server, last, texts

each_version = pytest.mark.parametrize("version", VERSIONS)


def message(identifier: str, role: str, text: str) -> dict[str, Any]:
    return {"id": identifier, "role": role, "parts": [{"type": "text", "text": text}]}


QUESTION = message("U", "user", "the question")
OLD_A = message("A", "assistant", "the old A")
OLD_B = message("B", "assistant", "the old B")


def regenerated(
    chats: JavaScript, server: Server, version: int, messages: list[Any], message_id: str | None
) -> tuple[Any, Any]:
    """What the chat is then, and what the server was asked."""
    chat_id = server.chat_for(lambda controller, request: controller.append_text("made anew"))
    chat = Chat(chats, server, version, chat_id, messages=messages)
    chat.ask("regenerate", messageId=message_id)
    report = chat.settled()
    assert (report["status"], report["posts"]) == ("ready", 1)
    (asked,) = server.requests[chat_id]
    return report, asked


@each_version
def test_the_second_of_two_answers(chats: JavaScript, server: Server, version: int) -> None:
    report, asked = regenerated(chats, server, version, [QUESTION, OLD_A, OLD_B], "B")
    assert asked.body["trigger"] == "regenerate-message"
    assert [held["id"] for held in asked.messages] == ["U", "A"]
    assert report["messages"][:2] == [QUESTION, OLD_A]
    made = last(report)
    assert len(report["messages"]) == 3 and made["id"] not in ("U", "A")
    # AI SDK 5 begins the new message with a copy of the one before, whatever the server sends.
    assert texts(made) == (["the old A", "made anew"] if version == 5 else ["made anew"])


@each_version
@pytest.mark.parametrize("message_id", ["A", None])
def test_the_first_answer(chats: JavaScript, server: Server, version: int, message_id: str | None) -> None:
    report, asked = regenerated(chats, server, version, [QUESTION, OLD_A], message_id)
    assert [held["id"] for held in asked.messages] == ["U"]
    assert report["messages"][0] == QUESTION and len(report["messages"]) == 2
    assert texts(last(report)) == ["made anew"]


@each_version
def test_a_question_in_the_middle(chats: JavaScript, server: Server, version: int) -> None:
    """All that follows the question goes, as the client has it."""
    later = [message("V", "user", "another question"), OLD_B]
    report, _ = regenerated(chats, server, version, [QUESTION, OLD_A, *later], "V")
    assert report["messages"][:3] == [QUESTION, OLD_A, later[0]]
    assert len(report["messages"]) == 4 and texts(last(report)) == ["made anew"]


@each_version
def test_twice(chats: JavaScript, server: Server, version: int) -> None:
    chat = Chat(chats, server, version, server.chat_for(lambda c, request: c.append_text("made anew")))
    seen = {last(chat.send())["id"]}
    for _ in range(2):
        chat.ask("regenerate")
        report = chat.settled()
        assert len(report["messages"]) == 2 and texts(last(report)) == ["made anew"]
        seen.add(last(report)["id"])
    assert len(seen) == 3
