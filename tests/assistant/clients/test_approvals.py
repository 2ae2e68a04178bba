"""A tool that runs only once the user has agreed, in AI SDK 6 and 7 (5 knows no approvals)."""

from __future__ import annotations

from typing import Any

import pytest

from resumable_sync.assistant import AssistantStreamController, ChatRequest

from ...javascript import JavaScript
from .support import APPROVALS, TOOL_CALLS, WITH_APPROVALS, Chat, Server, calls, last, states, texts

each_version = pytest.mark.parametrize("version", WITH_APPROVALS)
AUTOMATIC = [TOOL_CALLS, APPROVALS]


def decided(request: ChatRequest) -> dict[str, bool]:
    """The decisions in the last message, by the call's id."""
    parts = request.messages[-1]["parts"] if request.messages else []
    asked = [part for part in parts if "approved" in (part.get("approval") or {})]
    return {part["toolCallId"]: part["approval"]["approved"] for part in asked}


def pay(controller: AssistantStreamController, request: ChatRequest) -> None:
    """Ask; then pay or not, as an answer of the call that is in the message already."""
    decision = decided(request).get("t1")
    if decision is None:
        controller.append_text("May I pay? ")
        controller.add_tool_call_part("pay", tool_call_id="t1", args={"eur": 5}).set_approval({"id": "ap"})
    elif decision:
        controller.append_tool_result("t1", {"paid": True})
        controller.append_text("Paid.")
    else:
        controller.append_text("Then not.")


@each_version
def test_the_call_asks(chats: JavaScript, server: Server, version: int) -> None:
    report = Chat(chats, server, version, server.chat_for(pay), automatic=AUTOMATIC, tools={"pay": "never"}).send()
    assert (report["status"], report["posts"]) == ("ready", 1)
    (call,) = calls(last(report))
    assert call["state"] == "approval-requested" and call["approval"]["id"] == "ap"
    assert call["input"] == {"eur": 5}


@each_version
def test_agreed(chats: JavaScript, server: Server, version: int) -> None:
    chat = Chat(chats, server, version, server.chat_for(pay), automatic=AUTOMATIC)
    asked = chat.send()
    chat.ask("approve", id="ap", approved=True)
    report = chat.settled()
    assert (report["status"], report["error"], report["posts"]) == ("ready", None, 2)
    assert len(report["messages"]) == 2 and last(report)["id"] == last(asked)["id"]
    (call,) = calls(last(report))
    assert (call["state"], call["output"]) == ("output-available", {"paid": True})
    assert call["approval"]["approved"] is True
    assert texts(last(report)) == ["May I pay? ", "Paid."]
    # 6 and 7 tell of the call once, when it asked.
    assert len([name for name, _ in report["ran"]]) <= 1


@each_version
def test_refused(chats: JavaScript, server: Server, version: int) -> None:
    chat = Chat(chats, server, version, server.chat_for(pay), automatic=AUTOMATIC)
    chat.send()
    chat.ask("approve", id="ap", approved=False, reason="too much")
    report = chat.settled()
    assert (report["status"], report["posts"]) == ("ready", 2)
    (call,) = calls(last(report))
    assert call["approval"]["approved"] is False and "output" not in call
    assert texts(last(report)) == ["May I pay? ", "Then not."]
    assert server.requests[chat.chat_id][1].messages[-1]["parts"][-1]["approval"]["reason"] == "too much"


@each_version
def test_after_a_reload(chats: JavaScript, server: Server, version: int) -> None:
    """The page has kept its messages; the answer to the approval comes in the second stream."""
    chat = Chat(chats, server, version, server.chat_for(pay), automatic=AUTOMATIC)
    messages = chat.send()["messages"]
    again = Chat(chats, server, version, chat.chat_id, automatic=AUTOMATIC, messages=messages)
    again.ask("resume")
    assert again.settled()["messages"] == messages
    again.ask("approve", id="ap", approved=True)
    report = again.settled()
    assert states(last(report)) == ["output-available"] and report["posts"] == 1 and report["ran"] == []


@each_version
def test_the_call_is_sent_complete(chats: JavaScript, server: Server, version: int) -> None:
    """As an application does that begins with the message it has kept."""
    kept: dict[str, Any] = {
        "id": "A",
        "role": "assistant",
        "parts": [
            {"type": "step-start"},
            {"type": "text", "text": "May I pay? ", "state": "done"},
            {
                "type": "tool-pay",
                "toolCallId": "t1",
                "state": "approval-responded",
                "input": {"eur": 5},
                "approval": {"id": "ap", "approved": True},
            },
        ],
    }
    asked = {"id": "u", "role": "user", "parts": [{"type": "text", "text": "pay"}]}
    chat = Chat(chats, server, version, server.chat_for(pay), messages=[asked, kept])
    chat.ask("send")
    report = chat.settled()
    assert report["status"] == "ready" and last(report)["id"] == "A" and report["ran"] == []
    assert states(last(report)) == ["output-available"] and texts(last(report))[-1] == "Paid."


@each_version
def test_two_calls_that_ask(chats: JavaScript, server: Server, version: int) -> None:
    def answer(controller: AssistantStreamController, request: ChatRequest) -> None:
        decisions = decided(request)
        if not decisions:
            for number in (1, 2):
                tool = controller.add_tool_call_part("pay", tool_call_id=f"t{number}", args={"eur": number})
                tool.set_approval({"id": f"ap{number}"})
        else:
            for call, approved in decisions.items():
                if approved:
                    controller.append_tool_result(call, {"paid": True})
            controller.append_text("Done.")

    chat = Chat(chats, server, version, server.chat_for(answer), automatic=AUTOMATIC)
    assert states(last(chat.send())) == ["approval-requested"] * 2
    chat.ask("approve", id="ap1", approved=True)
    assert chat.settled()["posts"] == 1
    chat.ask("approve", id="ap2", approved=False)
    report = chat.settled()
    assert report["posts"] == 2 and states(last(report))[0] == "output-available"
    assert len(calls(last(report))) == 2 and "output" not in calls(last(report))[1]
