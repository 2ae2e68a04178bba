"""Several streams on one connection: each exact over cuts, each ending once, none in another's way."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import random
import re
import socket
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from resumable_sync import MemoryStore, ResumableStreamContext, StoreUnavailableError
from resumable_sync.contract import Batch, Position, Store
from resumable_sync.errors import InvalidCursorError
from resumable_sync.several import TURN_BYTES
from resumable_sync.sse import HEARTBEAT, Event, EventParser
from resumable_sync.wsgi import ViewerCap, resume_sse_response, several_sse_response, sse_response
from resumable_sync.wsgi.combined import MAX_STREAMS, CombinedCursor

from ..client.relay import Fate, relay
from ..figures import Report
from ..support import PATIENCE
from .servers import Gunicorn, Server, in_process, serving
from .support import Feed, Reply, call, ended, wait_until

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from selenium import webdriver


def follow(context: ResumableStreamContext, *stream_ids: str, cursor: str = "", **options: Any) -> Reply:
    return call(several_sse_response(context, stream_ids, **options), last_event_id=cursor)


def wakers(context: ResumableStreamContext) -> int:
    return len(context._running.get().wakers)


def read_until(reply: Reply, *names: str) -> list[Event]:
    """The events up to where each of these was seen."""
    parser = EventParser()
    found: list[Event] = []
    while not set(names) <= {event.event for event in found}:
        found += parser.each(next(reply._pieces))
    return found


def named(events: list[Event], name: str) -> list[str]:
    return [event.data for event in events if event.event == name]


def statuses(events: list[Event]) -> dict[str, str]:
    """How each stream ended; each once."""
    found = {}
    for event in events:
        if event.event.startswith("end:"):
            stream_id = event.event.removeprefix("end:")
            assert stream_id not in found
            found[stream_id] = json.loads(event.data)["status"]
    return found


def test_every_stream_has_its_own_events_and_ending(store: Store) -> None:
    with ResumableStreamContext(store) as context:
        feeds = {name: Feed(f"{name}1", f"{name}2") for name in ("done", "failed", "cancelled", "deleted")}
        for name, feed in feeds.items():
            context.start(name, feed)
        reply = follow(context, *feeds, "nobody", heartbeat=0.2, wait=0.1)
        marks = [f"{kind}:{name}" for kind in ("live", "chunk") for name in feeds]
        seen = read_until(reply, "end:nobody", *marks)
        feeds["done"].end()
        feeds["failed"].end(ValueError("secret"))
        context.cancel("cancelled")
        context.delete("deleted")
        events = reply.events()
        assert statuses(seen) == {"nobody": "missing"}
        assert statuses(events) == {"done": "done", "failed": "error", "cancelled": "cancelled", "deleted": "lost"}
        assert "secret" not in str(events)
        last = events[-1]
        assert (last.event, json.loads(last.data)) == ("end", {"streams": 5})
        everything = follow(context, *feeds, "nobody").events()
        for name in ("done", "failed", "cancelled"):
            assert named(everything, f"chunk:{name}") == [f"{name}1", f"{name}2"]
            info = context.info(name)
            assert info and json.loads(named(everything, f"end:{name}")[0])["cursor"] == info.cursor
        assert statuses(everything)["nobody"] == statuses(everything)["deleted"] == "missing"
        assert everything[-1].event == "end" and named(everything, "live:done") == []
        over = follow(context, *feeds, "nobody", cursor=last.id)
        assert (over.status, over.read()) == (204, b"") and "content-type" not in over.headers


def test_single_and_several_say_the_same(context: ResumableStreamContext) -> None:
    """The data of a stream's events, in each encoding; the cursor of an ending is one for a single stream."""
    for encode in ("text", "json", "base64"):
        chunks = ["one\r\n", "two \r", "\nü", "ende\r"]
        call(sse_response(context, encode, ended(*chunks))).read()
        single = call(resume_sse_response(context, encode, encode=encode)).events()
        several = follow(context, encode, encode=encode).events()
        assert named(several, f"chunk:{encode}") == named(single, "message")
        assert named(several, f"end:{encode}") == named(single, "end")


