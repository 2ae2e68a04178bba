"""The file is locked, removed, replaced, damaged, too new or somebody else's (G1, G2, G6, G10)."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from resumable_sync import (
    ResumableStreamContext,
    ResumableStreamError,
    Status,
    StoreUnavailableError,
    StreamLostError,
)
from resumable_sync.stores.sqlite import SQLiteStore

from ...support import Process, wait_until
from .conftest import Report
from .follower import Follower
from .rounds import rounds
from .source import text
from .test_kill import PROGRAMS

# Locked


@pytest.mark.parametrize("kind", ["IMMEDIATE", "EXCLUSIVE"])
def test_locked_file(kind: str, path: Path, report: Report) -> None:
    """While another process holds the file, writes fail after the timeout, reads go on; then all goes on."""
    store = SQLiteStore(path, timeout=0.15)
    lease = store.acquire("locked")
    assert lease is not None
    store.append(lease, b"before")
    worst = 0.0
    with Process(PROGRAMS, "hold", path, kind) as holder:
        holder.until("locked")
        writes: list[Callable[[], object]] = [
            lambda: store.append(lease, b" after"),
            lambda: store.acquire("another"),
            lambda: store.finalize(lease, "done"),
            lambda: store.cancel("locked"),
            lambda: store.delete("locked"),
            lambda: store.clear(),
        ]
        for write in writes:
            began = time.monotonic()
            with pytest.raises(StoreUnavailableError) as raised:
                write()
            assert raised.value.transient
            worst = max(worst, time.monotonic() - began)
        assert isinstance(store.renew([lease])[0], StoreUnavailableError)
        assert store.read("locked").data == b"before"
        assert store.status("locked") is Status.STREAMING
        with Process(PROGRAMS, "info", path, "locked") as newcomer:
            assert newcomer.line().startswith("streaming 6")
        holder.say_no_more()
        holder.until("free")
    store.append(lease, b" after")
    assert store.read("locked").data == b"before after"
    store.close()
    report(worst_refusal=worst)


def test_locked_file_under_a_context(path: Path) -> None:
    """A producer outlasts a lock shorter than the grace: nothing is lost, and nobody is told."""
    store = SQLiteStore(path, timeout=0.1, grace=60)
    context = ResumableStreamContext(store)
    go_on = threading.Event()

    def source() -> Iterator[bytes]:
        yield text(0, 1000)
        go_on.wait(60)
        for begin in range(1000, 50_000, 1000):
            yield text(begin, begin + 1000)

    context.run("locked", source)
    follower = Follower(store, "locked")
    wait_until(lambda: follower.data)
    with Process(PROGRAMS, "hold", path, "EXCLUSIVE") as holder:
        holder.until("locked")
        go_on.set()
        threading.Event().wait(1.0)  # some refusals
        holder.kill()
    follower.join()
    assert follower.error is None and bytes(follower.data) == text(0, 50_000)
    context.close()
    store.close()


def test_dead_producer_of_a_locked_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ending cannot be written while the file is locked: readers are told that, in bounded time."""
    monkeypatch.setattr("resumable_sync.viewer.WAIT_SLICE", 0.5)
    store = SQLiteStore(path, timeout=0.2, grace=1.0)
    with Process(PROGRAMS, "append", path, "dead", 1, 1) as producer:
        producer.until("stored")
    with Process(PROGRAMS, "hold", path, "EXCLUSIVE") as holder:
        holder.until("locked")
        follower = Follower(store, "dead")
        follower.join()
        assert isinstance(follower.error, StoreUnavailableError) and follower.error.transient
    assert store.status("dead") is Status.INTERRUPTED
    store.close()


def test_frozen_within_a_transaction(path: Path) -> None:
    """A process stopped while it writes holds up all writers, who are told so; its death lets them go on."""
    store = SQLiteStore(path, timeout=0.2)
    lease = store.acquire("held-up")
    assert lease is not None
    with Process(PROGRAMS, "hold", path, "IMMEDIATE") as holder:
        holder.until("locked")
        holder.signal(signal.SIGSTOP)
        for _ in range(2):
            with pytest.raises(StoreUnavailableError):
                store.append(lease, b"once")
        assert store.read("held-up").size == 0
        holder.kill()
        holder.wait()
    store.append(lease, b"once")
    assert store.read("held-up").data == b"once"
    store.close()


# Removed, replaced


