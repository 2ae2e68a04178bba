"""Turns: first come, first served; a turn whose holder is gone is found; no wait outlasts its timeout."""

from __future__ import annotations

import sys
import threading
from functools import partial

from resumable_sync.stores.turns import Place, Turns

from ..support import PATIENCE, wait_until
from ..thrown import in_thread


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
