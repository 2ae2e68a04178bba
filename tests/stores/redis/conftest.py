"""Stores on the shared server, each test under a prefix of its own; everything here needs Redis."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from resumable_sync.stores.redis import RedisStore

from .server import RedisServer, shared_server

HERE = Path(__file__).parent

_numbers = itertools.count()

OpenStore = Callable[..., RedisStore]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.redis)


@pytest.fixture
def server() -> RedisServer:
    """The shared server. Tests that harm their server start one of their own."""
    return shared_server()


@pytest.fixture
def prefix(server: RedisServer) -> str:
    """A prefix for the test's keys."""
    return f"own{next(_numbers)}"


@pytest.fixture
def open_store(server: RedisServer, prefix: str) -> Iterator[OpenStore]:
    """Opens stores, by default on the shared server; all on the same data."""
    opened: list[RedisStore] = []

    def make(url: str = server.url, **options: Any) -> RedisStore:
        opened.append(RedisStore.from_url(url, **{"prefix": prefix, "grace": 3.0, **options}))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: OpenStore) -> RedisStore:
    return open_store()


@pytest.fixture
def other(open_store: OpenStore) -> RedisStore:
    """A second store on the same data, as another process would have it."""
    return open_store()
