"""SQLite's turns: writers are served in order, and exceptions that are thrown in cost none."""

from __future__ import annotations

import contextlib
import functools
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from resumable_sync import ConflictError, SQLiteStore, StoreUnavailableError
from resumable_sync.stores.sqlite.connection import Connections
from resumable_sync.testing.kit import drain

from ...support import PATIENCE
from ...thrown import Thrown, broken_off, in_thread


def numbered(count: int) -> bytes:
    return b"".join(b"%d " % number for number in range(1, count + 1))


def commit(store: SQLiteStore, stream_id: str, number: int) -> None:
    """The chunk of this number, after those before it. Stored once, however often it is called."""
    before = str(number - 1) if number > 1 else None
    try:
        store.commit(stream_id, b"%d " % number, expect={"count": before}, notes={"count": str(number)})
    except ConflictError as conflict:
        assert conflict.notes == {"count": str(number)}


def test_a_hot_appender_lets_renewals_of_others_go_first(store: SQLiteStore) -> None:
    """Counted, not timed: who was there when it asked is through when it has had its turn."""
    hot, calm = store.acquire("hot"), store.acquire("calm")
    assert hot is not None and calm is not None
    writing = store._connections.pool().writing
    met = passed = 0
    done = threading.Event()

    def append_hot() -> None:
        nonlocal met, passed
        while not done.is_set():
            before = [*writing._queue, *writing._holders]
            store.append(hot, b"x")
            met += bool(before)
            after = [*writing._queue, *writing._holders]
            passed += any(place in after for place in before)

    thread = in_thread(append_hot)
    until = time.monotonic() + PATIENCE
    try:
        while met < 20 and time.monotonic() < until:
            assert store.renew([calm]) == [None]
    finally:
        done.set()
        thread.join(PATIENCE)
    assert met >= 20 and passed == 0


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # what was opened when the exception came
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("call", ["append", "commit", "read", "acquire", "cancel"])
def test_an_exception_thrown_in_anywhere_costs_no_turn(
    call: str, keep: bool, path: Path, alarms: Callable[[float], object]
) -> None:
    """The call may be repeated, another thread's calls go on, and nothing is stored twice. `keep`: somebody holds
    on to the exceptions, and so to the frames that they came through."""
    kept: list[BaseException] = []
    rng, hits = random.Random(call), 0
    with SQLiteStore(path, timeout=5.0) as store:
        lease, others = store.acquire("s"), store.acquire("others")
        assert lease is not None and others is not None
        store.append(lease, b"first ")
        want = b"first "
        assert store.create("shared") and store.create("shared.others")
        calls: dict[str, Callable[[int], object]] = {
            "append": lambda number: store.append(lease, b"%d " % number),
            "commit": lambda number: commit(store, "shared", number),
            "read": lambda number: store.read("s", timeout=0.001),
            "acquire": lambda number: store.acquire(f"s{number % 50}"),
            "cancel": lambda number: store.cancel(f"s{number % 50}"),
        }
        failed: list[BaseException] = []
        done = threading.Event()

        def append_beside() -> None:
            store.append(others, b"x")
            assert store.read("others").data[:1] == b"x"
            done.wait(0.001)

        counted = 0

        def commit_beside() -> None:
            nonlocal counted
            with contextlib.suppress(StoreUnavailableError):  # who makes it may be broken off
                commit(store, "shared.others", counted + 1)
                counted += 1

        def go_on(step: Callable[[], object]) -> None:
            try:
                while not done.is_set():
                    step()
            except BaseException as error:
                failed.append(error)

        besides = [in_thread(functools.partial(go_on, step)) for step in (append_beside, commit_beside)]
        until = time.monotonic() + 2.0
        number = 0
        while time.monotonic() < until or hits < 20:
            number += 1
            before = lease.offset
            step = functools.partial(calls[call], number)
            for error in broken_off(step, alarms, rng, lambda: lease.offset > before):
                if not isinstance(error, Thrown):  # so may be the thread that makes this commit
                    assert call == "commit" and error.fate_unknown
                    continue
                hits += 1
                if keep and len(kept) < 200:
                    kept.append(error)
            if call == "append":
                want += b"%d " % number
        alarms(0)
        done.set()
        for beside in besides:
            beside.join(PATIENCE)
        assert failed == [] and hits >= 20 and counted
        assert drain(store, "s")[0] == want
        if call == "commit":
            assert drain(store, "shared")[0] == numbered(number)
        assert drain(store, "shared.others")[0] in (numbered(counted), numbered(counted + 1))
        assert store.check() == []


def test_a_lost_write_transaction_holds_up_nobody(path: Path) -> None:
    """Its connection is closed by whoever finds it, though a kept exception holds it."""
    connections = Connections(path, path.with_name("streams.db-run"), 20.0, None)
    holding = []

    def leave_one_open() -> None:
        transaction = connections.write()
        holding.append(transaction)
        transaction.__enter__().execute("UPDATE meta SET stream_count = 7")

    leave_one_open()
    with connections.write() as connection:
        assert connection.execute("SELECT stream_count FROM meta").fetchone() == (0,)
        with pytest.raises(StoreUnavailableError, match="no connection became free"):
            connections.write().__enter__()
    connections.close()
