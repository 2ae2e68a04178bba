"""Who may do what, which ids there are, and what other origins' pages get."""

from __future__ import annotations

import io
from typing import Any

import pytest

from resumable_sync import MemoryStore, ResumableStreamContext
from resumable_sync.contract import Store
from resumable_sync.durable import DurableStreamsApp

from .support import TEXT, Client, client, everybody, read_all


def test_without_authorize_a_namespace_is_demanded_and_nothing_can_be_written(store: Store) -> None:
    context = ResumableStreamContext(store)
    for namespace in ("", "public", "a b.", "chat.", "x" * 300 + "."):
        with pytest.raises(ValueError):
            DurableStreamsApp(context, namespace=namespace)
    writer = client(store)
    writer.put("public.a", "open")
    writer.put("secret", "closed")
    ask = Client(DurableStreamsApp(context, namespace="public."))
    assert read_all(ask, "a") == b"open"
    assert ask.get("secret").status == ask.get("../secret").status == 404
    for reply in (
        ask.put("b"),
        ask.post("a", "x"),
        ask.delete("a"),
        ask("POST", "a", None, {"Stream-Closed": "true"}),
    ):
        assert reply.status == 403
    assert read_all(writer, "public.a") == b"open" and writer.head("public.b").status == 404


def test_what_authorize_is_asked(store: Store) -> None:
    asked: list[tuple[str, str]] = []

    def authorize(environ: Any, stream_id: str, action: str) -> bool:
        asked.append((action, stream_id))
        return True

    ask = client(store, authorize=authorize, namespace="n.")
    ask.put("a/b")
    ask.put("f", Stream_Forked_From="/a%2Fb")
    ask.post("a/b", "x")
    ask.post("a/b", "x", Stream_Closed="true")
    ask("POST", "f", None, {"Stream-Closed": "true"})
    for method in ("GET", "HEAD", "DELETE"):
        ask(method, "a:b")
    assert asked == [
        ("create", "n.a:b"),
        ("create", "n.f"),
        ("read", "n.a:b"),
        ("append", "n.a:b"),
        ("append", "n.a:b"),
        ("close", "n.a:b"),
        ("close", "n.f"),
        ("read", "n.a:b"),
        ("read", "n.a:b"),
        ("delete", "n.a:b"),
    ]


@pytest.mark.parametrize("action", ["read", "create", "append", "close", "delete"])
def test_what_is_not_allowed_changes_nothing(store: Store, action: str) -> None:
    def authorize(environ: Any, stream_id: str, wanted: str) -> bool:
        return wanted != action

    root = client(store)
    root.put("a", "x")
    ask = client(store, authorize=authorize)
    requests: dict[str, list[tuple[str, bytes | None, dict[str, str]]]] = {
        "read": [("GET", None, {}), ("HEAD", None, {})],
        "create": [("PUT", None, {})],
        "append": [("POST", b"x", {}), ("POST", b"x", {"Stream-Closed": "true"})],
        "close": [("POST", None, {"Stream-Closed": "true"}), ("POST", b"x", {"Stream-Closed": "true"})],
        "delete": [("DELETE", None, {})],
    }
    for method, body, headers in requests[action]:
        assert ask(method, "a", body, {**TEXT, **headers}).status == 403
    if action == "read":
        assert ask.put("fork", Stream_Forked_From="/a").status == 403
        assert root.head("fork").status == 404
    assert root.post("a", "y").status == 204
    assert read_all(root, "a") == b"xy"


def test_a_body_is_not_read_for_those_who_may_not_append(store: Store) -> None:
    ask = client(store, authorize=lambda environ, stream_id, action: action == "close")
    assert ask("POST", "a", b"x", {"Stream-Closed": "true"}, {"wsgi.input": None}).status == 403
    hidden = {"wsgi.input_terminated": True}  # a body that no header announces
    client(store).put("a")
    assert (
        ask(
            "POST", "a", None, {"Stream-Closed": "true", **TEXT}, {**hidden, "wsgi.input": io.BytesIO(b"x")}
        ).status
        == 403
    )
    assert read_all(client(store), "a") == b""


