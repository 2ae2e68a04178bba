"""Turns: first come, first served; a turn whose holder is gone is found; no wait outlasts its timeout."""

from __future__ import annotations

import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType

import pytest

from resumable_sync import SQLiteStore, StoreUnavailableError
from resumable_sync.stores.sqlite.connection import Connections
from resumable_sync.stores.sqlite.turns import Place, Turns

from ...support import PATIENCE, wait_until


class User:
    """Whoever takes a turn."""


class Handle:
    """What a turn is for."""

    closed = False

    def close(self) -> None:
        self.closed = True


def take(turns: Turns, user: User, timeout: float = 0.0) -> Place:
    place = turns.take(user, timeout)
    assert place is not None
    return place


def queued(turns: Turns, count: int) -> bool:
    return len(turns._queue) == count


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_no_more_hold_a_turn_than_may() -> None:
    turns, users, waited = Turns(2), [User(), User()], User()
    places = [take(turns, user) for user in users]
    missed: list[Place | None] = []
    in_thread(lambda: missed.append(turns.take(waited, 0.05))).join(PATIENCE)
    assert missed == [None]
    turns.give_back(places[0])
    turns.give_back(places[0])  # again: it frees nothing more
    in_thread(lambda: missed.append(turns.take(waited, 0.05))).join(PATIENCE)
    assert missed[1] is not None
    in_thread(lambda: missed.append(turns.take(waited, 0.05))).join(PATIENCE)
    assert missed[2] is None


def test_turns_are_handed_over_in_the_order_of_asking() -> None:
    turns, first, order = Turns(1), User(), []
    place = take(turns, first)
    threads = []
    for number in range(5):

        def ask(number: int = number) -> None:
            user = User()
            mine = take(turns, user, PATIENCE)
            order.append(number)
            turns.give_back(mine)

        threads.append(in_thread(ask))
        wait_until(partial(queued, turns, number + 1))
    turns.give_back(place)
    for thread in threads:
        thread.join(PATIENCE)
    assert order == [0, 1, 2, 3, 4]


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


def test_a_waiting_one_is_passed_by_nobody() -> None:
    turns, user = Turns(1), User()
    place = take(turns, user)
    taken_by_hot = 0
    got: list[int] = []
    stop = threading.Event()

    def wait() -> None:
        mine = User()
        granted = take(turns, mine, PATIENCE)
        got.append(taken_by_hot)
        stop.set()
        turns.give_back(granted)

    waiting = in_thread(wait)
    wait_until(lambda: turns._queue)
    turns.give_back(place)
    while not stop.is_set():
        again = turns.take(user, PATIENCE)
        assert again is not None
        if not stop.is_set():
            taken_by_hot += 1
        turns.give_back(again)
    waiting.join(PATIENCE)
    assert got == [0]


def test_a_turn_is_lost_with_its_user() -> None:
    turns, handle = Turns(1), Handle()
    user = User()
    take(turns, user).connection = handle
    del user
    got: list[Place | None] = []
    other = User()
    in_thread(lambda: got.append(turns.take(other, PATIENCE))).join(PATIENCE)
    assert got[0] is not None and handle.closed


def test_a_turn_is_lost_with_the_return_of_its_frame() -> None:
    """The user may live on, in the traceback of an exception that somebody keeps."""
    turns, handle, user = Turns(1), Handle(), User()

    def broken_off() -> None:
        place = turns.take(user, 0.0, sys._getframe())
        assert place is not None
        place.connection = handle
        in_use: list[Place | None] = []
        in_thread(lambda: in_use.append(turns.take(User(), 0.05))).join(PATIENCE)
        assert in_use == [None] and not handle.closed

    broken_off()
    other = User()
    got: list[Place | None] = []
    in_thread(lambda: got.append(turns.take(other, PATIENCE))).join(PATIENCE)
    assert got[0] is not None and handle.closed
    turns.give_back(got[0])
    broken_off_again = turns.take(user, 0.0)
    assert broken_off_again is not None


def test_a_thread_that_asks_gets_its_own_lost_turn_at_once() -> None:
    turns, user, handle = Turns(1), User(), Handle()

    def broken_off() -> None:
        place = turns.take(user, 0.0, sys._getframe())
        assert place is not None
        place.connection = handle

    broken_off()
    assert turns.take(User(), 0.0) is not None and handle.closed


def test_who_has_all_turns_does_not_wait_for_itself() -> None:
    """A signal handler that calls the store in the middle of a call."""
    turns, user = Turns(1), User()
    place = turns.take(user, 0.0, sys._getframe())
    assert place is not None
    assert turns.take(User(), 10 * PATIENCE) is None
    turns.give_back(place)


class _Thrown(Exception):
    pass


@pytest.fixture
def alarms() -> Iterator[Callable[[float], object]]:
    """Has an exception thrown into the main thread after some seconds."""

    def throw(number: int, frame: FrameType | None) -> None:
        raise _Thrown

    before = signal.signal(signal.SIGALRM, throw)
    try:
        yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # what was opened when the exception came
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("call", ["append", "read", "acquire", "cancel"])
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
        calls: dict[str, Callable[[int], object]] = {
            "append": lambda number: store.append(lease, b"%d " % number),
            "read": lambda number: store.read("s", timeout=0.001),
            "acquire": lambda number: store.acquire(f"s{number % 50}"),
            "cancel": lambda number: store.cancel(f"s{number % 50}"),
        }
        failed: list[BaseException] = []
        done = threading.Event()

        def append_beside() -> None:
            try:
                while not done.is_set():
                    store.append(others, b"x")
                    assert store.read("others").data[:1] == b"x"
                    done.wait(0.001)
            except BaseException as error:
                failed.append(error)

        beside = in_thread(append_beside)
        until = time.monotonic() + 2.0
        number = 0
        while time.monotonic() < until or hits < 20:
            number += 1
            before = lease.offset
            for tries in range(PATIENCE_TRIES):
                try:
                    alarms(rng.uniform(0.00002, 0.002) if tries < 3 else 0)
                    calls[call](number)
                    alarms(0)
                    break
                except _Thrown as thrown:
                    hits += 1
                    if keep and len(kept) < 200:
                        kept.append(thrown)
                    if lease.offset > before:
                        break
            if call == "append":
                want += b"%d " % number
        alarms(0)
        done.set()
        beside.join(PATIENCE)
        assert failed == [] and hits >= 20
        got, cursor = b"", ""
        while batch := store.read("s", cursor):
            got, cursor = got + batch.data, batch.cursor
            if not batch.data:
                break
        assert got == want
        assert store.check() == []


PATIENCE_TRIES = 10


def test_a_lost_write_transaction_holds_up_nobody(path: Path) -> None:
    """Its connection is closed by whoever finds it, though a kept exception holds it."""
    connections = Connections(path, path.with_name("streams.db-run"), 20.0, None)
    holding = []

    def broken_off() -> None:
        transaction = connections.write()
        holding.append(transaction)
        transaction.__enter__().execute("UPDATE meta SET stream_count = 7")

    broken_off()
    with connections.write() as connection:
        assert connection.execute("SELECT stream_count FROM meta").fetchone() == (0,)
        with pytest.raises(StoreUnavailableError, match="no connection became free"):
            connections.write().__enter__()
    connections.close()
