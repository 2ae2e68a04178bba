"""The files of one set: removed, replaced, seen by other names. Nothing is acknowledged that others cannot
read."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from resumable_sync import SQLiteStore, Status, StoreUnavailableError
from resumable_sync.stores.sqlite import files as files_module
from resumable_sync.stores.sqlite.files import Files, identity
from resumable_sync.stores.sqlite.handles import check, refuse

from ...support import Process, wait_until
from ..faults.test_kill import PROGRAMS

SETS = [("-wal",), ("-shm",), ("-wal", "-shm")]


def remove(path: Path, suffixes: tuple[str, ...]) -> None:
    for suffix in suffixes:
        os.unlink(f"{path}{suffix}")


def replace(path: Path, suffixes: tuple[str, ...]) -> None:
    for suffix in suffixes:
        shutil.copyfile(f"{path}{suffix}", f"{path}.copy")
        os.replace(f"{path}.copy", f"{path}{suffix}")


def started(path: Path) -> SQLiteStore:
    store = SQLiteStore(path)
    lease = store.acquire("s")
    assert lease is not None
    store.append(lease, b"before")
    return store


def expect_refusal(call: Callable[[], object], path: Path) -> None:
    with pytest.raises(StoreUnavailableError) as raised:
        call()
    assert not raised.value.transient
    text = str(raised.value)
    assert f"{path}-wal was removed" in text or f"{path}-shm was removed" in text
    assert "stop all processes" in text


@pytest.mark.parametrize("change", [remove, replace])
@pytest.mark.parametrize("suffixes", SETS)
@pytest.mark.parametrize("opened_between", [False, True])
def test_a_process_with_another_set_acknowledges_nothing(
    change: Callable[[Path, tuple[str, ...]], None], suffixes: tuple[str, ...], opened_between: bool, path: Path
) -> None:
    """The calls are made in a process of its own, as it refuses the file for good."""
    with contextlib.ExitStack() as stack:
        olds = [stack.enter_context(Process(SETS_PROGRAM, path, f"old-{number}")) for number in range(2)]
        for old in olds:
            assert old.line() == "stored"
        change(path, suffixes)
        if opened_between:
            with contextlib.closing(sqlite3.connect(path)) as between, contextlib.suppress(sqlite3.Error):
                between.execute("SELECT count(*) FROM streams").fetchone()
        for old in olds:
            for call in ("read", "append", "open", "close"):
                old.say(call)
                assert old.line() == ("refused" if call != "close" else "closed"), call
        for old in olds:
            old.say_no_more()
            assert old.wait() == 0  # the interpreter's exit closes nothing either
        names = [f"{path}{suffix}" for suffix in ("", "-wal", "-shm")]
        assert all(map(os.path.exists, names)) or not opened_between
    with SQLiteStore(path) as store:
        assert store.check() == []
        lease = store.acquire("fresh")
        assert lease is not None
        store.append(lease, b"fresh")
        assert store.read("fresh").data == b"fresh"


SETS_PROGRAM = "tests.stores.sqlite.sets"


@pytest.mark.parametrize("suffixes", SETS)
def test_what_a_new_process_is_acknowledged_is_there(suffixes: tuple[str, ...], path: Path) -> None:
    """An old process still has the former set open. Whoever comes is refused, or its data survives."""
    with Process(SETS_PROGRAM, path, "old") as old:
        assert old.line() == "stored"
        remove(path, suffixes)
        with Process(SETS_PROGRAM, path, "new") as new:
            first = new.line()
            assert first in ("stored", "refused")
            acknowledged = first == "stored"
            old.say("append")
            assert old.line() == "refused"
            if acknowledged:
                new.say("append")
                assert new.line() == "appended"
            new.say_no_more()
            assert new.wait() == 0
        old.say_no_more()
        assert old.wait() == 0
    with SQLiteStore(path) as store:
        assert store.check() == []
        if acknowledged:
            assert store.read("new").data == b"before after"


def test_a_log_of_another_set_is_told_by_its_header(path: Path) -> None:
    """Only the -wal is gone: what opens the file now shares the -shm with those that have the old one."""
    with Process(SETS_PROGRAM, path, "old") as old:
        assert old.line() == "stored"
        assert Files(path).foreign() is None
        os.rename(f"{path}-wal", f"{path}.aside")
        assert Files(path).foreign() == f"{path}-wal"  # missing
        Path(f"{path}-wal").touch()
        assert Files(path).foreign() == f"{path}-wal"  # too short
        log = bytearray(Path(f"{path}.aside").read_bytes())
        log[16:24] = b"othersal"
        Path(f"{path}-wal").write_bytes(log)
        assert Files(path).foreign() == f"{path}-wal"  # of other salts
        os.rename(f"{path}.aside", f"{path}-wal")
        assert Files(path).foreign() is None


def test_a_writer_that_is_stopped_between_two_headers_raises_no_alarm(path: Path) -> None:
    """The -shm holds two copies of its header; a writer is stopped when it has written one of them."""
    with Process(SETS_PROGRAM, path, "old") as old:
        assert old.line() == "stored"
        torn = path.with_name("torn.db")
        for suffix in ("", "-wal", "-shm"):
            shutil.copy(f"{path}{suffix}", f"{torn}{suffix}")
        Path(f"{torn}-wal").write_bytes(b"")
        assert Files(torn).foreign() == f"{torn}-wal"
        with open(f"{torn}-shm", "r+b") as index:
            index.seek(8)
            index.write(b"\xff")  # the counter of changes
        assert Files(torn).foreign() is None


def test_a_former_log_is_known_only_while_its_name_leads_to_it(path: Path) -> None:
    """Afterwards another file may get the same st_ino; until then nobody else can."""
    path.touch()
    files = Files(path)
    Path(files.wal).touch()
    former = files.snapshot()
    files.leave(former)
    assert files.former() == former
    os.unlink(files.wal)
    Path(files.wal).touch()
    assert files.snapshot().wal != former.wal
    assert files.former() is None
    files.leave(former)  # by now the name leads elsewhere
    assert files.former() is None


def test_busy_processes_raise_no_false_alarm(path: Path) -> None:
    """They open, write, move the log into the file, cut it off, and close, all at once."""
    SQLiteStore(path).close()
    hammers = [subprocess.Popen([sys.executable, "-c", HAMMER, str(path), "3"]) for _ in range(4)]
    assert [hammer.wait(120) for hammer in hammers] == [0] * 4


HAMMER = """
import random, sys, time
from resumable_sync import SQLiteStore, StoreUnavailableError
path, until, rng = sys.argv[1], time.monotonic() + float(sys.argv[2]), random.Random()
while time.monotonic() < until:
    with SQLiteStore(path, timeout=60.0) as store:
        lease = store.acquire(f"s{rng.random()}")
        for _ in range(rng.randrange(20)):
            store.append(lease, bytes(rng.randrange(10_000)))
            if rng.random() < 0.3:
                with store._connections.outside_transactions() as connection:
                    kind = rng.choice(["PASSIVE", "RESTART", "TRUNCATE"])
                    connection.execute("PRAGMA busy_timeout = 10")
                    connection.execute(f"PRAGMA wal_checkpoint({kind})").fetchall()
            if rng.random() < 0.2:
                store._connections.close_idle()
        store.delete(lease.stream_id)
