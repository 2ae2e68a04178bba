from __future__ import annotations

from collections.abc import Iterator

import pytest

from .server import ModelServer, serving_models


@pytest.fixture(scope="module")
def models() -> Iterator[ModelServer]:
    """A server that speaks the providers' streams."""
    with serving_models() as server:
        yield server
