"""SVG plots, made from the JSON of a run alone, and the Markdown table for the README."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import floor, log10
from pathlib import Path
from typing import Any, NamedTuple

from . import report

_WIDTH = 760
_LABELS = 300  # pixels for the names on the left of a bar chart
_BAR = 20
_COLOURS = {"ours": "#2563eb", "floor": "#9ca3af", "node": "#d97706", "python": "#059669"}
_LINES = ("#2563eb", "#d97706", "#059669", "#9333ea", "#dc2626", "#6b7280")
_KINDS = {"ours": "resumable_sync", "floor": "floor", "node": "npm", "python": "PyPI"}


class Bars(NamedTuple):
    """A bar chart: one metric of all contestants of a scenario, on a logarithmic axis."""

    file: str
    title: str
    scenario: str
    metric: str


class Lines(NamedTuple):
    """A line chart, both axes logarithmic. `points`: for each x, the scenario and metric of the values."""

    file: str
    title: str
    x_title: str
    points: Mapping[int, tuple[str, str]]


BARS = (
    Bars("append", "One hot stream: chunks of 64 bytes per second", "append", "chunks_per_s"),
    Bars("append-acknowledged", "Each chunk acknowledged: chunks/s", "append-acknowledged", "chunks_per_s"),
    Bars("hot-streams", "100 hot streams together: chunks per second", "hot-streams", "chunks_per_s"),
    Bars("tail", "Live latency in one process, median, ms", "tail", "p50_ms"),
    Bars("tail-across", "Live latency across two processes, median, ms", "tail-across", "p50_ms"),
    Bars("many-streams", "100 streams at 50 chunks/s, p99, ms", "many-streams", "p99_ms"),
    Bars("replay", "Replay of 10,000 stored chunks: chunks per second", "replay-10k", "chunks_per_s"),
)
LINES = (
    Lines(
        "fan-out",
        "Live latency by viewers of one stream, median, ms",
        "viewers",
        {viewers: (f"fan-out-{viewers}", "p50_ms") for viewers in (1, 10, 100, 500)},
    ),
    Lines(
        "resume",
        "Resuming at a random byte, median, ms",
        "chunks stored",
        {length: ("resume", f"p50_ms_{length}") for length in (1_000, 10_000, 100_000, 1_000_000)},
    ),
    Lines(
        "growth",
        "Acknowledged append, median, ms",
        "streams in the store",
        {streams: ("growth", f"append_ms_{streams}") for streams in (10, 100, 1_000, 10_000)},
    ),
)


def write(document: Mapping[str, Any], headlines: Mapping[str, Sequence[str]], folder: Path) -> None:
    """Write what the document has figures for into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.md").write_text(markdown(document, headlines), encoding="utf-8")
    for bars in BARS:
        found = _bars(document, bars)
        if found:
            (folder / f"{bars.file}.svg").write_text(found, encoding="utf-8")
    for lines in LINES:
        found = _lines(document, lines)
        if found:
            (folder / f"{lines.file}.svg").write_text(found, encoding="utf-8")


def markdown(document: Mapping[str, Any], headlines: Mapping[str, Sequence[str]]) -> str:
    """The tables, and on what they were made."""
    made_on = document["environment"]
    peers = ", ".join(f"{name} {version}" for name, version in made_on["peers"].items()) or "none"
    parts = [
        f"Medians of one run: {made_on['cpu']}, {made_on['cores']} cores (load {made_on['load_before']} at the"
        f" start), Python {made_on['python']}, SQLite {made_on['sqlite']},"
        f" {made_on['redis_server'].split(' sha')[0]}, Node {made_on['node']}; commit {made_on['commit']}."
        f" Peers: {peers}.",
        report.markdown_table(("scenario", "contestant", "medians"), report.figures(document, headlines)),
    ]
    if document["aims"]:
        parts.append(report.markdown_table(("aim", "limit", "measured", "met"), report.aims(document)))
    return "\n\n".join(parts) + "\n"


