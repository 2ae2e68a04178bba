"""The responses without a server: what is checked when, what is refused how, what the headers say."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode
from wsgiref.validate import validator

import flask
import pytest

from resumable_sync import (
    MemoryStore,
    ProducerFailedError,
    ProducerInterruptedError,
    ResumableStreamContext,
    StoreUnavailableError,
    StreamCancelledError,
    StreamLostError,
)
from resumable_sync.wsgi import (
    ResponseAbortedError,
    StreamResponse,
    ViewerCap,
    resume_response,
    resume_sse_response,
    sse_response,
    stream_response,
)

from .support import Feed, call, ended, request, wait_until


def produce(context: ResumableStreamContext, stream_id: str, *chunks: bytes | str) -> str:
    """Store an ended stream; the cursor at its end."""
    for _ in context.run(stream_id, ended(*chunks)):
        pass
    info = context.info(stream_id)
    assert info is not None
    return info.cursor


def validated(application: Any, method: str, query: str = "", **headers: str) -> int:
    reply = call(validator(application), method, query, **headers)
    if method == "HEAD":
        assert reply.read() == b""
    else:
        reply.read()
    reply.close()
    return reply.status


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_passes_the_validator(context: ResumableStreamContext, method: str) -> None:
    end = produce(context, "ended", "text")
    assert validated(stream_response(context, "a", ended("x")), method) == 200
    assert validated(sse_response(context, "b", ended("x")), method) == 200
    assert validated(resume_response(context, "ended"), method) == 200
    assert validated(resume_response(context, "ended"), method, f"after={end}") == 200
    assert validated(resume_sse_response(context, "ended"), method) == 200
    assert validated(resume_sse_response(context, "ended"), method, f"after={end}") == 204
    assert validated(resume_response(context, "none"), method) == 404
    assert validated(resume_response(context, "not an id"), method) == 400
    assert validated(resume_response(context, "ended", after="1-0"), method) == 410


def test_bytes_as_they_are(context: ResumableStreamContext) -> None:
    source = ended(b"\x00\xff", "é", b"\r\n")
    reply = call(stream_response(context, "s", source, content_type="application/x-log"))
    assert reply.status == 200
    assert reply.read() == b"\x00\xff\xc3\xa9\r\n"
    assert reply.headers["content-type"] == "application/x-log"
    assert reply.headers["x-resumable-stream-id"] == "s"
    assert reply.headers["x-accel-buffering"] == "no"
    assert reply.headers["content-encoding"] == "identity"
    assert "no-store" in reply.headers["cache-control"]


def test_nothing_starts_before_the_call(context: ResumableStreamContext) -> None:
    feed = ended("x")
    response = stream_response(context, "s", feed)
    assert context.info("s") is None
    assert call(response).read() == b"x"
    assert call(stream_response(context, "s", feed)).read() == b"x"
    assert feed.started == 1


@pytest.mark.parametrize("make", [stream_response, sse_response])
def test_head_starts_nothing(context: ResumableStreamContext, make: Callable[..., StreamResponse]) -> None:
    feed = Feed()
    cap = ViewerCap(1)
    for response in (make(context, "s", feed, viewers=cap), make(context, "s", feed, environ=request("HEAD"))):
        reply = call(response, "HEAD")
        assert (reply.status, reply.read()) == (200, b"")
        assert reply.headers["x-resumable-status"] == "missing"
        assert reply.headers["x-resumable-stream-id"] == "s"
    assert context.info("s") is None and feed.started == 0 and cap.viewers == 0


def test_head_tells_whether_a_viewer_has_it_all(context: ResumableStreamContext) -> None:
    feed = Feed("hello")
    call(stream_response(context, "s", feed)).read_bytes(5)
    reply = call(resume_response(context, "s"), "HEAD")
    assert reply.headers["x-resumable-status"] == "streaming" and reply.headers["x-resumable-size"] == "5"
    assert "content-length" not in reply.headers
    feed.end()
    wait_until(lambda: context.status("s") == "done")
    reply = call(resume_response(context, "s"), "HEAD", query="after=" + cursor(context, "s", 2))
    assert reply.headers["x-resumable-status"] == "done"
    assert reply.headers["x-resumable-cursor"].endswith("-2")
    assert reply.headers["x-resumable-replay-length"] == reply.headers["content-length"] == "3"


def cursor(context: ResumableStreamContext, stream_id: str, offset: int) -> str:
    info = context.info(stream_id)
    assert info is not None
    return f"{info.generation}-{offset}"


def test_resume_from_every_byte(context: ResumableStreamContext) -> None:
    produce(context, "s", b"abc", b"defg", b"h")
    for offset in range(9):
        reply = call(resume_response(context, "s", after=cursor(context, "s", offset)))
        assert reply.read() == b"abcdefgh"[offset:]
        assert reply.headers["content-length"] == str(8 - offset)


def test_where_the_cursor_comes_from(context: ResumableStreamContext) -> None:
    produce(context, "s", b"abcdefgh")
    at = [cursor(context, "s", offset) for offset in range(9)]
    reply = call(resume_response(context, "s", after=at[1]), query=f"after={at[2]}", last_event_id=at[3])
    assert reply.read() == b"bcdefgh"
    assert call(resume_response(context, "s"), query=f"after={at[2]}", last_event_id=at[3]).read() == b"defgh"
    assert call(resume_response(context, "s"), query=f"after={at[2]}").read() == b"cdefgh"
    assert call(resume_response(context, "s", after=""), query=f"after={at[2]}").read() == b"abcdefgh"
    assert call(resume_response(context, "s"), last_event_id="-1").read() == b"abcdefgh"
    environ = request(query=f"after={at[4]}")
    assert b"".join(resume_response(context, "s", environ=environ)) == b"efgh"
    assert call(stream_response(context, "s", ended()), query=f"after={at[2]}").read() == b"abcdefgh"


@pytest.mark.parametrize(
    ("stream_id", "after", "status", "error"),
    [
        ("s", "x", 400, "invalid cursor"),
        ("s", "1--1", 400, "invalid cursor"),
        ("s", "-end", 400, "invalid cursor"),
        ("s", "1-" + "9" * 30, 400, "invalid cursor"),
        ("s", "{generation}-9", 400, "invalid cursor"),
        ("s", "1-1", 410, "stream lost"),
        ("none", "1-1", 404, "stream not found"),
        ("a b", "", 400, "invalid stream id"),
        ("a\r\nSet-Cookie: x", "", 400, "invalid stream id"),
        ("a" * 257, "", 400, "invalid stream id"),
    ],
)
@pytest.mark.parametrize("resume", [resume_response, resume_sse_response])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_refusals(
    context: ResumableStreamContext,
    resume: Callable[..., StreamResponse],
    method: str,
    stream_id: str,
    after: str,
    status: int,
    error: str,
) -> None:
    end = produce(context, "s", b"abcdefgh")
    after = after.replace("{generation}", end.split("-")[0])
    response = resume(context, stream_id, after=after, headers={"Access-Control-Allow-Origin": "*"})
    reply = call(response, method)
    assert reply.status == status
    body = reply.read()
    assert body == b"" if method == "HEAD" else json.loads(body) == {"error": error}
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["access-control-allow-origin"] == "*"


MALFORMED = [
    "-end",
    "-end-end",
    "{cursor}-end-end",
    "{cursor} end",
    "-1-end",
    "x",
    "1-",
    "-",
    "end",
    "\xff",
    "{cursor}-END",
]


@pytest.mark.parametrize("malformed", MALFORMED)
@pytest.mark.parametrize("door", ["header", "query", "after"])
def test_what_is_no_cursor_starts_nothing_and_ends_nothing(
    context: ResumableStreamContext, door: str, malformed: str
) -> None:
    """400 whichever way it comes, also where the stream is done: only a real cursor tells what was seen."""
    feed, end = Feed("a"), produce(context, "s", b"abcdefgh")
    given = malformed.replace("{cursor}", end)
    for stream_id in ("s", "fresh"):
        if door == "after":
            responses: list[Any] = [
                resume_response(context, stream_id, after=given),
                resume_sse_response(context, stream_id, after=given),
            ]
        else:
            responses = [
                resume_response(context, stream_id),
                resume_sse_response(context, stream_id),
                sse_response(context, stream_id, feed),
            ]
        for response in responses:
            for method in ("GET", "HEAD"):
                if door == "header":
                    reply = call(response, method, last_event_id=given)
                else:
                    reply = call(response, method, query=urlencode({"after": given}) if door == "query" else "")
                assert reply.status == 400, (response, method)
                assert method == "HEAD" or json.loads(reply.read()) == {"error": "invalid cursor"}
    assert feed.started == 0 and context.info("fresh") is None


def test_missing_is_404_unless_the_application_says_otherwise(context: ResumableStreamContext) -> None:
    assert call(resume_response(context, "none")).read() == b'{"error":"stream not found"}'
    reply = call(resume_response(context, "none", missing_response=flask.Response(status=204)))
    assert reply.status == 204
    response = resume_sse_response(context, "none", missing_response=flask.Response("gone", 418))
    assert (response.status_code, b"".join(response)) == (418, b"gone")
    with pytest.raises(RuntimeError, match="start_response"):
        call(resume_response(context, "none", missing_response=lambda environ, start_response: []))
    assert call(sse_response(context, "none", ended("x")), last_event_id="1-1").status == 404
    assert context.info("none") is None  # an EventSource that comes back too late starts nothing


def test_a_viewer_cap_refuses_before_the_election(context: ResumableStreamContext) -> None:
    cap = ViewerCap(1, retry_after=7)
    first = call(stream_response(context, "a", Feed("x"), viewers=cap))
    first.read_bytes(1)
    assert cap.viewers == 1
    feed = ended("y")
    reply = call(stream_response(context, "b", feed, viewers=cap))
    assert (reply.status, reply.headers["retry-after"]) == (503, "7")
    assert context.info("b") is None and feed.started == 0
    assert call(resume_sse_response(context, "a", viewers=cap)).status == 503
    first.close()
    assert cap.viewers == 0
    assert context.status("a") == "streaming"  # leaving stops nothing
    assert call(stream_response(context, "b", feed, viewers=cap)).read() == b"y"
    assert cap.viewers == 0


def test_every_way_out_gives_the_place_back(context: ResumableStreamContext) -> None:
    cap = ViewerCap(2)
    end = produce(context, "s", b"abc")
    for reply in (
        call(resume_response(context, "none", viewers=cap)),
        call(resume_response(context, "s", viewers=cap, after="1-1")),
        call(resume_sse_response(context, "s", viewers=cap, after=end)),
        call(resume_response(context, "s", viewers=cap), "HEAD"),
    ):
        assert cap.viewers == 0, reply.status
    unread = call(resume_response(context, "s", viewers=cap))
    assert cap.viewers == 1
    del unread
    gc.collect()
    assert cap.viewers == 0
    parts = resume_response(context, "s", viewers=cap)
    assert parts.status == "200 OK" and cap.viewers == 1
    parts.close()
    parts.close()
    assert cap.viewers == 0
    parts = resume_response(context, "s", viewers=cap)
    assert parts.status_code == 200
    assert call(parts, "HEAD").read() == b"" and cap.viewers == 0
    with pytest.raises(ValueError):
        call(stream_response(context, "t", ended("x"), viewers=cap, ttl=-1))
    assert cap.viewers == 0


@pytest.mark.parametrize("make", [stream_response, sse_response])
def test_unavailable_store(make: Callable[..., StreamResponse], caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    context = ResumableStreamContext(store)
    store.close()
    feed = Feed()
    reply = call(make(context, "s", feed))
    assert (reply.status, reply.headers["retry-after"]) == (503, "5")
    assert json.loads(reply.read()) == {"error": "stream store unavailable"}
    assert feed.started == 0 and "cannot be served" in caplog.text


def test_closed_context(context: ResumableStreamContext) -> None:
    produce(context, "s", b"abc")
    assert not context.closed
    context.close()
    assert context.closed
    assert call(resume_response(context, "s")).status == 503
    assert call(stream_response(context, "s", Feed())).status == 503


def test_full_store() -> None:
    store = MemoryStore(max_streams=1)
    with ResumableStreamContext(store) as context:
        produce(context, "a", b"x")
        reply = call(stream_response(context, "b", ended("x")))
        assert (reply.status, reply.headers["retry-after"]) == (503, "5")
    store.close()


def test_own_headers_cannot_be_overridden(context: ResumableStreamContext) -> None:
    headers = [("X-Resumable-Stream-Id", "evil"), ("x-resumable-SIZE", "77")]
    headers += [("Set-Cookie", "a"), ("Set-Cookie", "b")]
    reply = call(stream_response(context, "s", ended("x"), headers=headers))
    names = [name.lower() for name, _ in reply.pairs]
    assert reply.headers["x-resumable-stream-id"] == "s" and reply.headers["x-resumable-size"] != "77"
    assert names.count("x-resumable-stream-id") == 1 and names.count("set-cookie") == 2
    reply.read()
    headers = [("CONTENT-TYPE", "text/x"), ("cache-control", "private")]
    reply = call(stream_response(context, "s", ended("x"), headers=headers))
    assert reply.headers["content-type"] == "text/x" and reply.headers["cache-control"] == "private"
    assert len(reply.pairs) == len({name.lower() for name, _ in reply.pairs})
    reply = call(sse_response(context, "s", ended("x"), headers={"content-type": "text/x"}))
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"


@pytest.mark.parametrize(
    "pair",
    [
        ("Connection", "keep-alive"),
        ("TRANSFER-ENCODING", "chunked"),
        ("Content-Length", "3"),
        ("X-A", "b\r\nSet-Cookie: c"),
        ("X-A", "b\0"),
        ("X-A", "\u20ac"),
        ("X A", "b"),
        ("", "b"),
    ],
)
def test_headers_that_are_refused_at_once(context: ResumableStreamContext, pair: tuple[str, str]) -> None:
    makers: list[Callable[[], StreamResponse]] = [
        lambda: stream_response(context, "s", Feed(), headers=[pair]),
        lambda: sse_response(context, "s", Feed(), headers=dict([pair])),
        lambda: resume_response(context, "s", headers=[pair]),
        lambda: resume_sse_response(context, "s", headers=[pair]),
    ]
    for make in makers:
        with pytest.raises(ValueError):
            make()
    assert context.info("s") is None


@pytest.mark.parametrize(
    "options",
    [{"heartbeat": 0}, {"heartbeat": -1.0}, {"max_seconds": float("nan")}, {"encode": "x"}, {"retry": -1}],
)
def test_bad_options_are_refused_at_once(context: ResumableStreamContext, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        sse_response(context, "s", Feed(), **options)
    with pytest.raises(ValueError):
        ViewerCap(0)


def test_the_content_type_stays_with_the_stream(context: ResumableStreamContext) -> None:
    metadata = {"owner": "ann"}
    call(stream_response(context, "s", ended("x"), content_type="text/csv", metadata=metadata)).read()
    info = context.info("s")
    assert info is not None and info.metadata == {"owner": "ann", "content-type": "text/csv"}
    assert call(resume_response(context, "s")).headers["content-type"] == "text/csv"
    assert call(resume_response(context, "s", content_type="text/x")).headers["content-type"] == "text/x"
    produce(context, "plain", "x")
    assert call(resume_response(context, "plain")).headers["content-type"] == "application/octet-stream"


EVIL = "text/plain\r\nSet-Cookie: admin=1"


@pytest.mark.parametrize("content_type", [EVIL, "text/plain; title=\u20ac", "text/\0"])
def test_a_content_type_that_no_header_can_hold(context: ResumableStreamContext, content_type: str) -> None:
    with pytest.raises(ValueError):
        stream_response(context, "s", ended(b"x"), content_type=content_type)
    with pytest.raises(ValueError):
        stream_response(context, "s", ended(b"x"), metadata={"content-type": content_type})
    with pytest.raises(ValueError):
        resume_response(context, "s", content_type=content_type)
    # The context takes any metadata, and so may a store have done for another program.
    list(context.run("s", ended(b"x"), metadata={"content-type": content_type}))
    reply = call(resume_response(context, "s"))
    assert reply.headers["content-type"] == "application/octet-stream" and "set-cookie" not in reply.headers
    assert reply.read() == b"x"


def test_a_raw_response_returns_only_at_done(context: ResumableStreamContext) -> None:
    """The endings but `done` break the connection off: HTTP shows no other sign of them."""

    def fail() -> Any:
        yield b"abc"
        raise ValueError("secret")

    def aborted(reply: Any) -> BaseException | None:
        with pytest.raises(ResponseAbortedError) as caught:
            reply.read()
        assert isinstance(caught.value, ConnectionResetError)
        return caught.value.__cause__

    assert isinstance(aborted(call(stream_response(context, "failed", fail))), ProducerFailedError)
    reply = call(stream_response(context, "stopped", Feed(b"abc")))
    assert reply.read_bytes(3) == b"abc"
    context.cancel("stopped")
    assert isinstance(aborted(reply), StreamCancelledError)
    reply = call(stream_response(context, "lost", Feed(b"abc")))
    assert reply.read_bytes(3) == b"abc"
    context.delete("lost")
    assert isinstance(aborted(reply), StreamLostError)
    feed = Feed(b"abc")
    reply = call(stream_response(context, "shut", feed))
    assert reply.read_bytes(3) == b"abc"
    context.close()
    assert isinstance(aborted(reply), StoreUnavailableError)
    with ResumableStreamContext(context.store) as other:
        assert isinstance(aborted(call(resume_response(other, "shut"))), ProducerInterruptedError)


def test_a_raw_response_that_lasts_too_long_is_broken_off(context: ResumableStreamContext) -> None:
    reply = call(stream_response(context, "s", Feed(b"abc"), max_seconds=0.05, heartbeat=30))
    with pytest.raises(ResponseAbortedError):
        reply.read()
    assert context.status("s") == "streaming"


def test_heartbeat_bytes_come_between_chunks(context: ResumableStreamContext) -> None:
    feed = Feed(b"0:1\n")
    reply = call(stream_response(context, "s", feed, heartbeat=0.02, heartbeat_bytes=b"2:[]\n"))
    assert reply.read_until(b"2:[]\n2:[]\n").startswith(b"0:1\n")
    feed.put(b"0:2\n")
    assert reply.read_until(b"0:2\n").replace(b"2:[]\n", b"") == b"0:2\n"
    feed.end()
    assert reply.read().replace(b"2:[]\n", b"") == b""
    later = call(stream_response(context, "s", feed, heartbeat_bytes=b"2:[]\n"))
    assert "content-length" not in later.headers and later.read() == b"0:1\n0:2\n"


def test_parts_for_frameworks(context: ResumableStreamContext) -> None:
    response = stream_response(context, "s", ended("abc"), content_type="text/plain", environ=request())
    assert (response.status_code, response.status) == (200, "200 OK")
    assert dict(response.headers)["x-resumable-stream-id"] == "s"
    assert b"".join(response) == b"abc"
    response.close()


def test_flask_view(context: ResumableStreamContext) -> None:
    app = flask.Flask(__name__)
    feeds: dict[str, Feed] = {}

    @app.get("/stream/<stream_id>")
    def stream(stream_id: str) -> Any:
        return stream_response(context, stream_id, feeds.setdefault(stream_id, Feed()), content_type="text/plain")

    @app.get("/resume/<stream_id>")
    def resume(stream_id: str) -> Any:
        return resume_response(context, stream_id)

    client = app.test_client()
    assert client.head("/stream/a").status_code == 200
    assert feeds["a"].started == 0
    reply = client.get("/stream/a")  # returns although no byte was made yet
    assert reply.status_code == 200 and reply.headers["Content-Type"] == "text/plain"
    wait_until(lambda: feeds["a"].started == 1)
    feeds["a"].put("abc")
    feeds["a"].end()
    assert reply.data == b"abc"
    assert client.get("/resume/a", query_string={"after": cursor(context, "a", 1)}).data == b"bc"
    assert client.get("/resume/b").json == {"error": "stream not found"}
    assert client.head("/resume/a").headers["x-resumable-size"] == "3"
    reply.close()
