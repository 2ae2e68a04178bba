"""PUT: what is created, what is found as asked for, what is refused; and HEAD, which shows it."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from resumable_sync.contract import Store
from resumable_sync.stores.base import MAX_TTL
from resumable_sync.stores.memory import MemoryStore

from .support import Client, client, read_all

FAR = "2099-01-01T00:00:00Z"


@pytest.fixture
def ask(store: Store) -> Client:
    return client(store)


def test_what_a_creation_answers(ask: Client) -> None:
    reply = ask("PUT", "a", b"one", {"Content-Type": "Text/Plain; charset=utf-8", "Host": "example.com:8"})
    assert reply.status == 201 and reply.data == b""
    assert reply.headers["location"] == "http://example.com:8/a"
    assert reply.headers["content-type"] == "Text/Plain; charset=utf-8"
    assert "stream-closed" not in reply.headers
    assert reply.offset == ask.head("a").offset
    assert read_all(ask, "a") == b"one"


@pytest.mark.parametrize("host", ["", "a b", "evil\r\nx: y", "x" * 300])
def test_a_location_is_absolute_whatever_the_host_says(host: str) -> None:
    ask = client(MemoryStore())
    reply = ask("PUT", "a:b/c d", None, {"Host": host})
    assert reply.status == 400  # a blank is in no id
    assert ask("PUT", "a:b", None, {"Host": host}).headers["location"] == "http://127.0.0.1:80/a:b"


def test_without_a_content_type_it_is_bytes(ask: Client) -> None:
    assert ask("PUT", "a").headers["content-type"] == "application/octet-stream"
    assert (
        ask("PUT", "b", None, {"Content-Type": "nonsense"}).headers["content-type"] == "application/octet-stream"
    )
    assert ask("PUT", "a", None, {"Content-Type": "application/octet-stream"}).status == 200


SAME: list[tuple[dict[str, str], dict[str, str]]] = [
    ({}, {}),
    ({"Content_Type": "text/plain"}, {"Content_Type": "TEXT/plain;charset=latin-1"}),
    ({"Stream_TTL": "60"}, {"Stream_TTL": "60"}),
    ({"Stream_Expires_At": "2099-01-01T00:00:00Z"}, {"Stream_Expires_At": "2099-01-01T02:00:00.000+02:00"}),
    ({"Stream_Closed": "true"}, {"Stream_Closed": "TRUE"}),
    ({"Stream_Closed": "false"}, {}),
]
OTHER: list[tuple[dict[str, str], dict[str, str]]] = [
    ({}, {"Content_Type": "text/html"}),
    ({}, {"Stream_TTL": "60"}),
    ({"Stream_TTL": "60"}, {}),
    ({"Stream_TTL": "60"}, {"Stream_TTL": "61"}),
    ({"Stream_TTL": "60"}, {"Stream_Expires_At": FAR}),
    ({"Stream_Expires_At": FAR}, {"Stream_Expires_At": "2099-01-01T00:00:00.1Z"}),
    ({"Stream_Closed": "true"}, {}),
    ({}, {"Stream_Closed": "true"}),
    ({}, {"Stream_Forked_From": "/source"}),
]


@pytest.mark.parametrize("first, second", SAME)
def test_the_same_again(ask: Client, first: dict[str, str], second: dict[str, str]) -> None:
    made = ask.put("a", "one", **first)
    again = ask.put("a", "two", **second)
    assert (made.status, again.status) == (201, 200)
    assert again.headers["content-type"] == made.headers["content-type"] and again.offset == made.offset
    assert again.headers.get("stream-closed") == made.headers.get("stream-closed")
    assert read_all(ask, "a") == b"one"


@pytest.mark.parametrize("first, second", OTHER)
def test_another_configuration(ask: Client, first: dict[str, str], second: dict[str, str]) -> None:
    assert ask.put("source").status == ask.put("a", **first).status == 201
    assert ask.put("a", **second).status == 409


def test_a_stream_that_was_closed_since_is_another(ask: Client) -> None:
    ask.put("a")
    ask("POST", "a", None, {"Stream-Closed": "true"})
    refused = ask.put("a")
    assert refused.status == 409 and refused.headers["stream-closed"] == "true"
    assert ask.put("a", Stream_Closed="true").status == 200


BAD: list[dict[str, str]] = [
    {"Stream_TTL": "60", "Stream_Expires_At": FAR},
    *({"Stream_TTL": text} for text in ("", "01", "+1", "-1", "1.5", "1e3", "x", "9" * 101, "６")),
    *(
        {"Stream_Expires_At": text}
        for text in (
            "",
            "tomorrow",
            "2099-01-01",
            "2099-01-01T00:00:00",
            "2099-02-30T00:00:00Z",
            "2099-01-01T24:00:00Z",
            "2099-01-01T00:00:00+24:00",
            "0000-01-01T00:00:00Z",
            "2099-01-01T00:00:00Zx",
        )
    ),
    {"Stream_Fork_Offset": "-1"},
    {"Stream_Fork_Sub_Offset": "0"},
    *({"Stream_Forked_From": text} for text in ("", "relative", "http://other/x", "/ä", "/", "/a b")),
    *(
        {"Stream_Forked_From": "/source", "Stream_Fork_Sub_Offset": text}
        for text in ("", "01", "-1", "x", "1" * 30)
    ),
    *(
        {"Stream_Forked_From": "/source", "Stream_Fork_Offset": text}
        for text in ("", "1", "now", "9" * 16 + "_" + "9" * 16)
    ),
]


@pytest.mark.parametrize("headers", BAD, ids=str)
def test_malformed_headers_create_nothing(headers: dict[str, str]) -> None:
    ask = client(MemoryStore())
    ask.put("source", "abc")
    assert ask.put("a", **headers).status == 400
    assert ask.head("a").status == 404


@pytest.mark.parametrize("body", ["{", "[1,]", "NaN"])
def test_a_body_that_is_no_json_creates_nothing(ask: Client, body: str) -> None:
    assert ask.put("a", body, Content_Type="application/json").status == 400
    assert ask.head("a").status == 404


def test_json_of_a_creation(ask: Client) -> None:
    assert ask.put("empty", "[]", Content_Type="application/json").status == 201
    assert read_all(ask, "empty") == b"[]"
    assert ask.put("a", "[1, [2]]", Content_Type="application/json").status == 201
    assert read_all(ask, "a") == b"[1,[2]]"


def test_head_shows_what_was_asked_for(ask: Client) -> None:
    ask.put("ttl", Stream_TTL="3600")
    ask.put("at", Stream_Expires_At=FAR, Stream_Closed="true")
    ttl, at = ask.head("ttl"), ask.head("at")
    assert ttl.status == at.status == 200 and ttl.data == b""
    assert ttl.headers["stream-ttl"] == "3600" and "stream-closed" not in ttl.headers
    assert at.headers["stream-expires-at"] == FAR and at.headers["stream-closed"] == "true"
    assert ttl.headers["cache-control"] == "no-store"
    assert ask.head("none").status == 404


def test_lives(store: Store) -> None:
    ask = client(store)
    ask.put("forever")
    ask.put("huge", Stream_TTL="9" * 100)
    ask.put("until", Stream_Expires_At=FAR)
    ask.put("past", Stream_Expires_At="1999-01-01T00:00:00Z")
    lives = {name: _life(store, name) for name in ("forever", "huge", "until")}
    assert lives["forever"] == lives["huge"] == (MAX_TTL, True)
    assert lives["until"][0] < 100 * 366 * 86400 and not lives["until"][1]
    assert client(store, default_ttl=50.0).put("mine").status == 201
    assert _life(store, "mine") == (50.0, True)


def _life(store: Store, name: str) -> tuple[float, bool]:
    info = store.info(name)
    assert info is not None
    return info.ttl, info.sliding


def test_of_equal_creations_one_wins(store: Store) -> None:
    apps = [client(store), client(store)]
    statuses: list[int] = []
    barrier = threading.Barrier(8)

    def create(number: int) -> None:
        barrier.wait()
        statuses.append(apps[number % 2].put("a", "once").status)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] * 7 + [201]
    assert read_all(apps[0], "a") == b"once"


@pytest.mark.parametrize(
    "limit, status", [("max_streams", 503), ("max_chunk_bytes", 413), ("max_stream_bytes", 413)]
)
def test_limits_of_the_store(backend: Any, limit: str, status: int) -> None:
    store = backend.make(**{limit: 1 if limit == "max_streams" else 100})
    ask = client(store)
    assert ask.put("a").status == 201
    reply = ask.put("b", '["%s"]' % ("x" * 200), Content_Type="application/json")
    assert reply.status == status
    assert ("retry-after" in reply.headers) == (status == 503)
    assert ask.head("b").status == 404
    store.close()
