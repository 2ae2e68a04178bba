"""Programs of the tests with takeovers and shared streams, on any store that has a URL.

`python -m tests.stores.faults.takeover_programs NAME URL ARGUMENT…`.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from resumable_sync import (
    Lease,
    ResumableStreamContext,
    ResumableStreamError,
    StoreUnavailableError,
    StreamInfo,
    current_producer,
    open_store,
)
from resumable_sync.shared_writer import SharedWriter

from .programs import pause, say

RECORD = 23
"""Bytes of one record of `contend`."""


def record(token: str, number: int) -> bytes:
    """The `number`th of a term: it tells whose it is."""
    return f"{token}{number:06d}\n".encode()


def write_line(path: str, line: str) -> None:
    """Add a line, whole, at once: what was written before a kill stays."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, (line + "\n").encode())
    finally:
        os.close(file)


def crash(url: str, stream_id: str, grace: str, log: str, stored: str) -> None:
    """Recover streams whose job kills its process, the first one after `stored` chunks. A line of stdin begins."""
    store = open_store(url, grace=float(grace))
    context: ResumableStreamContext

    def job() -> Iterator[bytes]:
        write_line(log, str(os.getpid()))
        for number in range(current_producer().offset, int(stored)):
            yield b"x"
            while store.read(stream_id).size <= number:
                pause(0.005)
        os.kill(os.getpid(), signal.SIGKILL)

    context = ResumableStreamContext(store, heartbeat=float(grace) / 4, recover=lambda info: job)
    context.status(stream_id)
    say("ready")
    for _ in sys.stdin:
        context.start(stream_id, job, handover=60)
    context.close()
    store.close()


