"""How often a fault is tried."""

from __future__ import annotations

import pytest


def rounds(few: int, many: int, seconds: float = 3600.0) -> pytest.MarkDecorator:
    """Parametrise a test over `rounds`: `few` by default, `many` with `-m heavy` (in `seconds`)."""
    return pytest.mark.parametrize(
        "rounds",
        [
            pytest.param(few, id="few"),
            pytest.param(many, id="heavy", marks=[pytest.mark.heavy, pytest.mark.timeout(seconds)]),
        ],
    )
