"""POST: order of refusals, Stream-Seq, closes, bodies that break off, and what a commit costs."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from resumable_sync import ResumableStreamContext
from resumable_sync.contract import Store
from resumable_sync.durable import DurableStreamsApp
from resumable_sync.errors import StoreUnavailableError
from resumable_sync.stores.memory import MemoryStore

from .support import JSON, TEXT, Client, client, everybody, producer, read_all


@pytest.fixture
def ask(store: Store) -> Client:
    return client(store)


def test_an_append(ask: Client) -> None:
    ask.put("s")
    reply = ask.post("s", "ab", Content_Type="TEXT/PLAIN; charset=utf-8")
    assert reply.status == 204 and reply.data == b"" and "content-type" not in reply.headers
    assert reply.offset == ask.head("s").offset and "stream-closed" not in reply.headers
    assert read_all(ask, "s") == b"ab"


def test_the_order_of_refusals(ask: Client) -> None:
    ask.put("s", "x", Content_Type="text/plain")
    assert ask.post("none", "", Producer_Id="p").status == 400
    assert ask.post("none", "").status == 400
    assert ask("POST", "none", b"x").status == 400
    assert ask("POST", "none", b"x", {"Content-Type": "nonsense"}).status == 400
    assert ask.post("none", "x").status == 404
    assert ask.post("s", "{", Content_Type="application/json").status == 409
    assert ask("POST", "s", None, {"Stream-Closed": "true", "Content-Type": "other/type"}).status == 204
    closed = ask.post("s", "{", Content_Type="application/json", **producer(5))
    assert closed.status == 409 and closed.headers["stream-closed"] == "true"
    assert closed.offset == ask.head("s").offset
    assert read_all(ask, "s") == b"x"


def test_json_appends(ask: Client) -> None:
    ask.put("s", None, **{"Content_Type": "application/json"})
    for body, status in (("[]", 400), ("{", 400), ("NaN", 400), ("1.10", 204), ("[2, [3]]", 204), ("[[]]", 204)):
        assert ask("POST", "s", body, JSON).status == status
    assert read_all(ask, "s") == b"[1.10,2,[3],[]]"


def test_closes(ask: Client) -> None:
    ask.put("s")
    for _ in range(2):
        reply = ask("POST", "s", None, {"Stream-Closed": "True"})
        assert reply.status == 204 and reply.headers["stream-closed"] == "true" and reply.offset
    ask.put("t")
    assert ask("POST", "t", None, {"Stream-Closed": "false"}).status == 400
    assert ask.post("t", "end", Stream_Closed="true").headers["stream-closed"] == "true"
    assert ask.post("t", "end", Stream_Closed="true").status == 409
    assert read_all(ask, "t") == b"end"


def test_stream_seq_goes_up_bytewise(store: Store) -> None:
    one, other = client(store), client(store)
    one.put("s")
    for seq, status in (
        ("10", 204),
        ("9", 204),
        ("9", 409),
        ("", 409),
        ("a", 204),
        ("B", 409),
        ("\xe4", 204),
        ("z", 409),
    ):
        assert one.post("s", seq or "-", Stream_Seq=seq).status == status, seq
    assert other.post("s", "x", Stream_Seq="\xe4").status == 409
    refused = other.post("s", "x", Stream_Seq="x" * 1000)
    assert refused.status == 400
    assert other.post("s", "x").status == 204  # without one nothing is compared
    assert other.post("s", "!", Stream_Seq="\xe5").status == 204
    assert one.post("s", "x", Stream_Seq="\xe5").status == 409


def test_of_equal_stream_seqs_one_wins(store: Store) -> None:
    apps = [client(store), client(store)]
    apps[0].put("s")
    barrier = threading.Barrier(6)
    statuses: list[int] = []

    def append(number: int) -> None:
        barrier.wait()
        for seq in range(8):
            statuses.append(apps[number % 2].post("s", f"{seq}", Stream_Seq=f"{seq}").status)

    threads = [threading.Thread(target=append, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    data = read_all(apps[0], "s").decode()
    assert set(statuses) == {204, 409} and statuses.count(204) == len(data)
    assert list(data) == sorted(set(data)) and data.endswith("7")


class _Breaking(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        raise ValueError("a chunk is malformed")


class _Endless(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None and 0 < size < 100_000
        return b"x" * size


def _name(value: object) -> str:
    return type(value).__name__ if isinstance(value, io.BytesIO) else str(value)


@pytest.mark.parametrize(
    "environ, status",
    [
        ({"CONTENT_LENGTH": "100"}, 400),  # the client has left in the middle
        ({"CONTENT_LENGTH": "-1"}, 400),
        ({"CONTENT_LENGTH": "x"}, 400),
        ({"CONTENT_LENGTH": "٣"}, 400),
        ({"CONTENT_LENGTH": "9" * 30}, 413),
        ({"CONTENT_LENGTH": "1001"}, 413),
        ({"CONTENT_LENGTH": "", "HTTP_TRANSFER_ENCODING": "chunked"}, 411),
        ({"CONTENT_LENGTH": "", "wsgi.input_terminated": True, "wsgi.input": _Endless()}, 413),
        ({"CONTENT_LENGTH": "", "wsgi.input_terminated": True, "wsgi.input": _Breaking()}, 400),
        ({"CONTENT_LENGTH": "5", "wsgi.input": _Breaking()}, 400),
    ],
    ids=lambda value: None if isinstance(value, int) else ",".join(map(_name, value.values())),
)
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_bodies_that_are_not_what_they_say(method: str, environ: dict[str, Any], status: int) -> None:
    ask = client(MemoryStore(), max_body_bytes=1000)
    ask.put("s")
    path = "s" if method == "POST" else "t"
    assert ask(method, path, b"half", TEXT, environ).status == status
    assert read_all(ask, "s") == b""
    assert ask.head("t").status == 404


def test_a_chunked_body(store: Store) -> None:
    ask = client(store)
    ask.put("s")
    chunked = {
        "HTTP_TRANSFER_ENCODING": "chunked",
        "wsgi.input_terminated": True,
        "wsgi.input": io.BytesIO(b"abc"),
    }
    assert ask("POST", "s", None, TEXT, chunked).status == 204
    assert read_all(ask, "s") == b"abc"


def test_large_bodies_are_split_and_large_messages_refused(backend: Any) -> None:
    store = backend.make(max_chunk_bytes=100, max_stream_bytes=1000)
    ask = client(store)
    ask.put("s")
    assert ask.post("s", "x" * 950).status == 204
    assert ask.post("s", "x" * 51).status == 413
    assert read_all(ask, "s") == b"x" * 950
    ask.put("j", **{"Content_Type": "application/json"})
    assert ask("POST", "j", '["%s"]' % ("x" * 99), JSON).status == 413
    assert ask("POST", "j", '["%s"]' % ("x" * 98), JSON).status == 204
    store.close()


def test_a_stream_that_was_made_anew_is_not_mistaken(store: Store) -> None:
    one, other = client(store), client(store)
    one.put("s", "old")
    one.post("s", "x", **producer(0))
    other.delete("s")
    assert one.post("s", "x").status == 404
    other.put("s", None, **{"Content_Type": "application/json"})
    assert one.post("s", "x").status == 409
    assert one.post("s", "1", Content_Type="application/json", **producer(0)).status == 200
    assert read_all(one, "s") == b"[1]"


class _Counting:
    """A store that counts the calls of it, and fails when told to."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.calls: list[str] = []
        self.failing: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not callable(found) or name == "route":
            return found

        def call(*arguments: Any, **options: Any) -> Any:
            self.calls.append(name)
            if self.failing is not None:
                raise self.failing
            return found(*arguments, **options)

        return call


