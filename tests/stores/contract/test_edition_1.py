"""What edition 1 stored is read by this edition, and both work on one store at once (a rolling deploy).

tests/data/edition_1 has the wheel of 0.1.0 and what it wrote; see make.py there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from resumable_sync import ResumableStreamContext, SQLiteStore, Status, Store, open_store
from resumable_sync.contract import Maintenance
from resumable_sync.testing.kit import acquired, drain

from ...support import PATIENCE
from ..redis.server import RedisServer, shared_server

EDITION_1 = Path(__file__).parents[2] / "data" / "edition_1"
WHEEL = EDITION_1 / "resumable_sync-0.1.0-py3-none-any.whl"

PROGRAM = """
import sys
import resumable_sync
assert resumable_sync.__version__ == "0.1.0", resumable_sync.__file__
role, url, stream_id = sys.argv[1:]
with resumable_sync.ResumableStreamContext(resumable_sync.open_store(url)) as context:
    if role == "follow":
        print("ready", flush=True)
        sys.stdout.buffer.write(b"".join(context.require_resume(stream_id)))
    else:
        for _ in context.run(stream_id, lambda: iter(sys.stdin.readline, "")):
            print("stored", flush=True)
"""


def edition_1(role: str, url: str, stream_id: str) -> subprocess.Popen[str]:
    """A process of edition 1: `produce` stores lines of its input, `follow` writes the stream."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, role, url, stream_id],
        env={**os.environ, "PYTHONPATH": str(WHEEL)},
        cwd=EDITION_1,  # away from this edition's package
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def check_what_it_stored(store: Store) -> None:
    infos = {info.stream_id: info for info in store.streams()}
    assert set(infos) == {f"ended.{name}" for name in ("done", "error", "cancelled", "interrupted")} | {
        "hot",
        "empty",
    }
    whole = drain(store, "ended.done", max_bytes=10**6)[0]
    assert whole.startswith(b"first zw\xc3\xb6lf ") and whole.endswith(b"last") and len(whole) == 70_017
    for status in (Status.DONE, Status.ERROR, Status.CANCELLED, Status.INTERRUPTED):
        info = infos[f"ended.{status.value}"]
        assert (info.status, info.entries, info.size) == (status, 4, len(whole))
        assert info.metadata == {"content-type": "text/plain", "owner": "\u00e9dith"}
        assert info.error == ("the source raised" if status is Status.ERROR else None)
        assert drain(store, info.stream_id, max_bytes=10**6)[0] == whole
    assert drain(store, "hot")[0] == b"".join(b"%d\n" % number for number in range(10_000))
    assert infos["hot"].entries == 10_000
    assert infos["empty"].size == 0 and infos["empty"].status is Status.INTERRUPTED
    assert isinstance(store, Maintenance) and store.check() == []
    assert store.delete("ended.done")
    assert acquired(store, "ended.done").generation > infos["ended.done"].generation


def test_a_file_of_edition_1(tmp_path: Path) -> None:
    shutil.copy(EDITION_1 / "streams.sqlite", tmp_path / "streams.db")
    with SQLiteStore(tmp_path / "streams.db") as store:
        check_what_it_stored(store)


@pytest.mark.redis
def test_a_redis_of_edition_1() -> None:
    from resumable_sync.stores.redis import RedisStore

    with RedisServer() as server:
        server.kill()
        shutil.copy(EDITION_1 / "dump.rdb", server.directory / "dump.rdb")
        server.start()
        with RedisStore.from_url(server.url) as store:
            check_what_it_stored(store)


def _sqlite(directory: Path) -> str:
    return f"sqlite:///{directory}/both.db"


def _redis(directory: Path) -> str:
    return shared_server().url


@pytest.mark.parametrize("url", [_sqlite, pytest.param(_redis, marks=pytest.mark.redis)])
def test_both_editions_on_one_store(url: Callable[[Path], str], tmp_path: Path) -> None:
    where, old_id, new_id = url(tmp_path), f"{tmp_path.name}-old", f"{tmp_path.name}-new"
    store = open_store(where)
    with ResumableStreamContext(store) as context, edition_1("produce", where, old_id) as old:
        assert old.stdin is not None and old.stdout is not None
        old.stdin.write("one\n")
        old.stdin.flush()
        assert old.stdout.readline() == "stored\n"
        pieces = context.require_resume(old_id)
        assert next(pieces) == b"one\n"
        old.stdin.write("two\n")
        old.stdin.close()
        assert b"".join(pieces) == b"two\n"
        assert store.acquire(old_id) is None

        more = threading.Event()

        def make_stream() -> list[bytes]:
            assert more.wait(PATIENCE)
            return [b"three ", b"four"]

        context.run(new_id, make_stream)
        with edition_1("follow", where, new_id) as follower:
            assert follower.stdout is not None
            assert follower.stdout.readline() == "ready\n"
            more.set()
            assert follower.stdout.read() == "three four"
            assert follower.wait(PATIENCE) == 0
        assert old.wait(PATIENCE) == 0
    store.delete(old_id)
    store.delete(new_id)
    store.close()