"""


def test_a_replaced_file_whose_log_was_left_is_not_mixed_with_it(path: Path) -> None:
    """A copy is put in the file's place while an idle process has its log open."""
    store = started(path)
    copy = path.with_name("copy.db")
    with contextlib.closing(sqlite3.connect(path)) as origin, contextlib.closing(sqlite3.connect(copy)) as to:
        origin.backup(to)
    lease = store.acquire("later")
    assert lease is not None
    os.rename(copy, path)
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match="of the former file is still there") as raised:
            store.status("later")
        assert not raised.value.transient
    remove(path, ("-wal", "-shm"))
    assert store.status("later") is Status.MISSING
    assert store.read("s").data == b"before" and store.check() == []
    store.close()


def test_a_removed_file_leaves_the_next_one_in_peace(path: Path) -> None:
    """The connections to it are let go without removing the -wal of its successor."""
    store = started(path)
    for suffix in ("", "-wal", "-shm"):
        os.unlink(f"{path}{suffix}")
    with Process(SETS_PROGRAM, path, "new") as new:
        assert new.line() == "stored"
        assert store.status("s") is Status.MISSING
        store.close()
        assert os.path.exists(f"{path}-wal")
        new.say("append")
        assert new.line() == "appended"
        with SQLiteStore(path) as again:
            assert again.read("new").data == b"before after"


