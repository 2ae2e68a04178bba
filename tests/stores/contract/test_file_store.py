"""The worked example of a store on BaseStore passes the contract."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from resumable_sync import Store
from resumable_sync.testing import StoreContract

from .file_store import FileStore


class TestFileStore(StoreContract):
    def make_store(self, **options: Any) -> Store:
        # It reads all its files for every election: on a crowded machine many streams outlast a lease.
        options.setdefault("grace", 300.0)
        return FileStore(Path(tempfile.mkdtemp(prefix="file-store-")), **options)

    def teardown_method(self) -> None:
        for store in self._opened:
            assert isinstance(store, FileStore)
            shutil.rmtree(store._directory, ignore_errors=True)
