"""G1, G3: connections are cut before and after commands; every byte is there once."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from collections.abc import Iterator

from resumable_sync import ProducerInterruptedError, ResumableStreamContext, StoreUnavailableError, StreamLostError
from resumable_sync.stores.redis import RedisStore
from resumable_sync.testing.kit import acquired, drain

from ...figures import Report
from ..faults.follower import Follower
from ..faults.rounds import rounds
from ..faults.source import text
from .conftest import OpenStore
from .proxy import CuttingProxy
from .server import RedisServer


class Chance:
    """Cuts at random: requests before they arrive, replies before and after."""

    def __init__(self, seed: int, one_in: int) -> None:
        self._random = random.Random(seed)
        self._one_in = one_in
        self._lock = threading.Lock()  # guards _random and active
        self.active = True

    def __call__(self, kind: str, _: bytes) -> str:
        with self._lock:
            if self.active and self._random.randrange(self._one_in) == 0:
                return self._random.choice(("cut", "pass-cut"))
            return "pass"


@rounds(40, 1000, 900)
def test_cut_connections(rounds: int, server: RedisServer, open_store: OpenStore, report: Report) -> None:
    """A producer and two viewers, one in another store, all through a proxy that keeps cutting."""
    chance = Chance(7, 8)
    proxy = CuttingProxy(server.port, chance)
    url = f"redis://127.0.0.1:{proxy.port}/0"
    store, other = open_store(url, grace=30.0), open_store(url, grace=30.0)
    made = 0

    def source() -> Iterator[bytes]:
        nonlocal made
        pause = threading.Event()
        while proxy.cuts < rounds:
            yield text(made, made + 7)
            made += 7
            pause.wait(0.001)

    chance.active = False
    with ResumableStreamContext(store) as context:
        here = context.run("s", source)
        follower = Follower(other, "s")
        chance.active = True
        data = b"".join(here)
        follower.join()
    chance.active = False
    assert follower.error is None
    assert data == bytes(follower.data) == text(0, made)
    info = store.info("s")
    assert info is not None and info.entries == made // 7
    report(cuts=proxy.cuts, chunks=made // 7)
    proxy.close()


@rounds(5, 50, 600)
def test_answers_survive_cuts(rounds: int, server: RedisServer, open_store: OpenStore) -> None:
    """The second answer to a repeated acquire, cancel or delete is that of the first."""
    cut = threading.Event()

    def once(kind: str, _: bytes) -> str:
        if kind == "reply" and cut.is_set():
            cut.clear()
            return "cut"
        return "pass"

    proxy = CuttingProxy(server.port, once)
    store = open_store(f"redis://127.0.0.1:{proxy.port}/0")
    for number in range(rounds):
        name = f"s{number}"
        process = store._processes.get()
        process.index.register(name, 1000)
        cut.set()
        lease = acquired(store, name)
        cut.set()
        store.append(lease, b"once")
        assert store.read(name).data == b"once"
        cut.set()
        assert store.cancel(name) is True
        assert store.cancel(name) is False
        cut.set()
        assert store.delete(name) is True
        assert store.delete(name) is False
    assert proxy.cuts >= 4 * rounds
    proxy.close()


def test_a_server_that_is_away_for_a_while(open_store: OpenStore) -> None:
    """The producer keeps what it has and goes on when the server is back; so do viewers."""
    with RedisServer("--appendonly", "yes", "--appendfsync", "always", persistent=True) as server:
        store, other = open_store(server.url, grace=20.0), open_store(server.url, grace=20.0)
        go = threading.Semaphore(0)
        made = 0

        def source() -> Iterator[bytes]:
            nonlocal made
            for _ in range(300):
                if made == 350:
                    go.acquire()
                yield text(made, made + 7)
                made += 7

        with ResumableStreamContext(store) as context:
            here = context.run("s", source)
            follower = Follower(other, "s")
            assert next(here)
            server.kill()
            go.release()
            server.start()
            rest = b"".join(here)
            follower.join()
        assert follower.error is None
        assert bytes(follower.data) == text(0, 2100)
        assert text(0, 2100).endswith(rest)
        assert drain(store, "s")[0] == text(0, 2100)


def test_a_server_that_is_gone(open_store: OpenStore) -> None:
    """StoreUnavailableError after a bounded time, transient, and at once for a closed store."""
    with RedisServer() as server:
        store = open_store(server.url, timeout=0.5)
        lease = acquired(store, "s")
        server.kill()
        for refused in (
            lambda: store.append(lease, b"x"),
            lambda: store.read("s"),
            lambda: store.read("s", timeout=60.0),
            lambda: store.acquire("t"),
            lambda: store.info("s"),
            lambda: store.finalize(lease, "done"),
            lambda: list(store.streams()),
        ):
            began = time.monotonic()
            try:
                refused()
            except StoreUnavailableError as error:
                assert error.transient
            else:
                raise AssertionError("it was not refused")
            assert time.monotonic() - began < 10.0
        assert isinstance(store.renew([lease])[0], StoreUnavailableError)


def test_a_server_that_hangs(open_store: OpenStore) -> None:
    """A stopped server answers nothing: the same error, in about twice `timeout`."""
    with RedisServer() as server:
        store = open_store(server.url, timeout=0.5)
        lease = acquired(store, "s")
        server.signal(signal.SIGSTOP)
        began = time.monotonic()
        result = store.append_many([(lease, [b"x"])])[0]
        assert isinstance(result, StoreUnavailableError) and result.transient
        assert time.monotonic() - began < 10.0
        server.signal(signal.SIGCONT)
        assert store.append(lease, b"x") == f"{lease.generation}-1"
        assert store.read("s").data == b"x"


@rounds(1, 50, 600)
def test_client_kill_storm(rounds: int, server: RedisServer, open_store: OpenStore) -> None:
    store, other = open_store(grace=30.0), open_store(grace=30.0)
    stop = threading.Event()
    made = 0

    def source() -> Iterator[bytes]:
        nonlocal made
        pause = threading.Event()
        while not stop.is_set():
            yield text(made, made + 7)
            made += 7
            pause.wait(0.001)

    with ResumableStreamContext(store) as context:
        here = context.run("s", source)
        follower = Follower(other, "s")
        got = next(here)
        with server.client() as client:
            for _ in range(rounds * 10):
                client.client_kill_filter(_type="normal", skipme=True)
                got += next(here)
        stop.set()
        got += b"".join(here)
        follower.join()
    assert follower.error is None
    assert got == bytes(follower.data) == text(0, made)


@rounds(2, 50, 900)
def test_a_killed_server_with_its_log(rounds: int, report: Report) -> None:
    """SIGKILL with appendfsync everysec, restart: the stream goes on, or a typed error; never wrong bytes."""
    outcomes: dict[str, int] = {}
    for number in range(rounds):
        with RedisServer("--appendonly", "yes", "--appendfsync", "everysec", persistent=True) as server:
            store = RedisStore.from_url(server.url, grace=20.0)
            other = RedisStore.from_url(server.url, grace=20.0)
            stop = threading.Event()
            made = 0

            def source() -> Iterator[bytes]:
                nonlocal made
                while not stop.is_set():
                    yield text(made, made + 50)
                    made += 50

            with ResumableStreamContext(store) as context:
                here = context.run("s", source)
                follower = Follower(other, "s")
                next(here)
                server.kill()
                server.start()
                # Where the server had not written it down yet: this viewer, or the producer, knew of them.
                with contextlib.suppress(StreamLostError, ProducerInterruptedError):
                    next(here)
                    stop.set()
                    for _ in here:
                        pass
                stop.set()
                follower.join()
            name = "done" if follower.error is None else type(follower.error).__name__
            outcomes[name] = outcomes.get(name, 0) + 1
            data = bytes(follower.data)
            assert data == text(0, len(data))
            if follower.error is None:
                assert len(data) == made
            store.close()
            other.close()
    report(**outcomes)
    assert outcomes.get("done")
