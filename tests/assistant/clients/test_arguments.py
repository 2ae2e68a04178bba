"""Arguments that were cut off run no tool, in any client; whole ones do."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from resumable_sync.assistant import (
    AssistantStreamController,
    AssistantTransportEncoder,
    DataStreamEncoder,
    create_assistant_stream,
)

from ...javascript import JavaScript
from .support import VERSIONS, Chat, Server, calls, last, states

ENCODERS: dict[str, Any] = {"data-stream": DataStreamEncoder, "assistant-transport": AssistantTransportEncoder}
USAGE = {"inputTokens": 1, "outputTokens": 2}


def _text(controller: AssistantStreamController, text: str, *, close: bool = True) -> None:
    tool = controller.add_tool_call_part("delete", tool_call_id="t1")
    tool.args_text.append(text)
    if close:
        tool.close()


def closed_too_early(controller: AssistantStreamController, request: object = None) -> None:
    _text(controller, '{"path": "/home/ann')
    controller.enqueue({"type": "message-finish", "finishReason": "length", "usage": USAGE})


def something_after_them(controller: AssistantStreamController, request: object = None) -> None:
    _text(controller, '{"path": "/home/ann"} and {"path')


def no_json(controller: AssistantStreamController, request: object = None) -> None:
    _text(controller, "rm -r /home/ann")


def the_connection_breaks(controller: AssistantStreamController, request: object = None) -> None:
    controller.append_text("I will delete it. ")
    _text(controller, '{"path": "/home/ann', close=False)
    raise ConnectionError("the model is gone")


def it_breaks_after_whole_ones(controller: AssistantStreamController, request: object = None) -> None:
    _text(controller, '{"path": "/home/ann"}', close=False)
    raise ConnectionError("the model is gone")


def answered_at_once(controller: AssistantStreamController, request: object = None) -> None:
    response = {"result": "deleted"}
    controller.add_tool_call_part("delete", tool_call_id="t1", args={"path": "/home/ann/tmp"}, response=response)
    controller.append_text("Deleted.")


def whole(controller: AssistantStreamController, request: object = None) -> None:
    controller.add_tool_call_part("delete", tool_call_id="t1", args={"path": "/home/ann/tmp"})


def whole_as_text(controller: AssistantStreamController, request: object = None) -> None:
    _text(controller, ' {"path": "/home/ann/tmp"}\n')


NOT_RUN = [closed_too_early, something_after_them, no_json, the_connection_breaks, it_breaks_after_whole_ones]
RUN = [whole, whole_as_text]
each_version = pytest.mark.parametrize("version", VERSIONS)


@each_version
@pytest.mark.parametrize("answer", NOT_RUN)
def test_the_ai_sdk_runs_none_that_are_cut_off(
    chats: JavaScript, server: Server, version: int, answer: Any
) -> None:
    report = Chat(chats, server, version, server.chat_for(answer)).send()
    assert report["ran"] == []
    assert set(states(last(report))) <= {"output-error", "input-streaming"}
    assert report["status"] == ("error" if "breaks" in answer.__name__ else "ready")


@each_version
@pytest.mark.parametrize("answer", RUN)
def test_the_ai_sdk_runs_whole_ones(chats: JavaScript, server: Server, version: int, answer: Any) -> None:
    report = Chat(chats, server, version, server.chat_for(answer)).send()
    assert report["ran"] == [["delete", {"path": "/home/ann/tmp"}]]
    assert states(last(report)) == ["input-available"] and report["status"] == "ready"


@each_version
@pytest.mark.parametrize("args", [[1, 2], "text", 5, True])
def test_arguments_that_are_no_object_keep_their_value(
    chats: JavaScript, server: Server, version: int, args: Any
) -> None:
    chat_id = server.chat_for(lambda controller, request: _text(controller, json.dumps(args)))
    report = Chat(chats, server, version, chat_id).send()
    assert report["ran"] == [["delete", args]] and calls(last(report))[0]["input"] == args


@pytest.mark.parametrize("format_name", ENCODERS)
@pytest.mark.parametrize("answer", [*NOT_RUN, answered_at_once, *RUN])
def test_assistant_streams_clients(chats: JavaScript, answer: Any, format_name: str) -> None:
    body = b"".join(ENCODERS[format_name]().encode(create_assistant_stream(answer)))
    ran = chats.ask("executed", format=format_name, body=base64.b64encode(body).decode(), names=["delete"])["ran"]
    if answer is it_breaks_after_whole_ones and format_name == "data-stream":
        return  # its reader closes open arguments at the end, and this format cannot say that a call was cut off
    assert ran == ([["delete", {"path": "/home/ann/tmp"}]] if answer in RUN else [])
