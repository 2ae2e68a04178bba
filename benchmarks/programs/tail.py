"""Latency of live chunks: from when the source made one to when the viewer's generator returned it.

The time is in the chunk itself (CLOCK_MONOTONIC, which all processes share). Sources are paced, idle in
between, and out of step with one another. Not measured: a network, and what a web server adds.
"""

from __future__ import annotations

import functools
import time
from typing import Any

from resumable_sync import ResumableStreamContext

from .support import (
    Arrivals,
    Job,
    Produced,
    RedisMeter,
    check_arrivals,
    collect_garbage,
    independent,
    latency_metrics,
    sha256,
    start_threads,
)


def one_process(job: Job) -> dict[str, Any]:
    """`streams` streams with `viewers` viewers each; all in this process."""
    store = job.open()
    produced = Produced(store)
    sources = independent(job["streams"], job["chunks"], job["rate"])
    viewed = [source for source in sources for _ in range(job["viewers"])]
    arrivals = [Arrivals() for _ in viewed]
    for number, source in enumerate(sources):
        produced.context.run(f"live-{number}", source)
    threads = start_threads(
        functools.partial(_view, produced.context, sources.index(source), arrived)
        for source, arrived in zip(viewed, arrivals)
    )
    collect_garbage()
    meter = RedisMeter(job.redis) if job["store"] == "redis" else None
    cpu, begin = time.process_time(), time.monotonic()
    for source in sources:
        source.begin.set()
    produced.wait(len(sources))
    for thread in threads:
        thread.join()
    metrics = {"cpu_s": time.process_time() - cpu, "seconds": time.monotonic() - begin}
    if meter is not None:
        metrics |= meter.metrics()
        metrics["commands_per_chunk"] = metrics["redis_commands"] / (len(sources) * job["chunks"])
    metrics["cpu_us_per_delivery"] = metrics["cpu_s"] / (len(viewed) * job["chunks"]) * 1e6
    metrics |= latency_metrics(arrivals)
    digest = check_arrivals(viewed, arrivals)
    store.close()
    return {"metrics": metrics, "delivered": digest}


def producer(job: Job) -> dict[str, Any]:
    """The producing half of a pair of processes."""
    store = job.open()
    produced = Produced(store)
    sources = independent(job["streams"], job["chunks"], job["rate"])
    for number, source in enumerate(sources):
        produced.context.run(f"live-{number}", source)
    collect_garbage()
    job.say("begun")
    job.wait()
    cpu = time.process_time()
    for source in sources:
        source.begin.set()
    produced.wait(len(sources))
    metrics = {"producer_cpu_s": time.process_time() - cpu}
    store.close()
    return {"metrics": metrics, "sha256": sha256(source.sha256.encode() for source in sources)}


def viewer(job: Job) -> dict[str, Any]:
    """The viewing half: `viewers` of each stream."""
    store = job.open()
    context = ResumableStreamContext(store)
    arrivals = [Arrivals() for _ in range(job["streams"] * job["viewers"])]
    threads = start_threads(
        functools.partial(_view, context, number % job["streams"], arrived)
        for number, arrived in enumerate(arrivals)
    )
    collect_garbage()
    meter = RedisMeter(job.redis) if job["store"] == "redis" else None
    cpu = time.process_time()
    job.say("ready")
    for thread in threads:
        thread.join()
    metrics = {"cpu_s": time.process_time() - cpu}
    if meter is not None:
        metrics |= meter.metrics()
    metrics |= latency_metrics(arrivals)
    metrics["cpu_us_per_delivery"] = metrics["cpu_s"] / (len(arrivals) * job["chunks"]) * 1e6
    store.close()
    seen = [arrived.sha256 for arrived in arrivals]
    if seen != seen[: job["streams"]] * job["viewers"]:
        raise AssertionError("the viewers of a stream got different bytes")
    return {"metrics": metrics, "sha256": sha256(each.encode() for each in seen[: job["streams"]])}


def _view(context: ResumableStreamContext, number: int, arrived: Arrivals) -> None:
    arrived.follow(context.require_resume(f"live-{number}"))