def test_what_is_no_text_ends_alone(context: ResumableStreamContext) -> None:
    context.start("bytes", lambda: [b"good", b"\xff\xfe", b"never"])
    feed = Feed("text")
    context.start("text", feed)
    reply = follow(context, "bytes", "text")
    seen = read_until(reply, "chunk:text", "end:bytes")
    feed.put(" goes on")
    feed.end()
    seen += reply.events()
    assert named(seen, "chunk:bytes") == ["good"] and named(seen, "chunk:text") == ["text", " goes on"]
    assert statuses(seen) == {"bytes": "error", "text": "done"}
    assert named(follow(context, "bytes", encode="base64").events(), "chunk:bytes")[1] == "//4="
    assert named(follow(context, "bytes", errors="replace").events(), "chunk:bytes")[1] == "\ufffd\ufffd"


def test_the_streams_of_a_client_may_change(context: ResumableStreamContext) -> None:
    a, b = Feed("a1"), Feed("b1")
    context.start("a", a)
    context.start("b", b)
    context.start("c", ended("c1"))
    reply = follow(context, "a", "b")
    first = read_until(reply, "live:a", "chunk:a", "live:b", "chunk:b")
    reply.close()
    a.put("a2")
    a.end()
    second = follow(context, "c", "a", cursor=first[-1].id).events()  # c is new, b is named no more
    assert named(second, "chunk:a") == ["a2"] and named(second, "chunk:c") == ["c1"]
    assert statuses(second) == {"a": "done", "c": "done"}
    b.end()
    third = follow(context, "a", "b", "c", cursor=second[-1].id).events()  # b was forgotten
    assert named(third, "chunk:b") == ["b1"] and statuses(third) == {"b": "done"}
    assert follow(context, "a", "a", "b", cursor=third[-1].id).status == 204


def test_a_position_that_is_gone_is_lost(context: ResumableStreamContext) -> None:
    context.start("a", Feed("a1"))
    context.start("b", ended("b1"))
    reply = follow(context, "b", "a")
    seen = read_until(reply, "chunk:a", "end:b")
    reply.close()
    context.delete("a")
    gone = follow(context, "b", "a", cursor=seen[-1].id).events()
    assert statuses(gone) == {"a": "lost"} and gone[-1].event == "end"
    context.start("a", ended("anew"))
    replaced = follow(context, "a", cursor=seen[-1].id).events()
    assert statuses(replaced) == {"a": "lost"} and not named(replaced, "chunk:a")
    cursor = CombinedCursor(["a"])
    info = context.info("a")
    assert info is not None
    cursor.reach("a", Position(info.generation, 1000))
    assert statuses(follow(context, "a", cursor=str(cursor)).events()) == {"a": "lost"}


def test_a_stream_that_begins_later_is_followed(store: Store) -> None:
    with ResumableStreamContext(store) as context:
        reply = follow(context, "a", "b", wait=PATIENCE, heartbeat=0.1)
        reply.read_until(HEARTBEAT)
        context.start("b", ended("b1"))
        reply.read_until(b"event: end:b")
        context.start("a", ended("a1"))
        events = reply.events()
        assert named(events, "chunk:a") == ["a1"] and statuses(events) == {"a": "done"}


