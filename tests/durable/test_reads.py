"""GET: offsets, pieces, entity tags, and the streams that a context produces."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resumable_sync import ResumableStreamContext
from resumable_sync.contract import Status, Store
from resumable_sync.durable import DurableStreamsApp
from resumable_sync.stores.memory import MemoryStore

from ..support import wait_until
from .support import JSON, Client, client, everybody, read_all

START = "0" * 16 + "_" + "0" * 16


@pytest.fixture
def ask(store: Store) -> Client:
    return client(store)


def test_the_whole_and_the_rest(ask: Client) -> None:
    middle = ask.put("s", "one").offset
    tail = ask.post("s", "two").offset
    for query in ("", "?offset=-1", f"?offset={START}", "?unknown=1"):
        reply = ask.get(f"s{query}")
        assert (reply.status, reply.data, reply.offset) == (200, b"onetwo", tail)
        assert reply.headers["stream-up-to-date"] == "true" and "stream-closed" not in reply.headers
        assert reply.headers["content-length"] == "6" and reply.headers["cache-control"] == "private, no-cache"
    assert ask.get(f"s?offset={middle}").data == b"two"
    assert middle < tail
    for query in (f"?offset={tail}", "?offset=now"):
        reply = ask.get(f"s{query}")
        assert (reply.status, reply.data, reply.offset) == (200, b"", tail)
        assert reply.headers["stream-up-to-date"] == "true"
    now = ask.get("s?offset=now")
    assert now.headers["cache-control"] == "no-store" and "etag" not in now.headers


def test_pieces(store: Store) -> None:
    ask = client(store, read_bytes=10)
    ask.put("s")
    for number in range(10):
        ask.post("s", f"{number}" * 4)
    ask("POST", "s", None, {"Stream-Closed": "true"})
    part = ask.get("s")
    assert len(part.data) >= 10 and "stream-up-to-date" not in part.headers and "stream-closed" not in part.headers
    assert read_all(ask, "s") == b"".join(b"%d" % number * 4 for number in range(10))
    assert ask.get(f"s?offset={ask.head('s').offset}").headers["stream-closed"] == "true"


@given(st.lists(st.text("abc1", min_size=1, max_size=4), min_size=1, max_size=6), st.integers(1, 9))
def test_json_is_read_in_whole_messages(words: list[str], read_bytes: int) -> None:
    store = MemoryStore()
    ask = client(store, read_bytes=read_bytes)
    ask.put("s", None, **{"Content_Type": "application/json"})
    boundaries = {0}
    for word in words:
        ask("POST", "s", f'["{word}"]', JSON)
        boundaries.add(int(ask.head("s").offset[17:]))
    lineage, found, offset = ask.head("s").offset[:16], list[str](), "-1"
    while True:
        reply = ask.get(f"s?offset={offset}")
        found += reply.json
        offset = reply.offset
        if "stream-up-to-date" in reply.headers:
            break
    assert found == words
    for at in range(max(boundaries) + 2):
        reply = ask.get(f"s?offset={lineage}_{at:016d}")
        assert reply.status == (200 if at in boundaries else 400)
    store.close()


@pytest.mark.parametrize(
    "query",
    [
        "offset=",
        "offset=x",
        "offset=-1&offset=-1",
        "live=sse",
        "live=long-poll",
        "offset=-1&live=x",
        "offset=-1&live=",
    ]
    + ["offset=-1&live=sse&live=sse", "offset=" + "9" * 16 + "_" + "9" * 16, "&".join("a=1" for _ in range(200))]
    + ["offset=%00", "offset=-1%20", "offset=" + "1" * 5000],
    ids=lambda query: query[:40],
)
def test_malformed_queries(query: str) -> None:
    ask = client(MemoryStore())
    ask.put("s", "x")
    assert ask.get(f"s?{query}").status == 400


def test_offsets_that_are_not_the_streams(ask: Client) -> None:
    tail = ask.put("s", "abc").offset
    beyond = f"{tail[:16]}_{4:016d}"
    assert ask.get(f"s?offset={beyond}").status == 400
    ask.delete("s")
    assert ask.get(f"s?offset={tail}").status == 404
    ask.put("s", "defghi")
    for query in ("", "&live=long-poll", "&live=sse"):
        assert ask.get(f"s?offset={tail}{query}").status == 410
    assert ask.get(f"s?offset={START}").data == b"defghi"


def test_what_a_process_remembers_does_not_deceive_it(store: Store) -> None:
    one, other = client(store), client(store)
    tail = one.put("s", "abc").offset
    assert one.get(f"s?offset={tail}").status == 200
    other.delete("s")
    other.put("s", "[1]", **{"Content_Type": "application/json"})
    assert one.get("s").data == b"[1]"
    assert one.get(f"s?offset={tail}").status == 410
    fresh = other.post("s", "2", Content_Type="application/json").offset
    assert one.get(f"s?offset={fresh}").data == b"[]"


def test_entity_tags(ask: Client) -> None:
    ask.put("s", "abc")
    tag = ask.get("s").headers["etag"]
    for header in (tag, f'"x", W/{tag}', "*"):
        same = ask.get("s", If_None_Match=header)
        assert same.status == 304 and same.data == b"" and same.headers["etag"] == tag
        assert "content-type" not in same.headers and "content-length" not in same.headers
    assert ask.get("s", If_None_Match='"other"').status == 200
    ask("POST", "s", None, {"Stream-Closed": "true"})
    closed = ask.get("s", If_None_Match=tag)
    assert closed.status == 200 and closed.headers["etag"] != tag


def test_a_life_is_renewed_by_readers_and_writers_but_not_by_head(store: Store) -> None:
    """Compared by what the store says: nothing is waited for."""
    touched: list[str] = []

    ask, other = client(store), client(store)
    ask.put("s", "x", Stream_TTL="3600")
    kind: Any = type(store)
    original = kind.touch

    def touch(self: Any, stream_id: str) -> bool:
        touched.append(stream_id)
        return bool(original(self, stream_id))

    patch = pytest.MonkeyPatch()
    with patch.context() as patched:
        patched.setattr(kind, "touch", touch)
        assert other.head("s").status == 200 and touched == []
        assert other.get("s?offset=now").status == 200 and touched == ["s"]
        assert other.get("s").status == 200 and touched == ["s"]  # it was renewed just now
        ask.put("forever", "x")
        ask.put("until", "x", Stream_Expires_At="2099-01-01T00:00:00Z")
        for name in ("forever", "until"):
            assert other.get(name).status == 200
        assert touched == ["s"]


def test_streams_of_a_context_can_be_read_and_nothing_else(store: Store) -> None:
    context = ResumableStreamContext(store)
    ask = Client(DurableStreamsApp(context, authorize=everybody, long_poll_seconds=0.2))
    assert list(context.run("s", lambda: ["one", "two"], metadata={"content-type": "text/plain"})) != []
    reply = ask.get("s")
    assert (reply.data, reply.headers["content-type"]) == (b"onetwo", "text/plain")
    assert reply.headers["stream-closed"] == "true"
    refused = ask.post("s", "x")
    assert refused.status == 405 and "POST" not in refused.headers["allow"]
    assert ask("POST", "s", None, {"Stream-Closed": "true"}).status == 405
    assert ask.put("s").status == 409
    with closing(ask.get("s?offset=-1&live=sse")) as live:
        assert [event.data for event in live.events()][0] == "onetwo"
    context.close()


@pytest.mark.parametrize("ending", ["error", "cancelled", "interrupted"])
def test_what_did_not_end_well_never_looks_closed(store: Store, ending: str) -> None:
    ask = client(store)
    lease = store.acquire("s", metadata={"content-type": "text/plain"})
    assert lease is not None
    store.append(lease, b"half")
    if ending == "cancelled":
        store.cancel("s")
    else:
        store.finalize(lease, ending)
    part = ask.get("s")
    assert part.data == b"half"
    assert not {"stream-closed", "stream-up-to-date"} & set(part.headers)
    for query in ("", "&live=long-poll", "&live=sse"):
        reply = ask.get(f"s?offset={part.offset}{query}")
        assert (reply.status, reply.headers["stream-ending"]) == (410, ending)
    assert ask.head("s").headers["stream-ending"] == ending
    with closing(ask.get("s?offset=-1&live=sse")) as live:
        events = list(live.events())
    assert events[0].data == "half" and "streamClosed" not in events[-1].data
    assert ask.get("s?offset=-1&live=long-poll").status == 200


def test_a_shared_stream_that_was_cancelled_takes_nothing(store: Store) -> None:
    ask = client(store)
    ask.put("s", "x")
    assert store.cancel("s") and store.status("s") is Status.CANCELLED
    refused = ask.post("s", "y")
    assert refused.status == 410 and "stream-closed" not in refused.headers
    assert ask.put("s").status == 409


def test_readers_and_writers_agree(store: Store) -> None:
    """Whoever follows by requests gets what was appended, in order, while it is appended."""
    ask, other = client(store), client(store)
    ask.put("s")
    found: list[bytes] = []

    def follow() -> None:
        offset = "-1"
        while True:
            reply = other.get(f"s?offset={offset}&live=long-poll")
            offset = reply.offset
            found.append(reply.data)
            if "stream-closed" in reply.headers:
                return

    thread = threading.Thread(target=follow)
    thread.start()
    for number in range(50):
        ask.post("s", f"{number},")
    ask("POST", "s", None, {"Stream-Closed": "true"})
    wait_until(lambda: not thread.is_alive())
    assert b"".join(found) == b"".join(b"%d," % number for number in range(50))
