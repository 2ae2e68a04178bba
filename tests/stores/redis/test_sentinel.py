"""A primary with replicas under Sentinel: failover by kill and by hand, and waiting for replicas."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from resumable_sync import ResumableStreamContext, ResumableStreamError, StoreUnavailableError, StreamLostError
from resumable_sync import open_store as open_by_url
from resumable_sync.stores.redis import RedisStore
from resumable_sync.testing.kit import acquired, known

from ...figures import Report
from ...support import wait_until
from ..faults.follower import Follower
from ..faults.rounds import rounds
from ..faults.source import text
from .server import RedisServer, executable


class Sentinels:
    """A primary, a replica and three Sentinels that fail over quickly."""

    def __init__(self) -> None:
        quick = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")
        self.servers = [RedisServer(*quick)]
        self.servers.append(RedisServer(*quick, "--replicaof", "127.0.0.1", str(self.servers[0].port)))
        self.sentinels: list[RedisServer] = []
        wait_until(lambda: self.replication(1).get("master_link_status") == "up", what="the replica's link")
        for _ in range(3):
            # All by the command line: SENTINEL directives must come after the monitor they speak of.
            program = executable()
            sentinel = RedisServer(
                "--sentinel",
                "monitor",
                "main",
                "127.0.0.1",
                str(self.servers[0].port),
                "2",
                "--sentinel",
                "down-after-milliseconds",
                "main",
                "500",
                "--sentinel",
                "failover-timeout",
                "main",
                "3000",
                program=program,
                sentinel=True,
            )
            self.sentinels.append(sentinel)
        for sentinel in self.sentinels:
            wait_until(lambda: self._knows(sentinel), what="the Sentinels know each other")
        ports = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        self.url = f"redis+sentinel://{ports}/main/0"

    def _knows(self, sentinel: RedisServer) -> bool:
        with sentinel.client() as client:
            main = client.sentinel_master("main")
            return bool(main["num-other-sentinels"] == 2 and main["num-slaves"] == 1)

    def replication(self, number: int) -> Any:
        """What that server says; {} while it changes its part and cuts its clients off."""
        try:
            return self.servers[number].command("INFO", "replication")
        except redis.ConnectionError:
            return {}

    def failover(self) -> None:
        """By hand."""
        with self.sentinels[0].client() as client:
            client.execute_command("SENTINEL", "FAILOVER", "main")

    def close(self) -> None:
        for server in (*self.sentinels, *self.servers):
            server.close()


@pytest.fixture
def sentinels() -> Iterator[Sentinels]:
    made = Sentinels()
    yield made
    made.close()


def produce_and_follow(
    sentinels: Sentinels, how: str, wait_replicas: tuple[int, float] | None
) -> tuple[str, int, int]:
    """(how the viewer's stream ended, bytes the producer had acknowledged, bytes seen); always contiguous."""
    options: dict[str, Any] = {"grace": 20.0, "wait_replicas": wait_replicas, "timeout": 3.0}
    store, other = (open_by_url(sentinels.url, **options) for _ in range(2))
    stop = threading.Event()
    made = acknowledged = 0

    def source() -> Iterator[bytes]:
        nonlocal made
        pause = threading.Event()
        while not stop.is_set():
            yield text(made, made + 50)
            made += 50
            pause.wait(0.002)

    def appended(_: str, length: int) -> None:
        nonlocal acknowledged
        acknowledged += length

    with ResumableStreamContext(store, on_append=appended) as context:
        here = context.run("s", source)
        follower = Follower(other, "s")
        next(here)
        if how == "kill":
            sentinels.servers[0].kill()
        else:
            sentinels.failover()
        wait_until(lambda: sentinels.replication(1).get("role") == "master", what="the failover")
        before = acknowledged
        wait_until(lambda: acknowledged > before + 1000 or store.status("s").ended or follower.ended)
        stop.set()
        try:
            for _ in here:
                pass
        except ResumableStreamError:
            pass
        follower.join()
    data = bytes(follower.data)
    assert data == text(0, len(data))
    ending = "done" if follower.error is None else type(follower.error).__name__
    if follower.error is None:
        assert len(data) == made == acknowledged
    store.close()
    other.close()
    return ending, acknowledged, len(data)


@rounds(1, 20, 3000)
@pytest.mark.parametrize("how", ["kill", "hand"])
def test_failover(how: str, rounds: int, report: Report) -> None:
    """Contiguous, or a typed error: what the old primary alone had is gone, and nobody is told otherwise."""
    outcomes: dict[str, int] = {}
    for _ in range(rounds):
        sentinels = Sentinels()
        ending, _, _ = produce_and_follow(sentinels, how, None)
        outcomes[ending] = outcomes.get(ending, 0) + 1
        sentinels.close()
    report(**outcomes)


@pytest.mark.heavy
@pytest.mark.timeout(3000)
def test_failover_with_confirmed_appends(report: Report) -> None:
    """With WAIT nothing that was acknowledged is lost."""
    outcomes: dict[str, int] = {}
    for _ in range(20):
        sentinels = Sentinels()
        ending, acknowledged, seen = produce_and_follow(sentinels, "hand", (1, 1.0))
        # The old primary, a replica now, can no longer be waited for as long as it resynchronises.
        outcomes[ending] = outcomes.get(ending, 0) + 1
        if ending != "done":  # the follower was told that it could not go on, which is no loss
            with open_by_url(sentinels.url) as store:
                seen = store.check() == [] and known(store, "s").size
        assert seen >= acknowledged, ending
        sentinels.close()
    report(**outcomes)


def test_a_client_of_sentinel(sentinels: Sentinels) -> None:
    manager: Any = redis.sentinel.Sentinel(  # type: ignore[no-untyped-call]
        [("127.0.0.1", sentinel.port) for sentinel in sentinels.sentinels]
    )
    store = RedisStore(manager.master_for("main", decode_responses=True), prefix="mine")
    lease = acquired(store, "s")
    store.append(lease, b"x")
    assert store.read("s").data == b"x"
    store.close()


def confirms(primary: RedisServer) -> bool:
    """Whether a replica confirms a write."""
    with primary.client() as client, client.pipeline(transaction=False) as pipeline:
        pipeline.set("probe", "x")
        pipeline.wait(1, 100)
        return bool(pipeline.execute()[1] == 1)


def test_too_few_replicas() -> None:
    """An append that not enough replicas have confirmed is not acknowledged; repeated, it is stored once."""
    with RedisServer("--repl-diskless-sync-delay", "0") as primary:
        store = RedisStore.from_url(primary.url, wait_replicas=(1, 0.2))
        with pytest.raises(StoreUnavailableError) as caught:
            store.acquire("s")
        assert caught.value.transient
        options = ("--repl-diskless-sync-delay", "0", "--replicaof", "127.0.0.1", str(primary.port))
        with RedisServer(*options) as replica:
            wait_until(lambda: confirms(primary), what="the replica answers")
            lease = acquired(store, "t")
            store.append(lease, b"confirmed")
            copy = RedisStore.from_url(replica.url)
            assert replica.command("XLEN", "resumable:{t}:log") == 2
            replica.kill()
            with pytest.raises(StoreUnavailableError):
                store.append(lease, b" later")
            assert lease.offset == 9
            replica.start()
            wait_until(lambda: confirms(primary), what="the replica is back")
            began = time.monotonic()
            store.append(lease, b" later")
            assert time.monotonic() - began < 5.0
            assert store.read("t").data == b"confirmed later"
            assert replica.command("XLEN", "resumable:{t}:log") == 3
            assert store.create("shared")
            replica.kill()
            choices: list[dict[str, Any]] = [{}, {"expect": {"n": None}, "notes": {"n": "1 x"}}]
            for arguments in choices:
                with pytest.raises(StoreUnavailableError) as caught:
                    store.commit("shared", b"x", **arguments)
                assert caught.value.fate_unknown
            replica.start()
            wait_until(lambda: confirms(primary), what="the replica is back")
            with pytest.raises(StoreUnavailableError):  # a replica is not the place to write
                RedisStore.from_url(replica.url, timeout=0.3).acquire("u")
            copy.close()
        store.close()


def test_a_takeover_fences_the_old_producer(sentinels: Sentinels) -> None:
    """Behind a failover a producer whose stream went back in time learns of it."""
    store = open_by_url(sentinels.url, grace=20.0)
    lease = acquired(store, "s")
    store.append(lease, b"a")
    sentinels.servers[1].command("REPLICAOF", "NO", "ONE")
    lease.offset += 5  # as if five more bytes had been acknowledged by the lost primary
    with pytest.raises(StreamLostError):
        store.append(lease, b"b")
    store.close()
