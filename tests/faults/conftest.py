"""Rounds: each fault is tried a few times by default, as often as the fault plan says with `-m heavy`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from resumable_sync.stores.sqlite import SQLiteStore

Report = Callable[..., None]

_figures = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_figures] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash[_figures]:
        terminalreporter.section("figures")
        for line in config.stash[_figures]:
            terminalreporter.write_line(line)


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """`report(worst=…)` prints figures after the run. They are never asserted on."""

    def add(**values: object) -> None:
        shown = ", ".join(
            f"{name} {value:.3f}" if isinstance(value, float) else f"{name} {value}"
            for name, value in values.items()
        )
        request.config.stash[_figures].append(f"{request.node.name}: {shown}")

    return add


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the test's SQLite file goes."""
    return tmp_path / "streams.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    """A SQLite store on `path`."""
    opened = SQLiteStore(path)
    yield opened
    opened.close()
