"""Viewers that are slow, many, or idle (G9, G10)."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from resumable_sync import ResumableStreamContext
from resumable_sync.stores.sqlite import SQLiteStore

from ...backends import Backend
from ...support import Process, wait_until
from .conftest import Report
from .rounds import rounds
from .source import text
from .test_kill import PROGRAMS

MEGABYTE = 1024 * 1024
SLOW_VIEWER_BYTES = 16 * MEGABYTE
"""What a slow viewer may hold: some pieces of 256 KiB, and SQLite's page cache."""

IDLE_DESCRIPTORS = 24
"""A SQLite store keeps up to 8 connections for the next readers, of 3 descriptors each."""


@rounds(1, 10)
def test_slow_viewer(rounds: int, path: Path, report: Report) -> None:
    """One byte a second beside a fast writer: the writer does not wait, the viewer's memory stays small."""
    megabytes = 200 if rounds > 1 else 30
    worst = most = 0.0
    for number in range(rounds):
        stream_id = f"slow-{number}"
        store = SQLiteStore(path)
        with Process(PROGRAMS, "flood", path, stream_id, megabytes) as writer:
            writer.until("acquired")
            with Process(PROGRAMS, "sip", path, stream_id) as viewer:
                before = int(viewer.until("sipping"))
                writer.say("go")
                took, slowest, held = writer.until("flooded", timeout=300).split()
                viewer.say_no_more()
                taken, after = map(int, viewer.until("sipped").split())
            # All went by while the viewer took a handful of bytes: nobody waited for it.
            assert taken < 300 and writer.wait() == 0
            assert after - before < SLOW_VIEWER_BYTES
            assert int(held) < 150 * MEGABYTE
        most = max(most, (after - before) / MEGABYTE)
        worst = max(worst, float(took))
        store.delete(stream_id)
        store.sweep()
        store.close()
    report(rounds=rounds, viewer_grew_by_megabytes=most, slowest_flood=worst)


def _census() -> tuple[int, int]:
    gc.collect()
    return threading.active_count(), len(os.listdir("/proc/self/fd"))


@rounds(300, 10_000)
def test_viewers_come_and_go(backend: Backend, rounds: int, report: Report) -> None:
    """Each reads a little of a running stream and leaves: threads and descriptors are back to the start."""
    store = backend.make()
    context = ResumableStreamContext(store)
    stop = threading.Event()

    def source() -> list[bytes]:
        return [text(0, 5000)]

    def silent() -> Iterator[bytes]:
        yield text(0, 5000)
        stop.wait(600)

    context.run("running", silent)
    context.run("ended", source)
    list(context.require_resume("ended"))
    next(context.require_resume("running"))

    def visit(number: int) -> None:
        start = context.require_resume("running" if number % 2 else "ended", "")
        assert next(start) == text(0, 5000)
        if number % 10 == 1:  # some wait for more, and are timed out by their server
            batches = context.batches("running", heartbeat=0.01)
            next(batches)
            assert not next(batches).data

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(visit, range(64)))
    threads, descriptors = _census()
    began = time.monotonic()
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(visit, range(rounds)))
    took = time.monotonic() - began

    def back() -> bool:
        now = _census()
        return now[0] <= threads and now[1] <= descriptors + IDLE_DESCRIPTORS

    wait_until(back, what="threads and descriptors back to the start")
    after = _census()
    stop.set()
    context.close()
    store.close()
    report(
        viewers=rounds,
        seconds=took,
        threads=f"{threads} to {after[0]}",
        descriptors=f"{descriptors} to {after[1]}",
    )


@rounds(50, 500)
def test_idle_viewers(backend: Backend, rounds: int, report: Report) -> None:
    """Parked viewers of a silent stream: what they cost is only reported; all of them wake."""
    store = backend.make()
    context = ResumableStreamContext(store)
    lease = store.acquire("silent")
    assert lease is not None
    store.append(lease, b"first")
    seen: list[bytes] = []
    at_work = threading.Barrier(rounds + 1)

    def view() -> None:
        pieces = context.require_resume("silent")
        first = next(pieces)
        at_work.wait(60)
        seen.append(first + b"".join(pieces))

    threads = [threading.Thread(target=view, daemon=True) for _ in range(rounds)]
    for thread in threads:
        thread.start()
    at_work.wait(60)
    cpu, began = time.process_time(), time.monotonic()
    for _ in range(2):
        threading.Event().wait(0.5)
        assert store.renew([lease]) == [None]
    cpu, took = time.process_time() - cpu, time.monotonic() - began
    store.append(lease, b" last")
    store.finalize(lease, "done")
    for thread in threads:
        thread.join(60)
    assert seen == [b"first last"] * rounds
    context.close()
    store.close()
    report(viewers=rounds, cpu_per_second=cpu / took)
