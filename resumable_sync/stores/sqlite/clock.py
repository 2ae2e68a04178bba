"""A clock that nobody sets, seconds since boot, and which processes share it.

Two containers of one machine may see clocks that differ (time namespaces), or different names of the same boot. So
times are compared within a clock domain only.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from ...process import PerProcess

_INITIAL_NAMESPACE = "time:[4026531834]"  # the number is a constant of the Linux kernel


def now() -> float:
    """Seconds since boot, going on during suspend where the system offers that (Linux: CLOCK_BOOTTIME)."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    # Elsewhere the monotonic clock is the system's uptime too (macOS, Windows).
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def domain() -> str:
    """Names the boot, and how far a time namespace moves the clock, if it does: `now()` can be compared between
    processes that see the same name. Empty where the system does not say."""
    return _domain.get()[0]


def _read_domain() -> tuple[str]:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        boot = ""
    moved = _moved_by()
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
    with contextlib.suppress(OSError, ValueError):
        if namespace == os.readlink("/proc/self/ns/time_for_children"):  # whose offsets the file has
            for line in Path("/proc/self/timens_offsets").read_text("ascii").splitlines():
                clock, seconds, nanoseconds = line.split()
                if clock == "boottime":
                    return f"{seconds}s {nanoseconds}ns" if (int(seconds), int(nanoseconds)) != (0, 0) else ""
    return namespace


_domain = PerProcess(_read_domain)  # a child may begin in another namespace
