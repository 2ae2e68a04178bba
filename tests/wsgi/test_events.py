"""Server-sent events: ids, the mark where live begins, the ending in band, exactness over cuts."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resumable_sync import MemoryStore, ResumableStreamContext
from resumable_sync.sse import HEARTBEAT, Event, EventParser, format_event, parse_events
from resumable_sync.wsgi import resume_sse_response, sse_response

from .support import Feed, Reply, call, ended, wait_until


def chunks(events: list[Event]) -> list[str]:
    return [event.data for event in events if event.event == "message"]


def ending(events: list[Event]) -> dict[str, str]:
    assert events[-1].event == "end" and [event.event for event in events].count("end") == 1
    fields = json.loads(events[-1].data)
    assert events[-1].id == fields["cursor"] + "-end"
    assert isinstance(fields, dict)
    return fields


def test_one_event_per_chunk_with_the_cursor_after_it(context: ResumableStreamContext) -> None:
    reply = call(sse_response(context, "s", ended("one ", "two\nlines", "ü")))
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert "content-length" not in reply.headers
    body = reply.read()
    events = list(parse_events([body]))
    assert chunks(events) == ["one ", "two\nlines", "ü"]
    assert [e.id.split("-")[1] for e in events if e.event == "message"] == ["4", "13", "15"]
    assert ending(events)["status"] == "done"
    assert body.count(b"retry:") == 1 and re.match(rb"retry: 2000\nid: ", body)


def test_live_is_marked_once_where_replay_ends(context: ResumableStreamContext) -> None:
    feed = Feed("a", "b")
    first = call(sse_response(context, "s", feed))
    first.read_until(b"data: b")
    reply = call(resume_sse_response(context, "s"))
    replay = list(parse_events([reply.read_until(b"event: live")]))
    assert [event.event for event in replay] == ["message", "message", "live"]
    assert json.loads(replay[-1].data) == {"cursor": replay[-1].id, "size": 2}
    feed.put("c")
    reply.read_until(b"data: c")
    feed.end()
    assert [event.event for event in reply.events()] == ["end"]


def test_live_comes_at_once_when_there_is_nothing_to_replay(context: ResumableStreamContext) -> None:
    reply = call(sse_response(context, "s", Feed()))
    assert b"event: live" in reply.read_until(b"\n\n")


def test_an_ended_stream_has_no_live_mark(context: ResumableStreamContext) -> None:
    call(sse_response(context, "s", ended("a"))).read()
    assert [event.event for event in call(resume_sse_response(context, "s")).events()] == ["message", "end"]


def test_every_ending_is_in_band(context: ResumableStreamContext) -> None:
    def failing() -> Iterator[str]:
        yield "abc"
        raise ValueError("secret")

    def followed(stream_id: str) -> Reply:
        reply = call(sse_response(context, stream_id, Feed("abc")))
        reply.read_until(b"data: abc")
        return reply

    events = call(sse_response(context, "failed", failing)).events()
    assert ending(events) == {"status": "error", "cursor": events[-1].id[:-4], "error": "An error occurred."}
    assert "secret" not in str(events)
    events = call(resume_sse_response(context, "failed", format_error=str)).events()
    assert ending(events)["error"] == "ValueError: secret"
    reply = followed("cancelled")
    context.cancel("cancelled")
    assert ending(reply.events())["status"] == "cancelled"
    reply = followed("lost")
    context.delete("lost")
    assert ending(reply.events())["status"] == "lost"
    reply = followed("interrupted")
    context.close()
    assert reply.events() == []  # this process can say no more about it: the viewer comes back elsewhere
    with ResumableStreamContext(context.store) as other:
        assert ending(call(resume_sse_response(other, "interrupted")).events())["status"] == "interrupted"


@pytest.mark.parametrize(
    "format_error",
    [lambda error: str(1 / 0), lambda error: b"bytes", lambda error: None],
    ids=["raises", "bytes", "none"],
)
def test_a_format_error_that_fails_says_nothing(
    context: ResumableStreamContext, caplog: pytest.LogCaptureFixture, format_error: Any
) -> None:
    def failing() -> Iterator[str]:
        raise ValueError("secret")
        yield ""

    events = call(sse_response(context, "s", failing, format_error=format_error)).events()
    assert ending(events)["error"] == "An error occurred." and "format_error raised" in caplog.text


def test_204_once_everything_was_seen(context: ResumableStreamContext) -> None:
    events = call(sse_response(context, "s", ended("abc"))).events()
    for seen in (events[-1].id, ending(events)["cursor"]):
        reply = call(sse_response(context, "s", ended("abc")), last_event_id=seen)
        assert (reply.status, reply.read()) == (204, b"")
        assert "content-type" not in reply.headers


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_empty_answer_is_told_its_ending(context: ResumableStreamContext, method: str) -> None:
    """However quick the source was: a viewer without a cursor has seen nothing yet, not even the ending."""
    nothing = ended()
    call(sse_response(context, "s", nothing)).read()
    for came in ("", "-1"):
        for response in (sse_response(context, "s", nothing), resume_sse_response(context, "s")):
            reply = call(response, method, last_event_id=came)
            assert reply.status == 200
            assert method == "HEAD" or ending(reply.events())["status"] == "done"
    info = context.info("s")
    assert info is not None and nothing.started == 1
    for seen in (info.cursor, info.cursor + "-end"):
        assert call(resume_sse_response(context, "s"), method, last_event_id=seen).status == 204


def test_204_needs_the_ending_to_be_seen_unless_it_is_done(context: ResumableStreamContext) -> None:
    """Cut between the last chunk and the ending, a viewer comes back and still learns that it is no `done`."""
    reply = call(sse_response(context, "s", Feed("abc")))
    last = list(parse_events([reply.read_until(b"data: abc\n\n")]))[-1]
    context.cancel("s")
    reply.close()
    again = call(resume_sse_response(context, "s"), last_event_id=last.id)
    assert again.status == 200
    events = again.events()
    assert ending(events)["status"] == "cancelled"
    assert call(resume_sse_response(context, "s"), last_event_id=events[-1].id).status == 204
    context.delete("s")
    assert call(resume_sse_response(context, "s"), last_event_id=events[-1].id).status == 404


def test_heartbeats_are_comments_between_events(context: ResumableStreamContext) -> None:
    feed = Feed()
    reply = call(sse_response(context, "s", feed, heartbeat=0.02))
    body = reply.read_until(HEARTBEAT + HEARTBEAT)
    feed.put("abc")
    feed.end()
    body += reply.read()
    assert chunks(list(parse_events([body]))) == ["abc"]
    assert b"\n\n\n" not in body.replace(HEARTBEAT, b"")


def test_max_seconds_ends_without_an_ending(context: ResumableStreamContext) -> None:
    feed = Feed("abc")
    reply = call(sse_response(context, "s", feed, max_seconds=0.05))
    events = reply.events()
    assert chunks(events) == ["abc"] and events[-1].event != "end"
    feed.put("def")
    feed.end()
    again = call(sse_response(context, "s", feed), last_event_id=events[-1].id)
    assert chunks(again.events()) == ["def"] and feed.started == 1


def test_what_is_not_text_ends_in_error_and_is_exact_as_base64(
    context: ResumableStreamContext, caplog: pytest.LogCaptureFixture
) -> None:
    data = [b"good", b"\xff\xfe", b"\0\r\n\r"]
    events = call(sse_response(context, "s", ended(*data))).events()
    assert chunks(events) == ["good"] and "base64" in caplog.text
    assert ending(events)["status"] == "error" and ending(events)["cursor"].endswith("-4")
    assert call(resume_sse_response(context, "s"), last_event_id=events[-1].id).status == 204
    events = call(resume_sse_response(context, "s", encode="base64")).events()
    assert [base64.b64decode(text) for text in chunks(events)] == data
    torn = call(sse_response(context, "torn", ended("ab", "é".encode()[:1]))).events()
    assert chunks(torn) == ["ab"] and ending(torn)["status"] == "error"
    events = call(resume_sse_response(context, "s", errors="replace")).events()
    assert chunks(events) == ["good", "\ufffd\ufffd", "\0\n", "\n"] and ending(events)["cursor"].endswith("-10")
    torn = call(resume_sse_response(context, "torn", errors="replace")).events()
    assert chunks(torn) == ["ab", "\ufffd"] and ending(torn)["cursor"].endswith("-3")
    with pytest.raises(ValueError, match="strict or replace"):
        resume_sse_response(context, "s", errors="ignore")


def test_what_a_broken_stream_held_back(context: ResumableStreamContext) -> None:
    """A line end that waited for its second half goes out with the ending; a torn character stays behind."""
    half = "é".encode()[:1]
    for stream_id, last, shown, errors in (
        ("line", b"b\r", "ab\n", "strict"),
        ("torn", b"b" + half, "ab", "strict"),
        ("both", b"b\r" + half, "ab\n", "strict"),
        ("replaced", b"b\r" + half, "ab\n", "replace"),
    ):
        reply = call(sse_response(context, stream_id, Feed("a", last), errors=errors))
        begin = reply.read_until(b"data: b")
        context.cancel(stream_id)
        events = list(parse_events([begin + reply.read()]))
        assert "".join(chunks(events)) == shown
        assert ending(events)["status"] == "cancelled"
        assert ending(events)["cursor"].split("-")[1] == str(len(shown))


def test_a_torn_line_end_is_one_line_end(context: ResumableStreamContext) -> None:
    events = call(sse_response(context, "s", ended("a\r", "\nb\r", "c\r\n", "\r"))).events()
    assert "".join(chunks(events)) == "a\nb\nc\n\n"
    assert ending(events)["cursor"].endswith("-9")


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.text("é\r\n\u2028€😀", max_size=20)


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_what_is_not_text_may_be_replaced(data: st.DataObject) -> None:
    """As if all had been decoded at once, however it is cut; each cursor is a position in the stream's own bytes,
    at which a viewer that comes back goes on."""
    valid = TEXT.map(str.encode)
    parts = valid | st.binary(max_size=4) | valid.map(lambda each: each[1:-1])
    raw = b"".join(data.draw(st.lists(parts, max_size=6)))
    bounds = sorted(data.draw(st.sets(st.integers(0, len(raw)), max_size=8)) | {0, len(raw)})
    pieces = [raw[begin:end] for begin, end in zip(bounds, bounds[1:])]
    encode = data.draw(st.sampled_from(["text", "json"]))
    decode = str if encode == "text" else json.loads

    def shown(part: bytes) -> str:
        text = part.decode("utf-8", "replace")
        return text.replace("\r\n", "\n").replace("\r", "\n") if encode == "text" else text

    with MemoryStore() as store, ResumableStreamContext(store) as context:
        events = call(sse_response(context, "s", ended(*pieces), encode=encode, errors="replace")).events()
        assert ending(events)["status"] == "done" and ending(events)["cursor"].endswith(f"-{len(raw)}")
        found = ""
        for event in (event for event in events if event.event == "message"):
            found += decode(event.data)
            offset = int(event.id.partition("-")[2])
            assert found == shown(raw[:offset])
            again = call(
                resume_sse_response(context, "s", encode=encode, errors="replace"), last_event_id=event.id
            )
            rest = again.events() if again.status == 200 else []
            assert found + "".join(map(decode, chunks(rest))) == shown(raw)
        assert found == shown(raw)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_chunks_any_cuts_exact_text(data: st.DataObject) -> None:
    """Chunks torn inside characters, responses cut at any byte and resumed from the last whole event's id."""
    text = data.draw(TEXT)
    raw = text.encode()
    bounds = sorted(data.draw(st.sets(st.integers(0, len(raw)), max_size=8)) | {0, len(raw)})
    pieces = [raw[begin:end] for begin, end in zip(bounds, bounds[1:])]
    encode = data.draw(st.sampled_from(["text", "json", "base64"]))
    store = MemoryStore()
    with ResumableStreamContext(store, read_bytes=data.draw(st.integers(1, 50))) as context:
        for _ in context.run("s", ended(*pieces)):
            pass
        found: list[str] = []
        last = ""
        for _ in range(200):
            reply = call(resume_sse_response(context, "s", encode=encode), last_event_id=last)
            if reply.status == 204:
                break
            body = reply.read()
            cut = data.draw(st.integers(0, len(body)) | st.just(len(body)))
            for event in parse_events([body[:cut]]):
                last = event.id
                if event.event == "message":
                    found.append(event.data)
        else:
            # No luck with the cuts: what was found so far must be a prefix, and the rest must follow.
            found += chunks(call(resume_sse_response(context, "s", encode=encode), last_event_id=last).events())
    store.close()
    if encode == "text":
        assert "".join(found) == text.replace("\r\n", "\n").replace("\r", "\n")
    elif encode == "json":
        assert "".join(map(json.loads, found)) == text
    else:
        assert b"".join(map(base64.b64decode, found)) == raw


def test_a_gone_viewer_of_a_long_stream_is_not_written_to(context: ResumableStreamContext) -> None:
    feed = Feed("abc")
    reply = call(sse_response(context, "s", feed))
    reply.read_until(b"data: abc")
    reply.close()
    with pytest.raises(StopIteration):
        next(iter(reply.body))
    feed.put("def")
    feed.end()
    wait_until(lambda: context.status("s") == "done")


def test_a_client_reconnects_behind_the_last_complete_event() -> None:
    """G1: the id of an event stands before its data; a connection cut between them has delivered nothing of it."""
    parser = EventParser()
    parser.feed(format_event("one", event_id="7-3") + format_event("two", event_id="7-6")[:-2])
    assert parser.last_event_id == "7-3"
    assert [event.id for event in parser.feed(b"\n\n")] == ["7-6"]
    assert parser.last_event_id == "7-6"
