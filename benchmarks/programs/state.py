"""Elections, memory, idle processes, and what a growing number of streams changes."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from resumable_sync import ResumableStreamContext
from resumable_sync.types import Lease, Store

from .support import Job, Produced, RedisMeter, chunk, percentile, resident_bytes, start_threads

_RACERS = 8
_SETTLE_SECONDS = 1.0  # from the last chunk until a process counts as idle


def election(job: Job) -> dict[str, Any]:
    """`acquire` of fresh ids, one after the other; and races of several threads for one, which one must win."""
    store = job.open()
    for number in range(50):
        store.acquire(f"warm-up-{number}")
    times = sorted(_timed(functools.partial(_elect, store, "stream"), job["elections"]))
    metrics = {"p50_ms": percentile(times, 0.5), "p99_ms": percentile(times, 0.99)}
    wins: list[Lease] = []
    rounds = job["elections"] // 10

    def race(barrier: threading.Barrier) -> None:
        for number in range(rounds):
            barrier.wait()
            lease = store.acquire(f"raced-{number}")
            if lease is not None:
                wins.append(lease)

    begin = time.perf_counter()
    for thread in start_threads([functools.partial(race, threading.Barrier(_RACERS))] * _RACERS):
        thread.join()
    metrics["race_ms"] = (time.perf_counter() - begin) / rounds * 1e3
    if len(wins) != rounds:
        raise AssertionError(f"{len(wins)} winners of {rounds} elections")
    store.close()
    return {"metrics": metrics}


def memory_per_chunk(job: Job) -> dict[str, Any]:
    """Bytes that a stored chunk of 64 bytes takes: stored by a hot source, and one by one.

    Memory store: growth of the process in RAM. Redis: of used_memory. SQLite: of the checkpointed file.
    """
    store = job.open()
    count = job["chunks"]
    produced = Produced(store)
    produced.context.run("warm-up", lambda: map(chunk, range(1000)))
    produced.wait()
    before = _stored_bytes(job)
    produced.context.run("hot", lambda: map(chunk, range(count)))
    produced.wait()
    after = _stored_bytes(job)
    metrics = {"bytes_hot": (after - before) / count}
    lease = store.acquire("singly")
    assert lease is not None
    singly = max(1, count // 10)
    for number in range(singly):
        store.append(lease, chunk(number))
    metrics["bytes_singly"] = (_stored_bytes(job) - after) / singly
    store.close()
    return {"metrics": metrics}


def _stored_bytes(job: Job) -> int:
    if job["store"] == "memory":
        return resident_bytes()
    if job["store"] == "redis":
        import redis

        return int(redis.Redis(unix_socket_path=job.redis).info("memory")["used_memory"])
    import sqlite3

    path = Path(job.directory) / "streams.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.close()
    return os.stat(path).st_size


def parked(job: Job) -> dict[str, Any]:
    """Viewers that wait on silent streams: RAM for each; CPU of this process and Redis while nothing happens."""
    store = job.open()
    context = ResumableStreamContext(store)
    never = threading.Event()
    arrived = threading.Semaphore(0)

    def source() -> Iterator[bytes]:
        yield chunk(0)
        never.wait()

    def view(number: int) -> None:
        for _ in context.require_resume(f"silent-{number % job['streams']}"):
            arrived.release()

    for number in range(job["streams"]):
        context.run(f"silent-{number}", source)
    before = resident_bytes()
    start_threads(functools.partial(view, number) for number in range(job["viewers"]))
    for _ in range(job["viewers"]):
        arrived.acquire()
    time.sleep(_SETTLE_SECONDS)
    metrics = {"kib_per_viewer": (resident_bytes() - before) / job["viewers"] / 1024}
    meter = RedisMeter(job.redis) if job["store"] == "redis" else None
    metrics |= _idle(job["seconds"])
    if meter is not None:
        used = meter.metrics()
        metrics["redis_cpu_percent"] = used["redis_cpu_s"] / job["seconds"] * 100
        metrics["connections"] = used["connections"]
    never.set()
    context.close()
    store.close()
    return {"metrics": metrics}


def bare_threads(job: Job) -> dict[str, Any]:
    """The floor: as many threads that wait on a Condition of their own."""
    threads: list[Callable[[], object]] = [threading.Event().wait for _ in range(job["viewers"])]
    before = resident_bytes()
    start_threads(threads)
    time.sleep(_SETTLE_SECONDS)
    metrics = {"kib_per_viewer": (resident_bytes() - before) / job["viewers"] / 1024}
    return {"metrics": metrics | _idle(job["seconds"])}


def _idle(seconds: float) -> dict[str, float]:
    cpu, begin = time.process_time(), time.monotonic()
    time.sleep(seconds)  # what is measured
    return {"cpu_percent": (time.process_time() - cpu) / (time.monotonic() - begin) * 100}


def growth(job: Job) -> dict[str, Any]:
    """Append, read and election while the store holds more and more finished streams of one chunk."""
    store = job.open()
    metrics: dict[str, float] = {}
    held = 0
    for streams in job["steps"]:
        for number in range(held, streams):
            _finished(store, f"held-{number}")
        held = streams
        lease = store.acquire(f"measured-{streams}")
        assert lease is not None
        count = job["operations"]
        operations: dict[str, Callable[[int], object]] = {
            "append": functools.partial(_append, store, lease),
            "read": functools.partial(_read, store, f"measured-{streams}"),
            "election": functools.partial(_elect, store, f"elected-{streams}"),
        }
        for name, operation in operations.items():
            times = sorted(_timed(operation, count))
            metrics[f"{name}_ms_{streams}"] = percentile(times, 0.5)
    for name in ("append", "read", "election"):
        first, last = (metrics[f"{name}_ms_{job['steps'][place]}"] for place in (0, -1))
        metrics[f"{name}_growth"] = last / first
    store.close()
    return {"metrics": metrics}


def _finished(store: Store, name: str) -> None:
    lease = store.acquire(name)
    assert lease is not None
    store.append(lease, chunk(0))
    store.finalize(lease, "done")


def _append(store: Store, lease: Lease, number: int) -> None:
    store.append(lease, chunk(number))


def _read(store: Store, name: str, number: int) -> None:
    store.read(name, max_bytes=1)


def _elect(store: Store, name: str, number: int) -> None:
    store.acquire(f"{name}-{number}")


def _timed(operation: Callable[[int], object], count: int) -> list[float]:
    times = []
    for number in range(count):
        begin = time.perf_counter()
        operation(number)
        times.append((time.perf_counter() - begin) * 1e3)
    return times
