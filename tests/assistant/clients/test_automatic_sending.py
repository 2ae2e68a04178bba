"""useChat that sends by itself once all tool calls have an output: how often it asks.

The client looks at the parts after the message's last `step-start`. An answer that goes on after a call that the
server has answered begins a step there; without one the client asks again, without end.
"""

from __future__ import annotations

from typing import Any

import pytest

from resumable_sync import current_producer
from resumable_sync.assistant import AssistantStreamController, ChatRequest

from ...javascript import JavaScript
from .support import TOOL_CALLS, VERSIONS, Answer, Chat, Server, calls, last, states, texts

each_version = pytest.mark.parametrize("version", VERSIONS)


def server_tool(controller: AssistantStreamController, call_id: str = "s1") -> None:
    with controller.add_tool_call_part("weather", tool_call_id=call_id, args={"city": "Rome"}) as tool:
        tool.set_response({"sun": True})


def browser_tool(controller: AssistantStreamController, call_id: str = "b1") -> None:
    controller.add_tool_call_part("ask", tool_call_id=call_id, args={"number": call_id})


def answered(request: ChatRequest) -> list[str]:
    """The ids of all calls that have an output, in the order of the messages."""
    parts = [part for message in request.messages for part in message["parts"]]
    return [part["toolCallId"] for part in parts if part.get("state") == "output-available"]


def one_server_tool(controller: AssistantStreamController, request: ChatRequest) -> None:
    controller.append_text("Let me look. ")
    server_tool(controller)
    controller.append_text("It is sunny.")


def server_tools_in_two_steps(controller: AssistantStreamController, request: ChatRequest) -> None:
    server_tool(controller, "s1")
    controller.append_text("And there? ")
    server_tool(controller, "s2")
    server_tool(controller, "s3")
    controller.append_text("Sunny everywhere.")


def two_server_tools_at_once(controller: AssistantStreamController, request: ChatRequest) -> None:
    first = controller.add_tool_call_part("weather", tool_call_id="s1", args={"city": "Rome"})
    second = controller.add_tool_call_part("weather", tool_call_id="s2", args={"city": "Oslo"})
    second.set_response({"sun": False})
    first.set_response({"sun": True})
    controller.append_text("Sunny in Rome.")


def failing_server_tool(controller: AssistantStreamController, request: ChatRequest) -> None:
    with controller.add_tool_call_part("weather", tool_call_id="s1", args={}) as tool:
        tool.set_response("no such place", is_error=True)
    controller.append_text("I could not find out.")


def reasoning_after_a_server_tool(controller: AssistantStreamController, request: ChatRequest) -> None:
    server_tool(controller)
    controller.append_reasoning("So it is sunny.")


def one_browser_tool(controller: AssistantStreamController, request: ChatRequest) -> None:
    if not answered(request):
        controller.append_text("May I ask? ")
        browser_tool(controller)
    else:
        controller.append_text("You said yes.")


def two_browser_tools_at_once(controller: AssistantStreamController, request: ChatRequest) -> None:
    if not answered(request):
        browser_tool(controller, "b1")
        browser_tool(controller, "b2")
    else:
        controller.append_text("You said yes, twice.")


def browser_tools_in_two_requests(controller: AssistantStreamController, request: ChatRequest) -> None:
    done = len(answered(request))
    if done < 2:
        browser_tool(controller, f"b{done + 1}")
    else:
        controller.append_text("You said yes, again.")


def server_and_browser_tool_in_one_step(controller: AssistantStreamController, request: ChatRequest) -> None:
    if not answered(request):
        server_tool(controller)
        browser_tool(controller)
    else:
        controller.append_text("Both are done.")


def browser_and_server_tool_in_one_step(controller: AssistantStreamController, request: ChatRequest) -> None:
    if not answered(request):
        browser_tool(controller)
        server_tool(controller)
    else:
        controller.append_text("Both are done.")


def server_then_browser_tool(controller: AssistantStreamController, request: ChatRequest) -> None:
    if not answered(request):
        server_tool(controller)
        controller.append_text("It is sunny. May I ask? ")
        browser_tool(controller)
    else:
        controller.append_text("You said yes.")


def browser_then_server_tool(controller: AssistantStreamController, request: ChatRequest) -> None:
    if not answered(request):
        browser_tool(controller)
    else:
        controller.append_text("You said yes. ")
        server_tool(controller)
        controller.append_text("It is sunny.")


def all_mixed(controller: AssistantStreamController, request: ChatRequest) -> None:
    done = answered(request)
    if "b1" not in done:
        server_tool(controller, "s1")
        controller.append_text("One. ")
        server_tool(controller, "s2")
        browser_tool(controller, "b1")
    elif "b2" not in done:
        server_tool(controller, "s3")
        controller.append_text("Two. ")
        browser_tool(controller, "b2")
    else:
        controller.append_text("Three.")


