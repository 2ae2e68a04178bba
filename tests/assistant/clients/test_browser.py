"""Pages with the real useChat of AI SDK 5, 6 and 7, and with useAssistantTransportRuntime, in a browser."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from selenium import webdriver

from resumable_sync import current_producer
from resumable_sync.assistant import AssistantStreamController, ChatRequest
from resumable_sync.assistant.newest import ActiveStreams

from ...javascript import Bundles
from ...support import wait_until
from .support import TRANSPORTS, VERSIONS, Server, calls, serving, states, texts
from .test_approvals import pay
from .test_automatic_sending import answered

SECONDS = 30
HTML = """<!doctype html><meta charset="utf-8"><title>chat</title><link rel="icon" href="data:,">
<div id="root"></div><script src="/%s"></script>"""
each_version = pytest.mark.parametrize("version", VERSIONS)
newest_version = pytest.mark.parametrize(
    "version", [*(pytest.param(v, marks=pytest.mark.heavy) for v in VERSIONS[:-1]), 7]
)
"""For what the chats without a browser show of each version."""


@pytest.fixture
def chat_page(server: Server, bundles: Bundles, version: int) -> Server:
    """The server, with the page of that version's useChat."""
    return with_page(server, f"chat-{version}", bundles.script("page.mjs", version))


@pytest.fixture
def transport_page(server: Server, bundles: Bundles) -> Server:
    return with_page(server, "transport", bundles.script("transport.mjs"))


def with_page(server: Server, name: str, script: bytes) -> Server:
    server.pages[f"{name}.js"] = script
    server.pages[name] = (HTML % f"{name}.js").encode()
    return server


