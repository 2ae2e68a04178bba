"""The local stores, for tests that hold for each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from resumable_sync import MemoryStore, Store
from resumable_sync.stores.sqlite import SQLiteStore

Make = Callable[[Path], Store]


def _memory(path: Path) -> Store:
    return MemoryStore()


def _sqlite(path: Path) -> Store:
    return SQLiteStore(path)


both_stores = pytest.mark.parametrize("make", [_memory, _sqlite], ids=["memory", "sqlite"])
