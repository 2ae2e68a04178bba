"""The store contract for operators: `Maintenance`. Stores without it are passed over."""

from __future__ import annotations

import pytest

from ..contract import Maintenance, Status, Store
from ..errors import StoreUnavailableError, StreamLostError
from .kit import ContractKit, acquired, guarantee


class MaintenanceContract(ContractKit):
    """check, clear and drop."""

    def new_maintained(self) -> Store:
        """A new store, if stores of this kind have `Maintenance`."""
        store = self.new()
        if not isinstance(store, Maintenance):
            pytest.skip("this store has no Maintenance")
        return store

    @guarantee("G1")
    def test_check_finds_nothing_wrong_with_whole_streams(self) -> None:
        store = self.new_maintained()
        for stream_id in ("running", "ended", "empty"):
            lease = acquired(store, stream_id)
            if stream_id != "empty":
                store.append(lease, b"a" * 1000, b"b")
                store.append(lease, b"c")
            if stream_id == "ended":
                store.finalize(lease, Status.DONE)
        assert isinstance(store, Maintenance)
        assert store.check() == []

    @guarantee("G6")
    def test_clear_deletes_all_streams_loudly(self) -> None:
        store = self.new_maintained()
        running, ended = acquired(store, "running"), acquired(store, "ended")
        store.append(running, b"x")
        store.finalize(ended, Status.DONE)
        assert isinstance(store, Maintenance)
        assert store.clear() == 2
        assert list(store.streams()) == []
        with pytest.raises(StreamLostError):
            store.append(running, b"y")
        assert store.clear() == 0
        again = acquired(store, "running")
        assert again.generation > running.generation

    @guarantee("G6")
    def test_drop_removes_everything_and_closes(self) -> None:
        store = self.new_maintained()
        store.append(acquired(store, "s"), b"x")
        assert isinstance(store, Maintenance)
        store.drop()
        with pytest.raises(StoreUnavailableError):
            store.status("s")
        store.close()  # idempotent, also after a drop
