"""A message that went on in a second response, whose connection is cut in the middle and which is resumed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from resumable_sync import current_producer
from resumable_sync.assistant import AssistantStreamController, ChatRequest

from ...javascript import JavaScript
from .support import TOOL_CALLS, VERSIONS, WITH_APPROVALS, Chat, Server, calls, last, states, texts
from .test_approvals import AUTOMATIC, decided
from .test_automatic_sending import answered
from .test_saving import saved


class Continued:
    """Asks in its first response. The second answers, says a half, calls a tool, and waits there for `over`."""

    def __init__(self, approval: bool) -> None:
        self.approval = approval
        self.over = threading.Event()

    def __call__(self, controller: AssistantStreamController, request: ChatRequest) -> None:
        current_producer().on_cancel(self.over.set)
        if not (decided(request) if self.approval else answered(request)):
            controller.append_reasoning("hm")
            controller.append_text("May I? ")
            tool = controller.add_tool_call_part("ask", tool_call_id="t1", args={"eur": 5})
            if self.approval:
                tool.set_approval({"id": "ap"})
            return
        if self.approval:
            controller.append_tool_result("t1", {"paid": True})
        controller.append_text("the half")
        with controller.add_tool_call_part("weather", tool_call_id="t2", args={"city": "Rome"}) as second:
            assert self.over.wait(60)
            second.set_response({"sun": True})
        controller.append_text("the rest")


def same_page(chat: Chat, again: Callable[[list[Any]], Chat], asked: Any, cut: Any) -> Chat:
    chat.ask("resume")
    return chat


def loaded_with_what_was_there_when_it_was_cut(
    chat: Chat, again: Callable[[list[Any]], Chat], asked: Any, cut: Any
) -> Chat:
    page = again(cut["messages"])
    page.ask("resume")
    return page


def loaded_with_what_was_there_when_it_asked(
    chat: Chat, again: Callable[[list[Any]], Chat], asked: Any, cut: Any
) -> Chat:
    page = again(asked["messages"])
    page.ask("resume")
    return page


def loaded_with_the_question_alone(chat: Chat, again: Callable[[list[Any]], Chat], asked: Any, cut: Any) -> Chat:
    page = again(asked["messages"][:1])
    page.ask("resume")
    return page


RESUMED = [
    same_page,
    loaded_with_what_was_there_when_it_was_cut,
    loaded_with_what_was_there_when_it_asked,
    loaded_with_the_question_alone,
]


@pytest.mark.parametrize(
    ("version", "approval"), [*((v, False) for v in VERSIONS), *((v, True) for v in WITH_APPROVALS)]
)
@pytest.mark.parametrize("resumed", RESUMED)
def test_one_message_with_all_parts_once(
    chats: JavaScript, server: Server, version: int, approval: bool, resumed: Any
) -> None:
    answer = Continued(approval)
    options: dict[str, Any] = {"automatic": AUTOMATIC if approval else [TOOL_CALLS]}
    chat = Chat(chats, server, version, server.chat_for(answer), **options)
    asked = chat.send()
    assert states(last(asked)) == ["approval-requested" if approval else "input-available"]
    if approval:
        chat.ask("approve", id="ap", approved=True)
    else:
        chat.ask("output", tool="ask", toolCallId="t1", value="yes")
    chat.reached(toolCallId="t2", state="input-available")
    chat.ask("leave")  # what the client itself calls its stop: it hangs up
    cut = chat.settled()
    assert texts(last(cut)) == ["May I? ", "the half"] and cut["status"] == "ready"
    assert last(cut)["id"] == last(asked)["id"]

    def again(messages: list[Any]) -> Chat:
        return Chat(chats, server, version, chat.chat_id, messages=messages, **options)

    page = resumed(chat, again, asked, cut)
    page.ask("streaming")  # what it was loaded with may look the same
    page.reached(toolCallId="t2", state="input-available")
    answer.over.set()
    report = page.settled()
    assert (report["status"], report["error"], len(report["messages"])) == ("ready", None, 2)
    message = last(report)
    assert message["id"] == last(asked)["id"]
    assert texts(message) == ["May I? ", "the half", "the rest"]
    assert [part["text"] for part in message["parts"] if part["type"] == "reasoning"] == ["hm"]
    assert [call["toolCallId"] for call in calls(message)] == ["t1", "t2"]
    assert states(message) == ["output-available"] * 2
    assert [call["output"] for call in calls(message)] == [{"paid": True} if approval else "yes", {"sun": True}]
    assert "streaming" not in [part.get("state") for part in message["parts"]]
    kept = saved(server, chat.chat_id)
    if approval:  # no frame that AI SDK 6 reads has a place for the decision
        assert kept["parts"][3].pop("approval") == {"id": "ap", "approved": True}
    assert "approval" not in calls(message)[0] and (kept["id"], kept["parts"]) == (message["id"], message["parts"])
    # Nobody has asked again, and no page was told to run a call that has its answer.
    assert len(server.requests[chat.chat_id]) == 2
    assert page is chat or report["posts"] == 0


@pytest.mark.parametrize("version", WITH_APPROVALS)
@pytest.mark.parametrize("resumed", RESUMED)
def test_what_was_refused_is_shown_as_refused(
    chats: JavaScript, server: Server, version: int, resumed: Any
) -> None:
    over = threading.Event()

    def answer(controller: AssistantStreamController, request: ChatRequest) -> None:
        if not decided(request):
            controller.add_tool_call_part("pay", tool_call_id="t1", args={"eur": 5}).set_approval({"id": "ap"})
        else:
            controller.append_text("Then ")
            assert over.wait(60)
            controller.append_text("not.")

    chat = Chat(chats, server, version, server.chat_for(answer), automatic=AUTOMATIC)
    asked = chat.send()
    chat.ask("approve", id="ap", approved=False, reason="too much")
    chat.reached(type="text", text="Then ")
    chat.ask("leave")
    cut = chat.settled()
    page = resumed(
        chat,
        lambda messages: Chat(chats, server, version, chat.chat_id, messages=messages, automatic=AUTOMATIC),
        asked,
        cut,
    )
    page.ask("streaming")
    page.reached(type="text", text="Then ")
    over.set()
    report = page.settled()
    assert (report["status"], report["error"], len(report["messages"])) == ("ready", None, 2)
    assert states(last(report)) == ["output-denied"] and texts(last(report)) == ["Then not."]
    assert len(server.requests[chat.chat_id]) == 2
    refused = {"id": "ap", "approved": False, "reason": "too much"}
    assert [call["approval"] for call in calls(saved(server, chat.chat_id))] == [refused]
