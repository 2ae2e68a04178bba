"""The stores that the tests run over: the contract, the model, the context, the chat servers.

A new store is a class and a line in BACKENDS.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

from resumable_sync.contract import Store
from resumable_sync.stores.memory import MemoryStore
from resumable_sync.stores.redis import RedisStore
from resumable_sync.stores.sqlite import SQLiteStore

from .stores.redis.server import shared_server

WITHOUT_REDIS = "--without-redis"
"""The option that leaves out what needs a server."""


class Backend:
    """Makes stores of one kind for one test; `close` removes what they leave behind."""

    needs_server = False
    """Whether it needs a server beside the tests: then `--without-redis` leaves it out."""
    shared = True
    """Whether several processes can open the same store, by its URL."""

    @classmethod
    def url(cls, directory: Path) -> str:
        """A URL for `open_store`; what the store keeps in files lies in `directory`."""
        raise NotImplementedError

    def make(self, **options: Any) -> Store:
        """A new, empty store."""
        raise NotImplementedError

    def second(self, store: Store) -> Store:
        """Another instance on the same data; `store` itself where there is no such thing."""
        return store

    def close(self) -> None:
        """Remove what lies outside the stores, which are closed already."""


class MemoryBackend(Backend):
    shared = False

    @classmethod
    def url(cls, directory: Path) -> str:
        return "memory://"

    def make(self, **options: Any) -> Store:
        return MemoryStore(**options)


class SQLiteBackend(Backend):
    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="resumable-sync-"))
        self._options: dict[Path, dict[str, Any]] = {}

    @classmethod
    def url(cls, directory: Path) -> str:
        return f"sqlite:///{directory}/streams.db"

    def make(self, **options: Any) -> Store:
        store = SQLiteStore(self._directory / f"{len(self._options)}.db", **options)
        self._options[store.path] = options
        return store

    def second(self, store: Store) -> Store:
        assert isinstance(store, SQLiteStore)
        return SQLiteStore(store.path, **self._options[store.path])

    def close(self) -> None:
        shutil.rmtree(self._directory)


class RedisBackend(Backend):
    needs_server = True
    _numbers = itertools.count()

    def __init__(self) -> None:
        self._url = shared_server().url
        self._options: dict[int, dict[str, Any]] = {}
        self._prefixes: list[str] = []

    @classmethod
    def url(cls, directory: Path) -> str:
        return shared_server().url

    def make(self, **options: Any) -> Store:
        self._prefixes.append(f"test{next(self._numbers)}")
        return self._open({**options, "prefix": self._prefixes[-1]})

    def second(self, store: Store) -> Store:
        return self._open(self._options[id(store)])

    def _open(self, options: dict[str, Any]) -> Store:
        store = RedisStore.from_url(self._url, **options)
        self._options[id(store)] = options
        return store

    def close(self) -> None:
        with shared_server().client() as client:
            for prefix in self._prefixes:
                keys = list(client.scan_iter(f"{prefix}:*", count=1000))
                if keys:
                    client.unlink(*keys)


BACKENDS: dict[str, type[Backend]] = {"memory": MemoryBackend, "sqlite": SQLiteBackend, "redis": RedisBackend}

BACKEND_PARAMS = [
    pytest.param(name, marks=[pytest.mark.redis] if kind.needs_server else []) for name, kind in BACKENDS.items()
]
