"""A process forks while it produces (G1, G4, G7)."""

from __future__ import annotations

import os
import random
import signal
import threading
from pathlib import Path

import pytest

from resumable_sync import ProducerInterruptedError, Status
from resumable_sync.stores.memory import MemoryStore
from resumable_sync.stores.sqlite import SQLiteStore

from ...support import Process
from .conftest import Report
from .follower import Follower
from .rounds import rounds
from .source import text
from .test_kill import KILL_TO_INTERRUPTED, PROGRAMS

# Python 3.12 and later warn of what these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


@pytest.mark.parametrize("how", ["fork", "multiprocessing"])
@rounds(2, 200)
def test_fork_while_producing(how: str, rounds: int, path: Path, store: SQLiteStore, report: Report) -> None:
    """The child reads and produces, the parent goes on; once it is killed, the child keeps nothing alive."""
    worst = slowest_child = 0.0
    for number in range(rounds):
        rng = random.Random(number)
        stream_id = f"fork-{number}"
        child = 0
        with Process(PROGRAMS, "fork", path, stream_id, number, how) as producer:
            producer.until("ready")
            follower = Follower(store, stream_id)
            for _ in range(rng.randint(0, 100)):
                producer.until("stored")
            producer.say("fork")
            while True:
                word, *words = producer.line().split()
                if word == "child":
                    assert words[0].isdigit(), " ".join(words)
                    child = int(words[0])
                    slowest_child = max(slowest_child, float(words[1]))
                    break
            try:
                for _ in range(20):
                    stored = int(producer.until("stored"))
                killed_at = producer.kill()
                assert producer.until("orphan") == "ProducerInterruptedError"
                follower.join()
            finally:
                os.kill(child, signal.SIGKILL)
        assert isinstance(follower.error, ProducerInterruptedError)
        assert len(follower.data) >= stored and bytes(follower.data) == text(0, len(follower.data))
        worst = max(worst, follower.ended_at - killed_at)
        own = store.read(f"{stream_id}-child")
        assert own.data == text(0, 1400, "c") and own.status is Status.DONE
        store.delete(stream_id)
    assert worst <= KILL_TO_INTERRUPTED
    assert store.check() == []
    report(rounds=rounds, worst_until_interrupted=worst, slowest_child=slowest_child)


@rounds(20, 500)
def test_fork_between_transactions(rounds: int, path: Path, store: SQLiteStore, report: Report) -> None:
    """Children forked from busy threads can write at once: they inherit no lock, and no record of one."""
    leases = [store.acquire(f"busy-{number}") for number in range(3)]
    stop = threading.Event()

    def work(which: int) -> None:
        lease = leases[which]
        assert lease is not None
        while not stop.is_set():
            store.append(lease, b"x" * 100)
            store.read(lease.stream_id, lease.cursor)

    threads = [threading.Thread(target=work, args=(which,)) for which in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(rounds):
            before = os.urandom(8)
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    signal.alarm(30)
                    lease = store.acquire(f"of-child-{number}")
                    assert lease is not None
                    store.append(lease, before)
                    store.finalize(lease, "done")
                    code = 0
                finally:
                    os._exit(code)
            _, status = os.waitpid(pid, 0)
            assert status == 0, number
            assert store.read(f"of-child-{number}").data == before
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert store.check() == []
    report(rounds=rounds)


def test_fork_of_a_memory_store() -> None:
    """A child begins with an empty store, in which it can produce; the parent's goes on."""
    store = MemoryStore()
    lease = store.acquire("parents")
    assert lease is not None
    store.append(lease, b"one")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.alarm(30)
            assert store.info("parents") is None
            own = store.acquire("parents")
            assert own is not None
            store.append(own, b"child")
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert status == 0
    store.append(lease, b" two")
    assert store.read("parents").data == b"one two"
    store.close()