def _remove_all(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _remove_file_alone(path: Path) -> None:
    path.unlink()


def _replace_by_new(path: Path) -> None:
    other = path.with_name("other.db")
    SQLiteStore(other).close()
    _remove_all(path)
    other.rename(path)


@pytest.mark.parametrize("change", [_remove_all, _remove_file_alone, _replace_by_new])
@rounds(1, 20)
def test_file_goes(change: Callable[[Path], None], rounds: int, path: Path, report: Report) -> None:
    """Readers and writer learn of it, in this and in another process; the store then works on the new file."""
    worst = 0.0
    for number in range(rounds):
        store = SQLiteStore(path)
        lease = store.acquire("lost")
        assert lease is not None
        store.append(lease, text(0, 5000))
        follower = Follower(store, "lost")
        with (
            Process(PROGRAMS, "append", path, f"other-{number}", 1, 15, 0.01) as writer,
            Process(PROGRAMS, "follow", path, "lost") as elsewhere,
        ):
            writer.until("stored")
            elsewhere.until("at 5000")
            wait_until(lambda: len(follower.data) == 5000)
            change(path)
            changed_at = time.monotonic()
            assert writer.until("refused") in ("StreamLostError", "StoreUnavailableError")
            _, size, ending = elsewhere.until("ended").split()
            assert (size, ending) == ("5000", "StreamLostError")
            follower.join()
            assert isinstance(follower.error, StreamLostError)
            worst = max(worst, follower.ended_at - changed_at)
            with pytest.raises(StreamLostError):
                store.append(lease, b"more")
        fresh = store.acquire("fresh")
        assert fresh is not None
        store.append(fresh, text(0, 3000))
        with Process(PROGRAMS, "follow", path, "fresh") as viewer:
            viewer.until("following")
            store.append(fresh, text(3000, 6000))
            store.finalize(fresh, "done")
            assert viewer.until("ended").split()[1:] == ["6000", "done"]
        assert store.check() == []
        store.drop()
    report(rounds=rounds, worst_until_lost=worst)


def test_file_rolled_back(path: Path, tmp_path: Path) -> None:
    """An older copy is put in its place: what is missing there is reported, and never spliced (G1, G6)."""
    store = SQLiteStore(path)
    lease = store.acquire("rolled")
    assert lease is not None
    store.append(lease, text(0, 1000))
    backup = sqlite3.connect(tmp_path / "copy.db")
    origin = sqlite3.connect(path)
    origin.backup(backup)
    origin.close()
    backup.close()
    store.append(lease, text(1000, 2000))
    follower = Follower(store, "rolled")
    wait_until(lambda: len(follower.data) == 2000)
    _remove_all(path)
    (tmp_path / "copy.db").rename(path)
    with pytest.raises(StreamLostError):
        store.append(lease, text(2000, 3000))
    follower.join()
    assert isinstance(follower.error, StreamLostError)
    assert store.read("rolled").data == text(0, 1000)
    store.close()


# Damaged


def _make(path: Path) -> dict[str, bytes]:
    """A file with some streams; returns what they hold."""
    made = {}
    with_metadata = {"content-type": "text/plain", "long": "x" * 9000}
    store = SQLiteStore(path)
    for number, (chunks, length) in enumerate([(1, 200), (40, 60), (300, 700), (3, 100_000), (20, 9000)]):
        stream_id = f"stream-{number}"
        lease = store.acquire(stream_id, metadata=with_metadata if number == 1 else None)
        assert lease is not None
        for first in range(0, chunks, 10):
            some = [text(i * length, (i + 1) * length) for i in range(first, min(chunks, first + 10))]
            store.append(lease, *some)
        store.finalize(lease, "done")
        made[stream_id] = text(0, chunks * length)
    store.close()
    return made


def _survey(path: Path, made: dict[str, bytes]) -> int:
    """Read everything; fails on wrong bytes that pass for right ones. Returns how much trouble was reported."""
    try:
        store = SQLiteStore(path, timeout=1)
    except StoreUnavailableError as error:
        assert not error.transient or "I/O" in str(error) or "unable" in str(error)
        return 1
    trouble = 0
    try:
        for stream_id, expected in made.items():
            context = ResumableStreamContext(store)
            got = bytearray()
            try:
                for piece in context.require_resume(stream_id):
                    got += piece
                assert got == expected, f"wrong bytes of {stream_id} without an error"
            except ResumableStreamError:
                assert got == expected[: len(got)], f"wrong bytes of {stream_id} before an error"
                trouble += 1
        try:
            trouble += len(list(store.streams())) != len(made)
            trouble += len(store.check())
        except ResumableStreamError:
            trouble += 1
    finally:
        store.close()
    return trouble


@rounds(15, 100_000)
def test_zeroed_page(rounds: int, path: Path, tmp_path: Path, report: Report) -> None:
    """Each page of the file in turn is zeroed (a sample of them by default): a typed error, never wrong bytes."""
    made = _make(path)
    content = path.read_bytes()
    size = int.from_bytes(content[16:18], "big")  # of a page; https://www.sqlite.org/fileformat.html
    pages = list(range(len(content) // size))
    rng = random.Random(1)
    silent = []
    for page in rng.sample(pages, min(rounds, len(pages))):
        broken = tmp_path / f"broken-{page}.db"
        broken.write_bytes(content[: page * size] + bytes(size) + content[(page + 1) * size :])
        if not _survey(broken, made) and any(content[page * size : (page + 1) * size]):
            silent.append(page)
        broken.unlink()
    # What nobody noticed harmed nobody: all bytes were right, and so is what check() looks at.
    report(pages=len(pages), unnoticed_and_harmless=len(silent))


@rounds(10, 1000)
def test_flipped_bytes(rounds: int, path: Path, tmp_path: Path, report: Report) -> None:
    """Payload bytes change on the disk: a typed error in the reader, a line of `check`, never wrong bytes."""
    made = _make(path)
    content = path.read_bytes()
    rng = random.Random(2)
    needles = [data[begin : begin + 50] for data in made.values() for begin in (0, len(data) // 2)]
    for number in range(rounds):
        broken = tmp_path / f"broken-{number}.db"
        at = content.index(rng.choice(needles)) + rng.randrange(50)
        flipped = bytearray(content)
        flipped[at] ^= 1 << rng.randrange(8)
        broken.write_bytes(flipped)
        assert _survey(broken, made) >= 2
        shutil.rmtree(broken.with_name(broken.name + "-run"), ignore_errors=True)
        broken.unlink()
    report(rounds=rounds)


@rounds(10, 300)
def test_truncated_file(rounds: int, path: Path, tmp_path: Path, report: Report) -> None:
    """The file ends anywhere: a typed error, or the damage is not where anybody reads."""
    made = _make(path)
    content = path.read_bytes()
    rng = random.Random(3)
    for number in range(rounds):
        broken = tmp_path / f"broken-{number}.db"
        broken.write_bytes(content[: rng.randrange(1, len(content))])
        assert _survey(broken, made) >= 1
    report(rounds=rounds)


@rounds(5, 100)
def test_garbage_file(rounds: int, tmp_path: Path) -> None:
    """A file of anything is refused, and left as it is."""
    for number in range(rounds):
        path = tmp_path / f"garbage-{number}.db"
        content = random.Random(number).randbytes(number * 1000 + 100)
        path.write_bytes(content)
        with pytest.raises(StoreUnavailableError) as raised:
            SQLiteStore(path)
        assert not raised.value.transient
        assert path.read_bytes() == content


@rounds(5, 200)
def test_damaged_log(rounds: int, path: Path, tmp_path: Path, report: Report) -> None:
    """The write-ahead log is cut or damaged after a crash: a prefix remains, and a position behind it is lost."""
    with Process(PROGRAMS, "append", path, "logged", 1) as producer:
        for _ in range(200):
            producer.until("stored")
    rng = random.Random(4)
    log = path.with_name(path.name + "-wal").read_bytes()
    for number in range(rounds):
        copy = tmp_path / f"copy-{number}.db"
        shutil.copy(path, copy)
        at = rng.randrange(len(log))
        damaged = log[:at] if rng.random() < 0.5 else log[:at] + rng.randbytes(50) + log[at + 50 :]
        copy.with_name(copy.name + "-wal").write_bytes(damaged)
        try:
            store = SQLiteStore(copy, grace=0.1)
        except StoreUnavailableError:
            continue
        info = store.info("logged")
        if info is not None:
            data = store.read("logged", max_bytes=max(1, info.size)).data
            assert data == text(0, info.size)
            with pytest.raises(ResumableStreamError):
                store.read("logged", f"{info.generation}-{info.size + 1}")
        assert store.check() == []
        store.close()
    report(rounds=rounds)


# Too new, somebody else's


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_newer_schema(path: Path) -> None:
    """A file of a newer version is refused in words that say so, and left as it is."""
    SQLiteStore(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = _digest(path)
    with pytest.raises(StoreUnavailableError, match="newer") as raised:
        SQLiteStore(path)
    assert not raised.value.transient and _digest(path) == before


@pytest.mark.parametrize("user_version", [0, 1, 7])
def test_foreign_database(user_version: int, path: Path) -> None:
    """A database of another program is refused, and left as it is."""
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE streams (precious TEXT)")
    connection.execute("INSERT INTO streams VALUES ('data')")
    connection.execute(f"PRAGMA user_version = {user_version:d}")
    connection.commit()
    connection.close()
    before = _digest(path)
    with pytest.raises(StoreUnavailableError) as raised:
        SQLiteStore(path)
    assert not raised.value.transient and _digest(path) == before
    assert os.listdir(path.parent) == [path.name]