def test_authorize_may_answer_itself(store: Store) -> None:
    def login(environ: Any, start_response: Any) -> list[bytes]:
        start_response("401 Unauthorized", [("WWW-Authenticate", "Bearer")])
        return [b"who?"]

    ask = client(store, authorize=lambda environ, stream_id, action: login, cors_origins=["https://a.example"])
    reply = ask.get("a", Origin="https://a.example")
    assert (reply.status, reply.data) == (401, b"who?")
    assert reply.headers["www-authenticate"] == "Bearer"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["access-control-allow-origin"] == "https://a.example"


@pytest.mark.parametrize("path", ["a b", "ä", "x" * 257, "a\x00", "", "chat.1", "a/%2e"])
@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "DELETE", "HEAD"])
def test_ids_that_are_none(path: str, method: str) -> None:
    ask = client(MemoryStore())
    assert ask(method, path, b"x", TEXT).status == 400


def test_paths() -> None:
    ask = client(MemoryStore(), prefix="/v1/stream")
    assert ask.put("v1/stream/a/b").status == 201
    assert ask.put("v1/stream/a:b").status == 200
    assert ask.put("v1/stream/c", Stream_Forked_From="/v1/stream/a%2Fb").status == 201
    assert ask.put("v1/stream/d", Stream_Forked_From="/other/a:b").status == 400
    for path in ("v1/streams/a", "v1", "", "v1/stream"):
        assert ask.get(path).status == 404
    assert ask.get("v1/stream/__ds/subscriptions").status == 501
    assert ask("PATCH", "v1/stream/a").status == 405
    mounted = ask("PUT", "v1/stream/e", None, {"Stream-Forked-From": "/app/v1/stream/c"}, {"SCRIPT_NAME": "/app"})
    assert mounted.status == 201 and mounted.headers["location"].endswith("/app/v1/stream/e")


def test_ids_by_a_function_of_ones_own() -> None:
    store = MemoryStore()
    ask = client(store, stream_id=lambda name: name.removeprefix("room-") if name.startswith("room-") else "!")
    assert ask.put("room-7").status == 201 and store.info("7") is not None
    assert ask.put("7").status == 400


def test_cross_origin(store: Store) -> None:
    closed = client(store)
    assert "access-control-allow-origin" not in closed.get("a", Origin="https://a.example").headers
    assert closed.get("a").headers["cross-origin-resource-policy"] == "same-origin"
    some = client(store, cors_origins=["https://a.example"], cors_credentials=True)
    mine = some.get("a", Origin="https://a.example")
    assert mine.headers["access-control-allow-credentials"] == "true" and mine.headers["vary"] == "Origin"
    assert "Stream-Next-Offset" in mine.headers["access-control-expose-headers"]
    assert "access-control-allow-origin" not in some.get("a", Origin="https://b.example").headers
    with pytest.raises(ValueError):
        client(store, cors_origins="*", cors_credentials=True)
    everyone = client(store, cors_origins="*")
    preflight = everyone("OPTIONS", "a", headers={"Origin": "https://b.example"})
    assert preflight.status == 204 and preflight.headers["access-control-allow-origin"] == "*"
    allowed = preflight.headers["access-control-allow-headers"].split(", ")
    assert {"If-None-Match", "Producer-Id", "Stream-Seq", "Stream-Forked-From"} <= set(allowed)
    assert [name for name, _ in preflight.pairs].count("Access-Control-Allow-Origin") == 1


def test_every_answer_is_marked(store: Store) -> None:
    ask = client(store)
    ask.put("a")
    replies = [ask.get("a"), ask.get("none"), ask.get("a?offset=x"), ask("PATCH", "a"), ask("OPTIONS", "a")]
    for reply in [*replies, ask.head("a"), ask.post("a", "x"), ask.put("a"), ask.delete("a")]:
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert "cross-origin-resource-policy" in reply.headers


@pytest.mark.parametrize(
    "option",
    [
        {"long_poll_seconds": 0},
        {"sse_seconds": float("inf")},
        {"max_body_bytes": 0},
        {"read_bytes": 1.5},
        {"max_writers": 1001},
        {"max_fork_bytes": -1},
        {"default_ttl": 0},
        {"cache_control": "a\r\nb"},
    ],
    ids=str,
)
def test_options_that_are_none(option: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        DurableStreamsApp(ResumableStreamContext(MemoryStore()), authorize=everybody, **option)
