"""`python -m benchmarks`: runs scenarios, prints a table, writes JSON and plots."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from . import against, aims, environment, peers, plot, report
from .redis_server import redis_server
from .runner import RunFailed, Runner
from .scenarios import SCENARIOS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks; 0 when all ran."""
    names = [scenario.name for scenario in SCENARIOS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Benchmarks of resumable_sync.")
    parser.add_argument("scenario", nargs="*", help=f"what to run (default: all): {', '.join(names)}")
    parser.add_argument("--peers", action="store_true", help="also run other libraries, from npm and PyPI")
    parser.add_argument("--quick", action="store_true", help="little work: shows that all runs, not how fast")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="write SVG plots and the Markdown table there")
    parser.add_argument("--from-json", type=Path, metavar="FILE", help="report on an earlier run instead")
    parser.add_argument(
        "--against",
        type=Path,
        metavar="EDITION",
        help="run our stores alone, beside those of another edition: a wheel or a checkout",
    )
    parser.add_argument("--rounds", type=int, default=9, help="of --against (default: 9)")
    options = parser.parse_args(arguments)
    if options.against and not options.against.exists():
        parser.error(f"no such wheel or checkout: {options.against}")
    unknown = set(options.scenario) - set(names)
    if unknown:
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    headlines = {scenario.name: scenario.headline for scenario in SCENARIOS}
    if options.from_json:
        document = json.loads(options.from_json.read_text("utf-8"))
        document["aims"] = aims.judge(document["scenarios"])
    else:
        begin = time.monotonic()

        def progress(line: str) -> None:
            print(f"[{time.monotonic() - begin:6.1f} s] {line}", file=sys.stderr, flush=True)

        installed = peers.install(progress) if options.peers else peers.Installed({}, {})
        document = {
            "schema": 1,
            "quick": options.quick,
            "environment": environment.describe(installed.versions),
            "scenarios": {},
        }
        with (
            tempfile.TemporaryDirectory(prefix="resumable-bench-") as directory,
            redis_server(Path(directory)) as redis,
        ):
            if redis is None:
                progress("redis-server is not installed: what needs it is left out")
            commands = dict(installed.commands)
            if options.against:
                commands[against.KIND] = against.command(options.against)
            runner = Runner(redis, commands, progress, quick=options.quick)
            for scenario in SCENARIOS:
                if not options.scenario or scenario.name in options.scenario:
                    if options.against:
                        scenario = against.side_by_side(scenario, options.rounds)
                    try:
                        document["scenarios"][scenario.name] = runner.run(scenario)
                    except RunFailed as failed:
                        print(f"{scenario.name}: {failed}", file=sys.stderr)
                        return 1
        document["aims"] = [] if options.quick or options.against else aims.judge(document["scenarios"])
        document["seconds"] = round(time.monotonic() - begin, 1)
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if options.against:
        print(against.report(document["scenarios"], headlines))
    else:
        print(report.report(document, headlines))
    if options.plot:
        plot.write(document, headlines, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
