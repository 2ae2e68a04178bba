"""Bytes that SQLite writes to the disk for each byte that is stored.

Of /proc/self/io: `write_bytes` counts pages of the cache as they become dirty, so the log and the checkpoints of
this process are in it, whether or not they have reached the disk. A file system in memory counts nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from .support import CHUNK_BYTES, Job, Produced, chunk


def write_amplification(job: Job) -> dict[str, Any]:
    """`streams` of `chunks` each at `rate` a second; a rate of 0: as fast as they are taken."""
    way = job["ways"][job["quick"]]
    streams, count, rate = way["streams"], way["chunks"], way["rate"]
    store = job.open()
    produced = Produced(store)

    def source(number: int) -> Iterator[bytes]:
        begin = time.monotonic() + (number / streams / rate if rate else 0)
        for each in range(count):
            early = begin + each / rate - time.monotonic() if rate else 0
            if early > 0:
                time.sleep(early)
            yield chunk(each)

    before = _written()
    for number in range(streams):
        produced.context.start(f"s-{number}", lambda number=number: source(number))  # type: ignore[misc]
    produced.wait(streams)
    stored = streams * count * CHUNK_BYTES
    metrics = {"written_per_byte": (_written() - before) / stored}
    store.close()
    return {"metrics": metrics}


def _written() -> int:
    with open("/proc/self/io", encoding="ascii") as counters:
        return next(int(line.split()[1]) for line in counters if line.startswith("write_bytes:"))
