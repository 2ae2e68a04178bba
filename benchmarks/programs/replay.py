"""Replay of what is stored, and resuming somewhere in it.

Measured: one pass over the viewer's generator, which hands out joined pieces; a second pass is hashed. The stream
was stored either by a hot source, so that many chunks share a row, or chunk by chunk, as by a slow source. Memory:
growth of the process's peak during the pass, which keeps nothing. Not measured: a cold disk.
"""

from __future__ import annotations

import random
import time
from typing import Any

from resumable_sync import ResumableStreamContext

from .support import CHUNK_BYTES, RANDOM_SEED, Job, Produced, chunk, percentile, resident_bytes, sha256

_PIECE_BYTES = 4096  # of a resume, so that streams of all lengths have as much to return


def fill(job: Job) -> dict[str, Any]:
    """Stores the stream, for a reader in another process."""
    store = job.open()
    digest = _store(store, "stored", job["chunks"], job["singly"])
    job.say("begun")
    job.wait()
    store.close()
    return {"metrics": {}, "sha256": digest}


def read(job: Job) -> dict[str, Any]:
    """Reads what `fill` stored."""
    store = job.open()
    job.say("ready")
    found = _replay(ResumableStreamContext(store), job["chunks"])
    store.close()
    return found


def one_process(job: Job) -> dict[str, Any]:
    """Stores and reads in the same process, for the memory store."""
    store = job.open()
    _store(store, "stored", job["chunks"], job["singly"])
    found = _replay(ResumableStreamContext(store), job["chunks"])
    store.close()
    return found


def resume(job: Job) -> dict[str, Any]:
    """The first piece from random bytes of streams of several lengths; checked against what was stored."""
    store = job.open()
    metrics = {}
    chooser = random.Random(RANDOM_SEED)
    context = ResumableStreamContext(store, read_bytes=_PIECE_BYTES)
    for length in job["lengths"]:
        name = f"length-{length}"
        _store(store, name, length, False)
        info = store.info(name)
        assert info is not None
        times = []
        for _ in range(job["resumes"]):
            offset = chooser.randrange(length * CHUNK_BYTES - _PIECE_BYTES)
            begin = time.perf_counter()
            piece = next(iter(context.require_resume(name, f"{info.generation}-{offset}")))
            times.append((time.perf_counter() - begin) * 1e3)
            first = offset // CHUNK_BYTES
            whole = b"".join(map(chunk, range(first, first + _PIECE_BYTES // CHUNK_BYTES + 1)))
            if piece[:_PIECE_BYTES] != whole[offset % CHUNK_BYTES :][:_PIECE_BYTES]:
                raise AssertionError(f"other bytes at {offset} than were stored")
        times.sort()
        metrics[f"p50_ms_{length}"] = percentile(times, 0.5)
        metrics[f"p99_ms_{length}"] = percentile(times, 0.99)
    metrics["longest_over_shortest"] = (
        metrics[f"p50_ms_{job['lengths'][-1]}"] / metrics[f"p50_ms_{job['lengths'][0]}"]
    )
    store.close()
    return {"metrics": metrics}


def _store(store: Any, name: str, count: int, singly: bool) -> str:
    digest_of = (chunk(number) for number in range(count))
    if singly:
        lease = store.acquire(name)
        for number in range(count):
            store.append(lease, chunk(number))
        store.finalize(lease, "done")
    else:
        produced = Produced(store)
        produced.context.run(name, lambda: (chunk(number) for number in range(count)))
        produced.wait()
    return sha256(digest_of)


def _replay(context: ResumableStreamContext, count: int) -> dict[str, Any]:
    for _ in context.require_resume("stored"):  # warm-up: connections, and the code itself
        break
    before, size, first = resident_bytes(), 0, 0.0
    begin = time.perf_counter()
    for piece in context.require_resume("stored"):
        first = first or time.perf_counter() - begin
        size += len(piece)
    seconds = time.perf_counter() - begin
    if size != count * CHUNK_BYTES:
        raise AssertionError(f"{size} bytes came back")
    peak = max(0, resident_bytes(peak=True) - before)
    metrics = {"chunks_per_s": count / seconds, "first_byte_ms": first * 1e3, "peak_mib": peak / 2**20}
    return {"metrics": metrics, "sha256": sha256(context.require_resume("stored"))}
