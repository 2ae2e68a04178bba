"""The chat page in a real browser: reload in the middle, drop, stop, a killed server."""

from __future__ import annotations

import json
import signal
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from resumable_sync.demo.chat import ramble

from .conftest import Demo, until

QUESTION = "Who keeps the signal burning?"
STORY = ramble(QUESTION, 70)


class Chat:
    """What a person sees and clicks."""

    def __init__(self, browser: webdriver.Chrome, url: str) -> None:
        self._browser = browser
        browser.get("about:blank")
        browser.get_log("browser")  # type: ignore[no-untyped-call]  # those of the test before are read
        browser.get(url)

    @property
    def url(self) -> str:
        return self._browser.current_url

    def click(self, name: str) -> None:
        self._browser.find_element(By.ID, name).click()

    def ask(self, text: str) -> None:
        self.until_status("none", "done")
        self._browser.find_element(By.ID, "question").send_keys(text)
        self.click("send")

    def messages(self) -> list[tuple[str, str]]:
        script = "return [...document.querySelectorAll('#messages li')].map((i) => [i.className, i.textContent])"
        return [(kind, text) for kind, text in self._browser.execute_script(script)]

    def answer(self) -> str:
        return next((text for kind, text in self.messages() if kind == "assistant"), "")

    def tools(self) -> list[str]:
        return self._texts(".tool")

    def choices(self) -> list[str]:
        return self._texts(".choices button")

    def _texts(self, selector: str) -> list[str]:
        """Of one moment: the page may draw its elements anew at any time."""
        script = "return [...document.querySelectorAll(arguments[0])].map((each) => each.innerText)"
        return [str(text) for text in self._browser.execute_script(script, selector)]

    def until_answer(self, text: str) -> None:
        until(lambda: text in self.answer(), f"{text!r} in the answer")

    def until_status(self, *wanted: str) -> None:
        script = "return document.getElementById('status')?.dataset.status"
        until(lambda: self._browser.execute_script(script) in wanted, f"one of {wanted}")

    def complaints(self) -> list[str]:
        log = self._browser.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in log if entry["level"] == "SEVERE"]


def test_reload_and_drop_in_the_middle(demo: Demo, browser: webdriver.Chrome) -> None:
    chat = Chat(browser, f"{demo.url}chat")
    chat.ask(QUESTION)
    chat.until_answer("You used")
    assert STORY not in chat.answer()
    browser.refresh()
    chat.until_answer("That reminds me")
    chat.click("drop")
    chat.until_status("dropped")
    chat.click("drop")
    chat.until_answer(STORY)
    chat.until_status("done")
    asked, answered = chat.messages()
    assert asked == ("user", QUESTION) and answered[1].count("You used") == 1
    assert chat.tools() == ['count_words\n{"text":"Who keeps the signal burning?"}\n→ {"words":5,"letters":24}']
    browser.refresh()  # complete: kept by the page, nothing is active
    chat.until_status("none")
    assert chat.messages() == [asked, answered]
    assert chat.complaints() == []
    browser.get(demo.url)  # a chat is none of the streams of this page
    loaded = "return performance.getEntriesByType('resource').some((each) => each.name.includes('list.json'))"
    until(lambda: browser.execute_script(loaded), "the list is loaded")
    assert not browser.execute_script("return document.querySelector('#streams').children.length")


def test_stop(demo: Demo, browser: webdriver.Chrome) -> None:
    chat = Chat(browser, f"{demo.url}chat")
    chat.ask(QUESTION)
    chat.until_answer("That reminds me")
    chat.click("stop")
    chat.until_status("done")
    assert chat.answer().endswith("Stopped.") and STORY not in chat.answer()
    stopped = chat.messages()
    browser.refresh()
    chat.until_status("none", "done")
    assert chat.messages() == stopped
    chat.ask("Go on")
    until(lambda: len(chat.messages()) == 4, "another answer")
    assert chat.complaints() == []


@pytest.mark.parametrize(
    "allowed, reloaded",
    [
        (True, True),
        (False, False),
        *(pytest.param(*each, marks=pytest.mark.heavy) for each in [(True, False), (False, True)]),
    ],
)
def test_a_tool_that_asks(quick_demo: Demo, browser: webdriver.Chrome, allowed: bool, reloaded: bool) -> None:
    chat = Chat(browser, f"{quick_demo.url}chat")
    chat.ask("Send a postcard to Ann")
    until(lambda: chat.choices() != [], "a choice")
    chat.until_status("done")
    if reloaded:
        browser.refresh()
        until(lambda: chat.choices() != [], "a choice")
        chat.until_status("none", "done")
    assert chat.choices() == ["Allow", "Refuse"]
    browser.find_element(By.CSS_SELECTOR, ".allow" if allowed else ".refuse").click()
    chat.until_answer("a demo." if allowed else "the stamp.")
    chat.until_status("done")
    assert len(chat.messages()) == 2 and chat.choices() == []
    (tool,) = chat.tools()
    assert tool.endswith('→ {"posted":true}' if allowed else "refused")
    browser.refresh()
    chat.until_status("none", "done")
    assert chat.answer().count("A postcard costs a stamp.") == 1 and chat.tools() == [tool]
    assert chat.complaints() == []


