"""The thread that wakes a process's viewers: with and without sockets, and after it had nothing to do."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from resumable_sync.contract import Batch, Position, Status
from resumable_sync.stores.sqlite import SQLiteStore
from resumable_sync.stores.tail import Tail

from ...support import wait_until


@pytest.mark.parametrize("sockets", [True, False])
def test_a_viewer_that_comes_after_idleness_is_woken_as_fast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sockets: bool
) -> None:
    """The thread is in a long wait by then, which the viewer must end."""
    if not sockets:
        monkeypatch.delattr(socket, "AF_UNIX")
    store, other = SQLiteStore(tmp_path / "s.db"), SQLiteStore(tmp_path / "s.db")
    try:
        lease = store.acquire("s")
        assert lease is not None
        watcher = other._processes.get().watcher
        cursor = f"{lease.generation}-0"
        for idle in (False, True):
            if idle:
                wait_until(lambda: watcher._idle)
            found: list[Batch] = []

            def view(after: str, found: list[Batch] = found) -> None:
                found.append(other.read("s", after, timeout=20.0))

            viewer = threading.Thread(target=view, args=[cursor], daemon=True)
            viewer.start()
            wait_until(lambda: getattr(watcher.tails.find("s"), "followed", False))
            cursor = store.append(lease, b"now")
            viewer.join(2.0)  # the long wait lasts 5 s
            assert [batch.data for batch in found] == [b"now"]
    finally:
        store.close()
        other.close()


def test_a_replay_leaves_nothing_to_follow(tmp_path: Path) -> None:
    """No thread, no socket, and no tail."""
    store = SQLiteStore(tmp_path / "s.db")
    try:
        lease = store.acquire("s")
        assert lease is not None
        store.append(lease, b"abc", b"def")
        assert store.read("s", max_bytes=1, timeout=5.0).data == b"abc"
        store.finalize(lease, "done")
        assert store.read("s", timeout=5.0).data == b"abcdef"
        watcher = store._processes.get().watcher
        assert watcher.tails.find("s") is None and watcher._thread is None
    finally:
        store.close()


def test_bytes_and_ending_of_one_commit_elsewhere_reach_viewers_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G12: whoever is woken is never given the bytes of a stream that seems to go on."""
    given: list[tuple[bytes, Status]] = []
    wake = Tail.wake

    def watched(tail: Tail) -> None:
        batch = tail.serve(start, 100)
        if batch is not None and batch.length:
            given.append((batch.data, batch.status))
        wake(tail)

    with SQLiteStore(tmp_path / "s.db") as store, SQLiteStore(tmp_path / "s.db") as other:
        info = store.create("s")
        assert info is not None
        start = Position(info.generation, 0)
        monkeypatch.setattr(Tail, "wake", watched)
        found: list[Batch] = []
        viewer = threading.Thread(
            target=lambda: found.append(other.read("s", info.cursor, timeout=20.0)), daemon=True
        )
        viewer.start()
        watcher = other._processes.get().watcher
        wait_until(lambda: getattr(watcher.tails.find("s"), "followed", False))
        store.commit("s", b"last", ending="done")
        viewer.join(20)
        assert [(batch.data, batch.status) for batch in found] == [(b"last", Status.DONE)]
    assert set(given) <= {(b"last", Status.DONE)}
