"""A page with the real useChat({resume: true}) in a browser: reloaded in the middle, stopped, idle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from selenium import webdriver

from ...javascript import Bundles
from ...wsgi.support import wait_until
from .application import HALF, WORDS
from .servers import ChatServer
from .test_transports import post, text_of, tool_of

PAGE = """<!doctype html><meta charset="utf-8"><title>chat</title><link rel="icon" href="data:,">
<div id="root"></div><script src="/chat.js"></script>"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, bundles: Bundles) -> Iterator[ChatServer]:
    script = bundles.script("chat.mjs")
    directory = tmp_path_factory.mktemp("browser")
    with ChatServer(directory, f"sqlite:///{directory / 'streams.db'}", 2) as running:
        (running.pages / "index.html").write_text(PAGE, "utf-8")
        (running.pages / "chat.js").write_bytes(script)
        yield running


class Page:
    def __init__(self, browser: webdriver.Chrome, server: ChatServer, chat_id: str) -> None:
        self._browser = browser
        browser.get("about:blank")  # so that an address that differs in its fragment alone loads anew
        browser.get(server.url(f"/#{chat_id}"))

    def chat(self) -> Any:
        return self._browser.execute_script("return window.chat ?? null")

    def until_status(self, *statuses: str) -> None:
        wait_until(lambda: (self.chat() or {}).get("status") in statuses, 20)

    def send(self, text: str) -> None:
        self._browser.execute_script("window.send(arguments[0])", text)

    def reload(self) -> None:
        self._browser.refresh()

    def answer(self) -> Any:
        """The assistant's message; None before there is one."""
        messages = (self.chat() or {"messages": []})["messages"]
        assert [message["role"] for message in messages] in ([], ["user"], ["user", "assistant"])
        return messages[1] if len(messages) == 2 else None

    def until_half(self) -> None:
        def there() -> bool:
            answer = self.answer()
            return answer is not None and any(
                part["type"] == "tool-wait" and part["state"] == "input-available" for part in answer["parts"]
            )

        wait_until(there, 20)


def test_reloaded_in_the_middle(browser: webdriver.Chrome, server: ChatServer) -> None:
    page = Page(browser, server, "reload")
    page.until_status("ready")
    page.send("hi")
    page.until_half()
    before = page.answer()
    assert text_of(before) == "".join(WORDS[:HALF])
    for _ in range(2):
        page.reload()
        page.until_half()
        assert page.answer() == before and page.chat()["status"] == "streaming"
    server.open_gate("reload")
    page.until_status("ready")
    answer = page.answer()
    assert answer["id"] == before["id"] and text_of(answer) == "".join(WORDS)
    assert tool_of(answer)["output"] == {"waited": True} and page.chat()["error"] is None
    page.reload()  # nothing is active: 204, and what the application has kept stays as it is
    page.until_status("ready")
    assert page.answer() is None and page.chat()["error"] is None


def test_stopped_while_the_page_is_gone(browser: webdriver.Chrome, server: ChatServer) -> None:
    page = Page(browser, server, "stopped")
    page.until_status("ready")
    page.send("hi")
    page.until_half()
    assert post(server, "POST", "/api/ui-message-stream/stopped/stop") == (200, {"stopped": True})
    page.until_status("ready")
    assert text_of(page.answer()) == "".join(WORDS[:HALF]) and page.chat()["error"] is None
    page.reload()
    page.until_status("ready")
    assert page.chat()["error"] is None


def test_refused(browser: webdriver.Chrome, server: ChatServer) -> None:
    page = Page(browser, server, "forbidden")
    page.until_status("error")
    assert "forbidden" in page.chat()["error"]
