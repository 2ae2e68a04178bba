"""What a process pays before it does anything: importing the library, and the command line's start."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

from .support import Job, percentile


def process(job: Job) -> dict[str, Any]:
    """Milliseconds from the start of a Python process to its end, `times` times."""
    environment = {**os.environ, "RESUMABLE_STORE": f"sqlite:///{job.directory}/streams.db"}
    times = []
    for _ in range(job["times"] + 2):
        begin = time.perf_counter()
        subprocess.run([sys.executable, *job["command"]], check=True, stdout=subprocess.DEVNULL, env=environment)
        times.append((time.perf_counter() - begin) * 1e3)
    ordered = sorted(times[2:])  # the first two compile and fill caches
    return {"metrics": {"p50_ms": percentile(ordered, 0.5), "max_ms": ordered[-1]}}
