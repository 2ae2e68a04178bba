"""The store contract for a choice of streams: `Listing`. Stores that are not on BaseStore are passed over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest

from ..contract import INTERNAL_PREFIXES, Listing, Status, Store
from ..stores.base import BaseStore
from .kit import ContractKit, acquired, guarantee
from .living import SHORT, pass_grace


class ListingContract(ContractKit):
    """streams(prefix=, status=, metadata=, internal=)."""

    def _listing(self, **options: Any) -> Store:
        store = self.new(**options)
        if not isinstance(store, BaseStore):
            pytest.skip("this store has no Listing")
        return store

    def _ids(self, store: Store, **selection: Any) -> list[str]:
        found = cast(Listing, store).streams(**selection)
        return [info.stream_id for info in found]

    @guarantee("G10")
    def test_streams_by_prefix(self) -> None:
        store = self._listing()
        ids = ["a", "a-", "a.", "a.1", "a.2", "a0", "a:", "aB", "a_", "a_b", "aa", "b.1", "A.1", "z" * 256]
        for stream_id in ids:
            acquired(store, stream_id)
        other = self.second(store)
        for prefix in ("", "a", "a.", "a.1", "a_", "a-", "a:", "A", "b", "c", "z", "z" * 256, "z" * 257):
            assert self._ids(other, prefix=prefix) == sorted(name for name in ids if name.startswith(prefix))
        for prefix in ("a%", "%", "*", "a?", "[a]", "a\x00", "ä", "\U0010ffff"):
            assert self._ids(other, prefix=prefix) == []  # no pattern, and no id begins so

    @guarantee("G10")
    def test_streams_by_status(self) -> None:
        store = self._listing()
        for status in (Status.STREAMING, Status.DONE, Status.ERROR, Status.CANCELLED, Status.INTERRUPTED):
            for number in range(2):
                lease = acquired(store, f"{status.value}.{number}")
                if status.ended:
                    store.finalize(lease, status)
        for status in (Status.STREAMING, Status.DONE, Status.ERROR, Status.CANCELLED, Status.INTERRUPTED):
            expected = [f"{status.value}.0", f"{status.value}.1"]
            assert self._ids(store, status=status) == self._ids(store, status=status.value) == expected
            assert self._ids(store, status=[status]) == self._ids(store, status={status.value}) == expected
        assert self._ids(store, status=["done", Status.ERROR]) == ["done.0", "done.1", "error.0", "error.1"]
        assert self._ids(store, status=[]) == self._ids(store, status="missing") == []
        assert len(self._ids(store, status=None)) == 10
        for wrong in ("over", ["done", "over"], [7]):
            with pytest.raises(ValueError):
                self._ids(store, status=wrong)

    @guarantee("G7", "G10")
    def test_a_dead_producers_stream_is_listed_as_interrupted(self) -> None:
        store = self._listing(grace=SHORT)
        acquired(store, "s")
        pass_grace(store)
        assert self._ids(store, status="streaming") == []
        assert self._ids(store, status="interrupted") == ["clock", "s"]

    @guarantee("G10")
    def test_streams_by_metadata(self) -> None:
        store = self._listing()
        acquired(store, "none")
        for name, metadata in {
            "one": {"user": "1"},
            "two": {"user": "2", "kind": "é"},
            "three": {"user": "1", "kind": "é", "": ""},
        }.items():
            acquired(store, name, metadata=metadata)
        assert self._ids(store, metadata={}) == ["none", "one", "three", "two"]
        assert self._ids(store, metadata={"user": "1"}) == ["one", "three"]
        assert self._ids(store, metadata={"kind": "é", "user": "1"}) == ["three"]
        assert self._ids(store, metadata={"": ""}) == ["three"]
        assert self._ids(store, metadata={"other": "1"}) == self._ids(store, metadata={"user": ""}) == []
        with pytest.raises(ValueError):
            self._ids(store, metadata={"user": 1})

    @guarantee("G10")
    def test_internal_records_are_hidden_unless_asked_for(self) -> None:
        store = self._listing()
        for prefix in INTERNAL_PREFIXES:
            for stream_id in (f"{prefix}x", f"a.{prefix}x", prefix[:-1]):
                acquired(store, stream_id)
            assert f"{prefix}x" not in self._ids(store)
            assert self._ids(store, prefix=f"{prefix}x") == []
            assert self._ids(store, prefix=f"{prefix}x", internal=True) == [f"{prefix}x"]
            assert {f"a.{prefix}x", prefix[:-1]} <= set(self._ids(store))
            assert {f"a.{prefix}x", prefix[:-1], f"{prefix}x"} <= set(self._ids(store, internal=True))

    @guarantee("G10")
    def test_all_conditions_hold_at_once(self) -> None:
        store = self._listing()
        for number in range(150):
            metadata = {"third": str(number % 3)}
            lease = acquired(store, f"{'ab'[number % 2]}.{number:03}", metadata=metadata)
            if number % 5 == 0:
                store.finalize(lease, Status.DONE)
        found = self._ids(self.second(store), prefix="a.", status="done", metadata={"third": "0"})
        assert found == [f"a.{number:03}" for number in range(0, 150, 30)]

    @guarantee("G10")
    def test_a_choice_is_made_as_it_is_read(self) -> None:
        store = self._listing()
        for number in range(60):
            acquired(store, f"s{number:02}")
        found: Iterator[Any] = cast(Listing, store).streams(prefix="s", status="streaming")
        seen = []
        for info in found:
            seen.append(info.stream_id)
            store.delete(info.stream_id)
        assert seen == [f"s{number:02}" for number in range(60)]
        assert self._ids(store) == []