def test_refusals(context: ResumableStreamContext) -> None:
    context.start("s", Feed("x"))
    for stream_ids in ([], [f"s{number}" for number in range(MAX_STREAMS + 1)], ["s", "no id"], ["s", "ü"]):
        assert follow(context, *stream_ids).status == 400
    for cursor in ("1-2", "s2.", "s1.A", "s1.AAAA", "s1." + "A" * 4000, "s1.\x7f", "s1.AAAAAAAAAAAI"):
        assert follow(context, "s", cursor=cursor).status == 400, cursor
    with pytest.raises(ValueError, match="collection"):
        several_sse_response(context, "s")
    for wrong in ({"encode": "utf-8"}, {"retry": -1.0}, {"heartbeat": 0.0}, {"wait": -1.0}):
        with pytest.raises(ValueError):
            several_sse_response(context, ["s"], **wrong)
    cap = ViewerCap(1, retry_after=7)
    head = call(several_sse_response(context, ["s", "t"], viewers=cap), "HEAD")
    assert (head.status, head.read(), cap.viewers) == (200, b"", 0)
    reply = follow(context, "s", "t", viewers=cap, wait=PATIENCE)
    assert cap.viewers == 1  # one for both
    refused = follow(context, "s", viewers=cap)
    assert refused.status == 503 and refused.headers["retry-after"] == "7"
    reply.close()
    assert cap.viewers == 0
    context.close()
    closed = follow(context, "s")
    assert closed.status == 503 and closed.headers["retry-after"]


def test_a_busy_stream_holds_up_no_other(store: Store) -> None:
    """The small ones come within a turn of the large one, in the replay and live."""
    with ResumableStreamContext(store) as context:
        chunk = b"x" * 8192
        context.produce("large", lambda: itertools.repeat(chunk, 256))
        feed = Feed("small")
        context.start("small", feed)
        reply = follow(context, "large", "small")
        before = read_until(reply, "live:small")
        assert len(named(before, "chunk:large")) * len(chunk) <= 2 * TURN_BYTES
        reply.close()
        running = threading.Event()

        def endless() -> Iterator[bytes]:
            while not running.is_set():
                yield chunk

        context.start("endless", endless, idle_timeout=PATIENCE)
        reply = follow(context, "endless", "small")
        reply.read_until(b"event: live:small")
        feed.put("news")
        reply.read_until(b"data: news")  # however much the other one has to give
        running.set()
        reply.close()


def test_a_viewer_that_leaves_is_gone_at_once(store: Store) -> None:
    with ResumableStreamContext(store) as context:
        context.start("a", Feed("a1"))
        reply = follow(context, "a", "b", wait=PATIENCE)
        read_until(reply, "live:a")
        reply.close()
        registry = context._running.get().wakers
        assert not any(waker.bells for waker in registry._wakers.values())
        assert not context._running.get().reads.following
        store.wake()  # the end of a wait: nobody is left to wait for
        wait_until(lambda: len(registry) == 0)


def test_viewers_share_the_waiting_threads(context: ResumableStreamContext) -> None:
    ids = [f"s{number}" for number in range(5)]
    feeds = {stream_id: Feed("x") for stream_id in ids}
    for stream_id, feed in feeds.items():
        context.start(stream_id, feed)
    replies = [follow(context, *ids) for _ in range(20)]
    for reply in replies:
        read_until(reply, *(f"{kind}:{stream_id}" for kind in ("live", "chunk") for stream_id in ids))
    threads = [each for each in threading.enumerate() if each.name.startswith("resumable-sync-waker-")]
    assert wakers(context) <= len(ids) and len(threads) <= len(ids)
    for feed in feeds.values():
        feed.put("y")
        feed.end()
    for reply in replies:
        events = reply.events()
        assert {stream_id: named(events, f"chunk:{stream_id}") for stream_id in ids} == {
            each: ["y"] for each in ids
        }
        assert set(statuses(events).values()) == {"done"} and events[-1].event == "end"
    wait_until(lambda: wakers(context) == 0)


def test_silence_is_broken_by_heartbeats_and_a_lost_viewer_is_noticed(context: ResumableStreamContext) -> None:
    context.start("a", Feed("a1"))
    near, far = socket.socketpair()
    with near, far:
        cap = ViewerCap(1)
        options: dict[str, Any] = {"heartbeat": 0.05, "viewers": cap, "wait": PATIENCE}
        body = iter(several_sse_response(context, ["a", "b"], environ={"gunicorn.socket": near}, **options))
        found = b""
        while found.count(HEARTBEAT) < 3:
            found += next(body)
        far.close()
        assert b"".join(body).replace(HEARTBEAT, b"") == b""
        assert cap.viewers == 0


