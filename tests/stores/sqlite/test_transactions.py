"""How many transactions a call takes: one, and a second one only to end a stream whose producer died."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from resumable_sync import SQLiteStore
from resumable_sync.stores.sqlite import store as store_module
from resumable_sync.stores.sqlite.handles import Connection

from .conftest import alter

READ, WRITE = "BEGIN", "BEGIN IMMEDIATE"


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The BEGINs that SQLite has seen."""
    statements: list[str] = []

    class Traced(Connection):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.set_trace_callback(lambda text: statements.append(text) if text.startswith("BEGIN") else None)

    monkeypatch.setattr("resumable_sync.stores.sqlite.connection.Connection", Traced)
    yield statements


@pytest.fixture
def traced(begun: list[str], store: SQLiteStore) -> SQLiteStore:
    assert store.acquire("s") is not None
    assert begun  # or nothing is counted
    begun.clear()
    return store


CALLS: dict[str, tuple[Callable[[SQLiteStore], object], list[str]]] = {
    "info": (lambda store: store.info("s"), [READ]),
    "status": (lambda store: store.status("s"), [READ]),
    "streams": (lambda store: list(store.streams()), [READ]),
    "read": (lambda store: store.read("s"), [READ]),
    "acquire, taken": (lambda store: store.acquire("s"), [WRITE]),
    "acquire, free": (lambda store: store.acquire("t"), [WRITE]),
    "cancel": (lambda store: store.cancel("s"), [WRITE]),
}


@pytest.mark.parametrize("name", CALLS)
def test_one_transaction(name: str, traced: SQLiteStore, begun: list[str]) -> None:
    call, expected = CALLS[name]
    call(traced)
    assert begun == expected


@pytest.mark.parametrize(
    "name, expected",
    [
        ("info", [READ, WRITE]),
        ("status", [READ, WRITE]),
        ("streams", [READ, WRITE]),
        ("read", [READ, WRITE, READ]),
        ("acquire, taken", [WRITE]),
        ("cancel", [WRITE]),
    ],
)
def test_an_orphan_costs_one_write(name: str, expected: list[str], traced: SQLiteStore, begun: list[str]) -> None:
    alter(traced.path, "UPDATE streams SET lease_until = 0")
    CALLS[name][0](traced)
    assert begun == expected


def test_a_page_of_streams_takes_one_transaction(
    traced: SQLiteStore, begun: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_PAGE_OF_STREAMS", 2)
    for number in range(4):
        traced.acquire(f"s{number}")
    alter(traced.path, "UPDATE streams SET lease_until = 0")
    begun.clear()
    assert len(list(traced.streams())) == 5
    assert begun == [READ, WRITE] * 3
