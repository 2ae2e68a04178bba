"""Rounds: each fault is tried a few times by default, as often as the fault plan says with `-m heavy`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from resumable_sync import open_store
from resumable_sync.stores.sqlite import SQLiteStore

from ...figures import Report
from ..redis.server import shared_server
from .places import Place, cluster_place, redis_place

__all__ = ["Report"]


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


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.redis)])
def url(request: pytest.FixtureRequest, path: Path) -> Iterator[str]:
    """The URL of a store that several processes share, one kind after the other. Empty at the end."""
    if request.param == "sqlite":
        yield f"sqlite:///{path}"
        return
    url = f"{shared_server().url}?prefix={path.parent.name}"
    yield url
    with open_store(url) as store:
        store.clear()


@pytest.fixture(params=["sqlite", *(pytest.param(name, marks=pytest.mark.redis) for name in ("redis", "cluster"))])
def place(request: pytest.FixtureRequest, path: Path) -> Iterator[Place]:
    """The same, with losses where there is a wire; also a cluster of three nodes."""
    if request.param == "sqlite":
        yield Place(f"sqlite:///{path}", f"sqlite:///{path}")
        return
    with (redis_place if request.param == "redis" else cluster_place)(path.parent.name) as made:
        yield made