def test_a_file_with_two_names_is_refused(path: Path) -> None:
    SQLiteStore(path).close()
    other = path.with_name("other.db")
    os.link(path, other)
    for name in (path, other):
        with pytest.raises(StoreUnavailableError, match="several hard links") as raised:
            SQLiteStore(name)
        assert not raised.value.transient
    other.unlink()
    SQLiteStore(path).close()


def test_a_file_that_is_mounted_alone_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "_mount_points", lambda: {str(path)})
    with pytest.raises(StoreUnavailableError, match="mount its directory instead") as raised:
        SQLiteStore(path)
    assert not raised.value.transient


@pytest.mark.skipif(not os.path.exists("/proc/self/mountinfo"), reason="needs /proc")
def test_mount_points_are_found() -> None:
    assert {"/", "/proc"} <= files_module._mount_points()
    assert files_module._unescaped(rb"/a\040b\134c") == b"/a b\\c"


def test_names_by_symlinks_are_one_file(path: Path) -> None:
    """A killed producer that came by one is noticed by those that came by another, long before its lease runs
    out."""
    (path.parent / "real").mkdir()
    real = path.parent / "real" / "streams.db"
    (path.parent / "folder").symlink_to(path.parent / "real")
    path.symlink_to(real)
    by_folder = path.parent / "folder" / "streams.db"
    with Process(PROGRAMS, "append", path, "s", 1, 3600, 0.01) as producer:
        producer.until("stored")
        with SQLiteStore(by_folder, grace=3600) as store:
            assert store.path == real
            assert store.status("s") is Status.STREAMING
            producer.kill()
            wait_until(lambda: store.status("s") is Status.INTERRUPTED)
    assert not os.path.exists(f"{path}-run") and os.path.exists(f"{real}-run")


def test_a_file_that_is_moved_and_linked_to_is_refused(path: Path, tmp_path: Path) -> None:
    """SQLite would keep the log of those that come by the link under the new name, and of the others under the
    old one."""
    acknowledged = b""
    with SQLiteStore(path) as store:
        lease = store.acquire("s")
        assert lease is not None
        for number in range(20):
            store.append(lease, b"%d " % number)
            acknowledged += b"%d " % number
        path.rename(path.with_name("moved.db"))
        path.symlink_to(path.with_name("moved.db"))
        for call in lambda: store.append(lease, b"lost"), lambda: store.read("s"), lambda: store.acquire("t"):
            with pytest.raises(StoreUnavailableError, match="symbolic link|removed or replaced"):
                call()
        with SQLiteStore(path) as again:
            assert again.path == path.with_name("moved.db")
            assert again.read("s").data == acknowledged and again.check() == []


def test_a_refused_file_leaves_its_inode_to_no_other(tmp_path: Path) -> None:
    path = tmp_path / "refused"
    path.touch()
    db = identity(str(path))
    assert db is not None
    refuse(db, "for the test", Files(path))
    path.unlink()
    others = [tmp_path / f"other-{number}" for number in range(50)]
    for other in others:
        other.touch()
        check(Files(other))  # or it would be refused
        assert identity(str(other)) != db


def test_what_is_open_nowhere_and_has_no_name_is_not_refused(tmp_path: Path) -> None:
    path = tmp_path / "gone"
    path.touch()
    db = identity(str(path))
    assert db is not None
    path.unlink()
    refuse(db, "for the test", Files(path))
    for number in range(50):
        other = tmp_path / f"other-{number}"
        other.touch()
        check(Files(other))
