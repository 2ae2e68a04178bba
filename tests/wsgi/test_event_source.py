"""The page with an EventSource of the package's docstring, in a browser."""

from __future__ import annotations

import textwrap
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from selenium import webdriver
from werkzeug.serving import make_server

import resumable_sync.wsgi
from resumable_sync import ResumableStreamContext
from resumable_sync.wsgi import resume_sse_response

from ..support import wait_until
from .support import Feed

Open = Callable[[str], None]


def page() -> str:
    """The lines of the docstring, from the first tag to the end of the script."""
    text = resumable_sync.wsgi.__doc__ or ""
    begin, end = text.index("    <pre"), text.index("</script>")
    return textwrap.dedent(text[begin : end + len("</script>")])


@pytest.fixture
def show(context: ResumableStreamContext, browser: webdriver.Chrome) -> Iterator[Open]:
    """Has the browser open the page of a stream; it comes back from a cut after 50 ms."""
    app = Flask(__name__)

    @app.get("/<stream_id>")
    def html(stream_id: str) -> str:
        return f"<!doctype html>{page().replace('/answers/7', f'/answers/{stream_id}')}"

    @app.get("/answers/<stream_id>")
    def answer(stream_id: str) -> Any:
        return resume_sse_response(context, stream_id, retry=0.05)

    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield lambda stream_id: browser.get(f"http://127.0.0.1:{server.port}/{stream_id}")
    browser.get("about:blank")
    server.shutdown()
    thread.join()
    server.server_close()


def test_it_has_fifteen_lines() -> None:
    assert len(page().splitlines()) <= 17  # with the tags of its script


def test_every_event(context: ResumableStreamContext, show: Open, browser: webdriver.Chrome) -> None:
    def text(name: str) -> str:
        return str(browser.execute_script("return document.getElementById(arguments[0]).textContent", name))

    def ends_as(told: str) -> None:
        wait_until(lambda: text("state") == told, 20, told)

    feed = Feed("half of it, ")
    context.start("done", feed)
    show("done")
    ends_as("live")
    feed.put("and the rest")
    feed.end()
    ends_as("done")
    assert text("answer") == "half of it, and the rest"

    failing = Feed("half")
    failing.end(ValueError("secret"))
    context.start("failed", failing)
    show("failed")
    ends_as("error: An error occurred.")
    assert text("answer") == "half"

    stopped = Feed("half")
    context.start("stopped", stopped)
    show("stopped")
    ends_as("live")
    context.cancel("stopped")
    ends_as("cancelled")

    with ResumableStreamContext(context.store) as going:
        going.start("interrupted", Feed("half"))
        show("interrupted")
        ends_as("live")
    ends_as("interrupted")

    lost = Feed("half")
    context.start("lost", lost)
    show("lost")
    ends_as("live")
    context.delete("lost")
    wait_until(lambda: text("state").startswith("lost"), 20)
    lost.end()

    show("none")
    ends_as("refused, or there is no such answer")
