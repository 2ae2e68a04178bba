"""The page in a real browser: start, reload in the middle, a second tab, drop, stop, restart of the server."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from resumable_sync.demo.answers import own_text_source

from .conftest import Demo, until

WHOLE = (own_text_source(1.0).whole or b"").decode()
TEXT = " ".join(WHOLE.split()[:200])
"""What the tests stream that wait for the end."""


@pytest.fixture
def text_file(tmp_path: Path) -> str:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, "utf-8")
    return str(path)


class Page:
    """What a person sees and clicks."""

    def __init__(self, browser: webdriver.Chrome) -> None:
        self._browser = browser

    def open(self, url: str) -> None:
        self._browser.get("about:blank")  # so that an address that differs in its fragment loads anew
        self._browser.get(url)

    def click(self, name: str) -> None:
        self._browser.find_element(By.ID, name).click()

    def text(self, panel: str = "first") -> str:
        return str(self._browser.execute_script(f"return document.getElementById('{panel}-text').textContent"))

    def status(self, panel: str = "first") -> str:
        script = "return document.getElementById(arguments[0])?.dataset.status ?? ''"
        return str(self._browser.execute_script(script, f"{panel}-status"))

    def until_text(self, length: int, panel: str = "first") -> str:
        until(lambda: len(self.text(panel)) >= length, f"{length} characters in the {panel} panel")
        return self.text(panel)

    def until_status(self, wanted: str, panel: str = "first") -> None:
        until(lambda: self.status(panel) == wanted, f"{wanted} in the {panel} panel")

    def listed(self) -> list[str]:
        # Of one moment: the page draws its list anew all the time.
        script = "return [...document.querySelectorAll('#streams .pill')].map((pill) => pill.innerText)"
        return [str(text) for text in self._browser.execute_script(script)]

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self._browser.get_log("browser")]  # type: ignore[no-untyped-call]


@pytest.fixture
def page(browser: webdriver.Chrome) -> Page:
    page = Page(browser)
    browser.get("about:blank")
    page.complaints()  # those of the test before, whose server is gone
    return page


def _start(page: Page, demo: Demo, browser: webdriver.Chrome) -> str:
    page.open(demo.url)
    browser.execute_script("localStorage.clear()")
    page.open(demo.url)
    page.click("start")
    page.until_text(100)
    return str(browser.current_url)


def test_reload_in_the_middle_and_a_second_tab(
    run_demo: Callable[..., Demo], page: Page, browser: webdriver.Chrome, text_file: str
) -> None:
    demo = run_demo("--rate", "40", "--file", text_file)
    url = _start(page, demo, browser)
    page.open(url)  # a reload: the address names the stream
    before = page.until_text(200)
    assert TEXT.startswith(before) and len(before) < len(TEXT) and page.status() != "done"
    first_tab = browser.current_window_handle
    browser.switch_to.new_window("tab")
    page.open(url)
    page.until_status("done")
    assert page.text() == TEXT
    browser.close()
    browser.switch_to.window(first_tab)
    page.until_status("done")
    assert page.text() == TEXT
    page.open(demo.url)  # without the id: the browser remembers it
    page.until_status("done")
    assert page.text() == TEXT and page.listed() == ["done"]
    assert page.complaints() == []


def test_drop_reconnect_and_the_second_viewer(
    run_demo: Callable[..., Demo], page: Page, browser: webdriver.Chrome, text_file: str
) -> None:
    demo = run_demo("--rate", "40", "--file", text_file)
    _start(page, demo, browser)
    page.click("drop")
    page.until_status("dropped")
    kept = page.text()
    page.click("second")
    page.until_text(len(kept) + 100, "second")  # the producer went on
    assert page.text() == kept
    page.click("drop")
    for panel in ("first", "second"):
        page.until_status("done", panel)
        assert page.text(panel) == TEXT
    caught_up = browser.find_elements(By.CSS_SELECTOR, "#first-text .caught")
    assert len(caught_up) == 1 and caught_up[0].get_attribute("textContent")
    assert page.complaints() == []


def test_stop(run_demo: Callable[..., Demo], page: Page, browser: webdriver.Chrome) -> None:
    demo = run_demo("--rate", "20")
    _start(page, demo, browser)
    page.click("second")
    page.until_text(50, "second")
    page.click("stop")
    page.until_status("cancelled")
    page.until_status("cancelled", "second")
    assert WHOLE.startswith(page.text()) and page.text() == page.text("second") != WHOLE
    until(lambda: page.listed() == ["stopped"], "the list says so")
    assert not browser.find_element(By.ID, "stop").is_enabled()
    assert page.complaints() == []


def test_a_killed_server_is_survived(run_demo: Callable[..., Demo], page: Page, browser: webdriver.Chrome) -> None:
    demo = run_demo("--rate", "20")
    _start(page, demo, browser)
    demo.end(signal.SIGKILL)
    page.until_status("retrying")
    received = page.text()
    demo.start()
    page.until_status("interrupted")
    assert WHOLE.startswith(page.text()) and page.text().startswith(received)
    page.click("start")
    page.until_status("streaming")
    until(lambda: sorted(page.listed()) == ["interrupted", "running"], "both are listed")
