"""State machines over every backend alone, and over all of them side by side."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis.stateful import run_state_machine_as_test

from resumable_sync.contract import Store
from resumable_sync.testing import StoreMachine, compare_stores

from ...backends import BACKEND_PARAMS, BACKENDS, WITHOUT_REDIS, Backend


@pytest.mark.parametrize("name", BACKEND_PARAMS)
def test_store_and_model(name: str) -> None:
    class Machine(StoreMachine):
        backend: Backend
        passed = 0.0

        def make_store(self, **options: Any) -> Store:
            self.backend = BACKENDS[name]()
            if name == "memory":
                options["clock"] = lambda: self.passed
            return self.backend.make(**options)

        def pass_time(self, seconds: float) -> bool:
            if name != "memory":
                return False
            self.passed += seconds
            return True

        def second_store(self, store: Store) -> Store:
            return self.backend.second(store)

        def teardown(self) -> None:
            super().teardown()
            self.backend.close()

    run_state_machine_as_test(Machine)


def test_all_stores_alike(pytestconfig: pytest.Config) -> None:
    left_out = pytestconfig.getoption(WITHOUT_REDIS)
    names = [name for name, kind in BACKENDS.items() if not (kind.needs_server and left_out)]
    backends: dict[str, Backend] = {}

    def make(name: str, **options: Any) -> Store:
        backends[name] = BACKENDS[name]()
        return backends[name].make(**options)

    def close() -> None:
        while backends:
            backends.popitem()[1].close()

    factories = {name: (lambda name=name, **options: make(name, **options)) for name in names}
    run_state_machine_as_test(
        compare_stores(factories, second=lambda name, store: backends[name].second(store), close=close)
    )
