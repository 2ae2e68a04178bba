"""Turns: at most so many holders at a time, first come, first served, and none is lost for good.

A signal handler may raise between any two steps of the main thread's Python code, so there is no place where a
turn is given back for certain. Three rules make up for that:

- Who holds a turn is found out, not counted. A `Place` in the list of holders counts as long as its user can still
  give it back: the user, an object that the calling frame holds, is there, and that frame is on its thread's
  stack. Whoever waits looks for lost turns every now and then; a thread that asks for one looks for its own.
- Each change of the fields is one call into C, which no exception can split, and what lies between two such calls
  (a turn that is free but not handed over) is put right by those that wait, at the end of their slice.
- The lock is one that C takes and gives back in a `with` statement, unlike a Condition's. It is reentrant: a
  signal handler that forks, or calls the store, may run while its own thread is inside.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
import threading
import time
import weakref
from collections import deque
from types import FrameType
from typing import Any, Protocol

_SLICE_SECONDS = 0.1  # between looks for lost turns


class Closable(Protocol):
    """What a turn is for: a connection."""

    def close(self) -> None:
        """Let go of it; whoever finds a lost turn does so for its user."""


class Place:
    """A turn, or a place in the queue for one. `user` is held weakly. Guarded by the lock of its Turns, but for
    `connection`, which belongs to the user, or to whoever took the lost turn away."""

    __slots__ = ("user", "thread", "frame", "gate", "done", "connection")

    def __init__(self, user: Any, frame: FrameType | None) -> None:
        self.user = weakref.ref(user)
        self.thread = threading.get_ident()
        # A generator's frame leaves the stack and comes back: for that one there is only the user.
        self.frame = None if frame is None or frame.f_code.co_flags & inspect.CO_GENERATOR else frame
        self.gate: threading.Lock | None = None  # locked until the turn is handed over
        self.done = False
        self.connection: Closable | None = None

    def is_lost(self) -> bool:
        """Whether nobody is left who could give it back."""
        if self.user() is None:
            return True
        if self.frame is None:
            return False
        # Under gevent a thread's id is that of a greenlet, which has no stack here: then its user alone tells.
        mine = self.thread == threading.get_ident()
        top = frame = sys._getframe() if mine else sys._current_frames().get(self.thread)
        if frame is None:
            return False
        while frame is not None:
            if frame is self.frame:
                return False
            frame = frame.f_back
        # A frame that has returned meanwhile has lost its callers: it counts if the top is still the same.
        return mine or sys._current_frames().get(self.thread) is top


class Turns:
    """At most `limit` holders. Thread-safe. `_lock` guards the fields below it."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.RLock()
        self._holders: list[Place] = []
        self._queue: deque[Place] = deque()
        self._lost: list[Place] = []  # whose connections are to be closed
        self._closing = threading.RLock()  # two that close one connection at once would disturb SQLite

    def take(self, user: object, timeout: float, frame: FrameType | None = None) -> Place | None:
        """A turn, or None if there is none within `timeout` seconds, or never could be, since this thread has all.

        The turn is `user`'s, who gives it back: it is lost with that object, and with the return of `frame`.
        """
        place = Place(user, frame)
        with self._lock:
            if self._holders:
                thread = place.thread
                if any(each.thread == thread or each.user() is None for each in self._holders):
                    self._take_away()
            granted = not self._queue and len(self._holders) < self._limit
            if granted:
                self._holders.append(place)
        if self._lost:
            self.close_lost()
        return place if granted or self._wait(place, timeout) else None

    def give_back(self, place: Place) -> None:
        """Let the next one in. Idempotent."""
        with self._lock:
            place.done = True
            place.frame = None
            if place in self._holders:
                self._holders.remove(place)
            if self._queue:
                if place in self._queue:
                    self._queue.remove(place)
                self._hand_over()

    def close_lost(self) -> None:
        """Close the connections of lost turns. Until one is closed it stays in the list: whoever does so may be
        broken off too, and the connection may hold SQLite's write lock."""
        with self._closing:
            for place in list(self._lost):
                if place.connection is not None:
                    place.connection.close()
                    place.connection = None
                with contextlib.suppress(ValueError):  # another thread was faster
                    self._lost.remove(place)

    def _wait(self, place: Place, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        place.gate = gate = threading.Lock()
        gate.acquire()
        granted = waited = False
        try:
            while True:
                with self._lock:
                    if waited:  # else `take` has just looked
                        self._take_away()
                    if place not in self._holders and place not in self._queue:
                        self._queue.append(place)
                    self._hand_over()
                    granted = place in self._holders
                    hopeless = all(each.thread == place.thread for each in self._holders)
                if self._lost:
                    self.close_lost()
                left = deadline - time.monotonic()
                if granted or hopeless or left <= 0:
                    return granted
                waited = not gate.acquire(timeout=min(left, _SLICE_SECONDS))
        finally:
            if not granted:
                self.give_back(place)

    # The helpers below are called with the lock held.

    def _hand_over(self) -> None:
        while self._queue and len(self._holders) < self._limit:
            place = self._queue[0]
            if not place.done and place.user() is not None and place not in self._holders:
                self._holders.append(place)
            self._queue.popleft()
            with contextlib.suppress(RuntimeError):  # it is open: an exception came between these steps before
                if place.gate is not None:
                    place.gate.release()

    def _take_away(self) -> None:
        """Lost turns are free from now on; their connections are to be closed without the lock."""
        for place in [place for place in self._holders if place.is_lost()]:
            if place not in self._lost:
                self._lost.append(place)
            self._holders.remove(place)
