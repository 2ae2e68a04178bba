"""A clock that nobody sets, seconds since boot, and which processes share it.

Two containers of one machine may see clocks that differ (time namespaces), or different names of the same boot. So
times are compared within a clock domain only.
"""

from __future__ import annotations

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
    """Names the boot, and the time namespace unless it is the initial one: `now()` can be compared between
    processes that see the same name. Empty where the system does not say."""
    return _domain.get()[0]


def _read_domain() -> tuple[str]:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        boot = ""
    try:
        namespace = os.readlink("/proc/self/ns/time")
    except OSError:
        namespace = _INITIAL_NAMESPACE
    return (boot if namespace == _INITIAL_NAMESPACE else f"{boot} {namespace}",)


_domain = PerProcess(_read_domain)  # a child may begin in another namespace
