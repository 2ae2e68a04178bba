"""Several processes that share nothing but Redis: killed, frozen and cancelled producers."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from pathlib import Path

from resumable_sync import ProducerInterruptedError, ResumableStreamContext, Status, StreamCancelledError
from resumable_sync.testing.kit import acquired, drain

from ...figures import Report
from ...support import ROOT, Process, wait_until
from ...wsgi.application import TEXT
from ...wsgi.servers import Gunicorn
from ..faults.follower import Follower
from ..faults.rounds import rounds
from ..faults.source import text
from .conftest import OpenStore
from .server import RedisServer

GRACE = 0.6


@rounds(3, 200, 1800)
def test_a_killed_producer(rounds: int, server: RedisServer, open_store: OpenStore, report: Report) -> None:
    """G7: a contiguous prefix, at least what was acknowledged; `interrupted` within grace and a slice."""
    store = open_store(prefix="resumable", grace=GRACE)
    rng = random.Random(1)
    worst = 0.0
    for number in range(rounds):
        name = f"killed{number}"
        store.delete(name)
        with Process("tests.stores.redis.programs", "append", server.url, name, number, GRACE) as process:
            process.until("acquired")
            follower = Follower(store, name)
            acknowledged = 0
            for _ in range(rng.randrange(1, 60)):
                acknowledged = int(process.until("stored"))
            threading.Event().wait(rng.random() / 100)  # the moment is random, nothing waits for it
            killed = process.kill()
            follower.join()
            for line in process.rest():
                if line.startswith("stored"):
                    acknowledged = int(line.split()[1])
        assert isinstance(follower.error, ProducerInterruptedError), follower.error
        assert follower.ended_at - killed < GRACE + 2.0
        worst = max(worst, follower.ended_at - killed)
        data = bytes(follower.data)
        assert len(data) >= acknowledged and data == text(0, len(data))
        assert drain(store, name)[0] == data
        assert store.status(name) is Status.INTERRUPTED
        store.delete(name)
    report(rounds=rounds, worst=worst)


@rounds(1, 200, 1800)
def test_a_frozen_producer(rounds: int, server: RedisServer, open_store: OpenStore) -> None:
    """G4: declared lost, taken over, woken: not one foreign byte."""
    store = open_store(prefix="resumable", grace=GRACE)
    for number in range(rounds):
        name = f"frozen{number}"
        store.delete(name)
        with Process("tests.stores.redis.programs", "append", server.url, name, number, GRACE) as process:
            process.until("stored")
            process.signal(signal.SIGSTOP)
            wait_until(lambda: store.status(name) is Status.INTERRUPTED)
            old, _ = drain(store, name)
            store.delete(name)
            lease = acquired(store, name)
            store.append(lease, b"mine")
            process.signal(signal.SIGCONT)
            assert process.until("refused").split()[0] == "LeaseLostError"
        assert old == text(0, len(old))
        assert drain(store, name)[0] == b"mine"
        store.delete(name)


def test_produce_here_view_and_cancel_there(server: RedisServer, open_store: OpenStore, report: Report) -> None:
    store = open_store(prefix="resumable")
    store.delete("shared")
    with Process("tests.stores.redis.programs", "produce", server.url, "shared", 5, 3) as process:
        process.until("running")
        followers = [Follower(store, "shared") for _ in range(3)]
        for follower in followers:
            wait_until(lambda: len(follower.data) > 5000)
        began = time.monotonic()
        assert ResumableStreamContext(store).cancel("shared")
        process.until("closed")
        assert process.until("final") == "cancelled"
        closed = time.monotonic() - began
        for follower in followers:
            follower.join()
            assert isinstance(follower.error, StreamCancelledError)
            data = bytes(follower.data)
            assert data == text(0, len(data)) == drain(store, "shared")[0]
        report(source_closed_after=closed, viewers_after=max(each.ended_at for each in followers) - began)
    store.delete("shared")


def test_two_gunicorns_on_two_machines(server: RedisServer, tmp_path: Path, open_store: OpenStore) -> None:
    """Different directories, only Redis in common: produced by one, viewed through the other, cancelled here."""
    store = open_store(prefix="resumable")
    for name in ("answer", "endless"):
        store.delete(name)
    with contextlib.ExitStack() as stack:
        machines = []
        for directory in (tmp_path / "one", tmp_path / "two"):
            directory.mkdir()
            options = ("--chdir", str(directory), "--pythonpath", str(ROOT))
            machines.append(stack.enter_context(Gunicorn(directory, server.url, *options)))
        one, two = machines
        here, there = one.get("/raw/answer?source=slow"), None
        try:
            start = here.read_bytes(100)
            there = two.get("/resume/answer")
            assert there.status == 200
            assert start + here.read() == there.read() == b"".join(TEXT)
        finally:
            here.leave()
            if there is not None:
                there.leave()
        here, there = one.get("/sse/endless?source=silent"), two.get("/again/endless")
        here.read_until(b"hello")
        there.read_until(b"hello")
        assert ResumableStreamContext(store).cancel("endless")
        for viewer in (here, there):
            assert b"cancelled" in viewer.read()
            viewer.leave()
        assert one.ask("/status/endless")["status"] == two.ask("/status/endless")["status"] == "cancelled"
    for name in ("answer", "endless"):
        store.delete(name)
