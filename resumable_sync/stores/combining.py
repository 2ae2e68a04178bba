"""Calls of many threads that one of them makes together: one transaction, or one trip, for all that wait.

This is flat combining (Hendler, Incze, Shavit and Tzafrir, 2010). Whoever has the turn takes the calls that wait,
makes them in one go, and leaves their outcomes with them; a thread whose turn comes later finds its own made. A
call that meets nobody is made alone, at once: nothing is ever gathered by waiting.

Why no thread hangs, and no call is made twice: a call is in the queue, or has been taken out of it by exactly one
thread (`remove` is atomic), which held the turn. A turn is found again if an exception broke its
holder off (see turns.py). So a call that has been taken and has no outcome once its thread has the turn was broken
off with its maker; whether it was carried out is not known, and its thread is told so. Signal handlers, which do
that, run in the main thread: so that one makes its own call alone.

Why nothing is made late: a thread that goes marks its call, then takes it out of the queue. What is marked is
neither taken nor put back, and where the mark comes while it is put back, the next who finds it in the queue
passes it over. So a call that is still made once its thread has gone had been taken, and is made in that very
turn: never after the next call of its thread.
"""

from __future__ import annotations

import contextlib
import copy
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from ..errors import ResumableStreamError, StoreUnavailableError
from .turns import Turns

MAX_CALLS = 64
"""In one go: the first of them waits for the last."""

MAX_BYTES = 1024 * 1024
"""In one go, but for one call that is larger."""

Given = TypeVar("Given")
Result = TypeVar("Result")

Make = Callable[[Sequence[Given], float], Sequence[Result | ResumableStreamError]]
"""See `Combiner.call`."""


class _Call(Generic[Given, Result]):
    """One call. Its thread's, until it is taken out of the queue; then its maker's, until it has an outcome."""

    def __init__(self, given: Given, size: int, deadline: float) -> None:
        self.given = given
        self.size = size
        self.deadline = deadline  # monotonic: how long its thread waits for its turn
        self.gone = False  # its thread has; set by that thread alone
        self.outcome: Result | ResumableStreamError | None = None


class _User:
    """Whoever has the turn: an object of the calling frame alone."""


class Combiner(Generic[Given, Result]):
    """Makes calls together. Thread-safe; for one process."""

    def __init__(self) -> None:
        self._turns = Turns(1)
        self._queue: deque[_Call[Given, Result]] = deque()

    def call(self, make: Make[Given, Result], given: Given, size: int, timeout: float) -> Result:
        """Make one call, of `size` bytes, and return what it is; raises its error. Blocks. StoreUnavailableError
        if its turn did not come within `timeout` seconds; one that is on its way by then, with others, is given as
        long again.

        `make(calls, seconds)` carries calls out, in order, waiting at most so long for others, and returns an
        outcome for each: what it is, or the error that is this call's alone. A StoreUnavailableError that it
        raises is that of all; unless it is of unknown fate nothing was carried out, and each call is made again,
        so that one that cannot be made does not keep the others from it. `make` does the same in all calls, and is
        thread-safe: a signal handler's call, in the middle of one of its own thread, is made there and then.
        """
        deadline = time.monotonic() + timeout
        call: _Call[Given, Result] = _Call(given, size, deadline)
        place = None
        user = _User()
        try:
            self._queue.append(call)
            place = self._turns.take(user, timeout, sys._getframe())
            if place is None and call not in self._queue and call.outcome is None:
                place = self._turns.take(user, timeout, sys._getframe())
            if self._take_out(call):
                if place is not None:
                    is_main = threading.current_thread() is threading.main_thread()
                    others = () if is_main else self._take_others(size)
                    self._make_all(make, [call, *others], deadline)
                elif time.monotonic() < deadline:  # the turn is this very thread's
                    self._make_all(make, [call], deadline)
                else:
                    call.outcome = StoreUnavailableError(f"others took longer than {timeout:g} s; try again")
        finally:
            call.gone = True
            self._take_out(call)  # whoever was broken off while it waited does not want it made any more
            if place is not None:
                self._turns.give_back(place)
        outcome = call.outcome
        if outcome is None:
            reason = "was broken off" if place is not None else f"took longer than {2 * timeout:g} s"
            raise StoreUnavailableError(f"the thread that made this call {reason}", fate_unknown=True)
        if isinstance(outcome, ResumableStreamError):
            raise outcome
        return outcome

    def _take_out(self, call: _Call[Given, Result]) -> bool:
        """Whether it was in the queue until now."""
        try:
            self._queue.remove(call)
            return True
        except ValueError:
            return False

    def _take_others(self, size: int) -> Iterator[_Call[Given, Result]]:
        """Out of the queue, the oldest first, as many as go together with one of `size` bytes."""
        count = 1
        with contextlib.suppress(IndexError):  # the queue is empty
            while count < MAX_CALLS:
                oldest = self._queue[0]
                if not oldest.gone:
                    size += oldest.size
                    if size > MAX_BYTES:
                        return
                if self._take_out(oldest) and not oldest.gone:
                    count += 1
                    yield oldest

    def _put_back(self, calls: Sequence[_Call[Given, Result]]) -> None:
        """For their own threads: each has its own patience."""
        self._queue.extendleft([call for call in reversed(calls) if not call.gone])

    def _make_all(self, make: Make[Given, Result], calls: list[_Call[Given, Result]], deadline: float) -> None:
        """With the turn. The first is this thread's own."""
        began = time.monotonic()
        seconds = max(0.0, deadline - began)
        try:
            outcomes = make([call.given for call in calls], seconds)
        except StoreUnavailableError as unavailable:
            if len(calls) > 1 and not unavailable.fate_unknown:
                self._put_back(calls[1:])
                self._make_all(make, calls[:1], deadline)
                return
            outcomes = [unavailable, *(_copy(unavailable) for _ in calls[1:])]
        early = []
        for call, outcome in zip(calls, outcomes, strict=True):
            # A call with much more patience is not told of a failure that the rest of this thread's may explain.
            if call.deadline - began > 2 * seconds and _may_be_early(outcome):
                early.append(call)
            else:
                call.outcome = outcome
        if early:
            self._put_back(early)


def _may_be_early(outcome: object) -> bool:
    """Whether another try, which is safe, may have another outcome."""
    return isinstance(outcome, StoreUnavailableError) and outcome.transient and not outcome.fate_unknown


def _copy(unavailable: StoreUnavailableError) -> StoreUnavailableError:
    """The same for another thread: each that raises an exception adds to its traceback, and may change it."""
    made = copy.copy(unavailable)
    made.__cause__ = unavailable.__cause__
    return made
