"""Long-polls and server-sent events: waits, cursors, text and bytes, the cap on readers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resumable_sync import ResumableStreamContext
from resumable_sync.contract import Store
from resumable_sync.durable import DurableStreamsApp, live
from resumable_sync.durable.live import new_cursor
from resumable_sync.sse import Event
from resumable_sync.stores.memory import MemoryStore
from resumable_sync.wsgi import ViewerCap

from ..support import PATIENCE
from .support import JSON, Client, Reply, client, everybody


@pytest.fixture
def ask(store: Store) -> Client:
    return client(store)


def later(work: Any) -> threading.Timer:
    """`work` runs while somebody waits."""
    timer = threading.Timer(0.05, work)
    timer.start()
    return timer


def test_a_long_poll(store: Store) -> None:
    ask, patient = client(store), client(store, long_poll_seconds=PATIENCE)
    tail = ask.put("s", "one").offset
    at_once = patient.get("s?offset=-1&live=long-poll")
    assert (at_once.status, at_once.data) == (200, b"one") and at_once.headers["stream-cursor"].isdigit()
    idle = ask.get(f"s?offset={tail}&live=long-poll")
    assert (idle.status, idle.offset, idle.data) == (204, tail, b"")
    assert idle.headers["stream-up-to-date"] == "true" and "stream-cursor" in idle.headers
    later(lambda: ask.post("s", "two"))
    assert patient.get(f"s?offset={tail}&live=long-poll").data == b"two"
    later(lambda: ask.post("s", "three"))
    assert patient.get("s?offset=now&live=long-poll").data == b"three"
    now = ask.head("s").offset
    later(lambda: ask("POST", "s", None, {"Stream-Closed": "true"}))
    for _ in range(2):
        closed = patient.get(f"s?offset={now}&live=long-poll")
        assert (closed.status, closed.headers["stream-closed"], closed.offset) == (204, "true", now)


def test_a_long_poll_of_json(store: Store) -> None:
    ask, patient = client(store), client(store, long_poll_seconds=PATIENCE)
    tail = ask.put("s", "[1]", **{"Content_Type": "application/json"}).offset
    later(lambda: ask("POST", "s", "[2, 3]", JSON))
    assert patient.get(f"s?offset={tail}&live=long-poll").json == [2, 3]


@pytest.mark.parametrize("mode", ["long-poll", "sse"])
def test_those_who_wait_leave_a_stream_that_goes(store: Store, mode: str) -> None:
    ask, patient = client(store), client(store, long_poll_seconds=PATIENCE, sse_seconds=PATIENCE)
    tail = ask.put("s", "x").offset
    later(lambda: ask.delete("s"))
    with closing(patient.get(f"s?offset={tail}&live={mode}")) as reply:
        if mode == "sse":
            assert all("streamClosed" not in event.data for event in reply.events())
        else:
            assert reply.status in (404, 410)
    ask.put("s", "x")
    ask.put("fork", Stream_Forked_From="/s")
    later(lambda: ask.delete("s"))
    with closing(patient.get(f"s?offset=now&live={mode}")) as reply:
        if mode == "sse":
            assert all("streamClosed" not in event.data for event in reply.events())
        else:
            assert reply.status == 410


def controls(events: list[Event]) -> list[dict[str, Any]]:
    return [json.loads(event.data) for event in events if event.event == "control"]


def data(events: list[Event]) -> list[str]:
    return [event.data for event in events if event.event == "data"]


def test_events_of_a_text(store: Store) -> None:
    ask = client(store, sse_seconds=PATIENCE)
    ask.put("s", "one")
    with closing(ask.get("s?offset=-1&live=sse")) as reply:
        assert reply.status == 200 and reply.headers["content-type"] == "text/event-stream"
        assert "content-length" not in reply.headers and "no-cache" in reply.headers["cache-control"]
        events = reply.events()
        first, control = next(events), next(events)
        assert (first.event, first.data) == ("data", "one")
        told = json.loads(control.data)
        assert told["streamNextOffset"] == ask.head("s").offset and told["upToDate"] is True
        later(lambda: ask.post("s", "two", Stream_Closed="true"))
        rest = list(events)
    assert data(rest) == ["two"]
    assert controls(rest) == [{"streamNextOffset": ask.head("s").offset, "streamClosed": True, "upToDate": True}]


def test_an_empty_stream_says_at_once_where_it_stands(ask: Client) -> None:
    tail = ask.put("s").offset
    with closing(ask.get("s?offset=-1&live=sse&cursor=7")) as reply:
        (control,) = controls(list(reply.events()))
    assert control["streamNextOffset"] == tail and control["upToDate"] is True and int(control["streamCursor"]) > 7
    ask("POST", "s", None, {"Stream-Closed": "true"})
    with closing(ask.get("s?offset=now&live=sse")) as reply:
        (control,) = controls(list(reply.events()))
    assert control["streamClosed"] is True and "streamCursor" not in control


def test_the_cursor_goes_up_from_one_window_to_the_next_and_not_within_one(store: Store) -> None:
    ask = client(store)
    ask.put("s", "one")
    cursor = ""
    for _ in range(3):
        with closing(ask.get(f"s?offset=-1&live=sse&cursor={cursor}")) as reply:
            later(lambda: ask.post("s", "two"))
            found = {control["streamCursor"] for control in controls(list(reply.events()))}
        (new,) = found
        assert not cursor or int(new) > int(cursor)
        cursor = new


@given(st.integers(0, 10**15) | st.just(None))
def test_cursors(sent: int | None) -> None:
    new = int(new_cursor("" if sent is None else str(sent)))
    assert new >= int(new_cursor("")) and (sent is None or new > sent)
    assert new <= max(int(new_cursor("")), sent or 0) + 3600
    assert new_cursor("x") == new_cursor("-1") == new_cursor("9" * 50) == new_cursor("")


def sse_text(
    chunks: list[bytes], content_type: str = "text/plain", closed: bool = True
) -> tuple[list[str], Reply]:
    """The data events of a stream of these chunks, read by many short windows."""
    store = MemoryStore()
    ask = client(store, sse_seconds=0.01)
    ask.put("s", None, Content_Type=content_type)
    for chunk in chunks[:-1]:
        ask("POST", "s", chunk, {"Content-Type": content_type})
    last = {"Stream-Closed": "true"} if closed else {}
    ask("POST", "s", chunks[-1], {"Content-Type": content_type, **last})
    with closing(ask.get("s?offset=-1&live=sse")) as reply:
        events = list(reply.events())
    store.close()
    return data(events), reply


@pytest.mark.parametrize(
    "chunk, text",
    [
        (b" word", " word"),
        (b"  two", "  two"),
        (b"a\n b", "a\n b"),
        (b"a\r\nb\rc", "a\nb\nc"),
        (b"data: x\n\nevent: control", "data: x\n\nevent: control"),
        (b"\n", "\n"),
        (b"\xff", "\ufffd"),
        ("ä€🙂".encode(), "ä€🙂"),
        (b"\xe2\x82", "\ufffd"),
        (b"end\r", "end\n"),
    ],
)
def test_text_arrives_as_it_is_but_for_line_ends(chunk: bytes, text: str) -> None:
    assert "".join(sse_text([chunk])[0]) == text


@given(st.text("aä€🙂 \r\n", min_size=1, max_size=12), st.data())
def test_text_that_is_cut_anywhere_is_whole_again(text: str, draw: st.DataObject) -> None:
    """Appended in pieces while a reader follows: no character is torn, no CR LF becomes two line ends."""
    raw = text.encode()
    cuts = sorted(draw.draw(st.sets(st.integers(1, max(1, len(raw) - 1)), max_size=4)))
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)]) if a < b]
    events = _Follower(pieces).follow()
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    assert "".join(data(events)) == lines


class _Follower:
    """Follows a stream of text that gets one piece after the other."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._store = MemoryStore()
        self._ask = client(self._store, sse_seconds=PATIENCE)
        self._pieces = pieces

    def follow(self) -> list[Event]:
        self._ask.put("s")
        with closing(self._ask.get("s?offset=-1&live=sse")) as reply:
            events = self._feed(reply.events())
        self._store.close()
        return events

    def _feed(self, events: Iterator[Event]) -> list[Event]:
        found = [next(events)]  # where the empty stream stands
        for piece in self._pieces:
            self._ask("POST", "s", piece, {"Content-Type": "text/plain"})
        self._ask("POST", "s", None, {"Stream-Closed": "true"})
        return [*found, *events]