def share(url: str, stream_id: str, grace: str, *names: str) -> None:
    """Fenced writers of a shared stream, each in a thread, until stdin closes. Says what each has stored."""
    store = open_store(url, grace=float(grace))
    over = threading.Event()

    def write(name: str) -> None:
        with ResumableStreamContext(store) as context:
            rng = random.Random()
            out: SharedWriter | None = None
            chunks: list[bytes] = []
            try:
                while not over.is_set() or chunks:
                    try:
                        if out is None:
                            out = context.shared_writer(stream_id, name, create=True)
                            chunks = []
                            say("began", name, out.count)
                        # After an error: what was given up, which may have been stored.
                        chunks = chunks or [
                            b"%s:%d\n" % (name.encode(), out.count + each) for each in range(rng.choice((1, 1, 3)))
                        ]
                        out.write(*chunks)
                        chunks = []
                        pause(0.001)
                    except StoreUnavailableError as error:
                        say("unavailable", name, error)
                        if rng.random() < 0.3:
                            out, chunks = None, []  # as a worker that is started again
                assert out is not None
                say("count", name, out.count)
            except BaseException as error:
                say("failed", name, repr(error))
                raise

    threads = [threading.Thread(target=write, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    over.set()
    for thread in threads:
        thread.join()
    store.close()


class _Contender:
    """One thread of `contend`: does something at random, again and again, and writes down what came of it."""

    def __init__(self, url: str, grace: float, log: str, ids: list[str], seed: str) -> None:
        self._store: Any = open_store(url, grace=grace)
        self._grace = grace
        self._log = log
        self._ids = ids
        self._random = random.Random(seed)

    def run(self, over: threading.Event) -> None:
        acts = (self._produce, self._take_over, self._read, self._cancel, self._delete, self._orphans)
        while not over.is_set():
            stream_id = self._random.choice(self._ids)
            act: Callable[[str], None] = self._random.choices(acts, (6, 6, 6, 1, 1, 3))[0]
            with contextlib.suppress(StoreUnavailableError):
                act(stream_id)
            pause(self._random.choice((0, 0, 0.002, 0.02)))

    def _note(self, kind: str, began: float, **values: object) -> None:
        event = {"kind": kind, "pid": os.getpid(), "t0": began, "t1": time.monotonic(), **values}
        write_line(self._log, json.dumps(event))

    def _read(self, stream_id: str) -> None:
        began = time.monotonic()
        try:
            batch = self._store.read(stream_id, max_bytes=1 << 20)
        except StoreUnavailableError:
            raise
        except ResumableStreamError:
            return
        self._note(
            "read",
            began,
            id=stream_id,
            g=batch.generation,
            data=batch.data.decode(),
            status=str(batch.status),
            whole=batch.offset == batch.size,
        )

    def _cancel(self, stream_id: str) -> None:
        info = self._store.info(stream_id)
        began = time.monotonic()
        if info is not None and self._store.cancel(stream_id):
            found = self._store.info(stream_id)
            if found is not None and found.generation == info.generation:  # no other one was cancelled
                self._note("cancel", began, id=stream_id, g=info.generation)

    def _delete(self, stream_id: str) -> None:
        self._store.delete(stream_id)

    def _orphans(self, stream_id: str) -> None:
        for orphan in self._store.orphans():
            if orphan in self._ids:
                self._take_over(orphan)

    def _produce(self, stream_id: str) -> None:
        began = time.monotonic()
        lease = self._store.acquire(
            stream_id,
            ttl=self._random.choice((0.5, 60.0, 60.0)),
            handover=self._random.choice((0.0, 0.3, 5.0, 5.0)),
            restart=self._random.choice((set(), {"done", "error", "cancelled", "interrupted"})),
        )
        self._won(began, lease)

    def _take_over(self, stream_id: str) -> None:
        info: StreamInfo | None = self._store.info(stream_id)
        if info is not None:
            began = time.monotonic()
            self._won(began, self._store.take_over(stream_id, info.generation))

    def _won(self, began: float, lease: Lease | None) -> None:
        if lease is None:
            return
        self._note(
            "won",
            began,
            id=lease.stream_id,
            g=lease.generation,
            term=lease.term,
            token=lease.token,
            offset=lease.offset,
            handover=lease.handover,
        )
        number = 0
        for _ in range(self._random.choice((0, 1, 5, 20))):
            count = self._random.choice((1, 1, 2))
            records = [record(lease.token, number + each) for each in range(count)]
            if not self._call("append", lease, lambda: self._store.append(lease, *records), number, count):
                break
            number += count
            pause(self._random.choice((0, 0, 0.01, self._grace * 1.5)))
        way = self._random.choice(("finalize", "release", "release", "leave", "leave"))
        if way == "finalize":
            status = self._random.choice(("done", "error", "interrupted"))
            self._call(way, lease, lambda: self._store.finalize(lease, status, "why"), status=status)
        elif way == "release":
            self._call(way, lease, lambda: self._store.release(lease))
            if self._random.random() < 0.5:
                records = [record(lease.token, number)]
                self._call("late", lease, lambda: self._store.append(lease, *records), number, 1)

    def _call(
        self,
        kind: str,
        lease: Lease,
        call: Callable[[], object],
        number: int = 0,
        count: int = 0,
        status: str = "",
    ) -> bool:
        """Made again after a lost reply, as a producer does. Whether it was answered well."""
        began = time.monotonic()
        result = "unknown"
        attempts = 0
        while result == "unknown" and attempts < 4:
            attempts += 1
            try:
                call()
                result = "ok"
            except StoreUnavailableError:
                pause(0.02)
            except ResumableStreamError as error:
                result = type(error).__name__
        self._note(
            kind,
            began,
            id=lease.stream_id,
            g=lease.generation,
            term=lease.term,
            token=lease.token,
            offset=lease.offset,
            first=number,
            count=count,
            status=status,
            result=result,
            attempts=attempts,
        )
        return result == "ok"


def contend(url: str, grace: str, log: str, seed: str, threads: str, *ids: str) -> None:
    """Do everything with these streams at once, until a line of stdin; live on until stdin closes."""
    over = threading.Event()
    # Kept to the end: a store that nobody holds any more lets go of what it produces.
    contenders = [_Contender(url, float(grace), log, list(ids), f"{seed} {each}") for each in range(int(threads))]
    running = [threading.Thread(target=contender.run, args=(over,)) for contender in contenders]
    for thread in running:
        thread.start()
    say("ready")
    sys.stdin.readline()
    over.set()
    for thread in running:
        thread.join()
    say("over")
    sys.stdin.read()  # while others still take over, an exit would prove a death to them
    os._exit(0)  # nothing is to end or to release what is left


if __name__ == "__main__":
    programs: dict[str, Callable[..., None]] = {"crash": crash, "share": share, "contend": contend}
    programs[sys.argv[1]](*sys.argv[2:])
