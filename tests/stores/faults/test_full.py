"""The disk fills up (G2, G3): appends fail, readers go on, and all goes on when there is room again."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from resumable_sync import Lease, ResumableStreamContext, ResumableStreamError, Status, StoreUnavailableError
from resumable_sync.stores.sqlite import SQLiteStore

from ...support import wait_until
from .conftest import Report
from .follower import Follower
from .rounds import rounds
from .source import text

ROOM = 1024 * 1024
CHUNK = 10_000


class _Store(SQLiteStore):
    """Counts what was refused."""

    refused = 0

    def append_many(
        self, batches: Sequence[tuple[Lease, Sequence[bytes]]], *rest: Any
    ) -> list[str | ResumableStreamError]:
        results = super().append_many(batches, *rest)
        self.refused += sum(isinstance(result, StoreUnavailableError) for result in results)
        return results


class _Bounded:
    """A store with a bound of its own, in which another stream takes some of the room."""

    def __init__(self, directory: Path, grace: float) -> None:
        self.store = _Store(directory / "streams.db", grace=grace, max_file_bytes=ROOM)
        lease = self.store.acquire("ballast")
        assert lease is not None
        self.store.append(lease, *[bytes(CHUNK)] * 30)
        self.store.finalize(lease, "done")

    def make_room(self) -> None:
        self.store.delete("ballast")
        self.store.sweep()

    def close(self) -> None:
        self.store.close()


class _Tmpfs:
    """A small file system, in which another file takes some of the room."""

    def __init__(self, directory: Path, grace: float, ballast: int = ROOM * 13 // 10) -> None:
        self._mount = directory / "small"
        self._mount.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={2 * ROOM}", "tmpfs", str(self._mount)]
        mounted = subprocess.run(mount, capture_output=True)
        if mounted.returncode:
            pytest.skip(f"cannot mount a tmpfs: {mounted.stderr.decode()}")
        self._ballast = self._mount / "ballast"
        self._ballast.write_bytes(bytes(ballast))
        self.store = _Store(self._mount / "streams.db", grace=grace)

    def make_room(self) -> None:
        os.truncate(self._ballast, 0)

    def close(self) -> None:
        self.store.close()
        subprocess.run(["umount", "-l", self._mount], check=True)


Disk = type[_Bounded] | type[_Tmpfs]

both_kinds_of_full = pytest.mark.parametrize("disk", [_Bounded, _Tmpfs], ids=["max_file_bytes", "tmpfs"])


@both_kinds_of_full
@rounds(2, 20)
def test_append_to_a_full_disk(rounds: int, disk: Disk, tmp_path: Path, report: Report) -> None:
    """The refused append stored nothing; readers get the rest; repeated with room it is stored once."""
    for number in range(rounds):
        directory = tmp_path / str(number)
        directory.mkdir()
        with contextlib.closing(disk(directory, 60)) as full:
            store = full.store
            lease = store.acquire("growing")
            assert lease is not None
            follower = Follower(store, "growing")
            with pytest.raises(StoreUnavailableError) as raised:
                while True:
                    store.append(lease, text(lease.offset, lease.offset + CHUNK))
            assert raised.value.transient
            stored = lease.offset
            chunk = text(stored, stored + CHUNK)
            for _ in range(3):
                with pytest.raises(StoreUnavailableError):
                    store.append(lease, chunk)
            # Readers go on, those that follow and those that come.
            wait_until(lambda: len(follower.data) == stored)
            assert store.read("growing", max_bytes=stored).data == text(0, stored)
            assert store.status("growing") is Status.STREAMING and not follower.ended
            full.make_room()
            store.append(lease, chunk)
            store.finalize(lease, "done")
            follower.join()
            assert follower.error is None
            assert bytes(follower.data) == text(0, stored + CHUNK)
            assert store.check() == []
    report(rounds=rounds, stored=stored)


def test_a_log_that_fills_the_disk_begins_anew_when_there_is_room(tmp_path: Path) -> None:
    """It would otherwise grow on into the room, and the disk be full again without a checkpoint."""
    with contextlib.closing(_Tmpfs(tmp_path, 60, ROOM * 4 // 10)) as full:
        store = full.store
        lease = store.acquire("growing")
        assert lease is not None

        def refuses() -> bool:
            try:
                store.append(lease, b"x")  # two pages of the log
            except StoreUnavailableError:
                return True
            return False

        while not all(refuses() for _ in range(3)):  # until there is no room for a checkpoint either
            pass
        filled = lease.offset
        full.make_room()
        while lease.offset < filled + 500:  # at the end of the log there is room for 200
            store.append(lease, b"x")
        assert store.check() == []


@both_kinds_of_full
@pytest.mark.parametrize("in_time", [True, False], ids=["room in time", "no room"])
@rounds(1, 20)
def test_produce_on_a_full_disk(in_time: bool, rounds: int, disk: Disk, tmp_path: Path, report: Report) -> None:
    """A context keeps what the source made and stores it when there is room within the grace; else ends loudly."""
    total = (80 if in_time else 150) * CHUNK
    for number in range(rounds):
        directory = tmp_path / str(number)
        directory.mkdir()
        errors: list[BaseException] = []
        endings: list[Status] = []
        closed = threading.Event()

        def source() -> Iterator[bytes]:
            try:
                for offset in range(0, total, CHUNK):
                    yield text(offset, offset + CHUNK)
            finally:
                closed.set()

        with contextlib.closing(disk(directory, 60.0 if in_time else 1.0)) as full:
            store = full.store
            context = ResumableStreamContext(
                store,
                on_finalize=lambda _, status, __: endings.append(status),
                on_error=lambda _, error: errors.append(error),
            )
            context.run("made", source)
            follower = Follower(store, "made")
            wait_until(lambda: store.refused)
            if in_time:
                assert endings == []
                full.make_room()
                follower.join()
                wait_until(lambda: endings)
                assert follower.error is None and errors == [] and endings == [Status.DONE]
                assert bytes(follower.data) == text(0, total)
            else:
                assert closed.wait(60)
                wait_until(lambda: errors)
                assert isinstance(errors[0], ResumableStreamError)
                follower.join()
                assert isinstance(follower.error, ResumableStreamError)
                assert bytes(follower.data) == text(0, len(follower.data)) and len(follower.data) < total
                full.make_room()
                wait_until(lambda: store.status("made") is Status.INTERRUPTED)
                info = store.info("made")
                assert info is not None and store.read("made", max_bytes=total).data == text(0, info.size)
            context.close()
            assert store.check() == []
    report(rounds=rounds)
