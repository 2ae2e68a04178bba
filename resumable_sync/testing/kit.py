"""What all parts of the kit share: the hooks a store's author fills in, guarantees as marks, and threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Protocol, TypeVar, cast

import pytest

from ..contract import Batch, Lease, SharedStore, Status, Store, StreamInfo, TakeoverStore

T = TypeVar("T")
Test = TypeVar("Test", bound=Callable[..., object])

GUARANTEES = tuple(f"G{number}" for number in range(1, 13))
"""The names of the guarantees in `resumable_sync.contract`."""

PATIENCE = 30.0
"""Seconds after which something that should happen at once counts as never happening."""

CLOCK_TOLERANCE = 0.02
"""Seconds by which a store's clock and ours may disagree over a short time."""


def guarantee(*names: str) -> Callable[[Test], Test]:
    """Mark a test with the guarantees it checks, for example `@guarantee("G3", "G4")`."""
    unknown = [name for name in names if name not in GUARANTEES]
    if unknown or not names:
        raise ValueError(f"cite at least one of G1 to G12, not {names}")

    def mark(test: Test) -> Test:
        setattr(test, "guarantees", names)
        return test

    return mark


def cited(test: object) -> tuple[str, ...]:
    """The guarantees that a test cites; none if it is not marked."""
    names = getattr(test, "guarantees", ())
    return tuple(names)


class StoreKit:
    """The hooks between a store and the kit. Fill them in in a subclass of StoreContract or a machine."""

    def make_store(self, **options: Any) -> Store:
        """A new, empty store; its caller closes it.

        `options` are some of `ttl`, `finished_ttl`, `grace`, `max_chunk_bytes`, `max_stream_bytes`,
        `max_entries`, `max_streams`, as MemoryStore has them.
        """
        raise NotImplementedError("define make_store(**options)")

    def second_store(self, store: Store) -> Store:
        """Another instance on the data of `store`, with the same options, as another process would have it.

        The default, `store` itself, is right for a store of one process.
        """
        return store


class ContractKit(StoreKit):
    """A StoreKit whose stores are closed after each pytest test."""

    @pytest.fixture(autouse=True)
    def _close_stores(self) -> Iterator[None]:
        self._opened: list[Store] = []
        yield
        for store in reversed(self._opened):
            store.close()

    def new(self, **options: Any) -> Store:
        """A new store for one test."""
        store = self.make_store(**options)
        self._opened.append(store)
        return store

    def second(self, store: Store) -> Store:
        """The second instance for one test."""
        other = self.second_store(store)
        self._opened.append(other)
        return other


class FullStore(SharedStore, TakeoverStore, Store, Protocol):
    """A store with both additions."""


class AdditionKit(ContractKit):
    """A ContractKit for stores with the additions."""

    def full(self, **options: Any) -> FullStore:
        """A new store for one test."""
        return cast(FullStore, self.new(**options))

    def second_full(self, store: Store) -> FullStore:
        """The second instance for one test."""
        return cast(FullStore, self.second(store))


def acquired(
    store: Store, stream_id: str, ttl: float | None = None, metadata: Mapping[str, str] | None = None
) -> Lease:
    """The lease of a stream that is expected to be free."""
    lease = store.acquire(stream_id, ttl=ttl, metadata=metadata)
    assert lease is not None, f"{stream_id} was not free"
    return lease


def known(store: Store, stream_id: str) -> StreamInfo:
    """What is known of a stream that is there."""
    info = store.info(stream_id)
    assert info is not None, f"{stream_id} is missing"
    assert info.status is not Status.MISSING
    return info


def stale(lease: Lease, offset: int | None = None) -> Lease:
    """A copy of `lease` as it is now, as a producer has it that never sees the reply of its next append."""
    return replace(lease, offset=lease.offset if offset is None else offset)


def pages(store: Store, stream_id: str, after: str = "", max_bytes: int = 4096) -> list[Batch]:
    """All that follows `after`, read without waiting."""
    found = []
    while True:
        batch = store.read(stream_id, after, max_bytes=max_bytes)
        found.append(batch)
        if batch.offset == batch.size:
            return found
        assert batch.data, "more bytes are stored, but none were returned"
        after = batch.cursor


def drain(store: Store, stream_id: str, after: str = "", max_bytes: int = 4096) -> tuple[bytes, Batch]:
    """The bytes of all `pages`, and the last of these."""
    found = pages(store, stream_id, after, max_bytes)
    return b"".join(batch.data for batch in found), found[-1]


def call(function: Callable[..., T], *args: Any, **kwargs: Any) -> Future[T]:
    """Run `function` in a thread; its result or exception is in the Future."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=run, daemon=True).start()
    return future


def race(count: int, function: Callable[[int], T]) -> list[T]:
    """`function(0)` to `function(count - 1)`, all at the same moment, each in a thread; their results."""
    barrier = threading.Barrier(count)

    def run(number: int) -> T:
        barrier.wait(PATIENCE)
        return function(number)

    futures = [call(run, number) for number in range(count)]
    return [future.result(PATIENCE) for future in futures]


def outcome(function: Callable[..., T], *args: Any, **kwargs: Any) -> T | Exception:
    """What `function` returns or raises."""
    try:
        return function(*args, **kwargs)
    except Exception as error:
        return error