class Gate:
    """Where an answer waits until the test lets it go on, or somebody stops it."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._opened = threading.Event()

    def open(self) -> None:
        self._opened.set()

    def wait(self) -> bool:
        """False if the answer was stopped."""
        producer = current_producer()
        producer.on_cancel(self._opened.set)
        self.reached.set()
        assert self._opened.wait(60)
        return not producer.cancelled.is_set()


class Page:
    """What useChat has on the page, and its buttons."""

    def __init__(self, browser: webdriver.Chrome, server: Server, version: int, chat_id: str) -> None:
        self._browser = browser
        self._address = f"{server.address}/chat-{version}#{chat_id}"
        self.load()

    def load(self) -> None:
        """As a reload does: the page begins anew with what it has kept."""
        self._browser.get("about:blank")  # so that an address that differs in its fragment alone loads anew
        self._browser.get(self._address)

    def value(self, name: str) -> Any:
        return self._browser.execute_script(f"return window.{name} ?? null")

    def act(self, name: str, *values: Any) -> None:
        self._browser.execute_script(f"window.act.{name}(...arguments)", *values)

    def until(self, what: str, holds: Any) -> Any:
        """The chat, once `holds(chat)`."""

        def there() -> bool:
            chat = self.value("chat")
            return chat is not None and holds(chat)

        wait_until(there, SECONDS, what)
        return self.value("chat")

    def until_status(self, status: str, messages: int = 0) -> Any:
        def holds(chat: Any) -> bool:
            return chat["status"] == status and len(chat["messages"]) >= messages

        return self.until(f"{status} with {messages} messages", holds)

    def until_text(self, text: str) -> Any:
        return self.until(f"{text!r} in the answer", lambda chat: text in "".join(answer_texts(chat)))


def answer_texts(chat: Any) -> list[str]:
    return [text for message in chat["messages"] if message["role"] == "assistant" for text in texts(message)]


@each_version
def test_reloaded_in_the_middle(browser: webdriver.Chrome, chat_page: Server, version: int) -> None:
    gate = Gate()

    def answer(controller: AssistantStreamController, request: ChatRequest) -> None:
        controller.append_text("the half, ")
        with controller.add_tool_call_part("weather", tool_call_id="s1", args={"city": "Rome"}) as tool:
            if not gate.wait():
                return
            tool.set_response({"sun": True})
        controller.append_text("the rest")

    page = Page(browser, chat_page, version, chat_page.chat_for(answer))
    page.until_status("ready")
    page.act("send", "hi")
    before = page.until(
        "the call", lambda chat: chat["messages"] and states(chat["messages"][-1]) == ["input-available"]
    )
    for _ in range(2):
        page.load()
        again = page.until("the call", lambda chat: len(chat["messages"]) == 2 and states(chat["messages"][-1]))
        assert again["messages"][-1] == before["messages"][-1] and again["status"] == "streaming"
    gate.open()
    done = page.until_status("ready", 2)
    assert "".join(answer_texts(done)) == "the half, the rest"
    assert states(done["messages"][-1]) == ["output-available"] and done["error"] is None
    assert page.value("posts") == 0  # since the page was loaded


@newest_version
def test_tools_of_both_sides(browser: webdriver.Chrome, chat_page: Server, version: int) -> None:
    gate = Gate()

    def answer(controller: AssistantStreamController, request: ChatRequest) -> None:
        if not answered(request):
            with controller.add_tool_call_part("weather", tool_call_id="s1", args={"city": "Rome"}) as tool:
                tool.set_response({"sun": True})
            controller.append_text("It is sunny. May I ask? ")
            controller.add_tool_call_part("ask", tool_call_id="b1", args={})
        else:
            controller.append_text("You ")
            if gate.wait():
                controller.append_text("said yes.")

    page = Page(browser, chat_page, version, chat_page.chat_for(answer))
    page.until_status("ready")
    page.act("send", "hi")
    page.until_text("You ")
    gate.open()
    done = page.until(
        "the end", lambda chat: chat["status"] == "ready" and "said yes." in "".join(answer_texts(chat))
    )
    assert len(done["messages"]) == 2 and states(done["messages"][-1]) == ["output-available"] * 2
    assert page.value("posts") == 2
    assert [name for name, _ in page.value("ran") if name == "ask"] == ["ask"]


@newest_version
def test_stopped(browser: webdriver.Chrome, chat_page: Server, version: int) -> None:
    gate = Gate()

    def answer(controller: AssistantStreamController, request: ChatRequest) -> None:
        with controller.add_tool_call_part("weather", tool_call_id="s1", args={"city": "Rome"}) as tool:
            tool.set_response({"sun": True})
        controller.append_text("the half, ")
        gate.wait()

    page = Page(browser, chat_page, version, chat_page.chat_for(answer))
    page.until_status("ready")
    page.act("send", "hi")
    page.until_text("the half, ")
    page.act("stop")
    stopped = page.until_status("ready", 2)
    assert answer_texts(stopped) == ["the half, "] and stopped["error"] is None
    assert page.value("posts") == 1
    page.load()
    loaded = page.until_status("ready", 2)
    assert answer_texts(loaded) == ["the half, "] and loaded["error"] is None and page.value("posts") == 0


@newest_version
def test_regenerated(browser: webdriver.Chrome, chat_page: Server, version: int) -> None:
    numbers = iter(range(9))
    page = Page(
        browser,
        chat_page,
        version,
        chat_page.chat_for(lambda c, request: c.append_text(f"answer {next(numbers)}")),
    )
    page.until_status("ready")
    page.act("send", "hi")
    page.until_text("answer 0")
    first = page.until_status("ready", 2)
    page.act("regenerate")
    page.until_text("answer 1")
    second = page.until_status("ready", 2)
    assert answer_texts(second) == ["answer 1"] and len(second["messages"]) == 2
    assert second["messages"][0] == first["messages"][0]
    assert second["messages"][1]["id"] != first["messages"][1]["id"]


@pytest.mark.parametrize(
    ("reloaded", "version"), [pytest.param(False, 6, marks=pytest.mark.heavy), (True, 6), (False, 7), (True, 7)]
)
def test_approved(browser: webdriver.Chrome, chat_page: Server, reloaded: bool, version: int) -> None:
    page = Page(browser, chat_page, version, chat_page.chat_for(pay))
    page.until_status("ready")
    page.act("send", "pay")
    page.until(
        "the question", lambda chat: chat["messages"] and states(chat["messages"][-1]) == ["approval-requested"]
    )
    page.until_status("ready", 2)
    if reloaded:
        page.act("keep")
        page.load()
        page.until_status("ready", 2)
    page.act("approve", "ap", True)
    page.until_text("Paid.")
    done = page.until_status("ready", 2)
    (call,) = calls(done["messages"][-1])
    assert call["state"] == "output-available" and call["output"] == {"paid": True}
    assert page.value("posts") == (1 if reloaded else 2) and len(done["messages"]) == 2


@newest_version
@pytest.mark.parametrize("cut", ["the context is closed", "the response has lasted its time"])
def test_what_is_broken_off_is_no_end(
    browser: webdriver.Chrome, chat_page: Server, version: int, cut: str
) -> None:
    """useChat is told, and does not resume by itself."""
    gate = Gate()

    def answer(controller: AssistantStreamController, request: ChatRequest) -> None:
        controller.append_text("the half, ")
        if gate.wait():
            controller.append_text("the rest")

    with serving(max_seconds=1.0 if "lasted" in cut else None) as other:
        other.pages = chat_page.pages
        page = Page(browser, other, version, other.chat_for(answer))
        page.until_status("ready")
        page.act("send", "hi")
        page.until_text("the half, ")
        if "closed" in cut:
            other.context.close(0)
        broken = page.until_status("error", 2)
        assert answer_texts(broken) == ["the half, "]
        gate.open()


class TransportPage:
    """What useAssistantTransportRuntime has on the page."""

    def __init__(self, browser: webdriver.Chrome, server: Server, thread: str, *options: str) -> None:
        self._browser = browser
        self._address = f"{server.address}/transport#{'/'.join([thread, *options])}"
        self.load()

    def load(self) -> None:
        self._browser.get("about:blank")
        self._browser.get(self._address)
        wait_until(lambda: self.value("act") is not None, SECONDS, "the page")

    def value(self, name: str) -> Any:
        return self._browser.execute_script(f"return window.{name} ?? null")

    def act(self, name: str, *values: Any) -> None:
        self._browser.execute_script(f"window.act.{name}(...arguments)", *values)

    def until_said(self, text: str) -> None:
        wait_until(lambda: (self.value("state") or {}).get("said") == text, SECONDS, text)


@pytest.mark.parametrize("protocol", TRANSPORTS)
def test_the_assistant_transports_runtime(
    browser: webdriver.Chrome, transport_page: Server, protocol: str
) -> None:
    """Sent, reloaded in the middle, resumed; then the next turn on the state that came of it."""
    first, second = Gate(), Gate()
    waiting = iter([first, second])

    def answer(controller: AssistantStreamController, request: ChatRequest) -> None:
        asked = [part["text"] for command in request.commands for part in command["message"]["parts"]]
        controller.state["asked"].extend(asked)
        controller.state["said"] = "the half, "
        if next(waiting).wait():
            controller.state["said"] += "the rest"

    thread = transport_page.chat_for(answer)
    page = TransportPage(browser, transport_page, thread, protocol)
    page.act("send", "hi")
    page.until_said("the half, ")
    page.load()
    page.act("resume")
    page.until_said("the half, ")
    first.open()
    page.until_said("the half, the rest")
    wait_until(lambda: page.value("finished"), SECONDS, "the end")
    assert page.value("state") == {"asked": ["hi"], "said": "the half, the rest"} and page.value("failure") is None
    page.act("send", "again")
    page.until_said("the half, ")
    second.open()
    page.until_said("the half, the rest")
    assert page.value("state")["asked"] == ["hi", "again"] and page.value("failure") is None


@pytest.mark.parametrize("protocol", TRANSPORTS)
@pytest.mark.parametrize("asks_for_the_state", [True, False])
def test_the_runtime_resumes_an_answer_that_was_stopped_before_its_first_byte(
    browser: webdriver.Chrome, transport_page: Server, protocol: str, asks_for_the_state: bool
) -> None:
    """There is no state that it began with: the page keeps its own, without an error, and the next turn works."""

    def answer(controller: AssistantStreamController, request: ChatRequest) -> None:
        controller.state["said"] = "here"

    thread = transport_page.chat_for(answer)
    stream_id = f"stopped-{thread}"
    ActiveStreams(transport_page.context.store, protocol).begin(thread, stream_id).end()
    assert transport_page.context.store.acquire(stream_id) is not None and transport_page.context.cancel(stream_id)
    page = TransportPage(browser, transport_page, thread, protocol, *(["state"] if asks_for_the_state else []))
    page.act("resume")
    wait_until(lambda: page.value("finished"), SECONDS, "the end")
    assert page.value("state") == {"asked": [], "said": ""} and page.value("failure") is None
    assert page.value("running") is False
    page.act("send", "hi")
    page.until_said("here")
    assert page.value("failure") is None
