"""Generations grow also where the last one was forgotten a moment ago: flushed, dropped, removed (G1, G4)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from resumable_sync import MemoryStore, SQLiteStore, Store
from resumable_sync.stores.redis import RedisStore
from resumable_sync.testing.kit import acquired

from ..redis.server import shared_server

_numbers = itertools.count()

Fresh = Callable[[Path], Store]
"""A store that knows nothing of the one before."""


def _memory(directory: Path) -> Store:
    return MemoryStore()


def _sqlite(directory: Path) -> Store:
    return SQLiteStore(directory / f"{next(_numbers)}.db")


def _redis(directory: Path) -> Store:
    return RedisStore.from_url(shared_server().url, prefix=f"generations-{directory.name}-{next(_numbers)}")


@pytest.mark.parametrize("fresh", [_memory, _sqlite, pytest.param(_redis, marks=pytest.mark.redis)])
def test_a_life_after_a_flush_is_above_the_one_before(fresh: Fresh, tmp_path: Path) -> None:
    last = 0
    for _ in range(20):  # of which most begin in the same second
        store = fresh(tmp_path)
        generation = acquired(store, "s").generation
        store.close()
        assert last < generation < 2**53
        last = generation