def test_a_response_that_lasted_its_time_is_gone_on_with(context: ResumableStreamContext) -> None:
    context.start("a", Feed("a1"))
    events = follow(context, "a", max_seconds=0.1).events()
    assert {each.event for each in events} == {"chunk:a", "live:a"}


def test_a_context_that_closes_sends_its_viewers_away(store: Store) -> None:
    with ResumableStreamContext(store) as context, ResumableStreamContext(store) as other:
        feed = Feed("a1")
        other.start("a", feed)
        reply = follow(context, "a", "b", wait=PATIENCE)
        seen = read_until(reply, "live:a", "chunk:a")
        found: list[Event] = []
        thread = threading.Thread(target=lambda: found.extend(reply.events()), daemon=True)
        thread.start()
        context.close()
        thread.join(PATIENCE)
        assert not thread.is_alive() and found == []
        wait_until(lambda: wakers(context) == 0)
        feed.put("a2")
        feed.end()
        assert named(follow(other, "a", cursor=seen[-1].id).events(), "chunk:a") == ["a2"]


class Troubled(MemoryStore):
    """A store that cannot be reached for some of its streams, as where one server of a cluster is away."""

    def __init__(self) -> None:
        super().__init__(grace=2.0)
        self.away: set[str] = set()

    def read(self, stream_id: str, after: str = "", *, max_bytes: int = 1 << 18, timeout: float = 0.0) -> Batch:
        if stream_id in self.away:
            raise StoreUnavailableError("its server is away")
        return super().read(stream_id, after, max_bytes=max_bytes, timeout=timeout)


def test_one_that_cannot_be_reached_holds_up_no_other() -> None:
    with contextlib.closing(Troubled()) as store, ResumableStreamContext(store) as context:
        feeds = {name: Feed(f"{name}1") for name in "ab"}
        for name, feed in feeds.items():
            context.start(name, feed)
        reply = follow(context, "a", "b", heartbeat=0.1)
        read_until(reply, "live:a", "chunk:a", "live:b", "chunk:b")
        store.away.add("a")
        feeds["b"].put("b2")
        store.wake()
        reply.read_until(b"data: b2")
        store.away.clear()
        feeds["a"].put("a2")
        reply.read_until(b"data: a2")
        store.away.add("a")
        feeds["a"].put("a3")
        events = reply.events()  # away for longer than the grace time: the viewer is sent away
        assert "end" not in [event.event for event in events]


@st.composite
def programs(draw: st.DrawFn) -> list[tuple[list[bytes], str]]:
    """For each stream its chunks and its ending."""
    text = st.text(st.sampled_from("aü€\n\r:𝄞 "), min_size=1, max_size=12).map(str.encode)
    torn = text.flatmap(lambda each: st.integers(0, len(each)).map(lambda at: (each[:at], each[at:])))
    chunks = st.lists(torn, max_size=8).map(lambda pairs: [half for pair in pairs for half in pair if half])
    return draw(
        st.lists(st.tuples(chunks, st.sampled_from(["done", "error", "cancelled"])), min_size=1, max_size=4)
    )


