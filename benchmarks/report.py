"""The tables: figures of a run as text, and as Markdown for the README."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Rows = list[tuple[str, ...]]


def number(value: float) -> str:
    """Three figures, with a unit of thousands or millions for large ones."""
    for limit, divisor, unit in ((1e6, 1e6, " M"), (1e4, 1e3, " k")):
        if abs(value) >= limit:
            return f"{_three(value / divisor)}{unit}"
    return _three(value)


def _three(value: float) -> str:
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.2g}" if abs(value) < 0.1 else f"{value:.3g}"


def figures(document: Mapping[str, Any], headlines: Mapping[str, Sequence[str]]) -> Rows:
    """A row for each contestant of each scenario, with its headline metrics."""
    rows: Rows = []
    for name, scenario in document["scenarios"].items():
        for contestant, result in scenario["results"].items():
            metrics = result["metrics"]
            shown = [
                f"{metric} {number(metrics[metric]['median'])}"
                for metric in headlines.get(name, ())
                if metric in metrics
            ]
            rows.append((name, contestant, "  ".join(shown)))
        rows += [(name, contestant, "failed") for contestant in scenario["failed"]]
    return rows


def aims(document: Mapping[str, Any]) -> Rows:
    """A row for each aim: what it is, the limit, what was measured."""
    marks = {True: "yes", False: "no", None: "-"}
    rows: Rows = []
    for aim in document["aims"]:
        value = "not measured" if aim["value"] is None else number(aim["value"])
        rows.append((aim["title"], aim["limit"], value, marks[aim["met"]]))
    return rows


def text_table(header: tuple[str, ...], rows: Rows) -> str:
    """Columns aligned with spaces."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in [header, *rows]]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def markdown_table(header: tuple[str, ...], rows: Rows) -> str:
    """A table for the README."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ("---",) * len(header), *rows])


def report(document: Mapping[str, Any], headlines: Mapping[str, Sequence[str]]) -> str:
    """What is printed at the end."""
    parts = [text_table(("scenario", "contestant", "medians"), figures(document, headlines))]
    if document["aims"]:
        parts.append(text_table(("aim", "limit", "measured", "met"), aims(document)))
    return "\n\n".join(parts)
