"""Runs one program in this process: `python -m benchmarks.programs MODULE.FUNCTION JOB`."""

from __future__ import annotations

import importlib
import json
import sys

from .support import Job


def main() -> None:
    """Run the program and print its result as the last line."""
    module, function = sys.argv[1].split(".")
    run = getattr(importlib.import_module(f"benchmarks.programs.{module}"), function)
    print(json.dumps(run(Job(json.loads(sys.argv[2])))), flush=True)


main()
