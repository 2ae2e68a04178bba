"""Tests: of an application that uses the library, and of stores.

**Of an application**, with the framework's test client, here Flask's. They need nothing of this package:

    import json
    from resumable_sync import MemoryStore, sse

    def test_an_answer():
        client = create_app(MemoryStore()).test_client()
        body = client.post("/answers/7", data="Why?").data  # reading waits for the end
        events = list(sse.parse_events([body]))
        assert json.loads(events[-1].data)["status"] == "done"
        words = [each for each in events if each.event == "message"]
        assert [each.data for each in words] == ["You", "asked:", "Why?"]
        seen = {"Last-Event-ID": words[0].id}  # a client that comes back after it gets the rest
        assert b"You" not in (rest := client.get("/answers/7", headers=seen).data) and b"Why?" in rest
        assert client.get("/answers/8").status_code == 404

**Of a store**: the contract as a kit, to test any store, also your own, against all that the library builds on.

Needs pytest and hypothesis (`pip install pytest hypothesis`); nothing else in the library imports it.

- `StoreContract`: a class of pytest tests, each of which cites the guarantees it checks (`@guarantee("G3")`).
- `TakeoverContract`, `SharedContract`: the same for the two additions that a store may have.
- `StoreMachine`: a hypothesis state machine that compares a store with `ModelStore`, step by step.
- `compare_stores`: the same over several stores at once.

All take a store by two hooks, `make_store(**options)` and, where instances share data, `second_store`.
"""

try:
    import hypothesis  # noqa: F401
    import pytest  # noqa: F401
except ImportError as missing:
    raise ImportError(
        "resumable_sync.testing needs pytest and hypothesis: pip install pytest hypothesis"
    ) from missing

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
