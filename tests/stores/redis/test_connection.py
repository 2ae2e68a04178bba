"""Connections: turns are in order, none is lost, and one that was dropped without a word costs one timeout."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hiredis
import pytest
import redis

from resumable_sync import StoreUnavailableError, StreamLostError
from resumable_sync import open_store as open_any
from resumable_sync.stores.redis import RedisStore
from resumable_sync.stores.redis.connection import Link, Node, failure
from resumable_sync.stores.redis.scripts import Call
from resumable_sync.stores.redis.settings import from_url
from resumable_sync.testing.kit import acquired

from ...support import wait_until
from .proxy import CuttingProxy
from .server import RedisServer, claim_port

PING = Call("", ("PING",))


@pytest.fixture
def node(server: RedisServer) -> Iterator[Node]:
    node = Node(from_url(server.url).endpoints[0], 10.0, 1)
    yield node
    node.close()


class Waiter:
    """A thread that takes a connection, notes its number and makes a trip."""

    def __init__(self, node: Node, number: int, order: list[int]) -> None:
        self._node, self._number, self._order = node, number, order
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        turns = len(node._turns)
        self.thread.start()
        wait_until(lambda: len(node._turns) == turns + 1)

    def _run(self) -> None:
        try:
            trip = self._node.send([PING])
            self._order.append(self._number)
            assert trip.replies() == [b"PONG"]
        except Exception as error:
            self.error = error


def test_first_come_first_served(node: Node) -> None:
    trip = node.send([PING])
    order: list[int] = []
    waiters = [Waiter(node, number, order) for number in range(10)]
    assert trip.replies() == [b"PONG"]
    node.send([PING]).replies()  # comes last, although the connection may be back before the others run
    assert order == list(range(10))
    for waiter in waiters:
        waiter.thread.join(10)
        assert waiter.error is None
    assert node.open == 1 and len(node._idle) == 1 and not node._turns


def test_a_broken_connection_passes_its_place_on(node: Node) -> None:
    trip = node.send([PING])
    order: list[int] = []
    waiters = [Waiter(node, number, order) for number in range(3)]
    trip.abandon()
    for waiter in waiters:
        waiter.thread.join(10)
        assert waiter.error is None
    assert order == [0, 1, 2] and node.open == 1 and len(node._idle) == 1


def test_who_gives_up_leaves_the_others_their_turns(server: RedisServer) -> None:
    node = Node(from_url(server.url).endpoints[0], 0.5, 1)
    trip = node.send([PING])
    order: list[int] = []
    early = Waiter(node, 0, order)
    early.thread.join(10)
    assert isinstance(early.error, redis.TimeoutError) and not node._turns
    late = Waiter(node, 1, order)
    trip.replies()
    late.thread.join(10)
    assert late.error is None and order == [1] and node.open == 1
    node.close()


def test_another_connection_where_none_comes_free(server: RedisServer) -> None:
    node = Node(from_url(server.url).endpoints[0], 10.0, 2)
    first = node.send([PING])
    second = node.send([PING])
    assert node.open == 2
    assert first.replies() == second.replies() == [b"PONG"]
    assert node.send([PING]).replies() == [b"PONG"] and node.open == 2
    node.close()
    assert node.open == 0
    with pytest.raises(redis.ConnectionError, match="closed"):
        node.send([PING])


@pytest.mark.parametrize("patience", [None, 0.05])
def test_an_idle_connection_dropped_without_a_word(server: RedisServer, patience: float | None) -> None:
    """One timeout, then it goes on by a new connection; a new one that is silent too is the end of it."""
    drop = 0

    def decide(kind: str, _: bytes) -> str:
        nonlocal drop
        if kind == "request" and drop:
            drop -= 1
            return "drop"
        return "pass"

    proxy = CuttingProxy(server.port, decide)
    link = Link(from_url(f"redis://127.0.0.1:{proxy.port}?protocol=2"), 1.5, 1)
    assert link.run([PING]) == [b"PONG"]
    drop = 1
    began = time.monotonic()
    assert link.run([PING], patience) == [b"PONG"] and drop == 0
    assert time.monotonic() - began >= 1.5
    drop = 10
    with pytest.raises(StoreUnavailableError) as caught:
        link.ask(PING)
    assert caught.value.transient and drop == 8
    link.close()
    proxy.close()


def herd_after_a_drop(server: RedisServer, call: str) -> list[str]:
    """What eight threads that call at once get after all connections were dropped without a word."""
    dropped: set[threading.Thread] = set()
    seen: set[threading.Thread] = set()

    def decide(kind: str, _: bytes) -> str:
        seen.add(threading.current_thread())  # each direction of each connection has a thread of its own
        return "drop" if threading.current_thread() in dropped else "pass"

    proxy = CuttingProxy(server.port, decide)
    store = RedisStore(redis.Redis(port=proxy.port, protocol=2), prefix=call, timeout=3.0, grace=30)
    for number in range(8):
        store.create(f"{call}{number}")
    time.sleep(0.6)
    dropped.update(seen)
    barrier = threading.Barrier(8)
    outcomes: list[str] = []

    def run(number: int) -> None:
        name = f"{call}{number}"
        barrier.wait()
        try:
            if call == "commit":
                store.commit(name, b"x")
            elif call == "noted":
                store.commit(name, b"x", expect={"n": None}, notes={"n": "1"})
            else:
                assert store.info(name) is not None
            outcomes.append("")
        except StoreUnavailableError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    store.close()
    proxy.close()
    return outcomes


@pytest.mark.parametrize("call", ["info", "commit", "noted"])
def test_all_that_wait_for_connections_dropped_without_a_word_get_through(server: RedisServer, call: str) -> None:
    assert herd_after_a_drop(server, call) == [""] * 8


def test_errors_come_as_the_store_s_own(server: RedisServer, prefix: str) -> None:
    server.command("SET", f"{prefix}:a", "text")
    link = Link(from_url(server.url), 1.0, 1)
    lost, fine, wrong = link.run([Call("", ("HGET", f"{prefix}:a", "x")), PING, Call("", ("NOSUCH",))])
    assert isinstance(lost, StreamLostError) and fine == b"PONG"
    assert isinstance(wrong, StoreUnavailableError) and not wrong.transient
    with pytest.raises(StreamLostError):
        link.ask(Call("", ("HGET", f"{prefix}:a", "x")))
    link.close()


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (redis.ConnectionError("gone"), True),
        (redis.TimeoutError("late"), True),
        (redis.BusyLoadingError("LOADING"), True),
        (redis.ReadOnlyError("READONLY"), True),
        (redis.ResponseError("OOM command not allowed when used memory > 'maxmemory'"), True),
        (redis.ResponseError("ERR script: -LOADING the dataset"), True),
        (redis.AuthenticationError("WRONGPASS"), False),
        (redis.ResponseError("NOPERM no permission"), False),
        (redis.ResponseError("ERR syntax"), False),
    ],
)
def test_which_failures_pass(error: Exception, transient: bool) -> None:
    made = failure(error)
    assert isinstance(made, StoreUnavailableError) and made.transient is transient
    assert str(error) in str(made)


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:{port}/0",
        pytest.param("unix://{directory}/none.sock", marks=pytest.mark.heavy),
        "redis+sentinel://127.0.0.1:{port},localhost:{port}/service/0",
        pytest.param("redis+cluster://127.0.0.1:{port},localhost:{port}", marks=pytest.mark.heavy),
    ],
)
def test_a_server_that_was_never_there_is_told_at_once(url: str, tmp_path: Path) -> None:
    """And what to do; not after `timeout` seconds of repeats."""
    port, claim = claim_port()
    with contextlib.closing(claim), open_any(url.format(port=port, directory=tmp_path), timeout=60.0) as store:
        for call in (lambda: store.acquire("s"), lambda: store.read("s"), lambda: store.info("s")):
            began = time.monotonic()
            with pytest.raises(StoreUnavailableError, match="Start the Redis server there, or correct") as refused:
                call()
            assert time.monotonic() - began < 30  # 0.3 s, on a machine that is not crowded
            assert refused.value.transient and str(port if "port" in url else tmp_path) in str(refused.value)
            assert len(str(refused.value)) < 300


def test_a_server_that_was_reached_once_is_waited_for() -> None:
    """For `timeout`, as ever; also by a call that needs another connection."""
    with RedisServer() as server, open_any(server.url, timeout=60.0) as store:
        server.kill()
        with pytest.raises(StoreUnavailableError, match="Start the Redis server"):
            store.info("s")
        server.start()
        assert store.info("s") is None
        server.kill()
        later = threading.Timer(0.8, server.start)  # longer than a server that was never there is waited for
        later.start()
        assert store.info("s") is None
        later.join()


def test_numbers_are_text_before_they_are_packed(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """hiredis does not check what becomes of a number: the process crashes if a signal handler raises there."""
    packed: list[tuple[object, ...]] = []
    pack: Any = hiredis.pack_command

    def noted(arguments: tuple[Any, ...]) -> Any:
        packed.append(arguments)
        return pack(arguments)

    monkeypatch.setattr(hiredis, "pack_command", noted)
    with RedisStore.from_url(server.url, prefix="numbers") as store:
        lease = acquired(store, "s")
        store.append(lease, b"a", b"b", notes={"n": "1"})
        assert store.read("s").data == b"ab"
        assert store.create("t") and store.commit("t", b"c", notes={"n": "1"}, expect={"n": None})
    assert len(packed) > 5
    assert {type(each) for arguments in packed for each in arguments} <= {str, bytes}
