"""Appending: hot sources, each chunk acknowledged or as far ahead of the store as the defaults allow.

Measured from the call of `run` to the stored ending, so election and ending are in it; the source is a list made
before. Read back and hashed afterwards. Not measured: viewers at the same time.
"""

from __future__ import annotations

import time
from typing import Any

from .support import CHUNK_BYTES, Job, Produced, chunks, sha256


def hot(job: Job) -> dict[str, Any]:
    """One or many hot streams through the context."""
    streams, count = job["streams"], job["chunks"]
    made = chunks(count // streams)
    store = job.open()
    produced = Produced(store)
    produced.context.run("warm-up", lambda: chunks(1000))
    produced.wait()
    cpu, begin = time.process_time(), time.perf_counter()
    for number in range(streams):
        produced.context.run(f"hot-{number}", lambda: made)
    produced.wait(streams)
    seconds = time.perf_counter() - begin
    total = streams * len(made)
    metrics = {"chunks_per_s": total / seconds, "cpu_us_per_chunk": _cpu_us(cpu, total)}
    digests = {sha256(produced.context.require_resume(f"hot-{number}")) for number in range(streams)}
    if len(digests) != 1:
        raise AssertionError("the streams differ")
    store.close()
    return {"metrics": metrics, "sha256": digests.pop()}


def acknowledged(job: Job) -> dict[str, Any]:
    """One stream, `store.append` for each chunk, which returns when it is stored."""
    made = chunks(job["chunks"])
    store = job.open()
    warm = store.acquire("warm-up")
    lease = store.acquire("hot")
    assert warm is not None and lease is not None
    for each in chunks(500):
        store.append(warm, each)
    cpu, begin = time.process_time(), time.perf_counter()
    for each in made:
        store.append(lease, each)
    seconds = time.perf_counter() - begin
    metrics = {"chunks_per_s": len(made) / seconds, "cpu_us_per_chunk": _cpu_us(cpu, len(made))}
    store.finalize(lease, "done")
    data = bytearray()
    cursor = ""
    while len(data) < len(made) * CHUNK_BYTES:
        batch = store.read("hot", cursor)
        data += batch.data
        cursor = batch.cursor
    store.close()
    return {"metrics": metrics, "sha256": sha256([bytes(data)])}


def _cpu_us(before: float, count: int) -> float:
    return (time.process_time() - before) / count * 1e6
