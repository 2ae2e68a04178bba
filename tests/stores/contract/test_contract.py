"""The store contract over every backend."""

from __future__ import annotations

from typing import Any

import pytest

from resumable_sync.contract import Listing, Maintenance, Routed, SharedStore, Store, TakeoverStore
from resumable_sync.testing import SharedContract, StoreContract, StoreKit, TakeoverContract

from ...backends import Backend


class Stores(StoreKit):
    """The hooks for every kind of store."""

    backend: Backend

    # Named so that the fixture of the kit that closes the stores ends before this one.
    @pytest.fixture(autouse=True)
    def _backend(self, backend: Backend) -> None:
        self.backend = backend

    def make_store(self, **options: Any) -> Store:
        return self.backend.make(**options)

    def second_store(self, store: Store) -> Store:
        return self.backend.second(store)


class TestStore(Stores, StoreContract):
    def test_it_is_a_store(self) -> None:
        store = self.new()
        for protocol in (Store, Listing, Maintenance, Routed, SharedStore, TakeoverStore):
            assert isinstance(store, protocol)


class TestTakeover(Stores, TakeoverContract):
    pass


class TestShared(Stores, SharedContract):
    pass
