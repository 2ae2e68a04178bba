"""Commands and their replies, the latter as a real server gives them; and how generations grow."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest

from resumable_sync import (
    Lease,
    LeaseLostError,
    LimitExceededError,
    Status,
    StreamFinalizedError,
    StreamLostError,
)
from resumable_sync.contract import Position, new_generation
from resumable_sync.stores.base import Limits, Snapshot
from resumable_sync.stores.notes import Commit, Creation
from resumable_sync.stores.redis import RedisStore
from resumable_sync.stores.redis.commands import (
    Commands,
    finalize_error,
    parse_info,
    parse_message,
    parse_rows,
    parse_snapshot,
    parse_takeover,
    renewal_error,
)
from resumable_sync.stores.redis.connection import Link
from resumable_sync.stores.redis.keys import Keys
from resumable_sync.stores.redis.scripts import Call
from resumable_sync.stores.redis.settings import from_url
from resumable_sync.testing.kit import acquired

from .conftest import OpenStore
from .server import RedisServer

LIMITS = Limits(max_chunk_bytes=1000, max_stream_bytes=2000, max_entries=10, max_streams=10)


@pytest.fixture
def commands(prefix: str) -> Commands:
    return Commands(Keys(prefix), LIMITS, 3.0, None)


def ask(server: RedisServer, call: Call) -> Any:
    """The server's reply, as the store gets it."""
    link = Link(from_url(server.url), 5.0, 1)
    try:
        return link.ask(call)
    finally:
        link.close()


def test_all_names_of_a_stream_share_a_hash_tag() -> None:
    keys = Keys("app:x")
    assert keys.of("s") == ("app:x:{s}:meta", "app:x:{s}:log", "app:x:{s}:fence")
    assert keys.log("s") == keys.of("s")[1]
    assert {name.split("}")[0] for name in keys.index} == {"app:x:{~"}
    assert keys.wake() != keys.wake()


def test_states(server: RedisServer, store: RedisStore, commands: Commands) -> None:
    assert parse_snapshot(ask(server, commands.check("s"))) is None
    lease = acquired(store, "s", ttl=600)
    store.append(lease, b"a", b"bc")
    found = parse_snapshot(ask(server, commands.check("s")))
    assert isinstance(found, Snapshot)
    assert (found.generation, found.status, found.size, found.entries) == (
        lease.generation,
        Status.STREAMING,
        3,
        2,
    )
    assert found.error is None and 0 < found.valid_for <= 3.0  # the lease runs out before the life
    store.finalize(lease, "error", "Größe")
    found = parse_snapshot(ask(server, commands.check("s")))
    assert isinstance(found, Snapshot)
    assert found.status is Status.ERROR and found.error == "Größe" and 500 < found.valid_for <= 600
    lost = StreamLostError("x")
    assert parse_snapshot(lost) is lost


def test_a_dead_producer(server: RedisServer, open_store: OpenStore, commands: Commands) -> None:
    """`state` leaves the ending to the reader that has come to the end; `check` does not."""
    store = open_store(grace=0.05)
    lease = acquired(store, "s")
    store.append(lease, b"abc")
    deadline = time.monotonic() + 10

    def status(call: Call) -> Status:
        found = parse_snapshot(ask(server, call))
        assert isinstance(found, Snapshot)
        return found.status

    while (found := parse_snapshot(ask(server, commands.state("s", None)))) and time.monotonic() < deadline:
        assert isinstance(found, Snapshot)
        if found.valid_for == 0:
            break
    assert status(commands.state("s", None)) is Status.STREAMING
    assert status(commands.state("s", Position(lease.generation, 2))) is Status.STREAMING
    assert status(commands.state("s", Position(lease.generation, 3))) is Status.INTERRUPTED
    other = acquired(store, "t")
    store.append(other, b"abc")
    while status(commands.check("t")) is Status.STREAMING:
        assert time.monotonic() < deadline


def test_refusals(server: RedisServer, store: RedisStore, commands: Commands) -> None:
    lease = acquired(store, "s")
    assert store.append(lease, b"abc")

    def refused(*chunks: bytes, offset: int = 3, generation: int = lease.generation) -> Exception | None:
        mine = Lease("s", generation, offset=offset, token=lease.token)
        append = commands.append(mine, list(chunks))
        if append.call is None:
            return append.error
        return append.acknowledge(ask(server, append.call))

    assert isinstance(refused(b"x" * 1001), LimitExceededError)
    assert isinstance(refused(b"x" * 1000, b"x" * 1000), LimitExceededError)
    assert isinstance(refused(*[b"x"] * 10), LimitExceededError)
    assert isinstance(refused(b"x", generation=lease.generation - 1), LeaseLostError)
    assert isinstance(refused(b"abd", offset=0), LeaseLostError)  # other bytes are there
    assert refused(b"abc", offset=0) is None  # the same bytes are
    assert isinstance(refused(b"x", offset=4), StreamLostError)
    ahead = Lease("s", lease.generation, offset=4, token=lease.token)
    assert isinstance(renewal_error(ahead, ask(server, commands.renew(ahead))), StreamLostError)
    assert renewal_error(lease, ask(server, commands.renew(lease))) is None
    assert finalize_error(lease, ask(server, commands.finalize(lease, Status.DONE, None)), Status.DONE) is None
    again = ask(server, commands.finalize(lease, Status.ERROR, ""))
    assert isinstance(finalize_error(lease, again, Status.ERROR), StreamFinalizedError)
    assert isinstance(refused(b"x"), StreamFinalizedError)
    assert isinstance(renewal_error(lease, ask(server, commands.renew(lease))), StreamFinalizedError)


