"""The page with an EventSource of the package's docstring, in a browser."""

from __future__ import annotations

import textwrap
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, request
from selenium import webdriver

import resumable_sync.wsgi
from resumable_sync import ResumableStreamContext
from resumable_sync.contract import Status
from resumable_sync.wsgi import resume_sse_response

from ..support import wait_until
from .servers import serving
from .support import Feed

PATIENCE = 20.0


class Turnstile:
    """Lets requests pass, or holds them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()  # guards both fields
        self._shut = False
        self._held = 0

    def enter(self) -> None:
        with self._changed:
            self._held += 1
            passed = self._changed.wait_for(lambda: not self._shut, PATIENCE)
            self._held -= 1
        assert passed

    def shut(self) -> None:
        with self._changed:
            self._shut = True

    def open(self) -> None:
        with self._changed:
            self._shut = False
            self._changed.notify_all()

    def held(self) -> int:
        with self._changed:
            return self._held


class Page:
    """The page of a stream in the browser. `turnstile`: what its EventSource's requests pass."""

    def __init__(self, browser: webdriver.Chrome, address: str, turnstile: Turnstile) -> None:
        self._browser = browser
        self._address = address
        self.turnstile = turnstile

    def show(self, path: str) -> None:
        self._browser.get(f"{self._address}/{path}")

    def text(self, name: str) -> str:
        return str(self._browser.execute_script("return document.getElementById(arguments[0]).textContent", name))

    def tells(self, told: str) -> None:
        wait_until(lambda: self.text("state") == told, PATIENCE, told)


def page() -> str:
    """The lines of the docstring, from the first tag to the end of the script."""
    text = resumable_sync.wsgi.__doc__ or ""
    begin, end = text.index("    <pre"), text.index("</script>")
    return textwrap.dedent(text[begin : end + len("</script>")])


@pytest.fixture
def opened(context: ResumableStreamContext, browser: webdriver.Chrome) -> Iterator[Page]:
    """It comes back from a cut after 50 ms. Answers whose id begins with `cut` are cut again and again."""
    app = Flask(__name__)
    turnstile = Turnstile()

    @app.get("/<stream_id>")
    def html(stream_id: str) -> str:
        return f"<!doctype html>{page().replace('/answers/7', f'/answers/{stream_id}')}"

    @app.get("/answers/<stream_id>")
    def answer(stream_id: str) -> Any:
        if request.method == "GET":
            turnstile.enter()
        cut: Any = {"max_seconds": 0.2, "heartbeat": 0.05} if stream_id.startswith("cut") else {}
        return resume_sse_response(context, stream_id, retry=0.05, **cut)

    with serving("werkzeug", app) as port:
        yield Page(browser, f"http://127.0.0.1:{port}", turnstile)
        turnstile.open()
        browser.get("about:blank")


def test_it_has_fifteen_lines() -> None:
    assert len(page().splitlines()) <= 17  # with the tags of its script


def test_every_event(context: ResumableStreamContext, opened: Page) -> None:
    feed = Feed("half of it, ")
    context.start("done", feed)
    opened.show("done")
    opened.tells("live")
    feed.put("and the rest")
    feed.end()
    opened.tells("done")
    assert opened.text("answer") == "half of it, and the rest"

    failing = Feed("half")
    failing.end(ValueError("secret"))
    context.start("failed", failing)
    opened.show("failed")
    opened.tells("error: An error occurred.")
    assert opened.text("answer") == "half"

    stopped = Feed("half")
    context.start("stopped", stopped)
    opened.show("stopped")
    opened.tells("live")
    context.cancel("stopped")
    opened.tells("cancelled")

    with ResumableStreamContext(context.store) as going:
        going.start("interrupted", Feed("half"))
        opened.show("interrupted")
        opened.tells("live")
    opened.tells("interrupted")

    lost = Feed("half")
    context.start("lost", lost)
    opened.show("lost")
    opened.tells("live")
    context.delete("lost")
    opened.tells("lost")
    lost.end()

    opened.show("none")
    opened.tells("there is no such answer")


def begin_and_cut(context: ResumableStreamContext, opened: Page, stream_id: str, **options: Any) -> Feed:
    """A stream whose page has shown all there is, was cut, and is on its way back: held at the turnstile."""
    feed = Feed("half of it, ")
    context.start(stream_id, feed, **options)
    opened.show(stream_id)
    opened.tells("live")
    opened.turnstile.shut()
    wait_until(lambda: opened.turnstile.held() == 1, PATIENCE)
    opened.tells("reconnecting")
    assert opened.text("answer") == "half of it, "
    return feed


def test_a_cut_is_mended(context: ResumableStreamContext, opened: Page) -> None:
    feed = begin_and_cut(context, opened, "cut")
    feed.put("and the rest")
    opened.turnstile.open()
    wait_until(lambda: opened.text("answer") == "half of it, and the rest", PATIENCE)
    feed.end()
    opened.tells("done")
    assert opened.text("answer") == "half of it, and the rest"


@pytest.mark.parametrize("first", ["half of it, ", ""])
def test_it_ends_as_done_while_the_page_is_cut(context: ResumableStreamContext, opened: Page, first: str) -> None:
    """Nothing is left to send, and EventSource is told so by 204, which it keeps to itself."""
    if first:
        feed = begin_and_cut(context, opened, "cut")
    else:
        feed = Feed()
        context.start("cut", feed)
        opened.show("cut")
        opened.tells("live")
        opened.turnstile.shut()
        wait_until(lambda: opened.turnstile.held() == 1, PATIENCE)
    feed.end()
    wait_until(lambda: context.status("cut") is Status.DONE, PATIENCE)
    opened.turnstile.open()
    opened.tells("done")
    assert opened.text("answer") == first


def test_it_is_begun_anew_while_the_page_is_cut(context: ResumableStreamContext, opened: Page) -> None:
    begin_and_cut(context, opened, "cut").end()
    context.delete("cut")
    context.start("cut", Feed("another life"))
    opened.turnstile.open()
    opened.tells("lost")
    assert opened.text("answer") == "half of it, "


def test_it_expires_while_the_page_is_cut(context: ResumableStreamContext, opened: Page) -> None:
    begin_and_cut(context, opened, "cut", ttl=1).end(ValueError("secret"))
    wait_until(lambda: context.status("cut") is Status.MISSING, PATIENCE)
    opened.turnstile.open()
    opened.tells("there is no such answer")
