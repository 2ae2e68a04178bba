"""A clock that nobody sets, seconds since boot, and which processes share it.

Two containers of one machine may see clocks that differ (time namespaces), or different names of the same boot. So
times are compared within a clock domain only.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from pathlib import Path

from ...errors import StoreUnavailableError
from ...process import PerProcess

_INITIAL_NAMESPACE = "time:[4026531834]"  # the number is a constant of the Linux kernel


def now() -> float:
    """Seconds since boot, going on during suspend where the system offers that (Linux: CLOCK_BOOTTIME)."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    # Elsewhere the monotonic clock is the system's uptime too (macOS, Windows).
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def domain() -> str:
    """Names the boot, and how far a time namespace moves the clock, if it does: `now()` can be compared between
    processes that see the same name. Empty where the system does not say. StoreUnavailableError while no
    descriptor is free to ask it."""
    return _domain.get()[0]


def _read_domain() -> tuple[str]:
    boot, moved = _read("/proc/sys/kernel/random/boot_id"), _moved_by()
    return (f"{boot} {moved}" if moved else boot,)


def _moved_by() -> str:
    """By how much this process's time namespace moves the clock; empty if not at all. Not the namespace's number,
    which the kernel gives to another one once its processes have gone."""
    try:
        namespace = os.readlink("/proc/self/ns/time")
    except OSError:  # there are none
        return ""
    if namespace == _INITIAL_NAMESPACE:
        return ""
    with contextlib.suppress(OSError, ValueError, KeyError):
        if namespace == os.readlink("/proc/self/ns/time_for_children"):  # whose offsets the file has
            offsets = dict(line.split(maxsplit=1) for line in _read("/proc/self/timens_offsets").splitlines())
            seconds, nanoseconds = map(int, offsets["boottime"].split())
            return f"{seconds}s {nanoseconds}ns" if seconds or nanoseconds else ""
    return namespace


def _read(path: str) -> str:
    """The text of a file that the system may not have; then it is empty. StoreUnavailableError if that cannot be
    told now: the answer is kept for the life of the process."""
    try:
        return Path(path).read_text("ascii").strip()
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise StoreUnavailableError(f"{path} cannot be read: {error.strerror}") from error
        return ""


_domain = PerProcess(_read_domain)  # a child may begin in another namespace