def test_a_repeated_call_writes_too(server: RedisServer, store: RedisStore, commands: Commands) -> None:
    """Each is answered as the first time, and WAIT, which counts what its own connection wrote, covers it."""

    def written() -> int:
        return int(server.command("INFO", "persistence")["rdb_changes_since_last_save"])

    def twice(call: Call) -> Any:
        first, before = ask(server, call), written()
        again = ask(server, call)
        assert written() > before, call.arguments
        assert first == again or call.arguments[1] == released, (first, again)
        return first

    generation = int(twice(commands.acquire("s", "first", 60.0, "{}", (), 60.0)))
    lease = Lease("s", generation, token="first", handover=60.0)
    assert (append := commands.append(lease, [b"abc"])).call is not None
    assert twice(append.call) == 1 == twice(commands.renew(lease))
    released = commands.release(lease).arguments[1]  # it tells the time
    assert twice(commands.release(lease))
    taken = parse_takeover("s", generation, "second", twice(commands.take_over("s", generation, "second")))
    assert taken is not None and taken.offset == 3
    assert twice(commands.finalize(taken, Status.DONE, None)) == 3
    assert twice(commands.delete("s")) == 1
    assert twice(commands.create(Creation("t", [b"abc"], 60.0, True, {}, {"n": "1"}, None), "token"))
    commit = Commit("t", [b"def"], {"n": "1"}, {"n": "2"})
    assert twice(commands.commit(commit).call)[2] == b"6"
    before = written()
    assert ask(server, commands.commit(commit).call)[0] == b"refused"  # repeated by its caller, who finds its note
    assert written() > before
    assert twice(commands.cancel("t")) == 1 and twice(commands.touch("t")) == 1
    assert commands.commit(Commit("t", [], {"n": "1"}, {"m": "2"})).fenced is False


def test_info_and_rows(server: RedisServer, store: RedisStore, commands: Commands) -> None:
    assert parse_info("s", ask(server, commands.info("s"))) is None
    lease = store.acquire("s", metadata={"k": "v"})
    assert lease is not None
    store.append(lease, b"ab", b"c")
    store.append(lease, b"d")
    assert parse_info("s", ask(server, commands.info("s"))) == store.info("s")
    reply = ask(server, commands.rows("s", Position(lease.generation, 0), 100))
    lengths = b"\x02\0\0\0\x01\0\0\0"
    assert parse_rows(reply, 4) == [(3, b"abc", lengths), (4, b"d", None)]
    assert parse_rows(reply, 3) == [(3, b"abc", lengths)]  # what came after the snapshot is left out
    assert parse_rows(ask(server, commands.rows("s", Position(lease.generation, 3), 100)), 4) == [(4, b"d", None)]
    server.command("XADD", commands.keys.log("s"), f"{lease.generation}-9", "other", "x")
    with pytest.raises(StreamLostError):
        parse_rows(ask(server, commands.rows("s", Position(lease.generation, 0), 100)), 4)


@pytest.mark.parametrize("reply", [[[b"7-x", [b"p", b""]]], [[b"7", [b"p", b""]]], [[b"7-1", []]], [None]])
def test_rows_that_are_none(reply: Sequence[Any]) -> None:
    with pytest.raises(StreamLostError):
        parse_rows(reply, 100)


def test_messages() -> None:
    assert [parse_message(message) for message in (b"", b"=", b"==", "=ö".encode())] == [None, "", "=", "ö"]


def test_generations_grow_without_a_memory(prefix: str) -> None:
    """The same number of the same time from both sources; higher after a flush, also within a second."""
    with RedisServer() as own:
        store = RedisStore.from_url(own.url, prefix=prefix)
        generations = []
        for _ in range(50):
            generations += [new_generation(0), acquired(store, "s").generation]
            own.command("FLUSHALL")
        generations.append(new_generation(0))
        store.close()
    assert generations == sorted(set(generations))
    assert abs(generations[0] / 2**20 - time.time()) < 60
    assert new_generation(2**52) == 2**52 + 1
