"""The inspector in a real browser: list, filter, follow, cancel, delete."""

from __future__ import annotations

from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

from resumable_sync import MemoryStore, ResumableStreamContext, Status, Store

from ..support import wait_until
from ..wsgi.support import Feed
from .conftest import ended

PATIENCE = 20.0


@pytest.fixture
def store() -> Any:
    """What the browser shows is the same on every store."""
    with MemoryStore() as store:
        yield store


class Page:
    """What an operator sees and clicks."""

    def __init__(self, browser: webdriver.Chrome, address: str) -> None:
        self._browser = browser
        browser.get("about:blank")
        browser.get_log("browser")  # type: ignore[no-untyped-call]  # those of the test before
        browser.get(address)

    def run(self, script: str) -> Any:
        return self._browser.execute_script(f"return {script}")

    def ids(self) -> list[str]:
        found: list[str] = self.run("[...document.querySelectorAll('.rows .id')].map((each) => each.textContent)")
        return found

    def text(self, selector: str) -> str:
        return str(self.run(f"document.querySelector({selector!r})?.textContent ?? ''"))

    def click(self, selector: str) -> None:
        self._browser.find_element(By.CSS_SELECTOR, selector).click()

    def follow_link(self, text: str) -> None:
        self._browser.find_element(By.LINK_TEXT, text).click()

    def choose(self, name: str, value: str) -> None:
        Select(self._browser.find_element(By.NAME, name)).select_by_visible_text(value)

    def until(self, selector: str, text: str) -> None:
        wait_until(lambda: text in self.text(selector), PATIENCE, f"{text!r} in {selector}")

    def errors(self) -> list[str]:
        """What the browser complained of, such as a breach of the policy."""
        entries = self._browser.get_log("browser")  # type: ignore[no-untyped-call]
        return [each["message"] for each in entries if "favicon" not in each["message"]]


def test_a_stream_is_found_followed_and_cancelled(
    context: ResumableStreamContext, address: str, browser: webdriver.Chrome
) -> None:
    ended(context, "older", b"x")
    feed = Feed("The first words. ")
    context.start("answer-1", feed, metadata={"team": "blue"})
    page = Page(browser, address)
    assert sorted(page.ids()) == ["answer-1", "older"]
    page.choose("status", "streaming")
    page.click(".filters button")
    wait_until(lambda: page.ids() == ["answer-1"], PATIENCE)
    page.follow_link("answer-1")
    page.until("#output", "The first words. ")
    page.until("#state", "live")
    feed.put("Then more, \u00fcber alles.")
    page.until("#output", "The first words. Then more, \u00fcber alles.")
    page.click("summary")  # asks first
    assert context.status("answer-1") is Status.STREAMING
    page.click("button.danger")
    page.until(".pill", "cancelled")
    page.until("#state", "ended: cancelled")
    assert context.status("answer-1") is Status.CANCELLED
    assert not page.errors()


def test_a_list_that_is_drawn_anew(
    context: ResumableStreamContext, address: str, browser: webdriver.Chrome
) -> None:
    page = Page(browser, address)
    assert page.ids() == []
    page.click("#refresh")
    ended(context, "new", b"x")
    wait_until(lambda: page.ids() == ["new"], PATIENCE)


def test_bytes_that_are_no_text_are_shown_as_hex(
    context: ResumableStreamContext, address: str, browser: webdriver.Chrome
) -> None:
    ended(context, "picture", bytes(range(40)))
    page = Page(browser, f"{address}/stream?id=picture")
    page.until("#state", "ended: done")
    page.until("#output", "00000010  10 11 12")
    page.click("input[value=text]")
    page.until("#output", " !\"#$%&'")
    page.click("input[value=hex]")
    page.until("#output", "00000020  20 21 22")


def test_a_stream_is_deleted(
    context: ResumableStreamContext, address: str, browser: webdriver.Chrome, store: Store
) -> None:
    ended(context, "s", b"x")
    page = Page(browser, f"{address}/stream?id=s")
    page.click("summary")
    page.click("button.danger")
    wait_until(lambda: page.ids() == [] and "None of 0" in page.text(".count"), PATIENCE)
    assert store.info("s") is None
    page = Page(browser, f"{address}/stream?id=s")
    assert "gone" in page.text("main")
