"""The store contract over every backend."""

from __future__ import annotations

from typing import Any

import pytest

from resumable_sync.contract import Store
from resumable_sync.testing import StoreContract

from ...backends import Backend


class TestStore(StoreContract):
    backend: Backend

    # Named so that the fixture of the kit that closes the stores ends before this one.
    @pytest.fixture(autouse=True)
    def _backend(self, backend: Backend) -> None:
        self.backend = backend

    def make_store(self, **options: Any) -> Store:
        return self.backend.make(**options)

    def second_store(self, store: Store) -> Store:
        return self.backend.second(store)

    def test_it_is_a_store(self) -> None:
        assert isinstance(self.new(), Store)
