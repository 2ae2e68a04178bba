"""On what the figures were made."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from .runner import own_directory


def describe(peers: Mapping[str, str]) -> dict[str, Any]:
    """Versions, processor and commit. `peers`: name and version of each installed peer."""
    packages = {}
    for name in ("redis", "hiredis", "filelock", "flask", "gunicorn", "waitress"):
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            packages[name] = "not installed"
    return {
        "made_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": _output(["git", "-C", str(own_directory()), "describe", "--always", "--dirty", "--abbrev=12"]),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": sys.version.split()[0],
        "sqlite": sqlite3.sqlite_version,
        "redis_server": _output(["redis-server", "--version"]),
        "node": _output(["node", "--version"]),
        "packages": packages,
        "peers": dict(peers),
    }


def _cpu() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def _output(command: Sequence[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "not available"
