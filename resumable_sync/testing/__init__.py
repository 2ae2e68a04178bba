"""The store contract as a kit: test any store, also your own, against all that the library builds on.

Needs pytest and hypothesis (`pip install resumable_sync[test]`); nothing else in the library imports it.

`StoreContract` is a class of pytest tests, each of which cites the guarantees it checks (`@guarantee("G3")`).
"""

from .contract import StoreContract, contract_tests
from .kit import GUARANTEES, StoreKit, guarantee

__all__ = ["GUARANTEES", "StoreContract", "StoreKit", "contract_tests", "guarantee"]
