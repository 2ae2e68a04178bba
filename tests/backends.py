"""The stores that the tests of the contract run over. A new store is a class and a line in BACKENDS."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from resumable_sync.stores.memory import MemoryStore
from resumable_sync.stores.sqlite import SQLiteStore
from resumable_sync.types import Store


class Backend:
    """Makes stores of one kind for one test; `close` removes what they leave behind."""

    expires_by_itself = False

    def make(self, **options: Any) -> Store:
        """A new, empty store."""
        raise NotImplementedError

    def second(self, store: Store) -> Store:
        """Another instance on the same data; `store` itself where there is no such thing."""
        return store

    def close(self) -> None:
        """Remove what lies outside the stores, which are closed already."""


class MemoryBackend(Backend):
    def make(self, **options: Any) -> Store:
        return MemoryStore(**options)


class SQLiteBackend(Backend):
    expires_by_itself = True  # a delete makes its janitor sweep

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="resumable-sync-"))
        self._options: dict[Path, dict[str, Any]] = {}

    def make(self, **options: Any) -> Store:
        store = SQLiteStore(self._directory / f"{len(self._options)}.db", **options)
        self._options[store.path] = options
        return store

    def second(self, store: Store) -> Store:
        assert isinstance(store, SQLiteStore)
        return SQLiteStore(store.path, **self._options[store.path])

    def close(self) -> None:
        shutil.rmtree(self._directory)


BACKENDS: dict[str, type[Backend]] = {
    "memory": MemoryBackend,
    "sqlite": SQLiteBackend,
}
