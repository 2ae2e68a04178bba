"""Floors: what the layer below does when nothing is promised. No fence, limits, leases, or errors are handled."""

from __future__ import annotations

import functools
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from .support import (
    Arrivals,
    Job,
    RedisMeter,
    Stamped,
    check_arrivals,
    chunks,
    fresh_path,
    independent,
    latency_metrics,
    sha256,
    start_threads,
)

_XADD_ALL = "for i = 1, #ARGV do redis.call('XADD', KEYS[1], '*', 'p', ARGV[i]) end return #ARGV"


def _client(job: Job) -> Any:
    import redis

    return redis.Redis(unix_socket_path=job.redis)


def redis_script(job: Job) -> dict[str, Any]:
    """`evalsha()` of redis-py with `batch` chunks a call, each an XADD, and nothing else."""
    client, made, batch = _client(job), chunks(job["chunks"]), job["batch"]
    sha = client.script_load(_XADD_ALL)
    for each in chunks(500):
        client.evalsha(sha, 1, "warm-up", each)
    begin = time.perf_counter()
    for start in range(0, len(made), batch):
        client.evalsha(sha, 1, "floor", *made[start : start + batch])
    seconds = time.perf_counter() - begin
    digest = sha256(fields[b"p"] for _, fields in client.xrange("floor"))
    return {"metrics": {"chunks_per_s": len(made) / seconds}, "sha256": digest}


def redis_same_script(job: Job) -> dict[str, Any]:
    """`evalsha()` of redis-py for each chunk, with this library's own append script and arguments."""
    from resumable_sync.stores.redis.keys import Keys
    from resumable_sync.stores.redis.scripts import script

    client, made = _client(job), chunks(job["chunks"])
    store = job.open()
    lease = store.acquire("same")
    assert lease is not None
    store.append(lease, b"0" * 64)  # the server knows the script from here on
    _, sha, count, *keys = script("append", Keys("resumable").of("same")).arguments
    life = (1 << 28, 10_000_000, 15_000, 0, 86_400_000)  # limits, and times in ms
    offset = 64
    begin = time.perf_counter()
    for each in made:
        head = (lease.generation, lease.token, offset, 64, 1, *life, 0, 0, 0)  # no notes
        client.evalsha(sha, count, *keys, *head, each, "")
        offset += 64
    seconds = time.perf_counter() - begin
    digest = sha256([b"".join(_pieces(store))[64:]])
    store.close()
    return {"metrics": {"chunks_per_s": len(made) / seconds}, "sha256": digest}


def _pieces(store: Any) -> Iterator[bytes]:
    cursor = ""
    while True:
        batch = store.read("same", cursor)
        if not batch.data:
            return
        cursor = batch.cursor
        yield batch.data


def redis_xrange(job: Job) -> dict[str, Any]:
    """XRANGE by 1000 rows of a chunk each, first 100, as redis-py parses it, joined by page."""
    client, count = _client(job), job["chunks"]
    sha = client.script_load(_XADD_ALL)
    made = chunks(count)
    for start in range(0, count, 1000):
        client.evalsha(sha, 1, "floor", *made[start : start + 1000])
    client.xrange("floor", count=100)

    def pages() -> Iterator[bytes]:
        last, page = "-", 100
        while True:
            rows = client.xrange("floor", min=last, count=page)
            if not rows:
                return
            yield b"".join(fields[b"p"] for _, fields in rows)
            last, page = f"({rows[-1][0].decode()}", 1000

    return replayed(pages, count)


def replayed(pages: Callable[[], Iterator[bytes]], count: int) -> dict[str, Any]:
    """Times one pass over the pages; a second one is hashed."""
    begin = time.perf_counter()
    first = None
    for _ in pages():
        if first is None:
            first = time.perf_counter() - begin
    seconds = time.perf_counter() - begin
    metrics = {"chunks_per_s": count / seconds, "first_byte_ms": (first or seconds) * 1e3}
    return {"metrics": metrics, "sha256": sha256(pages())}


