from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ..stores.redis.server import RedisServer
from .support import Place


@pytest.fixture(scope="module")
def broker() -> Iterator[RedisServer]:
    """A Redis server for a queue, and for nobody else."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Without a broker."""
    return Place(tmp_path)
