"""This checkout beside another edition of the library, a wheel or a checkout, in one interleaved run."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .report import Rows, text_table
from .runner import Scenario

KIND = "against"
_PREFIX = "before: "
# The library is imported from the other edition, then all else from this checkout: the other one may be a checkout
# too, with benchmarks of its own.
_RUN = (
    "import runpy, sys; edition, here = sys.argv[1:3]; del sys.argv[1:3];"
    " sys.path[0] = edition; import resumable_sync; sys.path[0] = here;"
    " runpy.run_module('benchmarks.programs', run_name='__main__', alter_sys=True)"
)


def command(edition: Path) -> Sequence[str]:
    """Runs a program of this checkout's benchmarks with the library of `edition`."""
    here = Path(__file__).parent.parent
    return (sys.executable, "-c", _RUN, str(edition.resolve()), str(here))


def side_by_side(scenario: Scenario, rounds: int) -> Scenario:
    """The scenario with our stores alone, each with both editions."""
    pairs = [
        contestant
        for ours in scenario.contestants
        if ours.kind == "ours"
        for contestant in (ours, replace(ours, name=_PREFIX + ours.name, kind=KIND))
    ]
    return replace(scenario, contestants=pairs, rounds=rounds)


def ratios(scenarios: Mapping[str, Any]) -> Iterator[tuple[str, str, str, list[float]]]:
    """Scenario, contestant, metric, and the sorted ratios of after to before, round by round."""
    for scenario, run in scenarios.items():
        results = run["results"]
        for name in results:
            if name.startswith(_PREFIX):
                continue
            before = results[_PREFIX + name]["metrics"]
            for metric, after in results[name]["metrics"].items():
                pairs = zip(after["samples"], before[metric]["samples"])
                yield scenario, name, metric, sorted(new / old for new, old in pairs if old)


def report(scenarios: Mapping[str, Any], headlines: Mapping[str, Sequence[str]]) -> str:
    """The ratios of the headline metrics, as text."""
    rows: Rows = [
        (scenario, name, metric, f"{statistics.median(found):.3f}", f"{found[0]:.3f}", f"{found[-1]:.3f}")
        for scenario, name, metric, found in ratios(scenarios)
        if found and metric in headlines[scenario]
    ]
    return text_table(("scenario", "contestant", "after / before", "median", "least", "most"), rows)
