"""What belongs to one process cannot be pickled, and says what to do in the other one."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from collections.abc import Callable

import pytest

from resumable_sync import ResumableStreamContext, Store
from resumable_sync.types import Lease

from ..backends import Backend


def test_pickling_says_what_to_do(store: Store, backend: Backend) -> None:
    with ResumableStreamContext(store) as context, context.writer("w") as writer:
        shared = context.shared_writer("shared", "one", create=True)
        for value in (store, context, writer, shared):
            for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
                with pytest.raises(TypeError, match=f"a {type(value).__name__} cannot be pickled: ") as refused:
                    pickle.dumps(value, protocol)
                said = str(refused.value)
                assert "process" in said and "open" in said
                assert value is not store or ("is private" in said) is not backend.shared
        with pytest.raises(TypeError, match=f"a {type(store).__name__} cannot be pickled: "):
            pickle.dumps({"read": store.read})


def test_a_lease_is_a_value(store: Store) -> None:
    """Whoever has one writes with it: the fence is in the store."""
    lease = store.acquire("s")
    assert lease is not None
    for pickled in (False, True):
        same: Lease = pickle.loads(pickle.dumps(lease)) if pickled else copy.copy(lease)
        assert same == lease
        assert store.append(same, b"x") == store.append(lease, b"x") == same.cursor  # the second is a repetition


def nothing(_: object) -> None:
    """What a child would run."""


@pytest.mark.parametrize("give", [lambda store: store, ResumableStreamContext], ids=["store", "context"])
def test_a_child_that_is_spawned_gets_none(store: Store, give: Callable[[Store], object]) -> None:
    """Told in the parent, before there is a child."""
    given = give(store)
    child = multiprocessing.get_context("spawn").Process(target=nothing, args=(given,))
    with pytest.raises(TypeError, match=f"a {type(given).__name__} cannot be pickled: .*open_store"):
        child.start()
    assert child.pid is None
