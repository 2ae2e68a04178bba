"""Connections and commands of a process do not grow with its viewers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest

from resumable_sync import ResumableStreamContext
from resumable_sync.contract import Batch, Position, Status
from resumable_sync.stores.redis import RedisStore
from resumable_sync.stores.redis.connection import Link
from resumable_sync.stores.redis.keys import Keys
from resumable_sync.stores.redis.reader import Reader
from resumable_sync.stores.tail import Fetched, Tails
from resumable_sync.testing.kit import acquired

from ...figures import Report
from ...support import wait_until
from ..faults.follower import Follower
from ..faults.rounds import rounds
from .conftest import OpenStore
from .server import RedisServer

MOST_CONNECTIONS = 9  # 4 to write, 4 to read, 1 that all viewers wait on


def connections(server: RedisServer) -> int:
    """Connections that the server has, less the one that asks."""
    count: int = server.command("INFO", "clients")["connected_clients"]
    return count - 1


def commands(server: RedisServer) -> int:
    """Commands run so far: scripts, and of what is inside them the XADDs."""
    stats = server.command("INFO", "commandstats")
    names = ("cmdstat_evalsha", "cmdstat_xread", "cmdstat_xadd", "cmdstat_pexpire")
    return sum(int(stats[name]["calls"]) for name in names if name in stats)


@rounds(60, 500, 600)
def test_many_viewers_of_one_stream(rounds: int, open_store: OpenStore, report: Report) -> None:
    with RedisServer() as server:
        before = connections(server)
        store, other = open_store(server.url), open_store(server.url)
        lease = acquired(store, "s")
        followers = [Follower(other, "s") for _ in range(rounds)]
        process = other._processes.get()
        wait_until(lambda: getattr(process.tails.find("s"), "viewers", 0) == rounds, what="all wait")
        opened = connections(server) - before
        assert opened <= MOST_CONNECTIONS + 2  # and those of the producer
        began = time.monotonic()
        chunks, appended, spent = 100, 0, 0
        pause = threading.Event()
        for _ in range(5):  # where a check comes late, all viewers ask
            used = commands(server)
            for _ in range(chunks):
                store.append(lease, b"%06d" % appended)
                appended += 1
                pause.wait(0.01)
            spent = commands(server) - used
            if spent < 4 * chunks:
                break
        store.finalize(lease, "done")
        for follower in followers:
            follower.join()
        expected = b"".join(b"%06d" % number for number in range(appended))
        assert all(bytes(follower.data) == expected for follower in followers)
        assert connections(server) - before <= MOST_CONNECTIONS + 2
        report(
            viewers=rounds, connections=opened, commands_per_chunk=spent / chunks, seconds=time.monotonic() - began
        )
        # An append (EVALSHA with its XADD), an XREAD, and now and then a check.
        assert spent < 4 * chunks


def test_many_viewers_of_many_streams(open_store: OpenStore, report: Report) -> None:
    with RedisServer() as server:
        before = connections(server)
        store, other = open_store(server.url), open_store(server.url)
        leases = [acquired(store, f"s{number}") for number in range(40)]
        followers = [Follower(other, lease.stream_id) for lease in leases for _ in range(2)]
        for round_ in range(20):
            results = store.append_many([(lease, [b"x" * 10]) for lease in leases])
            assert all(isinstance(each, str) for each in results)
        opened = connections(server) - before
        for lease in leases:
            store.finalize(lease, "done")
        for follower in followers:
            follower.join()
            assert follower.error is None and bytes(follower.data) == b"x" * 200
        assert opened <= MOST_CONNECTIONS + 5
        report(viewers=len(followers), connections=opened)


def test_viewers_of_a_local_producer_need_no_xread(open_store: OpenStore) -> None:
    with RedisServer() as server:
        store = open_store(server.url)
        lease = acquired(store, "s")
        followers = [Follower(store, "s") for _ in range(10)]
        process = store._processes.get()
        wait_until(lambda: getattr(process.tails.find("s"), "viewers", 0) == 10)
        for number in range(50):
            store.append(lease, b"%06d" % number)
        store.finalize(lease, "done")
        for follower in followers:
            follower.join()
            assert follower.error is None and len(follower.data) == 300
        assert "cmdstat_xread" not in server.command("INFO", "commandstats")


def test_a_viewer_of_a_new_stream_is_taken_up_at_once(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader blocks for other streams when it comes."""
    monkeypatch.setattr("resumable_sync.stores.redis.reader.BLOCK_SECONDS", 30.0)
    store, other = open_store(), open_store()
    leases = [acquired(store, f"s{number}") for number in range(5)]
    for lease in leases:
        follower = Follower(other, lease.stream_id)
        tails = other._processes.get().tails
        wait_until(lambda: getattr(tails.find(lease.stream_id), "viewers", 0) == 1)
        wait_until(lambda: getattr(tails.find(lease.stream_id), "generation", 0) > 0)
        began = time.monotonic()
        store.append(lease, b"now")
        wait_until(lambda: bytes(follower.data) == b"now")
        assert time.monotonic() - began < 15.0