_numbers = itertools.count()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(programs(), st.lists(st.integers(0, 900), max_size=8), st.sampled_from(["json", "base64"]), st.randoms())
def test_cut_anywhere_each_stream_is_exact(
    store: Store, program: list[tuple[list[bytes], str]], cuts: list[int], encode: str, chance: random.Random
) -> None:
    number = next(_numbers)
    with ResumableStreamContext(store, on_error=lambda *_: None) as context:
        ids = [f"{number}:{index}" for index in range(len(program))]
        feeds = [Feed() for _ in program]
        for stream_id, feed in zip(ids, feeds, strict=True):
            context.start(stream_id, feed)
        steps = [(index, chunk) for index, (chunks, _) in enumerate(program) for chunk in chunks]
        order = sorted(range(len(steps)), key=lambda _: chance.random())
        queues = {index: iter(chunks) for index, (chunks, _) in enumerate(program)}

        def play() -> None:
            for place in order:
                feeds[steps[place][0]].put(next(queues[steps[place][0]]))
            for index, (_, how) in enumerate(program):
                if how == "cancelled":
                    context.cancel(ids[index])
                else:
                    feeds[index].end(ValueError("x") if how == "error" else None)

        player = threading.Thread(target=play)
        player.start()
        bodies: dict[str, bytes] = {stream_id: b"" for stream_id in ids}
        ends: dict[str, str] = {}
        cursor = ""
        for limit in [*cuts, None, None]:
            parser = EventParser()
            reply = follow(context, *ids, cursor=cursor, encode=encode)
            if reply.status == 204:
                break
            events = list(_limited(parser, reply, limit))
            reply.close()
            for event in events:
                kind, _, stream_id = event.event.partition(":")
                if kind == "chunk":
                    assert stream_id not in ends
                    bodies[stream_id] += (
                        json.loads(event.data).encode() if encode == "json" else base64.b64decode(event.data)
                    )
                elif kind == "end" and stream_id:
                    assert stream_id not in ends
                    ends[stream_id] = json.loads(event.data)["status"]
                cursor = event.id
        else:
            raise AssertionError("it goes on after the last `end`")
        player.join()
        assert ends == {stream_id: how for stream_id, (_, how) in zip(ids, program, strict=True)}
        for stream_id, (chunks, how) in zip(ids, program, strict=True):
            stored = b"".join(batch.data for batch in context.batches(stream_id, live=False))
            sent = bodies[stream_id]
            if encode == "json" and how != "done":  # half a character is no text
                assert stored.startswith(sent) and len(stored) - len(sent) < 4
            else:
                assert sent == stored
            assert how == "cancelled" or stored == b"".join(chunks)


def _limited(parser: EventParser, reply: Reply, limit: int | None) -> Iterator[Event]:
    """The events in the first `limit` bytes of a body; in all of it."""
    left = limit
    for piece in reply._pieces:
        yield from parser.each(piece if left is None else piece[:left])
        if left is not None:
            left -= len(piece)
            if left <= 0:
                return


positions = st.one_of(st.none(), st.builds(Position, st.integers(0, 2**53 - 1), st.integers(0, 10**16 - 1)))


@given(st.dictionaries(st.text("ab.:-", min_size=1, max_size=256), positions, max_size=MAX_STREAMS))
@example({f"s{number}": Position(2**53 - 1, 10**16 - 1) for number in range(MAX_STREAMS)})
def test_a_combined_cursor_says_where_each_stands(where: dict[str, Position | None]) -> None:
    cursor = CombinedCursor(where)
    for stream_id, position in where.items():
        if position is None:
            cursor.end(stream_id)
        else:
            cursor.reach(stream_id, position)
    assert len(str(cursor)) <= 3070
    again = CombinedCursor([*where, "new"], str(cursor))
    assert {stream_id: again.position(stream_id) for stream_id in where} == where
    assert again.left() == [stream_id for stream_id, position in where.items() if position] + ["new"]
    assert str(again) == str(cursor)


@given(
    st.one_of(
        st.text(max_size=40), st.binary(max_size=60).map(lambda b: "s1." + base64.urlsafe_b64encode(b).decode())
    )
)
def test_what_is_no_combined_cursor_is_refused(text: str) -> None:
    try:
        cursor = CombinedCursor(["s"], text)
    except InvalidCursorError:
        return
    assert CombinedCursor(["s"], str(cursor)).left() == cursor.left()


