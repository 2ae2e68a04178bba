"""A cluster of three primaries on loopback: routing, slots that move, and a node that comes and goes."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from redis.crc import key_slot

from resumable_sync import ResumableStreamContext
from resumable_sync import open_store as open_by_url
from resumable_sync.contract import Lease
from resumable_sync.stores.redis import RedisStore
from resumable_sync.stores.redis.cluster import SlotMap
from resumable_sync.stores.redis.keys import Keys
from resumable_sync.stores.redis.settings import from_url
from resumable_sync.testing.kit import acquired, call, drain, known

from ...figures import Report
from ...support import PATIENCE, wait_until
from ..faults.follower import Follower
from ..faults.rounds import rounds
from ..faults.source import text
from .server import RedisServer, claim_port

SLOTS = 16384


class Cluster:
    """Three primaries without replicas, each with a third of the slots."""

    def __init__(self) -> None:
        self.nodes = [RedisServer("--cluster-enabled", "yes", "--cluster-node-timeout", "2000") for _ in range(3)]
        self.ids = [_text(node.command("CLUSTER", "MYID")) for node in self.nodes]
        for number, node in enumerate(self.nodes):
            first, last = number * SLOTS // 3, (number + 1) * SLOTS // 3 - 1
            node.command("CLUSTER", "ADDSLOTS", *range(first, last + 1))
            node.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            self.nodes[0].command("CLUSTER", "MEET", "127.0.0.1", node.port)
        for node in self.nodes:
            wait_until(lambda: self._is_ready(node), what="the cluster agrees")
        self.url = f"redis+cluster://127.0.0.1:{self.nodes[0].port}"

    def _is_ready(self, node: RedisServer) -> bool:
        info = _text(node.command("CLUSTER", "INFO"))
        return "cluster_state:ok" in info and "cluster_known_nodes:3" in info

    def owner(self, slot: int) -> int:
        """The number of the node that has this slot."""
        for first, last, (_, port, *_), *_ in self.nodes[0].command("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return [node.port for node in self.nodes].index(port)
        raise AssertionError(f"nobody has slot {slot}")

    def move(self, stream_id: str, pause: threading.Event) -> None:
        """Move the slot of a stream to another node, key by key."""
        slot = key_slot(stream_id.encode())
        source = self.owner(slot)
        target = (source + 1) % 3
        self.nodes[target].command("CLUSTER", "SETSLOT", slot, "IMPORTING", self.ids[source])
        self.nodes[source].command("CLUSTER", "SETSLOT", slot, "MIGRATING", self.ids[target])
        while keys := self.nodes[source].command("CLUSTER", "GETKEYSINSLOT", slot, 1):
            pause.wait(0.01)  # so that some calls find the slot half moved
            self.nodes[source].command("MIGRATE", "127.0.0.1", self.nodes[target].port, "", 0, 5000, "KEYS", *keys)
        for number in (target, source, 3 - target - source):
            self.nodes[number].command("CLUSTER", "SETSLOT", slot, "NODE", self.ids[target])

    def close(self) -> None:
        for node in self.nodes:
            node.close()


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    yield made
    made.close()


def test_streams_on_all_nodes(cluster: Cluster) -> None:
    store, other = open_by_url(cluster.url), open_by_url(cluster.url)
    leases = [acquired(store, f"all{number}") for number in range(20)]
    followers = [Follower(other, lease.stream_id) for lease in leases[:5]]
    for number in range(10):
        results = store.append_many([(lease, [b"%03d" % number]) for lease in leases])
        assert all(isinstance(result, str) for result in results), results
    assert store.renew(leases) == [None] * 20
    for lease in leases:
        store.finalize(lease, "done")
    expected = b"".join(b"%03d" % number for number in range(10))
    for follower in followers:
        follower.join()
        assert follower.error is None and bytes(follower.data) == expected
    assert all(drain(other, lease.stream_id)[0] == expected for lease in leases)
    names = [info.stream_id for info in store.streams()]
    assert names == sorted(names) and {lease.stream_id for lease in leases} <= set(names)
    assert store.delete("all3") and not store.delete("all3")
    store.close()
    other.close()


def test_a_cluster_client(cluster: Cluster) -> None:
    with redis.RedisCluster(host="127.0.0.1", port=cluster.nodes[1].port, decode_responses=True) as client:
        store = RedisStore(client, prefix="mine")
        lease = acquired(store, "s")
        store.append(lease, b"x")
        assert store.read("s").data == b"x"
        store.close()


def test_a_cluster_client_with_a_function_of_its_own(cluster: Cluster) -> None:
    seen: list[Any] = []
    with redis.RedisCluster(
        host="127.0.0.1", port=cluster.nodes[1].port, redis_connect_func=seen.append
    ) as client:
        seen.clear()
        store = RedisStore(client, prefix="function")
        acquired(store, "s")
        assert seen  # called for the store's own connections
        store.close()


def test_the_slot_of_each_key(cluster: Cluster) -> None:
    """The node that `SlotMap.find` names is the one whose slots hold what CLUSTER KEYSLOT says."""
    slots = SlotMap(from_url(cluster.url), 2.0)
    owned: dict[tuple[str, int], int] = {}
    for stream_id in ["a", "b:c", "x" * 256, "A-Z_0.9", *(f"s{number}" for number in range(50))]:
        keys = Keys("über")
        found = {slots.find(key) for key in keys.of(stream_id)}
        number = int(cluster.nodes[0].command("CLUSTER", "KEYSLOT", keys.log(stream_id)))
        assert len(found) == 1 and found.pop().address == ("127.0.0.1", cluster.nodes[cluster.owner(number)].port)
        owned[slots.find(keys.log(stream_id)).address] = number
    assert len(owned) == 3  # all nodes were named
    assert len({slots.find(key) for key in Keys("p").index}) == 1


def test_a_table_of_slots_that_nobody_tells(cluster: Cluster) -> None:
    away, claim = claim_port()
    with claim:  # nobody listens there
        with pytest.raises(redis.ConnectionError):
            SlotMap(from_url(f"redis+cluster://127.0.0.1:{away}"), 0.5).find("key")
        # The first node is away: the next one tells.
        url = f"redis+cluster://127.0.0.1:{away},127.0.0.1:{cluster.nodes[2].port}"
        assert SlotMap(from_url(url), 0.5).find("key").address[0] == "127.0.0.1"


@rounds(2, 20, 900)
def test_slots_move_under_a_stream(cluster: Cluster, rounds: int, report: Report) -> None:
    store, other = open_by_url(cluster.url, grace=30.0), open_by_url(cluster.url, grace=30.0)
    stop = threading.Event()
    pause = threading.Event()
    made = 0

    def source() -> Iterator[bytes]:
        nonlocal made
        while not stop.is_set():
            yield text(made, made + 50)
            made += 50
            pause.wait(0.002)

    store.delete("moving")
    with ResumableStreamContext(store) as context:
        here = context.run("moving", source)
        follower = Follower(other, "moving")
        got = next(here)
        for _ in range(rounds):
            cluster.move("moving", pause)
            got += next(here)
            seen = len(follower.data)
            wait_until(lambda: len(follower.data) > seen + 500, what="the follower goes on")
        stop.set()
        got += b"".join(here)
        follower.join()
    assert follower.error is None
    assert got == bytes(follower.data) == text(0, made)
    report(moves=rounds, chunks=made // 50)
    store.close()
    other.close()


def test_a_frozen_node_holds_up_nothing_on_the_others() -> None:
    """G7, G8: chunks, leases, viewers and sweeps of the streams on the nodes that are well."""
    cluster = Cluster()
    for node in cluster.nodes:  # so that those that are well go on without the third
        node.command("CONFIG", "SET", "cluster-node-timeout", 120_000, "cluster-require-full-coverage", "no")

    def on(number: int, name: str) -> str:
        ids = (f"{name}{each}" for each in range(10_000))
        return next(each for each in ids if cluster.owner(key_slot(each.encode())) == number)

    grace = 4.0
    store = open_by_url(cluster.url, timeout=1.5, grace=grace)
    other = open_by_url(f"redis+cluster://127.0.0.1:{cluster.nodes[1].port}", timeout=1.5, grace=grace)
    silent, busy, stuck = on(1, "silent"), on(2, "busy"), on(0, "stuck")
    stop, pause, made = threading.Event(), threading.Event(), 0

    def quiet() -> Iterator[bytes]:
        yield b"x"
        stop.wait()

    def endless() -> Iterator[bytes]:
        while not stop.is_set():
            yield b"x" * 100
            pause.wait(0.01)

    def source() -> Iterator[bytes]:
        nonlocal made
        while not stop.is_set():
            yield text(made, made + 50)
            made += 50
            pause.wait(0.01)

    with ResumableStreamContext(store) as context:
        for stream_id, make in ((silent, quiet), (stuck, endless), (busy, source)):
            assert next(context.run(stream_id, make))
        follower = Follower(other, busy)
        cluster.nodes[0].signal(signal.SIGSTOP)
        try:
            until = time.monotonic() + 2.5 * grace
            while time.monotonic() < until:
                seen = len(follower.data)
                wait_until(lambda: len(follower.data) > seen, grace, "the follower goes on")
                assert other.status(silent) == other.status(busy) == "streaming"
        finally:
            cluster.nodes[0].signal(signal.SIGCONT)
        stop.set()
        follower.join()
        assert b"".join(context.require_resume(silent)) == b"x"
    assert follower.error is None and bytes(follower.data) == text(0, made)
    store.close()
    other.close()
    cluster.close()


@rounds(2, 50, 900)
def test_commits_while_slots_move(rounds: int, cluster: Cluster) -> None:
    """G12: each is stored once, in its writer's order, also what is not fenced: MOVED, ASK and TRYAGAIN prove that
    nothing was executed. Notes and takeovers go along."""
    store, other = (open_by_url(cluster.url, timeout=PATIENCE, grace=60.0) for _ in range(2))
    assert isinstance(store, RedisStore) and isinstance(other, RedisStore)
    assert store.create("moving.shared", notes={"kept": "x" * 1000})
    lease = store.acquire("moving.lease", handover=60.0)
    assert lease is not None
    stop, pause = threading.Event(), threading.Event()

    def write(number: int) -> list[bytes]:
        mine = [other, store][number % 2]
        count, note = 0, None
        chunks = []
        while not stop.is_set():
            chunk = b"%d:%05d;" % (number, count)
            count += 1
            if number < 2:
                after = f"{count} {number}"
                mine.commit("moving.shared", chunk, expect={f"w{number}": note}, notes={f"w{number}": after})
                note = after
            else:
                mine.commit("moving.shared", chunk)
            chunks.append(chunk)
        return chunks

    def hand_over() -> int:
        held: Lease | None = lease
        terms = 1
        while not stop.is_set():
            assert held is not None
            store.append(held, b"%d;" % terms, notes={"term": str(terms)})
            store.release(held)
            held = other.take_over("moving.lease", held.generation)
            terms += 1
        return terms

    follower = Follower(other, "moving.shared")
    writers = [call(write, number) for number in range(4)]
    terms = call(hand_over)
    for _ in range(rounds):
        cluster.move("moving.shared", pause)
        cluster.move("moving.lease", pause)
    stop.set()
    written = [writer.result(PATIENCE) for writer in writers]
    last = terms.result(PATIENCE)
    store.commit("moving.shared", ending="done")
    follower.join()
    stored = bytes(follower.data).split(b";")[:-1]
    assert follower.error is None and bytes(follower.data) == drain(store, "moving.shared")[0]
    for number, chunks in enumerate(written):
        assert [each + b";" for each in stored if each.startswith(b"%d:" % number)] == chunks
    assert len(stored) == sum(map(len, written))
    notes = known(store, "moving.shared").notes
    assert notes["kept"] == "x" * 1000 and notes["w0"] == f"{len(written[0])} 0"
    info = known(store, "moving.lease")
    assert info.term == last and info.notes == {"term": str(last - 1)}
    assert drain(store, "moving.lease")[0] == b"".join(b"%d;" % term for term in range(1, last))
    for each in (store, other):
        each.close()
