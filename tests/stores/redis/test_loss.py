"""G6: whatever takes a stream away, its readers and its writer get a typed error within a wait slice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from resumable_sync import (
    LeaseLostError,
    ResumableStreamContext,
    ResumableStreamError,
    StreamLostError,
    StreamNotFoundError,
)
from resumable_sync.stores.redis import RedisStore
from resumable_sync.testing.kit import acquired
from resumable_sync.viewer import WAIT_SLICE

from ...support import wait_until
from ..faults.follower import Follower
from ..faults.rounds import rounds
from .conftest import OpenStore
from .server import RedisServer

CHUNKS = [b"%04d" % number for number in range(200)]


class Keys:
    """The keys of one stream, and a client to do mischief with."""

    def __init__(self, server: RedisServer, prefix: str, stream_id: str = "s") -> None:
        self.client: Any = server.client()
        self.stream_id = stream_id
        self.meta, self.log, self.fence = (f"{prefix}:{{{stream_id}}}:{name}" for name in ("meta", "log", "fence"))


def delete_all(keys: Keys, store: RedisStore) -> None:
    keys.client.delete(keys.meta, keys.log, keys.fence)


def delete_meta(keys: Keys, store: RedisStore) -> None:
    keys.client.delete(keys.meta)


def delete_log(keys: Keys, store: RedisStore) -> None:
    keys.client.delete(keys.log)


def flush(keys: Keys, store: RedisStore) -> None:
    keys.client.flushall()


def rename(keys: Keys, store: RedisStore) -> None:
    keys.client.rename(keys.log, keys.log + "-away")


def expire(keys: Keys, store: RedisStore) -> None:
    keys.client.pexpire(keys.meta, 1)
    keys.client.pexpire(keys.log, 1)
    wait_until(lambda: not keys.client.exists(keys.meta, keys.log))


def trim(keys: Keys, store: RedisStore) -> None:
    keys.client.execute_command("XTRIM", keys.log, "MAXLEN", "=", 1)


def replace_type(keys: Keys, store: RedisStore) -> None:
    keys.client.set(keys.log, "not a stream")


def swap(keys: Keys, store: RedisStore) -> None:
    """Another log of the same length in its place."""
    length = keys.client.xlen(keys.log)
    keys.client.delete(keys.log)
    for number in range(length):
        keys.client.xadd(keys.log, {"p": "x"}, id=f"5-{number + 1}")


def remove(keys: Keys, store: RedisStore) -> None:
    assert store.delete(keys.stream_id)


def recreate(keys: Keys, store: RedisStore) -> None:
    assert store.delete(keys.stream_id)
    store.append(acquired(store, keys.stream_id), b"another life")


def recreate_unseen(keys: Keys, store: RedisStore) -> None:
    """Behind the back of everyone, with a lower generation than before."""
    keys.client.delete(keys.meta, keys.log, keys.fence)
    lease = acquired(store, keys.stream_id)
    low = str(lease.generation - 2**40)
    keys.client.delete(keys.log)
    keys.client.hset(keys.meta, mapping={"generation": low, "size": 3, "entries": 1, "rows": 2})
    keys.client.xadd(keys.log, {"b": "1"}, id=f"{low}-0")
    keys.client.xadd(keys.log, {"p": "abc"}, id=f"{low}-3")


LOSSES = [
    delete_all,
    delete_meta,
    delete_log,
    flush,
    rename,
    expire,
    trim,
    replace_type,
    remove,
    recreate,
    recreate_unseen,
]
LOSSES_OF_A_STREAM = [loss for loss in LOSSES if loss is not flush]
Loss = Callable[[Keys, RedisStore], None]

TYPED = (StreamLostError, StreamNotFoundError, LeaseLostError)


@pytest.fixture
def keys(server: RedisServer, prefix: str) -> Keys:
    return Keys(server, prefix)


def blocked(server: RedisServer) -> int:
    """Clients that wait in an XREAD."""
    found: int = server.command("INFO", "clients")["blocked_clients"]
    return found


@pytest.mark.parametrize("losses", [LOSSES_OF_A_STREAM, [flush]], ids=["keys", "flush"])
@pytest.mark.parametrize("reader", ["here", "elsewhere"])
def test_waiting_readers(
    losses: list[Loss], reader: str, server: RedisServer, prefix: str, store: RedisStore, other: RedisStore
) -> None:
    followers = []
    wait_until(lambda: not blocked(server), what="the XREADs of closed stores end")
    for loss in losses:
        lease = acquired(store, loss.__name__)
        store.append(lease, *CHUNKS[:100])
        store.append(lease, *CHUNKS[100:])
        followers.append(Follower(store if reader == "here" else other, loss.__name__))
    for follower in followers:
        wait_until(lambda: len(follower.data) == 800)
    if reader == "elsewhere":
        wait_until(lambda: blocked(server), what="the XREAD blocks")
    began = []
    for loss in losses:
        began.append(time.monotonic())
        loss(Keys(server, prefix, loss.__name__), other if reader == "here" else store)
    for follower, loss, at in zip(followers, losses, began):
        follower.join()
        assert isinstance(follower.error, TYPED), (loss, follower.error)
        assert follower.ended_at - at < WAIT_SLICE, loss
        assert bytes(follower.data) == b"".join(CHUNKS)


@pytest.mark.parametrize("loss", [*LOSSES, swap])
def test_a_replaying_reader_and_the_writer(loss: Loss, keys: Keys, store: RedisStore, other: RedisStore) -> None:
    lease = acquired(store, "s")
    for chunk in CHUNKS:
        store.append(lease, chunk)
    batch = other.read("s", max_bytes=10)
    loss(keys, other)
    with pytest.raises(TYPED):
        other.read("s", batch.cursor)
    with pytest.raises(TYPED):
        other.read("s", batch.cursor, timeout=1.0)
    if loss is swap:
        return  # a foreign log of just this length is noticed by readers alone
    with pytest.raises((StreamLostError, LeaseLostError)):
        store.append(lease, b"more")
    with pytest.raises((StreamLostError, LeaseLostError)):
        store.finalize(lease, "done")


@pytest.mark.parametrize("loss", LOSSES)
def test_a_reader_that_has_not_started(loss: Loss, keys: Keys, store: RedisStore, other: RedisStore) -> None:
    lease = acquired(store, "s")
    store.append(lease, *CHUNKS)
    pieces = ResumableStreamContext(other).require_resume("s")
    loss(keys, store)
    assert_lost(pieces)


def assert_lost(pieces: Iterator[bytes]) -> None:
    """What was read when the stream was opened may still come, but then the loss."""
    data = b""
    with pytest.raises(TYPED):
        for piece in pieces:
            data += piece
    assert data in (b"", b"".join(CHUNKS))


def test_a_stream_that_was_lost_can_be_made_again(keys: Keys, store: RedisStore) -> None:
    lease = acquired(store, "s")
    store.append(lease, b"abc")
    keys.client.delete(keys.log)
    again = acquired(store, "s")
    assert again.generation > lease.generation
    store.append(again, b"new")
    assert store.read("s").data == b"new"
    with pytest.raises(LeaseLostError):
        store.append(lease, b"old")


@pytest.mark.parametrize("name", ["meta", "log", "fence"])
def test_a_key_of_another_type_harms_no_other_stream(
    name: str, server: RedisServer, prefix: str, open_store: OpenStore
) -> None:
    """Sweeps go on, elections find room; the stream can be deleted and made again, with a higher generation."""
    store = open_store(max_streams=3)
    leases = [acquired(store, "a", ttl=600), acquired(store, "b", ttl=2), acquired(store, "c", ttl=2)]
    for lease in leases:
        store.finalize(lease, "done")
    keys = Keys(server, prefix, "a")
    keys.client.delete(getattr(keys, name))
    keys.client.rpush(getattr(keys, name), "something else")
    whole = name == "fence"  # is asked for once the stream has gone
    if not whole:
        with pytest.raises(StreamLostError):
            store.read("a")
        assert store.info("a") is None
    wait_until(lambda: store.info("b") is store.info("c") is None)
    acquired(store, "d")  # in an index that was full: sweeps
    assert {info.stream_id for info in store.streams()} == ({"a", "d"} if whole else {"d"})
    assert store.delete("a") is whole  # the sweep has removed what was damaged
    again = acquired(store, "a")
    assert again.generation > leases[0].generation
    store.append(again, b"new")
    keys.client.delete(getattr(keys, name))
    keys.client.set(getattr(keys, name), "something else")
    assert store.delete("a") and not store.delete("a")
    assert store.sweep() == 0


def test_check_tells_what_is_wrong(keys: Keys, store: RedisStore) -> None:
    lease = acquired(store, "s")
    store.append(lease, *CHUNKS)
    store.append(acquired(store, "whole"), b"x")
    assert store.check() == []
    trim(keys, store)
    (problem,) = store.check()
    assert "stream s is damaged" in problem


def test_a_log_that_went_back_in_time(keys: Keys, store: RedisStore, other: RedisStore) -> None:
    """A primary that lost its newest writes: those who know of them are told, the rest stays readable."""
    lease = acquired(store, "s")
    store.append(lease, b"kept")
    saved = {name: keys.client.dump(name) for name in (keys.meta, keys.log, keys.fence)}
    store.append(lease, b"lost")
    cursor = other.read("s").cursor
    follower = Follower(other, "s", cursor)
    for name, dump in saved.items():
        keys.client.restore(name, 100_000, dump, replace=True)
    with pytest.raises(StreamLostError):
        store.append(lease, b"more")
    follower.join()
    assert isinstance(follower.error, StreamLostError)
    assert other.read("s").data == b"kept"


def test_a_restart_without_persistence(open_store: OpenStore) -> None:
    with RedisServer() as server:
        store, other = open_store(server.url), open_store(server.url)
        lease = acquired(store, "s")
        store.append(lease, *CHUNKS)
        waiting = [Follower(store, "s"), Follower(other, "s")]
        for follower in waiting:
            wait_until(lambda: len(follower.data) == 800)
        replaying = other.read("s", max_bytes=8).cursor
        pieces = ResumableStreamContext(other).require_resume("s")
        server.kill()
        server.start()
        began = time.monotonic()
        with pytest.raises(TYPED):
            other.read("s", replaying)
        assert_lost(pieces)
        with pytest.raises(StreamLostError):
            store.append(lease, b"more")
        for follower in waiting:
            follower.join()
            assert isinstance(follower.error, TYPED), follower.error
            assert follower.ended_at - began < WAIT_SLICE


@rounds(1, 20, 600)
@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "allkeys-random"])
def test_eviction(policy: str, rounds: int) -> None:
    """Under memory pressure any key may go: each stream reads back exactly, or fails with a typed error."""
    for number in range(rounds):
        with RedisServer("--maxmemory", "6mb", "--maxmemory-policy", policy) as server:
            store = RedisStore.from_url(server.url, prefix="evicted")
            lost = 0
            leases = [acquired(store, f"s{index}") for index in range(20)]
            written: dict[str, bytes] = {}
            for step in range(40):
                for lease in leases:
                    piece = b"%06d" % step * 2000
                    try:
                        store.append(lease, piece)
                    except ResumableStreamError as error:
                        assert isinstance(error, (StreamLostError, LeaseLostError)), error
                    else:
                        written[lease.stream_id] = written.get(lease.stream_id, b"") + piece
            for lease in leases:
                cursor = f"{lease.generation}-0"
                found = b""
                try:
                    while True:
                        batch = store.read(lease.stream_id, cursor)
                        found += batch.data
                        if not batch.data:
                            break
                        cursor = batch.cursor
                except TYPED:
                    lost += 1
                else:
                    assert found == written[lease.stream_id]
            assert lost, "no key was evicted"
            store.close()
