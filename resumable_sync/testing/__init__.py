"""The store contract as a kit: test any store, also your own, against all that the library builds on.

Needs pytest and hypothesis (`pip install resumable_sync[test]`); nothing else in the library imports it.

- `StoreContract`: a class of pytest tests, each of which cites the guarantees it checks (`@guarantee("G3")`).
- `TakeoverContract`, `SharedContract`: the same for the two additions that a store may have.
- `StoreMachine`: a hypothesis state machine that compares a store with `ModelStore`, step by step.
- `compare_stores`: the same over several stores at once.

All take a store by two hooks, `make_store(**options)` and, where instances share data, `second_store`.
"""

from .compare import compare_stores
from .kit import GUARANTEES, StoreKit, guarantee
from .machine import StoreMachine
from .model import ModelStore
from .shared import SharedContract
from .suite import StoreContract, contract_tests
from .takeover import TakeoverContract

__all__ = [
    "GUARANTEES",
    "ModelStore",
    "SharedContract",
    "StoreContract",
    "StoreKit",
    "StoreMachine",
    "TakeoverContract",
    "compare_stores",
    "contract_tests",
    "guarantee",
]
