"""A full house that an EventSource survives: `ViewerCap(…, event_source=True)`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pytest

from resumable_sync import ResumableStreamContext
from resumable_sync.sse import EventParser
from resumable_sync.wsgi import (
    ViewerCap,
    resume_response,
    resume_sse_response,
    several_sse_response,
    sse_response,
    stream_response,
)

from ..support import PATIENCE, wait_until
from .servers import serving
from .support import Feed, Reply, call, ended

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from selenium import webdriver


def turned_away(reply: Reply) -> bool:
    """Whether this is the answer to come back to, with nothing in it that a client would take for more."""
    if reply.status != 200:
        return False
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert "no-store" in reply.headers["cache-control"] and reply.headers["access-control-allow-origin"] == "*"
    assert {"x-resumable-cursor", "x-resumable-status"}.isdisjoint(reply.headers)
    assert reply.headers["retry-after"] == "7"
    body = reply.read()
    assert len(body) == int(reply.headers["content-length"])
    lines = body.split(b"\n")
    assert lines.pop() == b"" and all(line.startswith((b":", b"retry: ")) for line in lines)
    parser = EventParser()
    assert parser.feed(body) == [] and not parser.pending
    assert (parser.retry, parser.last_event_id) == (7.0, "")
    return True


def test_who_comes_too_many_is_to_come_back(context: ResumableStreamContext) -> None:
    cap = ViewerCap(1, retry_after=7, event_source=True)
    cors = {"Access-Control-Allow-Origin": "*", "Content-Type": "text/html"}
    place = cap.enter()
    assert place is not None
    feed = ended("x")
    assert turned_away(call(sse_response(context, "s", feed, viewers=cap, headers=cors)))
    wait_until(lambda: context.status("s") == "done")  # it was begun: who comes back finds it
    assert turned_away(call(sse_response(context, "s", feed, viewers=cap, headers=cors)))
    info = context.info("s")
    assert info is not None and feed.started == 1
    half = f"{info.generation}-0"
    assert turned_away(call(sse_response(context, "s", feed, viewers=cap, headers=cors), last_event_id=half))
    assert turned_away(call(sse_response(context, "t", feed, viewers=cap, headers=cors), last_event_id=half))
    assert context.info("t") is None  # only what a viewer without a cursor asks for is begun
    assert turned_away(call(resume_sse_response(context, "s", viewers=cap, headers=cors)))
    assert turned_away(call(resume_sse_response(context, "t", viewers=cap, headers=cors, wait=PATIENCE)))
    assert turned_away(call(several_sse_response(context, ["s", "t"], viewers=cap, headers=cors)))
    for raw in (stream_response(context, "t", feed, viewers=cap), resume_response(context, "s", viewers=cap)):
        reply = call(raw)
        assert (reply.status, reply.headers["retry-after"]) == (503, "7")
    assert context.info("t") is None and cap.viewers == 1
    assert call(sse_response(context, "no id", feed, viewers=cap)).status == 400
    assert call(resume_sse_response(context, "s", viewers=cap, after="x")).status == 400
    place.release()
    assert [each.event for each in call(sse_response(context, "s", feed, viewers=cap)).events()] == [
        "message",
        "end",
    ]
    assert cap.viewers == 0


def test_what_cannot_be_begun_is_refused_as_ever(context: ResumableStreamContext) -> None:
    cap = ViewerCap(1, event_source=True)
    place = cap.enter()
    context.close()
    assert call(sse_response(context, "s", ended("x"), viewers=cap)).status == 503
    assert place is not None and cap.viewers == 1
    with pytest.raises(ValueError, match="retry_after"):
        ViewerCap(1, retry_after=0, event_source=True)


PAGE = b"""<!doctype html><link rel="icon" href="data:,"><script>
  const source = new EventSource("/s");
  let seen = "", end = null;
  source.onmessage = (event) => { seen += event.data; };
  source.addEventListener("end", (event) => { end = JSON.parse(event.data).status; source.close(); });
</script>"""


def test_an_event_source_comes_back_by_itself(context: ResumableStreamContext, browser: webdriver.Chrome) -> None:
    """At its begin, and in the middle, where it keeps the cursor over several such answers."""
    cap = ViewerCap(1, retry_after=1, event_source=True)
    feed = Feed()
    asked: list[str] = []

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/s":
            start_response("200 OK", [("Content-Type", "text/html")])
            return [PAGE]
        asked.append(environ.get("HTTP_LAST_EVENT_ID", ""))
        return sse_response(context, "s", feed, viewers=cap, retry=0.5, max_seconds=0.1, heartbeat=0.1)(
            environ, start_response
        )

    place = cap.enter()
    assert place is not None
    with serving("werkzeug", application) as port:
        browser.get(f"http://127.0.0.1:{port}/")
        wait_until(lambda: len(asked) == 1)
        wait_until(lambda: feed.started == 1)
        assert browser.execute_script("return source.readyState !== EventSource.CLOSED")
        feed.put("begun ")
        place.release()
        wait_until(lambda: browser.execute_script("return seen") == "begun ")
        wait_until(lambda: cap.viewers == 0)  # after max_seconds; half a second later it comes back
        while (place := cap.enter()) is None:
            wait_until(lambda: cap.viewers == 0)
        full = len(asked)
        wait_until(lambda: len(asked) > full)
        info = context.info("s")
        feed.put("and ended")
        feed.end()
        place.release()
        wait_until(lambda: browser.execute_script("return end") == "done")
        assert info is not None and len(asked) >= full + 2 and set(asked[full:]) == {info.cursor}
        assert browser.execute_script("return seen") == "begun and ended" and feed.started == 1
        context.close()
