"""Clients that people still run read what is written unless the application uses what they do not know.

They are many packages for little that changes: these tests run with `-m heavy`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from resumable_sync.assistant import AssistantStreamController, UIMessageStreamEncoder, create_assistant_stream

from ...javascript import OLDER, JavaScript, cannot, missing_packages

pytestmark = pytest.mark.heavy

VERSIONS: list[Any] = ["5.0.0", "5.0.60", "5.0.110", "6.0.0", "7.0.0", 5, 6, 7]
WITHOUT_FINISH_REASON = ["5.0.0", "5.0.60"]
"""They refuse the last frame if it has a reason: all of the message is there, and an error is told."""


def text(controller: AssistantStreamController) -> None:
    controller.append_reasoning("hm")
    controller.append_text("Hello")


def tools(controller: AssistantStreamController) -> None:
    controller.append_text("Let me look. ")
    with controller.add_tool_call_part("weather", tool_call_id="1", args={"city": "Rome"}) as tool:
        tool.set_response({"sun": True})
    with controller.add_tool_call_part("weather", tool_call_id="2", args={"city": "?"}) as tool:
        tool.set_response("no such place", is_error=True)
    controller.append_text("Hello")


def broken_arguments(controller: AssistantStreamController) -> None:
    tool = controller.add_tool_call_part("weather", tool_call_id="1")
    tool.args_text.append('{"city": "Ro')
    tool.set_response({"sun": None})
    controller.append_text("Hello")


def parts(controller: AssistantStreamController) -> None:
    controller.append_source(id="s", url="https://example.org", title="T")
    controller.append_file(data="aGk=", mime_type="text/plain")
    controller.append_data(name="x", data=[1])
    controller.append_text("Hello")


def warned(controller: AssistantStreamController) -> None:
    controller.enqueue({"type": "error", "error": "slow", "severity": "warning"})
    controller.append_text("Hello")


def with_a_reason(controller: AssistantStreamController) -> None:
    controller.append_text("Hello")
    usage = {"inputTokens": 1, "outputTokens": 2}
    controller.enqueue({"type": "message-finish", "finishReason": "max_tokens", "usage": usage})


PROGRAMS: list[Callable[[AssistantStreamController], None]] = [text, tools, broken_arguments, parts, warned]


@pytest.fixture
def clients(javascript: JavaScript) -> JavaScript:
    missing = missing_packages(OLDER)
    if missing is not None:
        cannot("THE OLDER CLIENTS WERE", missing)
    return javascript


def written(program: Callable[[AssistantStreamController], None]) -> bytes:
    return b"".join(UIMessageStreamEncoder("m").encode(create_assistant_stream(program)))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_they_read_what_is_usual(
    clients: JavaScript, version: Any, program: Callable[[AssistantStreamController], None]
) -> None:
    answer = clients.ai(version, written(program))
    assert answer["errors"] == []
    newest = clients.ai(7, written(program))
    assert [part["type"] for part in answer["message"]["parts"]] == [
        part["type"] for part in newest["message"]["parts"]
    ]
    assert [part["text"] for part in answer["message"]["parts"] if part["type"] == "text"][-1] == "Hello"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_finish_reason(clients: JavaScript, version: Any) -> None:
    answer = clients.ai(version, written(with_a_reason))
    assert [part["text"] for part in answer["message"]["parts"] if part["type"] == "text"] == ["Hello"]
    assert bool(answer["errors"]) == (version in WITHOUT_FINISH_REASON)
