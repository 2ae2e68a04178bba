"""The differential machine: several stores at once, step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..contract import Store
from .machine import LIMITS, StoreMachine

Factory = Callable[..., Store]


def compare_stores(
    factories: Mapping[str, Factory],
    *,
    second: Callable[[str, Store], Store] = lambda name, store: store,
    close: Callable[[], object] = lambda: None,
) -> type[StoreMachine]:
    """A state machine class over all these stores and the model, each step of which must end alike in all.

    `factories` maps a name to `make_store(**options)`; `second(name, store)` gives another instance on the data
    of a store; `close()` is called after each run. Generations, times and the words of errors may differ. Use
    it as

        TestAlike = compare_stores({"memory": MemoryStore, "mine": make_mine}).TestCase
    """

    class ComparingMachine(StoreMachine):
        def open_sides(self) -> list[tuple[str, Store, Store]]:
            sides: list[tuple[str, Store, Store]] = []
            options: dict[str, Any] = dict(LIMITS)
            for name, make in factories.items():
                store = make(**options)
                sides.append((name, store, second(name, store)))
            return sides

        def teardown(self) -> None:
            super().teardown()
            close()

    return ComparingMachine
