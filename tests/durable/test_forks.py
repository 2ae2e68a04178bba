"""Forks: what they begin with, which tokens they have, and what becomes of their sources."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resumable_sync.contract import Store
from resumable_sync.durable import forks
from resumable_sync.stores.memory import MemoryStore

from ..support import wait_until
from .support import JSON, Client, client, producer, read_all


@pytest.fixture
def ask(store: Store) -> Client:
    return client(store)


def fork(ask: Client, name: str, source: str, offset: str | None = None, sub: int | None = None) -> int:
    headers = {"Stream-Forked-From": f"/{source}"}
    if offset is not None:
        headers["Stream-Fork-Offset"] = offset
    if sub is not None:
        headers["Stream-Fork-Sub-Offset"] = str(sub)
    return ask("PUT", name, None, headers).status


@given(st.lists(st.binary(min_size=1, max_size=5), max_size=5), st.data())
def test_a_fork_begins_with_the_bytes_before_its_point(chunks: list[bytes], draw: st.DataObject) -> None:
    store = MemoryStore()
    ask = client(store)
    ask.put("s", None, Content_Type="a/b")
    for chunk in chunks:
        ask("POST", "s", chunk, {"Content-Type": "a/b"})
    raw = b"".join(chunks)
    lineage = ask.head("s").offset[:16]
    at = draw.draw(st.integers(0, len(raw) + 1))
    sub = draw.draw(st.integers(0, 6))
    ends = [sum(map(len, chunks[: number + 1])) for number in range(len(chunks))]
    next_end = min((end for end in ends if end > at), default=at)
    status = fork(ask, "f", "s", f"{lineage}_{at:016d}", sub)
    if at > len(raw) or at + sub > next_end:
        assert status == 400 and ask.head("f").status == 404
    else:
        assert status == 201
        assert read_all(ask, "f") == raw[: at + sub]
        assert fork(ask, "f", "s", f"{lineage}_{at:016d}", sub) == 200
        assert fork(ask, "f", "s", f"{lineage}_{at:016d}", sub + 1) == 409
    store.close()


@given(st.lists(st.integers(0, 99), max_size=6), st.data())
def test_a_fork_of_json_begins_with_whole_messages(numbers: list[int], draw: st.DataObject) -> None:
    store = MemoryStore()
    ask = client(store)
    ask.put("s", str(numbers), **{"Content_Type": "application/json"})
    texts = [str(number) for number in numbers]
    lineage = ask.head("s").offset[:16]
    at = draw.draw(st.integers(0, sum(map(len, texts)) + 1))
    sub = draw.draw(st.integers(0, 7))
    starts = [sum(map(len, texts[:number])) for number in range(len(texts) + 1)]
    status = fork(ask, "f", "s", f"{lineage}_{at:016d}", sub)
    if at not in starts or starts.index(at) + sub > len(texts):
        assert status == 400 and ask.head("f").status == 404
    else:
        assert status == 201
        assert ask.get("f").json == numbers[: starts.index(at) + sub]
    store.close()


def test_tokens_of_the_source_hold_up_to_the_point(ask: Client) -> None:
    middle = ask.put("s", "one").offset
    point = ask.post("s", "two").offset
    assert fork(ask, "f", "s") == 201
    assert ask.head("f").offset == point
    beyond = ask.post("s", "three").offset
    own = ask.post("f", "3").offset
    assert ask.get(f"f?offset={middle}").data == b"two3" and ask.get(f"f?offset={point}").data == b"3"
    assert point < own and own != beyond
    assert ask.get(f"f?offset={beyond}").status == ask.get(f"s?offset={own}").status == 410
    ask.delete("f")
    assert fork(ask, "f", "s", point) == 201
    ask.post("f", "other")
    assert ask.get(f"f?offset={own}").status == 410  # of the fork that is gone
    assert ask.get(f"f?offset={point}").data == b"other"


def test_forks_of_forks(ask: Client) -> None:
    ask.put("a", "A")
    fork(ask, "b", "a")
    first = ask.post("b", "B").offset
    fork(ask, "c", "b")
    ask.post("c", "C")
    assert fork(ask, "d", "c", first) == 201
    ask.post("d", "D")
    assert [read_all(ask, name) for name in "abcd"] == [b"A", b"AB", b"ABC", b"ABD"]
    assert ask.get(f"d?offset={first}").data == b"D"


def test_what_is_inherited(ask: Client) -> None:
    ask.put("s", "[1]", Content_Type="application/json; v=1", Stream_TTL="3600")
    ask("POST", "s", "2", {**JSON, "Producer-Id": "p", "Producer-Epoch": "0", "Producer-Seq": "0"})
    ask("POST", "s", None, {"Stream-Closed": "true"})
    assert fork(ask, "f", "s") == 201
    head = ask.head("f")
    assert head.headers["content-type"] == "application/json; v=1" and head.headers["stream-ttl"] == "3600"
    assert "stream-closed" not in head.headers
    named = {name.replace("_", "-"): value for name, value in producer(0).items()}
    assert ask("POST", "f", "3", {**JSON, **named}).status == 200  # not what its source has
    assert ask.get("f").json == [1, 2, 3]
    assert ask.put("g", Stream_Forked_From="/s", Content_Type="text/plain").status == 409
    assert ask.put("g", Stream_Forked_From="/s", Content_Type="application/json", Stream_TTL="5").status == 201
    assert ask.head("g").headers["stream-ttl"] == "5"
    assert ask.put("h", "[4]", Stream_Forked_From="/s", Content_Type="application/json").status == 201
    assert ask.get("h").json == [1, 2, 4]


def test_a_deleted_source_is_gone_until_its_last_fork_is(store: Store) -> None:
    ask, other = client(store), client(store)
    for name, source in (("b", "a"), ("c", "b")):
        if name == "b":
            ask.put("a", "x")
        assert fork(ask, name, source) == 201
    other.get("a"), other.get("b")  # remembers them
    assert ask.delete("a").status == ask.delete("b").status == 204
    for each in (ask, other):
        for name in "ab":
            for reply in (each.get(name), each.head(name), each.post(name, "y"), each.delete(name)):
                assert reply.status == 410
            assert each.put(name).status == 409
            assert fork(each, "d", name) == 409
    assert read_all(other, "c") == b"x"
    assert other.delete("c").status == 204
    for name in "abc":
        assert store.info(name) is None
        assert ask.get(name).status == 404
        assert ask.put(name, "new").status == 201
        assert read_all(other, name) == b"new"


def test_a_closed_stream_that_is_deleted_is_gone_also_for_those_who_remember_it(store: Store) -> None:
    ask, other = client(store), client(store)
    ask.put("s", "x", Stream_Closed="true")
    assert read_all(other, "s") == b"x"
    fork(ask, "f", "s")
    assert ask.delete("s").status == 204
    assert other.get("s").status == 410


def test_a_fork_that_was_made_anew_is_not_its_sources(ask: Client) -> None:
    ask.put("s", "x")
    fork(ask, "f", "s")
    ask.delete("f")
    ask.put("f", "unrelated")
    assert ask.delete("s").status == 204
    assert ask.head("s").status == 404


def test_a_fork_that_expired_releases_its_source(store: Store) -> None:
    ask = client(store)
    ask.put("s", "x")
    ask.put("f", Stream_Forked_From="/s", Stream_Expires_At="1999-01-01T00:00:00Z")
    assert ask.delete("s").status == 204
    wait_until(lambda: ask.head("s").status == 404)


def test_missing_and_large_sources(store: Store) -> None:
    ask = client(store, max_fork_bytes=5)
    assert fork(ask, "f", "none") == 404
    ask.put("s", "123456")
    assert fork(ask, "f", "s") == 413
    lineage = ask.head("s").offset[:16]
    assert fork(ask, "f", "s", f"{lineage}_{4:016d}", 2) == 413
    assert ask.head("f").status == 404
    assert fork(ask, "f", "s", f"{lineage}_{4:016d}", 1) == 201


def test_forks_of_a_stream_are_bounded_and_dead_ones_make_way(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forks, "MAX_FORKS", 2)
    ask = client(store)
    ask.put("s", "x")
    assert fork(ask, "a", "s") == fork(ask, "b", "s") == 201
    assert fork(ask, "c", "s") == 413
    ask.delete("a")
    assert fork(ask, "c", "s") == 201


def test_streams_of_a_context_can_be_forked(store: Store) -> None:
    lease = store.acquire("s", metadata={"content-type": "text/plain"})
    assert lease is not None
    store.append(lease, b"ab", b"cd")
    ask = client(store)
    assert fork(ask, "f", "s") == 201
    ask.post("f", "!")
    assert read_all(ask, "f") == b"abcd!"
    assert ask.delete("s").status == 204 and ask.head("s").status == 404


def test_whoever_died_while_removing_a_stream_holds_up_nobody_for_ever(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = client(store)
    ask.put("s", "x")
    fork(ask, "f", "s")
    ask.delete("s")
    info = store.info("s")
    store.delete("f")  # past the application: nobody looks after the source
    store.commit("s", notes={"durable.deleted": f"{int(info.created_at) + 5} token"})
    assert ask.get("s").status == 404
    assert store.info("s") is not None
    monkeypatch.setattr(forks, "_CLAIM_SECONDS", -60.0)
    assert ask.put("s", "new").status == 201
    assert read_all(ask, "s") == b"new"


def test_forks_of_forks_are_bounded_and_so_is_the_search_for_living_ones(ask: Client) -> None:
    ask.put("s0", "x")
    for number in range(forks.MAX_DEPTH):
        assert fork(ask, f"s{number + 1}", f"s{number}") == 201
    assert fork(ask, "more", f"s{forks.MAX_DEPTH}") == 413
    for number in range(forks.MAX_DEPTH):
        assert ask.delete(f"s{number}").status == 204
    assert ask.get("s0").status == 410
    assert ask.delete(f"s{forks.MAX_DEPTH}").status == 204
    assert {ask.head(f"s{number}").status for number in range(forks.MAX_DEPTH)} == {404}


def test_a_search_that_is_given_up_counts_as_found_and_goes_on_later(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forks, "MAX_LOOKS", 2)
    ask = client(store)
    ask.put("s", "x")
    for number in range(5):
        fork(ask, f"f{number}", "s")
    assert ask.delete("s").status == 204
    for number in range(5):
        store.delete(f"f{number}")
    assert [ask.head("s").status for _ in range(3)] == [410, 410, 404]