@pytest.mark.parametrize("kind", [pytest.param("waitress", marks=pytest.mark.heavy), "gunicorn"])
def test_over_a_server(kind: str, tmp_path: Path) -> None:
    if kind == "gunicorn":
        with Gunicorn(tmp_path, f"sqlite:///{tmp_path}/streams.db") as server:
            _over(server)
    else:
        with in_process(kind) as other:
            _over(other)


def _over(server: Server) -> None:
    """Ten streams, one of them silent: one thread, which is free again soon after the viewer has left."""
    ids = [f"s{number}" for number in range(10)]
    for stream_id in ids[:-1]:
        server.get(f"/raw/{stream_id}?source=failing").leave()
    server.get(f"/raw/{ids[-1]}?source=silent").leave()
    wait_until(lambda: server.viewers() == 0)
    wait_until(lambda: all(server.ask(f"/status/{each}")["status"] == "error" for each in ids[:-1]))
    address = "/several?" + "&".join(f"id={stream_id}" for stream_id in ids)
    viewer = server.get(address)
    seen = viewer.read_until(b"event: end:s8\ndata: {") + viewer.read_until(b"\n\n")
    assert viewer.status == 200 and server.viewers() == 1
    viewer.leave()
    wait_until(lambda: server.viewers() == 0)
    cursor = re.findall(rb"id: (.*)\n", seen)[4].decode()
    again = server.get(address, Last_Event_ID=cursor)
    rest = again.read_until(b"event: end:s8\ndata: {") + again.read_until(b"\n\n")
    begin = seen.index(cursor.encode()) + len(cursor)
    assert rest.count(b"event: end:") == seen.count(b"event: end:", begin)
    again.leave()


PAGE = """<!doctype html><script>
  const seen = {}, source = new EventSource("/several" + location.search);
  let ends = 0, opened = 0;
  source.onopen = () => { opened += 1; };
  for (const id of new URLSearchParams(location.search).getAll("id")) {
    seen[id] = "";
    source.addEventListener(`chunk:${id}`, (event) => { seen[id] += JSON.parse(event.data); });
    source.addEventListener(`end:${id}`, () => { ends += 1; });
  }
</script>"""


@pytest.mark.heavy
def test_an_event_source_follows_ten_streams_over_cuts(browser: webdriver.Chrome, report: Report) -> None:
    """More than the connections that a browser makes. It comes back by itself, and stops when all have ended."""
    feeds = {f"s{number}": Feed() for number in range(10)}
    chunks = [f"{number} ünïcödé\r\n" for number in range(200)]
    store = MemoryStore()
    context = ResumableStreamContext(store)
    chance = random.Random(3)
    requests: list[str] = []

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/several":
            start_response("200 OK", [("Content-Type", "text/html")])
            return [PAGE.encode()]
        requests.append(environ.get("HTTP_LAST_EVENT_ID", ""))
        return several_sse_response(context, list(feeds), encode="json", retry=0.02, heartbeat=0.2)(
            environ, start_response
        )

    with (
        serving("werkzeug", application) as port,
        relay(port, lambda: Fate(chance.randrange(3000, 60_000))) as wire,
    ):
        for stream_id, feed in feeds.items():
            context.start(stream_id, feed)
        browser.get(f"http://127.0.0.1:{wire.port}/?" + "&".join(f"id={stream_id}" for stream_id in feeds))
        for chunk in chunks:
            for feed in feeds.values():
                feed.put(chunk)
        for feed in feeds.values():
            feed.end()
        wait_until(
            lambda: bool(browser.execute_script("return source.readyState === EventSource.CLOSED")), PATIENCE
        )
        seen, ends = browser.execute_script("return [seen, ends]")
        assert seen == {stream_id: "".join(chunks) for stream_id in feeds} and ends == len(feeds)
        report(connections=len(requests), cuts=wire.cuts, longest_cursor=max(map(len, requests)))
        context.close()
    store.close()
