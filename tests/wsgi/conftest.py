from __future__ import annotations

from collections.abc import Iterator

import pytest

from resumable_sync import MemoryStore, ResumableStreamContext


@pytest.fixture
def context() -> Iterator[ResumableStreamContext]:
    store = MemoryStore()
    with ResumableStreamContext(store) as context:
        yield context
    store.close()
