"""A server that says "not now": it is a replica for a while (READONLY), or busy loading its data (LOADING)."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

import pytest
import redis

from resumable_sync import ResumableStreamContext
from resumable_sync.stores.redis import RedisStore
from resumable_sync.testing.kit import drain

from ...figures import Report
from ...support import wait_until
from ..faults.follower import Follower
from ..faults.rounds import rounds
from ..faults.source import text
from .server import RedisServer, claim_port

KEYS = 300  # that a server loads with a delay for each, so that it answers LOADING meanwhile


def read_only(server: RedisServer, seen: Callable[[str], None]) -> None:
    """Make it the replica of nobody for a moment."""
    port, claim = claim_port()
    with contextlib.closing(claim):
        server.command("REPLICAOF", "127.0.0.1", port)
        with pytest.raises(redis.ReadOnlyError):
            server.command("SET", "x", "1")
        seen("READONLY")
        server.command("REPLICAOF", "NO", "ONE")


def loading(server: RedisServer, seen: Callable[[str], None]) -> None:
    """Make it load all its data anew."""
    done = threading.Event()

    def reload() -> None:
        with server.client(socket_timeout=60) as client:
            client.execute_command("DEBUG", "RELOAD")
        done.set()

    thread = threading.Thread(target=reload)
    thread.start()
    while not done.is_set():
        try:
            server.command("GET", "x")
        except redis.BusyLoadingError:
            seen("LOADING")
        done.wait(0.01)
    thread.join()


@pytest.mark.parametrize("turn_away", [read_only, loading])
@rounds(2, 50, 900)
def test_a_server_that_turns_everybody_away(
    turn_away: Callable[[RedisServer, Callable[[str], None]], None], rounds: int, report: Report
) -> None:
    """G1, G2, G3, G7: the producer and its viewers wait, and every byte is there once."""
    options = ("--enable-debug-command", "yes", "--loading-process-events-interval-bytes", "1024")
    with RedisServer(*options) as server:
        for number in range(KEYS):
            server.command("SET", f"ballast{number}", "x" * 100)
        server.command("CONFIG", "SET", "key-load-delay", 1000)  # microseconds
        store, other = (RedisStore.from_url(server.url, grace=30.0) for _ in range(2))
        stop, pause, made = threading.Event(), threading.Event(), 0
        answers: list[str] = []

        def source() -> Iterator[bytes]:
            nonlocal made
            while not stop.is_set():
                yield text(made, made + 7)
                made += 7
                pause.wait(0.002)

        with ResumableStreamContext(store) as context:
            context.start("s", source)
            here, there = Follower(store, "s"), Follower(other, "s")
            for _ in range(rounds):
                turn_away(server, answers.append)
                begun = made
                for follower in (here, there):
                    wait_until(lambda: len(follower.data) > begun + 100, what="the follower goes on")
            stop.set()
            for follower in (here, there):
                follower.join()
                assert follower.error is None and bytes(follower.data) == text(0, made)
        assert drain(other, "s")[0] == text(0, made)
        report(turned_away=len(answers), chunks=made // 7)
        assert len(answers) >= rounds
        store.close()
        other.close()
