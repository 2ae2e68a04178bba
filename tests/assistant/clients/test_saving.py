"""What is saved is what the page had: accepted by validateUIMessages, and good for the next turn."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings

from resumable_sync.assistant import (
    AssistantStreamController,
    ChatRequest,
    UIMessageStreamEncoder,
    read_assistant_message,
    read_ui_message,
)
from resumable_sync.assistant.message.ui_message import UIMessageAccumulator

from ...javascript import JavaScript
from ..formats.frames import frames_of
from ..formats.programs import Program, chunks_of
from ..formats.test_random_programs import programs
from .support import APPROVALS, TOOL_CALLS, VERSIONS, WITH_APPROVALS, Chat, Server, calls, comparable, last, texts
from .test_approvals import pay
from .test_automatic_sending import all_mixed, one_browser_tool, server_tools_in_two_steps

each_version = pytest.mark.parametrize("version", VERSIONS)


def one_after_the_other(controller: AssistantStreamController, request: ChatRequest) -> None:
    for text in ("First paragraph.", "Second paragraph."):
        with controller.add_text_part() as part:
            part.append(text)


def in_turns(controller: AssistantStreamController, request: ChatRequest) -> None:
    left, right = controller.add_text_part(), controller.add_text_part()
    for number in range(3):
        left.append(f"a{number} ")
        right.append(f"b{number} ")


def everything(controller: AssistantStreamController, request: ChatRequest) -> None:
    controller.append_reasoning("hm")
    controller.append_text("Let me look. ")
    with controller.add_tool_call_part("weather", tool_call_id="t", args={"city": "Rome"}) as tool:
        tool.set_response({"sun": True})
    controller.append_file(data="https://example.org/a.png", mime_type="image/png")
    controller.append_file(data="aGk=", mime_type="text/plain")
    controller.append_source(id="s", url="https://example.org", title="T")
    controller.append_data(name="progress", data={"done": 1})
    controller.append_text("Done.")


def cut_off(controller: AssistantStreamController, request: ChatRequest) -> None:
    controller.append_text("Hm. ")
    tool = controller.add_tool_call_part("weather", tool_call_id="t")
    tool.args_text.append('{"city": "Ro')
    tool.close()


def saved(server: Server, chat_id: str) -> Any:
    stream_id = server.endpoints.newest_stream(chat_id)
    assert stream_id is not None
    return json.loads(json.dumps(read_ui_message(server.context, stream_id)))


def answered_though_broken(controller: AssistantStreamController, request: ChatRequest) -> None:
    for number, text in enumerate(["rm -r", '{"city": "Ro', '{"city": "Rome"} and', '"Ro']):
        tool = controller.add_tool_call_part("weather", tool_call_id=f"t{number}")
        tool.args_text.append(text)
        tool.set_response({"sun": True}, is_error=number == 3)


def answered_unasked(controller: AssistantStreamController, request: ChatRequest) -> None:
    """Nobody has decided what was asked; or it was answered though it was refused."""
    for number in range(4):
        tool = controller.add_tool_call_part("pay", tool_call_id=f"t{number}", args={"eur": 5})
        tool.set_approval({"id": f"p{number}"})
        if number > 1:
            tool.set_approval({"id": f"p{number}", "approved": False, "reason": "no"})
        tool.set_response("paid", is_error=number % 2 == 1)


ANSWERS = [one_after_the_other, in_turns, everything, cut_off, server_tools_in_two_steps]


@each_version
@pytest.mark.parametrize("answer", ANSWERS)
def test_what_is_saved_is_what_was_shown(chats: JavaScript, server: Server, version: int, answer: Any) -> None:
    chat = Chat(chats, server, version, server.chat_for(answer))
    shown = last(chat.send())
    message = saved(server, chat.chat_id)
    assert (message["id"], message["role"]) == (shown["id"], "assistant")
    assert comparable(message["parts"]) == comparable(shown["parts"])
    for other in VERSIONS:
        assert chats.ask("valid", version=other, messages=[message]) is None


@pytest.mark.parametrize("answer", [answered_though_broken, answered_unasked])
def test_what_the_ai_sdk_would_refuse_is_not_saved(chats: JavaScript, server: Server, answer: Any) -> None:
    chat = Chat(chats, server, 7, server.chat_for(answer))
    shown = last(chat.send())
    message = saved(server, chat.chat_id)
    for other in VERSIONS:
        assert chats.ask("valid", version=other, messages=[message]) is None
    assert [part.get("output") for part in message["parts"]] == [part.get("output") for part in shown["parts"]]
    if answer is answered_though_broken:
        assert [part["input"] for part in calls(message)[:3]] == ["rm -r", {"city": "Ro"}, {"city": "Rome"}]


def test_what_random_programs_save_is_accepted(chats: JavaScript) -> None:
    @settings(deadline=None, max_examples=40)
    @given(programs())
    def check(program: Program) -> None:
        accumulator = UIMessageAccumulator()
        for frame in frames_of(UIMessageStreamEncoder("m").encode(chunks_of(program))):
            accumulator.add(frame)
        message = json.loads(json.dumps(accumulator.saved))
        for version in VERSIONS:
            assert chats.ask("valid", version=version, messages=[message]) is None

    check()


@each_version
@pytest.mark.parametrize("answer", [one_after_the_other, in_turns])
def test_texts_are_kept_apart(chats: JavaScript, server: Server, version: int, answer: Any) -> None:
    chat = Chat(chats, server, version, server.chat_for(answer))
    shown = texts(last(chat.send()))
    assert len(shown) == 2
    stream_id = server.endpoints.newest_stream(chat.chat_id)
    assert stream_id is not None
    parts = read_assistant_message(server.context, stream_id)["parts"]
    assert [part["text"] for part in parts if part["type"] == "text"] == shown


@each_version
@pytest.mark.parametrize("answer", [one_browser_tool, all_mixed])
def test_a_message_that_was_continued_is_one_message(
    chats: JavaScript, server: Server, version: int, answer: Any
) -> None:
    chat_id = server.chat_for(answer)
    shown = last(Chat(chats, server, version, chat_id, automatic=[TOOL_CALLS], tools={"ask": "yes"}).send())
    message = saved(server, chat_id)
    assert message["id"] == shown["id"]
    assert comparable(message["parts"]) == comparable(shown["parts"])
    for other in VERSIONS:
        assert chats.ask("valid", version=other, messages=[message]) is None


@each_version
def test_the_next_turn_works_with_what_is_saved(chats: JavaScript, server: Server, version: int) -> None:
    chat = Chat(chats, server, version, server.chat_for(everything))
    asked = chat.send()["messages"][0]
    messages = [asked, saved(server, chat.chat_id)]
    again = Chat(chats, server, version, chat.chat_id, messages=messages)
    report = again.send("and now?")
    assert report["status"] == "ready" and len(report["messages"]) == 4
    assert report["messages"][:2] == messages
    assert server.requests[chat.chat_id][-1].messages[1] == messages[1]


@pytest.mark.parametrize("version", WITH_APPROVALS)
def test_an_approval_is_saved(chats: JavaScript, server: Server, version: int) -> None:
    chat = Chat(chats, server, version, server.chat_for(pay), automatic=[TOOL_CALLS, APPROVALS])
    shown = last(chat.send())
    message = saved(server, chat.chat_id)
    assert message["parts"] == shown["parts"]
    for other in WITH_APPROVALS:
        assert chats.ask("valid", version=other, messages=[message]) is None