REQUESTS: list[tuple[Answer, int]] = [
    (one_server_tool, 1),
    (server_tools_in_two_steps, 1),
    (two_server_tools_at_once, 1),
    (failing_server_tool, 1),
    (reasoning_after_a_server_tool, 1),
    (one_browser_tool, 2),
    (two_browser_tools_at_once, 2),
    (browser_tools_in_two_requests, 3),
    (server_and_browser_tool_in_one_step, 2),
    (browser_and_server_tool_in_one_step, 2),
    (server_then_browser_tool, 2),
    (browser_then_server_tool, 2),
    (all_mixed, 3),
]


@each_version
@pytest.mark.parametrize(("answer", "requests"), REQUESTS, ids=lambda value: getattr(value, "__name__", None))
def test_requests(chats: JavaScript, server: Server, version: int, answer: Answer, requests: int) -> None:
    chat = Chat(chats, server, version, server.chat_for(answer), automatic=[TOOL_CALLS], tools={"ask": "yes"})
    report = chat.send()
    assert (report["status"], report["error"]) == ("ready", None)
    assert report["posts"] == len(server.requests[chat.chat_id]) == requests
    assert [message["role"] for message in report["messages"]] == ["user", "assistant"]
    message = last(report)
    assert set(states(message)) <= {"output-available", "output-error"}
    ids = [call["toolCallId"] for call in calls(message)]
    assert len(ids) == len(set(ids))
    # The client ran its own tools once each, and none of the server's: those have an output when it hears of them.
    assert [name for name, _ in report["ran"] if name == "ask"] == ["ask"] * sum(i.startswith("b") for i in ids)


@each_version
def test_an_answer_that_is_asked_for_without_a_tool(chats: JavaScript, server: Server, version: int) -> None:
    chat_id = server.chat_for(lambda controller, request: controller.append_text("Hello."))
    chat = Chat(chats, server, version, chat_id, automatic=[TOOL_CALLS])
    assert chat.send()["posts"] == 1
    assert chat.send("and again")["posts"] == 2


def running_tool(controller: AssistantStreamController) -> None:
    controller.add_tool_call_part("weather", tool_call_id="s9", args={"city": "Rome"})


def half_written_tool(controller: AssistantStreamController) -> None:
    controller.add_tool_call_part("ask", tool_call_id="b9").args_text.append('{"number": "b')


class Saying:
    """Writes a text."""

    __name__ = "text"

    def __init__(self, text: str) -> None:
        self.text = text

    def __call__(self, controller: AssistantStreamController) -> None:
        controller.append_text(self.text)


STOPPED: list[list[Any]] = [
    [Saying("Let me ")],
    [Saying("Let me look. "), server_tool],
    [server_tool, Saying("It is")],
    [Saying("Let me look. "), running_tool],
    [half_written_tool],
    [server_tool, half_written_tool],
    [server_tool, running_tool],
]


def shown(step: Any) -> dict[str, Any]:
    """Values of the part by which a step is seen to have arrived."""
    if isinstance(step, Saying):
        return {"type": "text", "text": step.text}
    return {
        server_tool: {"toolCallId": "s1", "state": "output-available"},
        running_tool: {"toolCallId": "s9", "state": "input-available"},
        half_written_tool: {"toolCallId": "b9", "state": "input-streaming"},
    }[step]


@each_version
@pytest.mark.parametrize("steps", STOPPED, ids=lambda steps: " ".join(step.__name__ for step in steps))
def test_stopped(chats: JavaScript, server: Server, version: int, steps: list[Any]) -> None:
    """Nobody asks anew, and nothing that was cut off runs."""

    def answer(controller: AssistantStreamController, request: ChatRequest) -> None:
        for step in steps:
            step(controller)
        current_producer().cancelled.wait(60)

    chat = Chat(chats, server, version, server.chat_for(answer), automatic=[TOOL_CALLS], tools={"ask": "yes"})
    chat.ask("send", text="go")
    for step in steps:
        chat.reached(**shown(step))
    chat.stop()
    report = chat.settled()
    assert (report["status"], report["error"]) == ("ready", None)
    assert report["posts"] == len(server.requests[chat.chat_id]) == 1
    assert [name for name, _ in report["ran"] if name == "ask"] == []
    assert texts(last(report)) == [step.text for step in steps if isinstance(step, Saying)]
    again = Chat(chats, server, version, chat.chat_id, automatic=[TOOL_CALLS], messages=report["messages"][:1])
    again.ask("resume")
    loaded = again.settled()
    assert (loaded["status"], loaded["error"], loaded["posts"]) == ("ready", None, 0)