def test_a_slow_viewer_pages_by_itself(open_store: OpenStore) -> None:
    """It is behind what the shared buffer holds; the others are not slowed and memory stays bounded."""
    from resumable_sync.stores.redis.checks import TAIL_BYTES

    store, other = open_store(), open_store()
    lease = acquired(store, "s")
    fast = Follower(other, "s")
    slow = other.read("s", f"{lease.generation}-0").cursor
    for number in range(100):
        store.append(lease, bytes([number]) * 100_000)
    wait_until(lambda: len(fast.data) == 10_000_000)
    tail = other._processes.get().tails.find("s")
    assert tail is not None and tail.end - tail._begin <= TAIL_BYTES + 100_000
    got = bytearray()
    while len(got) < 10_000_000:
        batch = other.read("s", slow, max_bytes=200_000, timeout=5.0)
        got += batch.data
        slow = batch.cursor
    assert got == fast.data
    store.finalize(lease, "done")
    fast.join()
    assert fast.error is None


@pytest.mark.heavy
@pytest.mark.timeout(600)
def test_a_million_chunks(open_store: OpenStore, report: Report) -> None:
    """Appended and replayed; the viewer holds a page of it at a time."""
    store, other = open_store(), open_store()

    def source() -> Iterator[bytes]:
        for number in range(1_000_000):
            yield b"%08d" % number

    with ResumableStreamContext(store) as context:
        began = time.monotonic()
        got = sum(map(len, context.run("s", source)))
        made = time.monotonic()
        assert got == 8_000_000
        again = b"".join(ResumableStreamContext(other).require_resume("s"))
        replayed = time.monotonic()
    assert again == b"".join(b"%08d" % number for number in range(1_000_000))
    report(appended_per_s=1_000_000 / (made - began), replayed_per_s=1_000_000 / (replayed - made))


def test_fork(store: RedisStore) -> None:
    """A child has connections, threads and feeds of its own, and its leaving harms nothing."""
    import os

    lease = acquired(store, "s")
    store.append(lease, b"parent")
    follower = Follower(store, "s")
    wait_until(lambda: bytes(follower.data) == b"parent")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            ok = store.read("s").data == b"parent"
            own = store.acquire("child")
            assert own is not None
            store.append(own, b"child")
            store.finalize(own, "done")
            ok = ok and store.read("child", f"{own.generation}-2", timeout=1.0).data == b"ild"
            store.close()
            code = 0 if ok else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    store.append(lease, b" goes on")
    store.finalize(lease, "done")
    follower.join()
    assert follower.error is None and bytes(follower.data) == b"parent goes on"
    assert store.read("child").data == b"child"


def test_the_last_row_of_a_full_reply_waits_for_the_ending_that_may_follow() -> None:
    """G12: both may be of one commit. An XREAD for many streams asks for two rows of each."""
    tails = Tails(lambda tail: None, max_bytes=1000, linger=60.0, check_seconds=60.0)
    tail = tails.enter("s")
    at_end = Batch(Position(1, 3), b"", (), size=3, status=Status.STREAMING)
    tail.caught_up(Fetched(at_end, 60.0), tail.version)
    reader = Reader(cast(Link, None), tails, Keys("p"), "control")
    positions = {f"log{number}": (tail, Position(1, 3)) for number in range(40)}

    def receive(*rows: tuple[bytes, list[bytes]]) -> Any:
        reader._hand_out({b"log0": list(rows)}, positions, 2)
        batch = tail.serve(Position(1, 3), 100)
        return batch and (batch.data, batch.status)

    first, last = (b"1-5", [b"p", b"la"]), (b"1-7", [b"p", b"st"])
    ending = (b"1-18446744073709551615", [b"e", b"done", b"n", b"7", b"m", b""])
    assert receive(first, last) == (b"la", Status.STREAMING)
    assert receive(last, ending) == (b"last", Status.DONE)