def _bars(document: Mapping[str, Any], chart: Bars) -> str | None:
    results = document["scenarios"].get(chart.scenario, {}).get("results", {})
    values = [
        (name, result["kind"], result["metrics"][chart.metric]["median"])
        for name, result in results.items()
        if result["metrics"].get(chart.metric, {}).get("median", 0) > 0
    ]
    if not values:
        return None
    low = 10.0 ** floor(log10(min(value for *_, value in values)) - 0.3)
    high = max(value for *_, value in values)
    height = 64 + len(values) * (_BAR + 6)
    parts = [_text(16, 26, chart.title, size=16), _legend({kind for _, kind, _ in values})]
    for place, (name, kind, value) in enumerate(values):
        top = 56 + place * (_BAR + 6)
        width = (_WIDTH - _LABELS - 80) * log10(value / low) / log10(high / low)
        parts.append(_text(_LABELS - 8, top + 15, name, anchor="end"))
        parts.append(
            f'<rect x="{_LABELS}" y="{top}" width="{width:.1f}" height="{_BAR}" rx="2" fill="{_COLOURS[kind]}"/>'
        )
        parts.append(_text(_LABELS + width + 6, top + 15, report.number(value)))
    return _svg(height, parts)


def _legend(kinds: set[str]) -> str:
    parts = []
    left = _LABELS
    for kind, title in _KINDS.items():
        if kind in kinds:
            parts.append(f'<rect x="{left}" y="38" width="10" height="10" fill="{_COLOURS[kind]}"/>')
            parts.append(_text(left + 14, 47, title, size=11))
            left += 32 + 7 * len(title)
    parts.append(_text(16, 47, "logarithmic axis", size=11))
    return "".join(parts)


def _lines(document: Mapping[str, Any], chart: Lines) -> str | None:
    series: dict[str, list[tuple[int, float]]] = {}
    for x, (scenario, metric) in chart.points.items():
        for name, result in document["scenarios"].get(scenario, {}).get("results", {}).items():
            value = result["metrics"].get(metric, {}).get("median")
            if value:
                series.setdefault(name, []).append((x, value))
    series = {name: points for name, points in series.items() if len(points) > 1}
    if not series:
        return None
    xs = [x for points in series.values() for x, _ in points]
    ys = [y for points in series.values() for _, y in points]
    low, high = floor(log10(min(ys))), log10(max(ys)) + 0.1
    height, left, right, top, bottom = 380, 60, 490, 44, 330

    def place(x: float, y: float) -> tuple[float, float]:
        across = (log10(x) - log10(min(xs))) / (log10(max(xs)) - log10(min(xs)))
        return left + (right - left) * across, bottom - (bottom - top) * (log10(y) - low) / (high - low)

    parts = [_text(16, 26, chart.title, size=16)]
    parts.append(_text((left + right) / 2, 368, chart.x_title, anchor="middle"))
    for power in range(low, int(floor(high)) + 1):
        _, y = place(min(xs), 10.0**power)
        parts.append(f'<line x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="#e5e7eb"/>')
        parts.append(_text(left - 6, y + 4, report.number(10.0**power), anchor="end", size=11))
    for x in sorted(set(xs)):
        parts.append(_text(place(x, 10.0**low)[0], bottom + 18, f"{x:,}", anchor="middle", size=11))
    for number, (name, points) in enumerate(series.items()):
        colour = _LINES[number % len(_LINES)]
        placed = [place(*point) for point in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in placed]
        parts.append(f'<rect x="{right + 18}" y="{top + number * 20}" width="10" height="10" fill="{colour}"/>')
        parts.append(_text(right + 34, top + 9 + number * 20, name, size=12))
    return _svg(height, parts)


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 13) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'


def _svg(height: float, parts: Sequence[str]) -> str:
    frame = f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>'
    size = f'width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}"'
    style = 'font-family="sans-serif" fill="#111827"'
    body = "\n".join([frame, *parts])
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>\n{body}\n</svg>\n'
