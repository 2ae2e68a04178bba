"""Figures that tests measure: printed after the run, never asserted on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

Report = Callable[..., None]
"""`report(worst=…)` prints figures after the run."""

FIGURES = pytest.StashKey[list[str]]()


def reporter(config: pytest.Config, name: str) -> Report:
    """The report of the test of this name."""

    def add(**values: object) -> None:
        shown = ", ".join(
            f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}" for key, value in values.items()
        )
        config.stash.setdefault(FIGURES, []).append(f"{name}: {shown}")

    return add
