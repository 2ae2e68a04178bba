"""Rounds: each fault is tried a few times by default, as often as the fault plan says with `-m heavy`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from resumable_sync.stores.sqlite import SQLiteStore

from ...figures import Report

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
