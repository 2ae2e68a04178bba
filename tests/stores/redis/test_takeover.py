"""Takeovers between processes, and the index of those that wait; notes and what is fetched of them."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from resumable_sync.contract import Lease, Status
from resumable_sync.errors import ConflictError, LeaseLostError
from resumable_sync.stores.redis import RedisStore
from resumable_sync.stores.redis.scripts import script
from resumable_sync.testing.kit import acquired, drain, known

from ...figures import Report
from ...support import Process, wait_until
from ..faults.follower import Follower
from ..faults.rounds import rounds
from ..faults.source import text
from .conftest import OpenStore
from .server import RedisServer

GRACE = 0.6


@pytest.fixture
def client(server: RedisServer) -> Iterator[Any]:
    with server.client(decode_responses=True) as client:
        yield client


def begun(store: RedisStore, stream_id: str, handover: float = 60.0, **options: Any) -> Lease:
    """The lease of a stream with a handover."""
    lease = store.acquire(stream_id, handover=handover, **options)
    assert lease is not None
    return lease


def waiting(store: RedisStore, stream_id: str, *others: str) -> None:
    """Wait until these streams, and no others, wait to be taken over."""
    wait_until(lambda: sorted(store.orphans()) == sorted([stream_id, *others]), what="orphans")


@rounds(3, 100, 1800)
def test_a_killed_producer_is_followed_by_another(
    rounds: int, server: RedisServer, open_store: OpenStore, report: Report
) -> None:
    """G11: viewers see every byte once, and the ending of the second term."""
    store, other = (open_store(prefix="resumable", grace=GRACE) for _ in range(2))
    rng, worst = random.Random(2), 0.0
    for number in range(rounds):
        name = f"takeover{number}"
        store.delete(name)
        arguments = ("append", server.url, name, number, GRACE, 30)
        with Process("tests.stores.redis.programs", *arguments) as process:
            process.until("acquired")
            followers = [Follower(store, name), Follower(other, name)]
            for _ in range(rng.randrange(1, 30)):
                process.until("stored")
            killed = process.kill()
            wait_until(lambda: name in store.orphans())
            info = known(store, name)
            assert info.status is Status.STREAMING and not info.producer_alive
            lease = store.take_over(name, info.generation)
            assert lease is not None and lease.term == 2
            size = lease.offset
            assert drain(store, name)[0] == text(0, size)
            store.append(lease, text(size, size + 100))
            for follower in followers:
                wait_until(lambda: len(follower.data) == size + 100)
            store.finalize(lease, "done")
        for follower in followers:
            follower.join()
            assert follower.error is None and bytes(follower.data) == text(0, size + 100)
            worst = max(worst, follower.ended_at - killed)
        store.delete(name)
    report(rounds=rounds, worst=worst)


def test_a_frozen_producer_that_wakes_adds_nothing(
    client: Any, prefix: str, store: RedisStore, other: RedisStore
) -> None:
    """G4, G11: nor does it take the place of its successor in its process."""
    old = begun(store, "s")
    store.append(old, b"abc")
    client.hset(f"{prefix}:{{s}}:meta", "until", 0)  # as if the lease had run out
    new = store.take_over("s", old.generation)
    assert new is not None
    follower = Follower(other, "s")
    for refused in (b"", b"def", b"same"):
        store.append(new, b"same")
        with pytest.raises(LeaseLostError):
            store.append(old, refused)
        assert isinstance(store.renew([old])[0], LeaseLostError)
    with pytest.raises(LeaseLostError):
        store.finalize(old, "done")
    assert store._processes.get().local["s"].token == new.token
    store.close()  # lets go of the second term
    info = known(other, "s")
    assert info.status is Status.STREAMING and not info.producer_alive
    third = other.take_over("s", old.generation)
    assert third is not None and third.term == 3
    other.finalize(third, "done")
    follower.join()
    assert follower.error is None and bytes(follower.data) == b"abc" + b"same" * 3


def test_viewers_where_it_was_produced_follow_the_next(store: RedisStore, other: RedisStore) -> None:
    """Their process produced the stream, so it read nothing of it; now it does."""
    lease = begun(store, "s")
    here, there = Follower(store, "s"), Follower(other, "s")
    store.append(lease, b"one ")
    for follower in (here, there):
        wait_until(lambda: bytes(follower.data) == b"one ")
    store.release(lease)
    taken = other.take_over("s", lease.generation)
    assert taken is not None
    other.append(taken, b"two ")
    other.release(taken)
    back = store.take_over("s", lease.generation)
    assert back is not None
    store.append(back, b"three")
    store.finalize(back, "done")
    for follower in (here, there):
        follower.join()
        assert follower.error is None and bytes(follower.data) == b"one two three"


def test_viewers_in_a_process_that_commits_see_what_others_commit(store: RedisStore, other: RedisStore) -> None:
    assert store.create("s")
    followers = [Follower(store, "s"), Follower(other, "s")]
    for number in range(100):
        (store if number % 3 else other).commit("s", b"%02d" % number)
    other.commit("s", ending="done")
    for follower in followers:
        follower.join()
        assert follower.error is None
        assert bytes(follower.data) == b"".join(b"%02d" % number for number in range(100))


def test_all_keys_of_a_stream_live_together(client: Any, prefix: str, open_store: OpenStore) -> None:
    """No key more than other streams have; one life, also through its handover."""
    store = open_store(grace=600.0)
    lease = begun(store, "s", handover=600.0, ttl=60.0)
    store.append(lease, b"x", notes={"n": "1"})
    assert store.create("t", b"x", ttl=60.0, notes={"n": "1"})
    assert store.create("u", b"x", ttl=60.0, sliding=False)
    for name, seconds in (("s", 1200), ("t", 60), ("u", 60)):
        keys = [f"{prefix}:{{{name}}}:{part}" for part in ("meta", "log", "fence")]
        assert sorted(client.scan_iter(f"{prefix}:{{{name}}}:*")) == sorted(keys)
        meta, log = (client.pttl(key) for key in keys[:2])
        assert abs(meta - log) < 1000 and seconds * 1000 - 60_000 < meta <= seconds * 1125 + 1000
    store.commit("u", b"y")
    assert client.pttl(f"{prefix}:{{u}}:meta") <= 60 * 1125 + 1000


def test_the_index_knows_before_the_stream_begins(client: Any, prefix: str, open_store: OpenStore) -> None:
    store = open_store(grace=600.0)
    orphans = f"{prefix}:{{~}}:orphans"
    process = store._processes.get()
    store.append(acquired(store, "plain"), b"x")
    assert store.create("shared")
    assert not client.exists(orphans)
    process.index.register("s", 100, 600.0)  # then its process died
    assert client.zrange(orphans, 0, -1) == ["s"] and list(store.orphans()) == []
    client.zadd(orphans, {"s": 1})  # as if that were long ago
    assert list(store.orphans()) == []
    assert not client.exists(orphans)  # it was over
    process.index.register("s", 100, 600.0)
    client.zadd(orphans, {"s": 1})
    call = process.writes.ask(store._commands.acquire("s", "token", 60.0, "{}", (), 60.0))
    assert int(call) and list(store.orphans()) == []
    due = client.zscore(orphans, "s")
    assert due is not None and float(due) > 1e12  # when its lease ends
    client.hset(f"{prefix}:{{s}}:meta", "until", 0)
    assert list(store.orphans()) == []  # not yet
    client.zadd(orphans, {"s": 1})
    assert list(store.orphans()) == ["s"] == list(store.orphans())


def test_what_is_over_is_taken_out(client: Any, prefix: str, open_store: OpenStore) -> None:
    store = open_store(grace=0.05)
    orphans = f"{prefix}:{{~}}:orphans"
    done, cancelled, deleted, again = (begun(store, name) for name in ("done", "cancelled", "deleted", "again"))
    store.finalize(done, "done")
    assert store.cancel("cancelled") and store.delete("deleted")
    assert sorted(client.zrange(orphans, 0, -1)) == ["again", "cancelled", "done"]
    store.finalize(again, "done")
    assert store.acquire("again", restart={"done"}, handover=60.0)
    waiting(store, "again")
    assert client.zrange(orphans, 0, -1) == ["again"]
    interrupted = begun(store, "interrupted", handover=0.01)
    assert interrupted
    wait_until(lambda: store.status("interrupted") is Status.INTERRUPTED)
    wait_until(lambda: store.sweep() == 0 and client.zrange(orphans, 0, -1) == ["again"])
    assert store.cancel("again")
    store.drop()
    assert not list(client.scan_iter(f"{prefix}:{{~}}:*"))


def test_who_looked_in_vain_takes_nothing_away_that_is_new(
    client: Any, prefix: str, open_store: OpenStore
) -> None:
    """The stream ended, somebody looked, and before that is put down the id begins anew."""
    store = open_store(grace=0.05)
    orphans = f"{prefix}:{{~}}:orphans"
    store.finalize(begun(store, "s"), "done")
    wait_until(lambda: float(client.zscore(orphans, "s")) < int(client.time()[0]) * 1000)
    index = store._processes.get().index
    seen = client.zscore(orphans, "s")
    index.register("s", 100, 0.05)
    for left in ("", "600000"):
        index._link.ask(script("index_update", (orphans,), "s", repr(seen), left))
        assert float(client.zscore(orphans, "s")) < int(client.time()[0]) * 1000 + 1000
    assert store.acquire("s", restart={"done"}, handover=60.0)
    waiting(store, "s")


def test_many_orphans(open_store: OpenStore) -> None:
    """In pages, with others between them."""
    store = open_store(grace=60.0)
    leases = [begun(store, f"s{number:03}") for number in range(450)]
    for lease in leases[::2]:
        store.release(lease)
    for lease in leases[1::4]:
        store.release(lease)
        assert store.cancel(lease.stream_id)
    expected = [lease.stream_id for lease in leases[::2]]
    assert sorted(store.orphans()) == expected == sorted(store.orphans())


def test_a_takeover_tries_it_once_however_many_look(open_store: OpenStore) -> None:
    stores = [open_store(grace=0.05) for _ in range(4)]
    names = [f"s{number}" for number in range(20)]
    for name in names:
        begun(stores[0], name)
    won: list[Lease] = []
    barrier = threading.Barrier(4)

    def recover(store: RedisStore) -> None:
        barrier.wait()
        for name in store.orphans():
            info = store.info(name)
            assert info is not None
            lease = store.take_over(name, info.generation)
            if lease is not None:
                won.append(lease)
                store.finalize(lease, "done")

    while len(won) < len(names):
        threads = [threading.Thread(target=recover, args=(store,)) for store in stores]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(lease.stream_id for lease in won) == sorted(names)


def test_notes_are_fetched_only_where_they_are_asked_for(
    client: Any, prefix: str, server: RedisServer, store: RedisStore
) -> None:
    notes = {f"{number:03}": "x" * 1000 for number in range(250)}
    made = store.create("s", b"abc", notes=notes)
    assert made is not None and made.notes == notes == known(store, "s").notes

    def sent() -> int:
        return int(client.info("stats")["total_net_output_bytes"])

    lease = begun(store, "t", metadata={"k": "v"})
    store.append(lease, b"x", notes=notes)
    before = sent()
    for _ in range(10):
        listed = list(store.streams())
        store.append(lease, b"x")
        assert store.read("t").data
        assert store.renew([lease]) == [None] and store.touch("s")
        store.commit("s", b"x", notes={"001": "y"})
        with pytest.raises(ConflictError):
            store.commit("s", expect={"002": "y"})
    assert [(info.stream_id, info.notes) for info in listed] == [("s", {}), ("t", {})]
    assert sent() - before < 100_000


def test_signs_of_life_wait_for_no_writes(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """What renews has its own connection: writes that hang hold up no heartbeat."""
    lease = begun(store, "s")
    assert store.create("t") is not None

    def hang(*arguments: object) -> None:
        raise AssertionError("it would wait for the writes")

    writes = store._processes.get().writes
    for name in ("run", "ask", "commit"):
        monkeypatch.setattr(writes, name, hang)
    assert store.renew([lease]) == [None] and store.touch("t") and not store.touch("u")
    with pytest.raises(AssertionError):
        store.append(lease, b"x")


def test_notes_are_counted_as_they_are_kept(client: Any, prefix: str, store: RedisStore) -> None:
    assert store.create("s", notes={"a": "ä", "b": ""})
    meta = f"{prefix}:{{s}}:meta"
    assert client.hget(meta, "notes") == "2 4"
    store.commit("s", notes={"a": None, "c": "1:2:3\n", "none": None})
    assert client.hget(meta, "notes") == "2 8"
    store.commit("s", b"xyz", expect={"c": "1:2:3\n"}, notes={"c": "::"})
    assert client.hget(meta, "notes") == "2 4" and client.hget(meta, "n:c").startswith("3:")
    assert known(store, "s").notes == {"b": "", "c": "::"}
    fields = [name for name in client.hkeys(meta) if name.startswith("n:")]
    assert sorted(fields) == ["n:b", "n:c"]