def sqlite_rows(job: Job) -> dict[str, Any]:
    """A row for each chunk, 100 rows a commit, WAL and synchronous=NORMAL."""
    connection, made = _database(job), chunks(job["chunks"])
    rows = [(1, number, each) for number, each in enumerate(made)]
    _insert(connection, [(0, number, each) for number, each in enumerate(chunks(1000))], 100)
    begin = time.perf_counter()
    _insert(connection, rows, 100)
    seconds = time.perf_counter() - begin
    found = connection.execute("SELECT payload FROM pages WHERE stream = 1 ORDER BY place")
    return {"metrics": {"chunks_per_s": len(made) / seconds}, "sha256": sha256(row[0] for row in found)}


def sqlite_pages(job: Job) -> dict[str, Any]:
    """Reading pages of 1000 chunks, a SELECT for each."""
    connection, made = _database(job), chunks(job["chunks"])
    rows = [(1, start, b"".join(made[start : start + 1000])) for start in range(0, len(made), 1000)]
    _insert(connection, rows, 100)

    def pages() -> Iterator[bytes]:
        last = -1
        query = "SELECT place, payload FROM pages WHERE stream = 1 AND place > ? ORDER BY place LIMIT 1"
        while (row := connection.execute(query, (last,)).fetchone()) is not None:
            last = row[0]
            yield row[1]

    next(pages())
    return replayed(pages, len(made))


def _database(job: Job) -> sqlite3.Connection:
    connection = sqlite3.connect(fresh_path(job, "floor.db"), isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(
        "CREATE TABLE pages (stream INTEGER, place INTEGER, payload BLOB, PRIMARY KEY (stream, place))"
        " WITHOUT ROWID"
    )
    return connection


def _insert(connection: sqlite3.Connection, rows: list[tuple[int, int, bytes]], batch: int) -> None:
    for start in range(0, len(rows), batch):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO pages VALUES (?,?,?)", rows[start : start + batch])
        connection.execute("COMMIT")


class _Log:
    """Chunks in a list, and a Condition."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._chunks: list[bytes] = []
        self._ended = False

    def take(self, source: Iterator[bytes]) -> None:
        for made in source:
            with self._changed:
                self._chunks.append(made)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def pieces(self) -> Iterator[bytes]:
        seen = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: len(self._chunks) > seen or self._ended)
                found = self._chunks[seen:]
            if not found:
                return
            seen += len(found)
            yield b"".join(found)


def condition_wake(job: Job) -> dict[str, Any]:
    """A thread for each source and each viewer; a list and a Condition for each stream. No store at all."""
    sources = independent(job["streams"], job["chunks"], job["rate"])
    logs = [_Log() for _ in sources]
    viewed = [number for number in range(len(sources)) for _ in range(job["viewers"])]
    arrivals = [Arrivals() for _ in viewed]
    threads = start_threads(
        functools.partial(arrived.follow, logs[number].pieces()) for number, arrived in zip(viewed, arrivals)
    )
    threads += start_threads(functools.partial(log.take, source()) for log, source in zip(logs, sources))
    cpu = time.process_time()
    for source in sources:
        source.begin.set()
    for thread in threads:
        thread.join()
    used = time.process_time() - cpu
    metrics = {"cpu_s": used, "cpu_us_per_delivery": used / (len(arrivals) * job["chunks"]) * 1e6}
    digest = check_arrivals([sources[number] for number in viewed], arrivals)
    return {"metrics": metrics | latency_metrics(arrivals), "delivered": digest}


def xread_wake(job: Job) -> dict[str, Any]:
    """One thread in XREAD BLOCK of redis-py, an XADD for each chunk from another; both in one process."""
    writer, reader = _client(job), _client(job)
    source = Stamped(job["chunks"], job["rate"])

    def pieces() -> Iterator[bytes]:
        last = "0"
        for _ in range(job["chunks"]):
            ((_, ((last, fields),)),) = reader.xread({"floor": last}, count=1, block=10_000)
            yield fields[b"p"]

    arrived = Arrivals()
    threads = start_threads([functools.partial(arrived.follow, pieces())])
    meter = RedisMeter(job.redis)
    cpu = time.process_time()
    source.begin.set()
    for made in source():
        writer.xadd("floor", {"p": made})
    for thread in threads:
        thread.join()
    metrics = {"cpu_s": time.process_time() - cpu} | meter.metrics()
    return {"metrics": metrics | latency_metrics([arrived]), "delivered": check_arrivals([source], [arrived])}
