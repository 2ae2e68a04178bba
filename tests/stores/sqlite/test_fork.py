"""Forks in the middle of a transaction: the child refuses the file, and the parent goes on."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from resumable_sync import ResumableStreamError, SQLiteStore, StoreUnavailableError
from resumable_sync.stores.sqlite.connection import Connections
from resumable_sync.stores.turns import Place, Turns

from ...support import PATIENCE, wait_until

# Python 3.12 and later warn of what these tests are about.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
]


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resumable_sync.stores.sqlite.connection._FORK_SECONDS", 0.05)


@contextlib.contextmanager
def transaction(connections: Connections, kind: str) -> Iterator[None]:
    """Another thread is in the middle of a transaction for the time of the block."""
    begun, end = threading.Event(), threading.Event()

    def hold() -> None:
        with connections.read() if kind == "read" else connections.write() as connection:
            connection.execute("SELECT * FROM meta").fetchall()
            begun.set()
            end.wait(PATIENCE)

    thread = threading.Thread(target=hold)
    thread.start()
    assert begun.wait(PATIENCE)
    try:
        yield
    finally:
        end.set()
        thread.join(PATIENCE)


def in_child(work: Callable[[], object]) -> int:
    """Runs it in a forked child; its exit code, 0 if nothing is raised."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.alarm(60)
            work()
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


CALLS: dict[str, Callable[[SQLiteStore], object]] = {
    "read": lambda store: store.read("s"),
    "waiting read": lambda store: store.read("s", timeout=1.0),
    "info": lambda store: store.info("s"),
    "streams": lambda store: list(store.streams()),
    "acquire": lambda store: store.acquire("t"),
    "cancel": lambda store: store.cancel("s"),
    "delete": lambda store: store.delete("s"),
    "sweep": lambda store: store.sweep(),
    "check": lambda store: store.check(),
    "clear": lambda store: store.clear(),
}


def expect_refusals(store: SQLiteStore) -> None:
    for name, call in CALLS.items():
        try:
            call(store)
        except StoreUnavailableError as error:
            assert not error.transient and "forked" in str(error) and "spawn" in str(error), name
        else:
            raise AssertionError(f"{name} was not refused")


def test_a_child_forked_in_a_transaction_refuses_the_file_in_every_store(path: Path, store: SQLiteStore) -> None:
    lease = store.acquire("s")
    assert lease is not None
    store.append(lease, b"abc")

    def child() -> None:
        expect_refusals(store)
        with pytest.raises(StoreUnavailableError, match="forked"):
            store.append(lease, b"def")
        refused = store.renew([lease])[0]
        assert isinstance(refused, StoreUnavailableError) and not refused.transient
        with pytest.raises(StoreUnavailableError, match="forked"):
            SQLiteStore(path)
        (path.parent / "link.db").symlink_to(path)
        with pytest.raises(StoreUnavailableError, match="forked"):
            SQLiteStore(path.parent / "link.db")
        with SQLiteStore(path.with_name("another.db")) as another:  # another file is as good as ever
            assert another.acquire(f"of-{os.getpid()}") is not None
            assert in_child(lambda: expect_refusals(store)) == 0
        store.close()
        store.close()

    for kind in ("write", "read"):
        with transaction(store._connections, kind):
            (path.parent / "link.db").unlink(missing_ok=True)
            assert in_child(child) == 0
        store.append(lease, b"more")
    assert store.read("s").data == b"abcmoremore"

    def fine() -> None:
        mine = store.acquire("child")
        assert mine is not None
        store.append(mine, b"its own")

    assert in_child(fine) == 0  # at rest again
    assert store.read("child").data == b"its own" and store.check() == []


def _refused_in_child(store: SQLiteStore) -> None:
    expect_refusals(store)


def test_a_child_of_multiprocessing_refuses_too(store: SQLiteStore) -> None:
    with transaction(store._connections, "write"):
        child = multiprocessing.get_context("fork").Process(target=_refused_in_child, args=[store])
        child.start()
        child.join(PATIENCE)
    assert child.exitcode == 0


def test_a_second_store_of_the_file_with_a_transaction_counts(path: Path, store: SQLiteStore) -> None:
    """SQLite's memory is one for each process and file, not for each store."""
    with SQLiteStore(path) as other, transaction(other._connections, "read"):
        assert in_child(lambda: expect_refusals(store)) == 0


def test_a_signal_handler_forks_in_a_transaction_of_its_thread(store: SQLiteStore) -> None:
    """It does not wait for itself, and what it broke into is not committed twice."""
    results: list[int] = []

    def handler(number: int, frame: FrameType | None) -> None:
        results.append(in_child(lambda: expect_refusals(store)))

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        for kind in (store._connections.read, store._connections.write):
            with kind() as connection:
                connection.execute("SELECT * FROM meta").fetchall()
                signal.raise_signal(signal.SIGUSR1)
                connection.execute("SELECT * FROM meta").fetchall()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert results == [0, 0]
    assert store.acquire("s") is not None


def test_a_child_that_returns_into_the_transaction_does_not_commit_it(store: SQLiteStore) -> None:
    pids: list[int] = []

    def handler(number: int, frame: FrameType | None) -> None:
        pids.append(os.fork())

    before = signal.signal(signal.SIGUSR1, handler)
    code = 1
    try:
        with store._connections.write() as connection:
            connection.execute("UPDATE meta SET stream_count = stream_count + 1")
            signal.raise_signal(signal.SIGUSR1)
        code = 2
    except ResumableStreamError as error:
        code = 0 if "forked" in str(error) else 3
    finally:
        signal.signal(signal.SIGUSR1, before)
        if pids == [0]:
            with contextlib.suppress(BaseException):
                expect_refusals(store)
                os._exit(code)
            os._exit(4)
    assert code == 2  # the parent's was
    assert os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]) == 0
    with store._connections.read() as connection:
        assert connection.execute("SELECT stream_count FROM meta").fetchone() == (1,)


def test_a_write_that_waits_for_another_process_lets_the_fork_go_first(
    path: Path, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its wait may be longer than the fork's; then the child would have to refuse."""
    monkeypatch.setattr("resumable_sync.stores.sqlite.connection._FORK_SECONDS", PATIENCE)
    lease = store.acquire("s")
    assert lease is not None
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        waiting = threading.Thread(target=lambda: store.append(lease, b"waited"))
        waiting.start()
        wait_until(lambda: store._connections.pool().writing._holders)
        assert in_child(lambda: store.read("s")) == 0
        other.execute("COMMIT")
        waiting.join(PATIENCE)
    assert store.read("s").data == b"waited"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # that of the fork's hook
def test_an_exception_thrown_into_a_fork_costs_no_turn(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fork goes on all the same."""
    take = Turns.take
    left = 3

    def broken_off(*arguments: Any) -> Place | None:
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt
        return take(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Turns, "take", broken_off)
        assert in_child(lambda: None) == 0
    lease = store.acquire("s")
    assert lease is not None
    store.append(lease, b"abc")
    pool = store._connections.pool()
    assert not pool.forking and not pool.writing._holders and not pool.reading._holders


def test_forks_of_two_threads_give_back_all_turns(store: SQLiteStore) -> None:
    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(in_child(lambda: None))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert results == [0] * 4
    pool = store._connections.pool()
    assert not pool.forking and not pool.writing._holders and not pool.reading._holders
    assert store.acquire("s") is not None
