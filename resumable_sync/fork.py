"""State that belongs to one process: a forked child begins with its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerProcess(Generic[T]):
    """Holds one value for each process, made on first use. Thread-safe without a lock.

    Locks, threads and connections do not survive a fork: a lock may be held by a thread that the child
    does not have. So whatever holds such things compares the process id at entry and starts anew. The parent's
    value is kept, unused: its finalizers (closing a shared SQLite connection, say) must not run in the child.
    `os.register_at_fork` alone would not do: uWSGI forks without it.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._values: dict[int, T] = {}

    def get(self) -> T:
        """This process's value. `make` may run twice when two threads are first at once; one result is kept."""
        pid = os.getpid()
        value = self._values.get(pid)
        # dict.setdefault is atomic, and needs no lock that a fork could leave held.
        return value if value is not None else self._values.setdefault(pid, self._make())

    def peek(self) -> T | None:
        """This process's value if it was made already."""
        return self._values.get(os.getpid())