def test_what_is_held_back_is_not_passed_over(store: Store) -> None:
    """A window that ends within a character says an offset before it."""
    ask = client(store)
    ask.put("s", b"ab\xe2\x82")
    with closing(ask.get("s?offset=-1&live=sse")) as reply:
        events = list(reply.events())
    assert data(events) == ["ab"]
    offset = controls(events)[-1]["streamNextOffset"]
    ask.post("s", b"\xac!", Stream_Closed="true")
    with closing(ask.get(f"s?offset={offset}&live=sse")) as reply:
        assert data(list(reply.events())) == ["€!"]


def test_bytes_and_json() -> None:
    found, reply = sse_text([b"\x00\xff", b"\x01"], "application/octet-stream")
    assert reply.headers["stream-sse-data-encoding"] == "base64" and found == ["AP8B"]
    found, reply = sse_text([b'[{"a":\n1}, 2]', b"3"], "application/json")
    assert "stream-sse-data-encoding" not in reply.headers
    assert [json.loads(text) for text in found] == [[{"a": 1}, 2, 3]]


def test_a_window_ends_and_the_next_goes_on(ask: Client) -> None:
    ask.put("s", "one")
    with closing(ask.get("s?offset=-1&live=sse")) as reply:
        events = list(reply.events())
    offset = controls(events)[-1]["streamNextOffset"]
    ask.post("s", "two")
    with closing(ask.get(f"s?offset={offset}&live=sse")) as reply:
        assert data(list(reply.events())) == ["two"]


