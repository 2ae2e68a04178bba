"""What a viewer sees of a takeover: the gap between two chunks when the producing process is killed with -9 and
another one, which waits for it with `recover=`, goes on.

Every process produces a chunk each 10 ms. Redis learns of the death when the lease runs out, which takes the grace
time, here 2 s; SQLite by the lock that the process held.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from resumable_sync import ResumableStreamContext, current_producer

from .support import CHUNK_BYTES, Job, chunk, percentile

_GRACE = 2.0
_PACE = 0.01
_BETWEEN = 30  # chunks seen of a producer before it is killed


def gap(job: Job) -> dict[str, Any]:
    """The gaps of `kills` takeovers, as one viewer sees them."""
    store = job.open(grace=_GRACE)
    workers = [_start(job, first=True)]
    gaps: list[float] = []
    seen, since = b"", 0
    before = time.monotonic()
    with ResumableStreamContext(store) as context:
        workers.append(_start(job, first=False))
        for piece in context.require_resume("stream", wait=20):
            now = time.monotonic()
            seen += piece
            since += 1
            if since == 1:
                gaps.append((now - before) * 1e3)
            elif since > _BETWEEN and len(gaps) > job["kills"]:
                context.cancel("stream")
                break
            elif since > _BETWEEN:
                producing = int(str(store.info("stream").notes["pid"]))  # type: ignore[union-attr]
                os.kill(producing, signal.SIGKILL)
                next(each for each in workers if each.pid == producing).wait()
                workers.append(_start(job, first=False))
                since = 0
            before = now
    for worker in workers:
        worker.kill()
        worker.wait()
    store.close()
    if seen != b"".join(map(chunk, range(len(seen) // CHUNK_BYTES))):
        raise AssertionError("the viewer got other bytes than were sent")
    ordered = sorted(gaps[1:])
    return {"metrics": {"p50_ms": percentile(ordered, 0.5), "max_ms": ordered[-1], "grace_ms": _GRACE * 1e3}}


def worker(job: Job) -> dict[str, Any]:
    """Produces the stream, or waits until it may."""
    with ResumableStreamContext(job.open(grace=_GRACE), recover=lambda info: _source) as context:
        if job["first"]:
            context.start("stream", _source, handover=60)
        context.status("stream")  # the first call of a process has it look for streams to go on with
        job.say("begun")
        while True:
            time.sleep(60)  # until it is killed


def _source() -> Iterator[bytes]:
    producer = current_producer()
    number = producer.offset // CHUNK_BYTES
    producer.set_notes({"pid": str(os.getpid())})
    while True:
        yield chunk(number)
        number += 1
        time.sleep(_PACE)


def _start(job: Job, *, first: bool) -> subprocess.Popen[bytes]:
    arguments = json.dumps({**job.arguments, "first": first})
    command = [sys.executable, "-m", "benchmarks.programs", "takeover.worker", arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()  # it is there
    return process
