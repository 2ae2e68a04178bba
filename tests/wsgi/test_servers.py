"""Real servers: viewers that leave, cuts anywhere, HEAD, endings."""

from __future__ import annotations

import contextlib
import http.client
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from resumable_sync.sse import EventParser

from .application import TEXT
from .servers import HEARTBEAT, VIEWERS, Gunicorn, Server, in_process
from .support import wait_until

WHOLE = b"".join(TEXT)
MANY_VIEWERS = 32
ENDING = re.compile(rb'event: end\ndata: {"status": "(\w+)"')


@pytest.fixture(scope="module", params=["wsgiref", "werkzeug", "waitress", "gunicorn"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running: Any
    if request.param == "gunicorn":
        running = Gunicorn(tmp_path_factory.mktemp("gunicorn"), "memory://", "--workers", "1")
    else:
        running = in_process(request.param)
    with running as found:
        yield found


@pytest.mark.parametrize("route", ["raw", "sse"])
def test_a_viewer_that_leaves_frees_its_thread(server: Server, route: str) -> None:
    """Within two heartbeats, also where nothing can be written: the stream is silent."""
    viewers = [server.get(f"/{route}/silent-{route}") for _ in range(VIEWERS)]
    for viewer in viewers:
        viewer.read_until(b"hello")
    assert server.viewers() == VIEWERS
    refused = server.get(f"/{route}/silent-{route}")
    assert refused.status == 503 and refused.headers["retry-after"] == "5"
    refused.leave()
    left = time.monotonic()
    for viewer in viewers:
        viewer.leave()
    wait_until(lambda: server.viewers() == 0)
    assert time.monotonic() - left < 2 * HEARTBEAT + 2.0  # what a busy machine adds
    assert server.ask(f"/status/silent-{route}")["status"] == "streaming"


def test_head(server: Server) -> None:
    for route in ("raw", "sse"):
        reply = server.get(f"/{route}/head-{route}", "HEAD")
        assert (reply.status, reply.headers["x-resumable-status"], reply.read()) == (200, "missing", b"")
        reply.leave()
        assert server.ask(f"/status/head-{route}")["status"] == "missing"
    reply = server.get("/resume/head-raw", "HEAD")
    assert (reply.status, reply.read()) == (404, b"")
    reply.leave()
    assert server.viewers() == 0


def test_headers_arrive_before_the_first_byte(server: Server) -> None:
    """Events: everywhere, as `live` comes at once. Raw bytes: but for waitress, which waits for one."""
    for route in ("sse", "raw") if server.kind != "waitress" else ("sse",):
        started = server.get(f"/{route}/mute-{route}?source=mute")
        assert started.status == 200
        started.leave()


@pytest.mark.parametrize("seed", range(3))
def test_raw_cut_anywhere_and_resumed_is_exact(server: Server, seed: int) -> None:
    """The stream is produced meanwhile; every response is left after a random number of bytes."""
    chance = random.Random(seed)
    path, stream_id = "/raw/raw-{0}?source=slow", seed
    found = b""
    cursor = ""
    while len(found) < len(WHOLE):
        viewer = server.get(path.format(stream_id) if not cursor else f"/resume/raw-{stream_id}?after={cursor}")
        assert viewer.status == 200
        generation, offset = viewer.headers["x-resumable-cursor"].split("-")
        assert int(offset) == len(found)
        found += viewer.read_bytes(chance.randint(1, 4000))
        viewer.leave()
        cursor = f"{generation}-{len(found)}"
    assert found == WHOLE
    wait_until(lambda: server.ask(f"/status/raw-{seed}")["status"] == "done")
    head = server.get(f"/resume/raw-{seed}?after={cursor}", "HEAD")
    assert int(head.headers["x-resumable-size"]) == len(found) and head.headers["x-resumable-status"] == "done"
    head.leave()


@pytest.mark.parametrize("seed", range(3))
def test_events_cut_anywhere_and_resumed_are_exact(server: Server, seed: int) -> None:
    """As an EventSource: reconnects with the last id after every end, stops at 204."""
    chance = random.Random(seed)
    found: list[str] = []
    last = ""
    statuses = []
    while True:
        headers = {"Last_Event_ID": last} if last else {}
        viewer = server.get(f"/sse/sse-{seed}?source=slow", **headers)
        if viewer.status == 204:
            viewer.leave()
            break
        assert viewer.status == 200
        parser = EventParser()
        for event in parser.feed(viewer.read_bytes(chance.randint(1, 12000))):
            last = event.id
            if event.event == "message":
                found.append(event.data)
            elif event.event == "end":
                statuses.append(event.data)
        viewer.leave()
    assert "".join(found).encode() == WHOLE
    assert len(statuses) <= 1


def test_an_ending_that_is_not_done_does_not_look_complete(server: Server) -> None:
    viewer = server.get("/sse/failed?source=failing")
    body = viewer.read()
    viewer.leave()
    assert ENDING.findall(body) == [b"error"] and b"secret" not in body
    viewer = server.get("/resume/failed")
    with pytest.raises(http.client.IncompleteRead) as cut:  # a byte more was announced
        viewer.read()
    assert cut.value.partial == b"hello"
    viewer.leave()
    head = server.get("/resume/failed", "HEAD")
    assert head.headers["x-resumable-status"] == "error"
    head.leave()


def test_many_viewers_at_once_see_the_same(server: Server) -> None:
    viewers = [server.get("/raw/shared?source=slow") for _ in range(VIEWERS)]
    with contextlib.ExitStack() as leaving:
        for viewer in viewers:
            leaving.callback(viewer.leave)
        assert {viewer.read() for viewer in viewers} == {WHOLE}
    wait_until(lambda: server.viewers() == 0)


def test_sigterm_ends_streams_and_the_worker_at_once(tmp_path: Path) -> None:
    store = tmp_path / "streams.db"
    with Gunicorn(tmp_path, f"sqlite:///{store}", "--workers", "1") as server:
        raw, events = server.get("/raw/silent"), server.get("/sse/silent")
        raw.read_until(b"hello")
        events.read_until(b"hello")
        began = time.monotonic()
        server.terminate()
        statuses = ENDING.findall(events.read())
        assert statuses in ([], [b"interrupted"])  # it comes back to another process, or was quick enough to see
        with pytest.raises(http.client.IncompleteRead):
            raw.read()
        raw.leave()  # gunicorn lingers a while for a client that does not close
        events.leave()
        assert server.process.wait(30) == 0
        assert time.monotonic() - began < 15  # gunicorn's own patience is 20 s
    assert "Traceback" not in server.log.read_text()
    with Gunicorn(tmp_path, f"sqlite:///{store}", "--workers", "1") as server:
        assert server.ask("/status/silent")["status"] == "interrupted"
        events = server.get("/again/silent")
        assert ENDING.findall(events.read()) == [b"interrupted"]
        events.leave()


def test_two_preloaded_workers_serve_one_stream(tmp_path: Path) -> None:
    """Viewers on both workers see the same bytes; those that leave free their threads within two heartbeats."""
    store = f"sqlite:///{tmp_path / 'streams.db'}"
    with Gunicorn(tmp_path, store, "--workers", "2", "--preload", viewers=MANY_VIEWERS) as server:
        pids: set[int] = set()

        def both_were_met() -> bool:
            pids.add(server.ask("/viewers")["pid"])
            return len(pids) == 2

        wait_until(both_were_met, 30)
        viewers = [server.get("/raw/shared?source=slow") for _ in range(MANY_VIEWERS)]
        assert {viewer.read() for viewer in viewers} == {WHOLE}
        for viewer in viewers:
            viewer.leave()
        waiting = [server.get("/raw/silent") for _ in range(MANY_VIEWERS)]
        for viewer in waiting:
            assert viewer.read_until(b"hello") == b"hello"
        left = time.monotonic()
        for viewer in waiting:
            viewer.leave()
        free: set[int] = set()

        def all_free() -> bool:
            answer = server.ask("/viewers")
            (free.add if answer["viewers"] == 0 else free.discard)(answer["pid"])
            return free == pids

        wait_until(all_free, 10)
        assert time.monotonic() - left < 2 * HEARTBEAT + 2.0  # what a busy machine adds
        assert server.ask("/status/silent")["status"] == "streaming"
