"""Closing a context or a store takes the time it was given, whatever the store and the sources do (G10)."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from resumable_sync import (
    Batch,
    MemoryStore,
    ProducerInterruptedError,
    ResumableStreamContext,
    Status,
    StoreUnavailableError,
    StreamCancelledError,
    current_producer,
)
from resumable_sync.stores.sqlite import SQLiteStore

from ..support import wait_until

TIMEOUT = 20.0


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """For the time of the block nobody else can write."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        yield
        holder.execute("ROLLBACK")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    with contextlib.closing(SQLiteStore(tmp_path / "streams.db")) as made:
        yield made


def test_close_does_not_wait_for_a_store_that_stands(store: SQLiteStore) -> None:
    free = threading.Event()

    def blocking() -> Iterator[bytes]:
        yield b"made"
        free.wait(TIMEOUT)

    context = ResumableStreamContext(store)
    for viewer in [context.run(f"s{number}", blocking) for number in range(5)]:
        assert next(viewer) == b"made"
    with held(store.path):
        began = time.monotonic()
        context.close(0.5)
        assert time.monotonic() - began < 5.0  # and not for the store's timeout, twice as long
    # Then the endings are still to come, from the background.
    wait_until(lambda: all(info.status.ended for info in store.streams()))
    free.set()
    with ResumableStreamContext(store) as other, pytest.raises(ProducerInterruptedError):
        for _ in other.require_resume("s4"):
            pass


def test_a_store_closes_though_another_process_writes(store: SQLiteStore) -> None:
    store.acquire("s")
    with held(store.path):
        began = time.monotonic()
        store.close()
        assert time.monotonic() - began < 5.0
    # Not ended in time, and still nobody has to wait for its lease: the free lock file tells.
    with contextlib.closing(SQLiteStore(store.path)) as other:
        assert other.status("s") is Status.INTERRUPTED


def test_a_wait_for_a_dead_producers_stream_does_not_outlast_a_writer(tmp_path: Path) -> None:
    with contextlib.closing(SQLiteStore(tmp_path / "streams.db", grace=0.05)) as store:
        store.acquire("s")
        with held(store.path):
            began = time.monotonic()
            with pytest.raises(StoreUnavailableError) as raised:
                while True:
                    store.read("s", timeout=0.1)
            assert raised.value.transient and time.monotonic() - began < 5.0


def test_close_reaches_a_viewer_on_its_way_into_a_wait() -> None:
    entered, go_on = threading.Event(), threading.Event()

    class Store(MemoryStore):
        def read(self, *arguments: Any, timeout: float = 0.0, **options: Any) -> Batch:
            if timeout:
                entered.set()
                assert go_on.wait(TIMEOUT)
            return super().read(*arguments, timeout=timeout, **options)

    store, told = Store(), threading.Event()
    store.acquire("s")
    context = ResumableStreamContext(store)
    viewer = context.require_resume("s")

    def view() -> None:
        with pytest.raises(StoreUnavailableError):
            next(viewer)
        told.set()

    thread = threading.Thread(target=view)
    thread.start()
    assert entered.wait(TIMEOUT)
    closer = threading.Thread(target=context.close, args=(TIMEOUT,))
    closer.start()
    wait_until(lambda: context.closed)
    go_on.set()
    assert told.wait(TIMEOUT / 2)
    thread.join(TIMEOUT)
    closer.join(TIMEOUT)
    store.close()


def test_a_cancel_tells_the_producer_of_another_context_at_once() -> None:
    store, running = MemoryStore(), threading.Event()

    def source() -> Iterator[bytes]:
        running.set()
        assert current_producer().cancelled.wait(TIMEOUT)
        yield b""

    with ResumableStreamContext(store, heartbeat=TIMEOUT) as one, ResumableStreamContext(store) as other:
        viewer = one.run("s", source)
        assert running.wait(TIMEOUT)
        began = time.monotonic()
        other.cancel("s")
        with pytest.raises(StreamCancelledError):
            next(viewer)
        wait_until(lambda: not one._running.get().producers)
        assert time.monotonic() - began < store.grace / 6  # a heartbeat would come after a third of it
    store.close()
