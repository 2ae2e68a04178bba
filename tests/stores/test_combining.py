"""Calls that meet are made together: each once, with an outcome of its own, and none waits for ever."""

from __future__ import annotations

import functools
import random
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from types import FrameType

import pytest

from resumable_sync.errors import ConflictError, ResumableStreamError, StoreUnavailableError
from resumable_sync.stores import combining
from resumable_sync.stores.combining import Combiner
from resumable_sync.stores.turns import Place

from ..support import PATIENCE, wait_until
from ..thrown import Thrown

Outcome = str | BaseException


class Maker:
    """Carries calls out. The first group waits for `go_on`, so that others come to wait meanwhile."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.refused: dict[str, ResumableStreamError] = {}  # each alone
        self.raised: list[BaseException] = []  # one for each group, from the first on

    def make(self, calls: Sequence[str], seconds: float) -> list[str | ResumableStreamError]:
        self.groups.append(list(calls))
        self.begun.set()
        assert self.go_on.wait(PATIENCE)
        if self.raised:
            raise self.raised.pop(0)
        if "poison" in calls:
            raise StoreUnavailableError("poisoned")
        return [self.refused.get(call, f"made {call}") for call in calls]


class Threads:
    """Each makes one call, and keeps what came of it."""

    def __init__(self, maker: Maker) -> None:
        self.combiner: Combiner[str, str] = Combiner()
        self.maker = maker
        self.outcomes: dict[str, Outcome] = {}
        self._threads: list[threading.Thread] = []

    def call(self, given: str, *, size: int = 1, timeout: float = PATIENCE) -> None:
        waiting = len(self.combiner._queue)
        thread = threading.Thread(target=self._call, args=(given, size, timeout), daemon=True)
        self._threads.append(thread)
        thread.start()
        if len(self._threads) == 1:
            assert self.maker.begun.wait(PATIENCE)
        else:
            wait_until(lambda: len(self.combiner._queue) == waiting + 1)

    def finish(self) -> dict[str, Outcome]:
        self.maker.go_on.set()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        assert not self.combiner._queue and not self.combiner._turns._holders
        return self.outcomes

    def _call(self, given: str, size: int, timeout: float) -> None:
        try:
            self.outcomes[given] = self.combiner.call(self.maker.make, given, size, timeout)
        except BaseException as error:
            self.outcomes[given] = error


@pytest.fixture
def maker() -> Maker:
    return Maker()


@pytest.fixture
def threads(maker: Maker) -> Threads:
    return Threads(maker)


def test_a_lone_call_is_made_at_once_and_alone(maker: Maker, threads: Threads) -> None:
    maker.go_on.set()
    assert threads.combiner.call(maker.make, "a", 1, PATIENCE) == "made a"
    assert maker.groups == [["a"]]


def test_calls_that_meet_are_made_together_in_the_order_of_their_coming(maker: Maker, threads: Threads) -> None:
    for given in "abcd":
        threads.call(given)
    assert threads.finish() == {given: f"made {given}" for given in "abcd"}
    assert maker.groups == [["a"], ["b", "c", "d"]]


def test_a_refused_call_does_not_touch_the_others(maker: Maker, threads: Threads) -> None:
    maker.refused["c"] = ConflictError("no", status="streaming", cursor="1-0", notes={})
    for given in "abcd":
        threads.call(given)
    outcomes = threads.finish()
    assert outcomes.pop("c") is maker.refused["c"]
    assert outcomes == {given: f"made {given}" for given in "abd"}


def test_a_group_is_bounded(maker: Maker, threads: Threads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(combining, "MAX_CALLS", 3)
    monkeypatch.setattr(combining, "MAX_BYTES", 100)
    for given, size in {"a": 1, "b": 1, "c": 1, "d": 1, "e": 90, "f": 11, "g": 500, "h": 1}.items():
        threads.call(given, size=size)
    assert len(threads.finish()) == 8
    assert maker.groups == [["a"], ["b", "c", "d"], ["e"], ["f"], ["g"], ["h"]]


def test_one_that_cannot_be_made_does_not_keep_the_others_from_it(maker: Maker, threads: Threads) -> None:
    for given in ["a", "b", "poison", "c"]:
        threads.call(given)
    outcomes = threads.finish()
    assert str(outcomes.pop("poison")) == "poisoned"
    assert outcomes == {given: f"made {given}" for given in "abc"}


def test_nothing_is_repeated_whose_fate_is_unknown(maker: Maker, threads: Threads) -> None:
    for given in "abc":
        threads.call(given)
    unknown = StoreUnavailableError("no reply", fate_unknown=True)
    maker.raised = [StoreUnavailableError("away"), unknown]
    outcomes = threads.finish()
    assert str(outcomes["a"]) == "away"
    assert outcomes["b"] is unknown
    assert maker.groups == [["a"], ["b", "c"]]


def test_each_thread_raises_an_exception_of_its_own(maker: Maker, threads: Threads) -> None:
    """One for all would collect the tracebacks of all, and keep what their frames hold."""
    for given in "abc":
        threads.call(given)
    unknown = StoreUnavailableError("no reply", transient=False, fate_unknown=True)
    unknown.__cause__ = OSError("cut")
    maker.raised = [StoreUnavailableError("away"), unknown]
    outcomes = threads.finish()
    told = outcomes["c"]
    assert isinstance(told, StoreUnavailableError) and told is not outcomes["b"]
    assert (str(told), told.transient, told.fate_unknown) == ("no reply", False, True)
    assert told.__cause__ is unknown.__cause__
    assert len(traceback.extract_tb(told.__traceback__)) == 2  # of this thread: its own function, and `call`


def test_who_was_taken_along_by_a_thread_that_was_broken_off_is_told(maker: Maker, threads: Threads) -> None:
    for given in "abc":
        threads.call(given)
    maker.raised = [StoreUnavailableError("away"), Thrown()]
    outcomes = threads.finish()
    assert isinstance(outcomes["b"], Thrown)
    assert isinstance(outcomes["c"], StoreUnavailableError) and outcomes["c"].fate_unknown
    assert "broken off" in str(outcomes["c"])


def test_who_waits_in_vain_is_told_in_time_and_is_not_made_later(maker: Maker, threads: Threads) -> None:
    threads.call("a")
    threads.call("b", timeout=0.05)
    wait_until(lambda: "b" in threads.outcomes)
    late = threads.outcomes["b"]
    assert isinstance(late, StoreUnavailableError) and not late.fate_unknown and late.transient
    assert threads.finish()["a"] == "made a"
    assert maker.groups == [["a"]]


def test_who_is_not_made_in_time_by_another_does_not_know_its_fate(maker: Maker, threads: Threads) -> None:
    gates = {"b": threading.Event()}

    def make(calls: Sequence[str], seconds: float) -> list[str | ResumableStreamError]:
        made = Maker.make(maker, calls, seconds)
        assert gates.get(calls[0]) is None or gates[calls[0]].wait(PATIENCE)
        return made

    maker.make = make  # type: ignore[method-assign]
    threads.call("a")
    threads.call("b")
    threads.call("c", timeout=1.0)
    maker.go_on.set()
    wait_until(lambda: "c" in threads.outcomes)
    late = threads.outcomes["c"]
    assert isinstance(late, StoreUnavailableError) and late.fate_unknown
    gates["b"].set()
    assert threads.finish()["b"] == "made b"


def test_a_call_that_is_on_its_way_is_given_as_long_again(
    maker: Maker, threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    waits: list[float] = []
    take = threads.combiner._turns.take

    def counted(user: object, timeout: float, frame: FrameType | None = None) -> Place | None:
        waits.append(timeout)
        return take(user, timeout, frame)

    def make(calls: Sequence[str], seconds: float) -> list[str | ResumableStreamError]:
        made = Maker.make(maker, calls, seconds)
        assert "c" not in calls or gate.wait(PATIENCE)
        return made

    monkeypatch.setattr(threads.combiner._turns, "take", counted)
    monkeypatch.setattr(maker, "make", make)
    threads.call("a")
    threads.call("b")
    threads.call("c", timeout=1.0)
    maker.go_on.set()
    wait_until(lambda: len(waits) == 4 or "c" in threads.outcomes)
    gate.set()
    assert threads.finish() == {given: f"made {given}" for given in "abc"}
    assert waits[2:] == [1.0, 1.0]


def test_a_call_whose_thread_has_gone_is_not_made_any_more(maker: Maker, threads: Threads) -> None:
    """Those that were on their way with it when it went are put back; it is not."""
    refused = threading.Event()

    def make(calls: Sequence[str], seconds: float) -> list[str | ResumableStreamError]:
        made = Maker.make(maker, calls, seconds)
        if "c" in calls and len(calls) > 1:
            assert refused.wait(PATIENCE)
            raise StoreUnavailableError("away")
        return made

    maker.make = make  # type: ignore[method-assign]
    threads.call("a")
    threads.call("b")
    threads.call("c", timeout=0.5)
    threads.call("d")
    maker.go_on.set()
    wait_until(lambda: "c" in threads.outcomes)
    refused.set()
    late = threads.finish()["c"]
    assert isinstance(late, StoreUnavailableError) and late.fate_unknown
    assert maker.groups == [["a"], ["b", "c", "d"], ["b"], ["d"]]


def test_who_finds_a_call_in_the_queue_whose_thread_has_gone_passes_it_over(
    maker: Maker, threads: Threads
) -> None:
    """However large it is."""
    gone: combining._Call[str, str] = combining._Call("gone", combining.MAX_BYTES + 1, 0.0)
    for given in "abc":
        threads.call(given)
    gone.gone = True
    threads.combiner._queue.appendleft(gone)
    assert len(threads.finish()) == 3
    assert maker.groups == [["a"], ["b", "c"]]


def test_who_has_little_patience_left_does_not_decide_for_the_others(maker: Maker, threads: Threads) -> None:
    away = StoreUnavailableError("away")
    lost = StoreUnavailableError("no reply", fate_unknown=True)
    damaged = StoreUnavailableError("damaged", transient=False)

    def make(calls: Sequence[str], seconds: float) -> list[str | ResumableStreamError]:
        made = Maker.make(maker, calls, seconds)
        if "c" in calls:
            maker.refused.pop("c", None)  # later on it can be made
        return made

    maker.make = make  # type: ignore[method-assign]
    maker.refused = {"b": away, "c": away, "d": lost, "e": damaged}
    threads.call("a")
    threads.call("b", timeout=PATIENCE / 4)
    for given in "cdef":
        threads.call(given)
    outcomes = threads.finish()
    assert outcomes == {"a": "made a", "b": away, "c": "made c", "d": lost, "e": damaged, "f": "made f"}
    assert maker.groups == [["a"], ["b", "c", "d", "e", "f"], ["c"]]


def test_who_has_about_as_much_patience_is_told_at_once(maker: Maker, threads: Threads) -> None:
    maker.refused = dict.fromkeys("bc", StoreUnavailableError("away"))
    for given in "abc":
        threads.call(given)
    assert threads.finish() == {"a": "made a", **maker.refused}
    assert maker.groups == [["a"], ["b", "c"]]


def test_a_call_in_the_middle_of_one_of_the_same_thread_is_made_there(maker: Maker, threads: Threads) -> None:
    """That of a signal handler."""
    maker.go_on.set()

    def make(calls: Sequence[str], seconds: float) -> list[str | ResumableStreamError]:
        if calls[0] == "outer":
            assert threads.combiner.call(make, "inner", 1, PATIENCE) == "made inner"
        return Maker.make(maker, calls, seconds)

    assert threads.combiner.call(make, "outer", 1, PATIENCE) == "made outer"
    assert maker.groups == [["inner"], ["outer"]]
    assert not threads.combiner._queue


def test_patience_is_that_of_the_thread_that_makes(maker: Maker, threads: Threads) -> None:
    told: list[float] = []

    def make(calls: Sequence[str], seconds: float) -> list[str | ResumableStreamError]:
        told.append(seconds)
        return list(calls)

    threads.combiner.call(make, "a", 1, 7.0)
    assert 0.0 < told[0] <= 7.0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("keep", [False, True], ids=["exceptions let go", "exceptions kept"])
def test_exceptions_thrown_in_anywhere(keep: bool, alarms: Callable[[float], object]) -> None:
    """No thread hangs; no call is made twice; what was returned was made; nothing is made once its caller, broken
    off, has made another call; and the other threads, which no signal handler breaks off, do not notice."""
    combiner: Combiner[int, str] = Combiner()
    lock = threading.Lock()
    made: list[int] = []
    gone: list[int] = []  # since the last call that returned: they may be part of a turn that is under way
    over: set[int] = set()
    late: list[int] = []
    failed: list[BaseException] = []
    kept: list[BaseException] = []
    done = threading.Event()

    def make(calls: Sequence[int], seconds: float) -> list[str | ResumableStreamError]:
        with lock:
            late.extend(call for call in calls if call in over)
        time.sleep(0.0002)  # a trip
        with lock:
            made.extend(calls)
        return list(map(str, calls))

    def call_on(first: int) -> None:
        number = first
        try:
            while not done.is_set():
                number += 1
                assert combiner.call(make, number, 1, PATIENCE) == str(number)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=call_on, args=(each * 1_000_000,), daemon=True) for each in (1, 2, 3)]
    for thread in threads:
        thread.start()
    rng, hits, number, returned = random.Random(7), 0, 0, 0
    until = time.monotonic() + 2.0
    while time.monotonic() < until or hits < 20:
        number += 1
        try:
            alarms(rng.uniform(0.00002, 0.002))
            assert combiner.call(make, number, 1, PATIENCE) == str(number)
            alarms(0)
            returned += 1
            with lock:
                over.update(gone)
            gone.clear()
        except Thrown as thrown:
            hits += 1
            alarms(0)
            gone.append(number)
            if keep and len(kept) < 200:
                kept.append(thrown)
    alarms(0)
    done.set()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert failed == [] and late == [] and hits >= 20 and returned > 0
    assert len(set(made)) == len(made)
    assert combiner.call(make, 0, 1, PATIENCE) == "0"


def test_many_threads_make_far_fewer_groups() -> None:
    combiner: Combiner[int, str] = Combiner()
    groups: list[int] = []
    started = threading.Barrier(8)

    def make(calls: Sequence[int], seconds: float) -> list[str | ResumableStreamError]:
        groups.append(len(calls))
        time.sleep(0.001)  # a trip: the others come to wait meanwhile
        return list(map(str, calls))

    def work(thread: int) -> None:
        started.wait(PATIENCE)
        for number in range(thread * 100, thread * 100 + 50):
            assert combiner.call(make, number, 1, PATIENCE) == str(number)

    threads = [threading.Thread(target=functools.partial(work, each), daemon=True) for each in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sum(groups) == 400 and len(groups) < 200
