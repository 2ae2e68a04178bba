"""The store contract over every backend."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from resumable_sync.contract import Store
from resumable_sync.testing import StoreContract

from ...backends import BACKEND_PARAMS, BACKENDS, Backend


@pytest.fixture(params=BACKEND_PARAMS)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """One kind of store."""
    made = BACKENDS[request.param]()
    yield made
    made.close()


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