def test_a_choice_is_over_once_something_else_is_asked(quick_demo: Demo, browser: webdriver.Chrome) -> None:
    chat = Chat(browser, f"{quick_demo.url}chat")
    chat.ask("Send a postcard to Ann")
    until(lambda: chat.choices() != [], "a choice")
    chat.ask(QUESTION)
    until(lambda: len(chat.messages()) == 4, "another answer")
    assert chat.choices() == [] and chat.tools()[0].endswith("not decided")
    browser.refresh()
    until(lambda: len(chat.messages()) == 4, "the messages")
    assert chat.choices() == [] and chat.tools()[0].endswith("not decided")


def test_a_reload_in_the_middle_of_what_was_allowed(demo: Demo, browser: webdriver.Chrome) -> None:
    chat = Chat(browser, f"{demo.url}chat")
    chat.ask("Send a postcard to Ann")
    until(lambda: chat.choices() != [], "a choice")
    chat.until_status("done")
    browser.find_element(By.CSS_SELECTOR, ".allow").click()
    chat.until_answer("on its way")
    browser.refresh()
    chat.until_answer("a demo.")
    chat.until_status("done")
    assert len(chat.messages()) == 2 and len(chat.tools()) == 1
    assert chat.answer().count("It is on its way.") == 1


@pytest.mark.parametrize("width", [pytest.param(1280, marks=pytest.mark.heavy), 390])
def test_the_form_never_covers_the_answer(quick_demo: Demo, browser: webdriver.Chrome, width: int) -> None:
    """While an answer is written, and in a conversation that is longer than the window."""
    size = {"width": width, "height": 700, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        chat = Chat(browser, f"{quick_demo.url}chat")
        assert browser.execute_script("return innerWidth") == width
        for count in range(3):
            chat.ask(QUESTION)
            for text in ("You used", "That reminds me"):
                until(lambda: len(chat.messages()) == 2 * count + 2 and text in chat.messages()[-1][1], text)
                assert_apart(browser)
            chat.click("stop")
            chat.until_status("done")
            assert_apart(browser)
        assert browser.execute_script("return document.getElementById('conversation').scrollTop") > 0
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def assert_apart(browser: webdriver.Chrome) -> None:
    """What is visible of each message is above the form, which is whole in the window; the last one's end is."""
    boxes = browser.execute_script(
        """const box = (of) => { const { top, bottom, left, right } = of.getBoundingClientRect();
                                return { top, bottom, left, right }; };
           const within = box(document.getElementById("conversation"));
           const messages = [...document.querySelectorAll("#messages li")].map(box);
           const form = box(document.getElementById("ask"));
           return { within, messages, form, height: innerHeight, width: innerWidth };
        """
    )
    form, within = boxes["form"], boxes["within"]
    assert within["bottom"] <= form["top"] and form["bottom"] <= boxes["height"]
    assert 0 <= form["left"] and form["right"] <= boxes["width"]
    for message in boxes["messages"]:
        assert min(message["bottom"], within["bottom"]) <= form["top"], boxes
        assert within["left"] <= message["left"] and message["right"] <= within["right"]
    assert boxes["messages"][-1]["bottom"] <= form["top"], boxes


def test_another_viewer_and_a_killed_server(run_demo: Callable[..., Demo], browser: webdriver.Chrome) -> None:
    demo = run_demo()
    chat = Chat(browser, f"{demo.url}chat")
    chat.ask(QUESTION)
    chat.until_answer("That reminds me")
    browser.execute_script("localStorage.clear()")  # as a browser that knows but the address
    browser.refresh()
    chat.until_answer("That reminds me")
    assert [kind for kind, _ in chat.messages()] == ["assistant"]
    demo.end(signal.SIGKILL)
    chat.until_status("retrying")
    assert browser.execute_script("return document.getElementById('stop').disabled")
    demo.start()
    chat.until_status("done")
    assert chat.answer().endswith("The response was interrupted.")


@pytest.mark.parametrize("body", [{}, {"id": "c"}, {"id": "c", "messages": [5]}, {"id": "c", "messages": [{}]}])
def test_strange_questions(quick_demo: Demo, body: Any) -> None:
    request = urllib.request.Request(
        f"{quick_demo.url}api/chat", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    if "id" not in body or body.get("messages") == [5]:
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(request)
    else:
        with urllib.request.urlopen(request) as response:
            assert b'"start"' in response.readline()
