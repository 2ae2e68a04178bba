"""Figures that tests measure: printed after the run, never asserted on."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

Report = Callable[..., None]
"""`report(worst=…)` prints figures after the run."""

_PROPERTY = "figures"  # of a test's report, which also comes from a worker process


def reporter(test: pytest.Item) -> Report:
    """The report of a test."""

    def add(**values: object) -> None:
        shown = ", ".join(
            f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}" for key, value in values.items()
        )
        test.user_properties.append((_PROPERTY, f"{test.name}: {shown}"))

    return add


def figures(reports: Iterable[object]) -> list[str]:
    """The lines in the reports of a run."""
    return [
        str(line)
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call"
        for name, line in report.user_properties
        if name == _PROPERTY
    ]
