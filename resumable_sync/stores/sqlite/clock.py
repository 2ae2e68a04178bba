"""A clock that all processes of a machine share and that nobody sets: seconds since boot."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path


def now() -> float:
    """Seconds since boot, going on during suspend where the system offers that (Linux: CLOCK_BOOTTIME)."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    # Elsewhere the monotonic clock is the system's uptime too (macOS, Windows).
    return time.monotonic() if clock is None else time.clock_gettime(clock)


@cache
def boot_id() -> str:
    """Names the present boot; empty where the system does not say. Times of another boot mean nothing."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""