def test_live_readers_are_capped(store: Store) -> None:
    ask = client(store, viewers=ViewerCap(1, retry_after=7))
    ask.put("s", "x")
    with closing(ask.get("s?offset=-1&live=sse")):
        for mode in ("sse", "long-poll"):
            refused = ask.get(f"s?offset=-1&live={mode}")
            assert (refused.status, refused.headers["retry-after"]) == (503, "7")
        assert ask.get("s").status == 200
    for query in ("s?offset=-1&live=long-poll", "none?offset=-1&live=sse", "s?offset=x&live=sse"):
        for _ in range(2):
            assert ask.get(query).status in (200, 404, 400)  # each gives its place back


def test_a_closed_context_sends_readers_away(store: Store) -> None:
    context = ResumableStreamContext(store)
    ask = Client(DurableStreamsApp(context, authorize=everybody, sse_seconds=PATIENCE, long_poll_seconds=PATIENCE))
    ask.put("s")
    later(context.close)
    assert ask.get("s?offset=-1&live=long-poll").status == 503
    assert ask.get("s?offset=-1&live=sse").status == 503


def test_silence_is_renewed_and_commented(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_SILENCE_SECONDS", 0.0)
    monkeypatch.setattr(live, "_LOOK_SECONDS", 0.05)
    ask = client(store)
    ask.put("s", Stream_TTL="3600")
    with closing(ask.get("s?offset=-1&live=sse")) as reply:
        assert b"\n: " in b"\n" + reply.data.split(b"\n\n")[1]


def test_a_waiting_reader_keeps_a_short_life_alive(store: Store) -> None:
    """Longer than the life would have lasted, and the stream is there still."""
    ask = client(store, long_poll_seconds=1.6)
    ask.put("s", Stream_TTL="1")
    assert ask.get("s?offset=-1&live=long-poll").status == 204
    assert ask.head("s").status == 200
