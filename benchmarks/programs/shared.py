"""Shared streams: commits of many threads to one stream, and for comparison appends of as many leases.

Each waits until its chunk is stored before it writes the next. `processes` share the threads among them.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from resumable_sync import ResumableStreamContext
from resumable_sync.types import Store

from .support import CHUNK_BYTES, Job, chunk, start_threads


def commits(job: Job) -> dict[str, Any]:
    """`threads` writers of one shared stream."""
    store = job.open()
    with ResumableStreamContext(store) as context:
        context.shared_writer("shared", "first", create=True)
        others = [_other(job, number) for number in range(1, job["processes"])]
        seconds = _timed(_writers(context, job, 0))
        for process in others:
            if process.wait() != 0:
                raise AssertionError("a process failed")
        info = store.info("shared")
        assert info is not None and info.size == job["threads"] * job["chunks"] * CHUNK_BYTES, info
    store.close()
    return {"metrics": {"chunks_per_s": job["threads"] * job["chunks"] / seconds}}


def other(job: Job) -> dict[str, Any]:
    """The share of another process."""
    store = job.open()
    with ResumableStreamContext(store) as context:
        _timed(_writers(context, job, job["number"]))
    store.close()
    return {"metrics": {}}


def appends(job: Job) -> dict[str, Any]:
    """The same number of threads, each with a stream of its own, through the context's writer."""
    store = job.open()
    with ResumableStreamContext(store) as context:

        def write(number: int) -> None:
            with context.writer(f"own-{number}") as writer:
                for each in range(job["chunks"]):
                    writer.write(chunk(each))
                    writer.flush()

        seconds = _timed([functools.partial(write, number) for number in range(job["threads"])])
    store.close()
    return {"metrics": {"chunks_per_s": job["threads"] * job["chunks"] / seconds}}


def direct_appends(job: Job) -> dict[str, Any]:
    """The same number of threads, each with a lease of its own, by the store's `append`."""
    store = job.open()

    def write(store: Store, number: int) -> None:
        lease = store.acquire(f"own-{number}")
        assert lease is not None
        for each in range(job["chunks"]):
            store.append(lease, chunk(each))

    seconds = _timed([functools.partial(write, store, number) for number in range(job["threads"])])
    store.close()
    return {"metrics": {"chunks_per_s": job["threads"] * job["chunks"] / seconds}}


def _writers(context: ResumableStreamContext, job: Job, process: int) -> list[Callable[[], object]]:
    def write(name: str) -> None:
        with context.shared_writer("shared", name) as writer:
            for each in range(job["chunks"]):
                writer.write(chunk(each))

    share = job["threads"] // job["processes"]
    return [functools.partial(write, f"writer-{process}-{number}") for number in range(share)]


def _other(job: Job, number: int) -> subprocess.Popen[bytes]:
    import json

    arguments = json.dumps({**job.arguments, "number": number})
    command = [sys.executable, "-m", "benchmarks.programs", "shared.other", arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def _timed(targets: list[Callable[[], object]]) -> float:
    failed: list[BaseException] = []
    ready = threading.Barrier(len(targets) + 1)

    def guarded(target: Callable[[], object]) -> None:
        ready.wait()
        try:
            target()
        except BaseException as error:
            failed.append(error)

    threads = start_threads(functools.partial(guarded, target) for target in targets)
    ready.wait()
    begin = time.perf_counter()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return time.perf_counter() - begin
