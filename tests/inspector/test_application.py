"""What the inspector answers, on every store: lists, pages, events, changes, and who may have them."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from resumable_sync import ResumableStreamContext, Status
from resumable_sync.inspector import Inspector
from resumable_sync.wsgi import ViewerCap

from ..assistant.http.support import call
from ..wsgi.support import Feed, wait_until
from .conftest import OWN, Guard, ended, get, listed, post

HOSTILE = "<script>alert('&\"')</script>"


def test_a_list_and_its_filters(context: ResumableStreamContext, inspector: Inspector) -> None:
    ended(context, "build-1", b"abc", metadata={"team": "blue", "kind": "log"})
    ended(context, "build-2", b"", metadata={"team": "red"})
    ended(context, "chat-1", b"x" * 2048)
    with context.writer("chat-2") as writer:
        writer.write(b"half")
        assert sorted(listed(get(inspector).read())) == ["build-1", "build-2", "chat-1", "chat-2"]
        assert sorted(listed(get(inspector, prefix="build-").read())) == ["build-1", "build-2"]
        assert listed(get(inspector, status="streaming").read()) == ["chat-2"]
        assert listed(get(inspector, metadata=["team=blue", "kind=log"]).read()) == ["build-1"]
        assert listed(get(inspector, metadata=["team=blue", "kind=none"]).read()) == []
        page = get(inspector, prefix="chat-", status="done").read().decode()
        assert listed(page.encode()) == ["chat-1"] and "1 to 1 of 1 stream<" in page and "2.0 KiB" in page
        assert "<option selected>done</option>" in page and 'value="chat-"' in page


def test_pages_of_a_list(context: ResumableStreamContext, guard: Guard) -> None:
    names = [f"s{number}" for number in range(7)]
    for name in names:
        ended(context, name, b"x")
    inspector = Inspector(context, authorize=guard, per_page=3)
    found = []
    for number in (1, 2, 3):
        page = get(inspector, page=str(number), prefix="s").read()
        found += listed(page)
        assert f"Page {number} of 3" in page.decode()
        assert (b'rel="next"' in page, b'rel="prev"' in page) == (number < 3, number > 1)
    assert sorted(found) == names
    assert b"None of 7 streams" in get(inspector, page="9").read()
    newest = get(inspector, order="newest").read()
    assert listed(newest) == names[:3:-1] and b"order=newest&amp;page=2" in newest
    assert listed(get(inspector, order="newest", page="3").read()) == names[:1]
    short = Inspector(context, authorize=guard, per_page=3, scan_limit=5)
    assert b"1 to 3 of more than 5 streams" in get(short).read()
    exact = Inspector(context, authorize=guard, scan_limit=7)
    assert b"1 to 7 of 7 streams" in get(exact).read()


def test_a_list_as_json(context: ResumableStreamContext, inspector: Inspector) -> None:
    ended(context, "older", b"abc", metadata={"team": "blue"})
    ended(context, "newer", b"")
    reply = get(inspector, "/list.json", order="newest")
    assert reply.headers["content-type"] == "application/json"
    found = json.loads(reply.read())
    assert (found["count"], found["whole"], found["page"]) == (2, True, 1)
    assert [stream["id"] for stream in found["streams"]] == ["newer", "older"]
    older = found["streams"][1]
    assert (older["status"], older["size"], older["metadata"]) == ("done", 3, {"team": "blue"})
    (blue,) = json.loads(get(inspector, "/list.json", metadata="team=blue").read())["streams"]
    assert blue == older


def test_records_of_the_library_are_not_there(context: ResumableStreamContext, inspector: Inspector) -> None:
    store: Any = context.store
    assert store.create("chat.secret", b"x")
    assert listed(get(inspector).read()) == []
    for path in ("/stream", "/events"):
        assert get(inspector, path, id="chat.secret").status == 404
    for path in ("/cancel", "/delete"):
        assert post(inspector, path, "chat.secret").status == 404
    assert store.info("chat.secret") is not None


def test_what_others_wrote_is_escaped(context: ResumableStreamContext, inspector: Inspector) -> None:
    def fails() -> Any:
        yield b"x"
        raise ValueError(HOSTILE)

    context.start("bad", fails, metadata={HOSTILE: HOSTILE, "turned": "\u202egnp.exe"})
    wait_until(lambda: context.status("bad").ended)
    for page in (get(inspector), get(inspector, "/stream", id="bad"), get(inspector, prefix=HOSTILE)):
        shown = page.read().decode()
        assert "<script>alert" not in shown and "&lt;script&gt;" in shown and "\u202e" not in shown
        assert page.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
    assert "ValueError" in get(inspector, "/stream", id="bad").read().decode()


@pytest.mark.parametrize("stream_id", [".", "..", "a:b.c-d_", "x" * 200])
def test_any_id_has_a_page(context: ResumableStreamContext, inspector: Inspector, stream_id: str) -> None:
    ended(context, stream_id, b"abc")
    page = get(inspector, "/stream", id=stream_id)
    assert page.status == 200 and stream_id in page.read().decode()
    assert listed(get(inspector).read()) == [stream_id]


def test_the_bytes_as_events(context: ResumableStreamContext, inspector: Inspector) -> None:
    data = bytes(range(256))
    ended(context, "s", data[:100], data[100:])
    events = get(inspector, "/events", id="s").events()
    assert b"".join(base64.b64decode(each.data) for each in events if each.event == "message") == data
    assert events[-1].event == "end"
    page = get(inspector, "/stream", id="s").read().decode()
    info = context.info("s")
    assert info is not None and f"/events?id=s&amp;after={info.generation}-0" in page


def test_a_long_stream_is_followed_from_its_tail(context: ResumableStreamContext, inspector: Inspector) -> None:
    ended(context, "s", b"x" * 100_000)
    page = get(inspector, "/stream", id="s").read().decode()
    assert f'-{100_000 - 64 * 1024}"' in page and "left out" in page


def test_who_follows_counts(context: ResumableStreamContext, guard: Guard) -> None:
    feed = Feed(b"x")
    inspector = Inspector(context, authorize=guard, viewers=ViewerCap(1))
    context.start("s", feed)
    first = get(inspector, "/events", id="s")
    first.read_until(b"data:")
    refused = get(inspector, "/events", id="s")
    assert refused.status == 503 and "retry-after" in refused.headers
    refused.close()
    first.close()
    again = get(inspector, "/events", id="s")
    assert again.status == 200
    feed.end()
    again.read()
    again.close()


def test_cancel(context: ResumableStreamContext, inspector: Inspector) -> None:
    context.start("s", Feed(b"x"))
    assert "Cancel it" in get(inspector, "/stream", id="s").read().decode()
    done = post(inspector, "/cancel", "s")
    assert (done.status, done.headers["location"]) == (303, "/stream?id=s")
    assert context.status("s") is Status.CANCELLED
    page = get(inspector, "/stream", id="s").read().decode()
    assert "Cancel it" not in page and "Delete it" in page
    assert post(inspector, "/cancel", "s").status == 303  # twice does no harm


def test_delete(context: ResumableStreamContext, inspector: Inspector) -> None:
    ended(context, "s", b"x")
    done = post(inspector, "/delete", "s")
    assert (done.status, done.headers["location"]) == (303, "/")
    assert context.info("s") is None and get(inspector, "/stream", id="s").status == 404


FOREIGN: list[dict[str, str]] = [
    {"host": "ops.example.com", "origin": "https://evil.example"},
    {"host": "ops.example.com", "origin": "null"},
    {"host": "ops.example.com", "origin": "https://ops.example.com:8443"},
    {"host": "ops.example.com", "origin": "https://ops.example.com:port"},
    {"host": "ops.example.com", "sec_fetch_site": "cross-site"},
    {"host": "ops.example.com", "sec_fetch_site": "same-site", "origin": "https://ops.example.com"},
    {"host": "ops.example.com", "sec_fetch_site": "none"},
    {"host": "ops.example.com"},
]


@pytest.mark.parametrize("path", ["/cancel", "/delete"])
@pytest.mark.parametrize("headers", FOREIGN, ids=range(len(FOREIGN)))
def test_other_sites_change_nothing(path: str, headers: dict[str, str]) -> None:
    from resumable_sync import MemoryStore

    guard = Guard()
    with MemoryStore() as store, ResumableStreamContext(store) as context:
        context.start("s", Feed(b"x"))
        assert post(Inspector(context, authorize=guard), path, "s", **headers).status == 403
        assert context.status("s") is Status.STREAMING and guard.asked == []
        for method in ("GET", "HEAD", "PUT", "DELETE"):
            refused = get(Inspector(context, authorize=guard), path, method, id="s")
            assert refused.status == 405 and refused.headers["allow"] == "POST"


def test_a_proxy_that_hides_the_host(context: ResumableStreamContext, guard: Guard) -> None:
    inspector = Inspector(context, authorize=guard, origins=["https://ops.example.com"])
    ended(context, "s", b"x")
    assert post(inspector, "/delete", "s", host="10.0.0.7:8000", origin="https://other.example").status == 403
    assert post(inspector, "/delete", "s", host="10.0.0.7:8000", origin="https://ops.example.com").status == 303


def test_who_may(context: ResumableStreamContext, inspector: Inspector, guard: Guard) -> None:
    feed = Feed(b"x")
    context.start("s", feed)
    guard.refused = {"follow", "cancel", "delete"}
    page = get(inspector, "/stream", id="s").read().decode()
    assert "Cancel" not in page and "Delete" not in page and 'id="output"' not in page
    assert guard.asked == [("view", "s"), ("follow", "s"), ("cancel", "s"), ("delete", "s")]
    guard.refused |= {"list", "view"}
    assert [get(inspector, path, id="s").status for path in ("/", "/list.json", "/stream")] == [403, 403, 403]
    assert get(inspector, "/events", id="s").status == 403
    assert [post(inspector, path, "s").status for path in ("/cancel", "/delete")] == [403, 403]
    # Whether there is such a stream is told to nobody who may not see it.
    assert get(inspector, "/stream", id="none").status == 403
    assert context.status("s") is Status.STREAMING
    for asset in ("/inspector.css", "/inspector.js", "/inspector.svg"):
        assert get(inspector, asset).status == 200
    feed.end()


def test_authorize_is_demanded(context: ResumableStreamContext) -> None:
    with pytest.raises(TypeError):
        Inspector(context)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="authorize"):
        Inspector(context, authorize=None)  # type: ignore[arg-type]
    for wrong in ({"origins": "https://a.example"}, {"per_page": 0}, {"scan_limit": 0}):
        with pytest.raises(ValueError):
            Inspector(context, authorize=Guard(), **wrong)


WRONG: list[tuple[str, dict[str, str], int]] = [
    ("/", {"page": "0"}, 400),
    ("/", {"page": "-1"}, 400),
    ("/", {"page": "1" * 5000}, 400),
    ("/", {"page": "\u0663"}, 400),
    ("/", {"status": "missing"}, 400),
    ("/", {"order": "oldest"}, 400),
    ("/list.json", {"page": "none"}, 400),
    ("/", {"status": "nonsense"}, 400),
    ("/", {"metadata": "no equals sign"}, 400),
    ("/stream", {}, 404),
    ("/stream", {"id": "a b"}, 404),
    ("/stream", {"id": "\x00"}, 404),
    ("/stream", {"id": "x" * 5000}, 404),
    ("/stream", {"id": "none"}, 404),
    ("/events", {"id": "none"}, 404),
    ("/../inspector/guard.py", {}, 404),
    ("/inspector.py", {}, 404),
    ("//", {}, 404),
]


@pytest.mark.parametrize(("path", "query", "status"), WRONG, ids=range(len(WRONG)))
def test_bad_requests(path: str, query: dict[str, str], status: int) -> None:
    from resumable_sync import MemoryStore

    with MemoryStore() as store, ResumableStreamContext(store) as context:
        inspector = Inspector(context, authorize=Guard())
        reply = get(inspector, path, **query)
        assert reply.status == status and reply.read()


def test_surrogates_in_a_query_are_shown(context: ResumableStreamContext, inspector: Inspector) -> None:
    for query in ("prefix=%ED%A0%80", "metadata=a%3D%ED%A0%80", "prefix=%FF"):
        reply = call(inspector, "GET", "/", query=query)
        assert reply.status == 200 and reply.read().decode("utf-8")


def test_head(context: ResumableStreamContext, inspector: Inspector) -> None:
    ended(context, "s", b"x")
    for path, query in (("/", {}), ("/stream", {"id": "s"}), ("/inspector.css", {})):
        whole, head = get(inspector, path, **query), get(inspector, path, "HEAD", **query)
        assert head.status == 200 and head.read() == b""
        assert head.headers["content-type"] == whole.headers["content-type"]


def test_below_a_prefix(context: ResumableStreamContext, inspector: Inspector) -> None:
    ended(context, "s", b"x")
    mounted = DispatcherMiddleware(Inspector(context, authorize=Guard()), {"/ops/streams": inspector})
    page = get(mounted, "/ops/streams/").read().decode()
    assert 'href="/ops/streams/inspector.css"' in page and 'href="/ops/streams/stream?id=s"' in page
    assert 'action="/ops/streams/"' in page
    assert post(mounted, "/ops/streams/delete", "s", **OWN).headers["location"] == "/ops/streams/"
    assert get(mounted, "/ops/streams").status == 200  # without the last slash: all addresses are whole


@pytest.mark.parametrize("script_name", ["//evil.example", '/"><script>', "/a b", "/\u00fc"])
def test_no_prefix_gets_out_of_its_place(script_name: str) -> None:
    from resumable_sync import MemoryStore

    with MemoryStore() as store, ResumableStreamContext(store) as context:
        inspector = Inspector(context, authorize=Guard())

        def mounted(environ: Any, start_response: Any) -> Any:
            return inspector({**environ, "SCRIPT_NAME": script_name}, start_response)

        page = get(mounted).read().decode()
        assert "<script>" not in page.replace("<script src=", "") and '="//' not in page


def test_a_closed_store_is_told(context: ResumableStreamContext, inspector: Inspector) -> None:
    context.store.close()
    reply = get(inspector)
    assert reply.status == 503 and b"The store refused" in reply.read()
