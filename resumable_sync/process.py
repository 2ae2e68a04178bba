"""State that belongs to one process: a forked child begins with its own, the end of the process closes it."""

from __future__ import annotations

import atexit
import itertools
import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable
from functools import cache
from typing import Any, Generic, Protocol, TypeVar

from .errors import StoreUnavailableError

logger = logging.getLogger("resumable_sync")

T = TypeVar("T")

forks = 0
"""Forks of which this process is the result, but for those that bypass Python. Read it as `process.forks`: cheap
enough for what is done for every chunk."""


def process_identity() -> tuple[int, int]:
    """What tells this process from its ancestors and descendants. Compare it; the parts mean nothing.

    The process id alone would not do: a descendant may get the id of an ancestor that is gone. The count of
    forks alone would not do either: uWSGI forks without Python's hooks.
    """
    return os.getpid(), forks


def _count_fork() -> None:
    global forks
    forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count_fork)


def runs_greenlets() -> bool:
    """Whether gevent has replaced threads: then a call that blocks stops them all, unless it is gevent's."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def start_thread(target: Callable[[], object], name: str) -> threading.Thread:
    """Start a daemon thread. StoreUnavailableError, which is transient, if the process can have no more
    threads."""
    thread = threading.Thread(target=target, name=name, daemon=True)
    start(thread)
    return thread


def start(thread: threading.Thread) -> None:
    """As `start_thread`, for one that is made already."""
    try:
        thread.start()
    except RuntimeError as error:
        if thread.ident is not None:  # it runs: a signal handler raised, and what `start` did about that failed
            raise error.__context__ or error from None
        raise StoreUnavailableError(f"the process can start no more threads: {error}") from error
    except KeyError as broken:
        # A signal handler raised once the thread ran; then what `start` itself does about that fails.
        raise broken.__context__ or broken from None


class PerProcess(Generic[T]):
    """Holds one value for each process, made on first use. Thread-safe without a lock.

    Locks, threads and connections do not survive a fork: a lock may be held by a thread that the child
    does not have. So whatever holds such things compares the process id on entry and starts anew. The child keeps
    the parent's value, unused: its finalizers (closing a shared SQLite connection, say) must not run there.
    `os.register_at_fork` alone is not enough: uWSGI forks without it.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._values: dict[tuple[int, int], T] = {}

    def get(self) -> T:
        """This process's value. `make` may run twice when two threads are first at once; one result is kept."""
        process = os.getpid(), forks  # process_identity(), without a call: this is asked several times a chunk
        value = self._values.get(process)
        # dict.setdefault is atomic, and needs no lock that a fork could leave held.
        return value if value is not None else self._values.setdefault(process, self._make())

    def peek(self) -> T | None:
        """This process's value if it has been made, else None."""
        return self._values.get(process_identity())


def at_exit(holder: T, close: Callable[[T], object]) -> None:
    """Call `close(holder)` when the interpreter exits, the last registered first; what it raises is logged.

    The holder is held weakly, and nothing of it is kept once it is gone: `atexit` itself would keep every context
    of an application that makes one for each request. Thread-safe; does not block.
    """
    _register_exit()
    number = next(_numbers)
    _holders[number] = weakref.ref(holder, lambda _: _holders.pop(number, None)), close


_holders: dict[int, tuple[weakref.ref[Any], Callable[[Any], object]]] = {}  # single operations are atomic: no lock
_numbers = itertools.count()


def _close_all() -> None:
    for reference, close in reversed(list(_holders.values())):
        holder = reference()
        if holder is not None:
            try:
                close(holder)
            except Exception:  # the others are still to be closed
                logger.exception("closing %r at exit failed", holder)


@cache
def _register_exit() -> None:
    atexit.register(_close_all)


class Pausable(Protocol):
    """Something that must stand still while the process forks."""

    def before_fork(self) -> None:
        """Reach a state that a child may inherit, within a bounded time, and stay in it."""

    def after_fork(self) -> None:
        """Go on, in the parent."""


class _Pausables:
    def __init__(self) -> None:
        self.lock = threading.RLock()  # guards members; reentrant, for a signal handler that forks
        self.members: weakref.WeakSet[Pausable] = weakref.WeakSet()
        self.paused: dict[int, list[Pausable]] = {}  # by the thread that forks: there may be two


_pausables = PerProcess(_Pausables)


def pause_at_fork(member: Pausable) -> None:
    """Call `member.before_fork()` and `member.after_fork()` around each `os.fork` of this process. Held weakly.

    Forks that bypass Python (uWSGI's) call neither: there an application is loaded before anything runs.
    """
    _register()
    pausables = _pausables.get()
    with pausables.lock:
        pausables.members.add(member)


def _before_fork() -> None:
    pausables = _pausables.get()
    with pausables.lock:
        members = list(pausables.members)
    pausables.paused[threading.get_ident()] = members  # first: an exception thrown in does not stop the fork
    for member in members:
        member.before_fork()


def _after_fork() -> None:
    pausables = _pausables.get()
    for member in pausables.paused.pop(threading.get_ident(), []):
        member.after_fork()


@cache
def _register() -> None:
    # On first use, so after filelock's own hooks and run before them: a transaction may wait for a lock file.
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_before_fork, after_in_parent=_after_fork)