@pytest.fixture
def counting(store: Store) -> Iterator[tuple[_Counting, Client]]:
    counted = _Counting(store)
    context = ResumableStreamContext(counted)
    yield counted, Client(DurableStreamsApp(context, authorize=everybody))
    context.close()


def test_an_append_costs_one_call(counting: tuple[_Counting, Client]) -> None:
    store, ask = counting
    ask.put("s")
    ask.post("s", "x", Stream_Seq="0", **producer(0))
    store.calls.clear()
    ask.post("s", "x")
    ask.post("s", "x", Stream_Seq="1", **producer(1))
    assert store.calls == ["commit"] * 2
    store.calls.clear()
    ask.get("s")
    assert store.calls == ["read"]


@pytest.mark.parametrize("unknown", [True, False])
def test_a_store_that_is_away(counting: tuple[_Counting, Client], unknown: bool) -> None:
    store, ask = counting
    ask.put("s")
    store.failing = StoreUnavailableError("away: 10.0.0.1", fate_unknown=unknown)
    for reply in (
        ask.put("t"),
        ask.post("s", "x"),
        ask.get("s"),
        ask.head("s"),
        ask.delete("s"),
        ask.get("s?offset=now"),
    ):
        assert reply.status == 503 and int(reply.headers["retry-after"]) > 0
        assert b"10.0.0.1" not in reply.data
    for live in ("sse", "long-poll"):
        assert ask.get(f"s?offset=-1&live={live}").status == 503
    store.failing = None
    assert read_all(ask, "s") == b""
