"""A worker of either edition, run as a script: `edition_worker.py EDITION URL PREFIX GRACE LOG SEED`.

Begins streams, follows, cancels and lists at random, and writes down what it did and saw. A line of its input: it
begins nothing more. The end of its input: it ends. Imports nothing but the library, so that edition 1 can run it.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import resumable_sync
from resumable_sync import (
    ProducerInterruptedError,
    ResumableStreamContext,
    StreamCancelledError,
    StreamFinalizedError,
    current_producer,
)

HANDOVER = 60.0


def text(stream_id: str, start: int, stop: int) -> bytes:
    """Bytes `start` to `stop` of what a stream is made of."""
    record = len(stream_id) + 8
    first, last = start // record, -(-stop // record)
    joined = "".join(f"{stream_id}:{number:06d};" for number in range(first, last)).encode()
    return joined[start - first * record : stop - first * record]


class Worker:
    def __init__(self, edition: str, url: str, prefix: str, grace: str, log: str, seed: str) -> None:
        assert (resumable_sync.__version__ == "0.1.0") == (edition == "old"), resumable_sync.__file__
        self._new = edition == "new"
        self._edition = edition
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._seed = seed
        self._grace = float(grace)
        options: dict[str, Any] = {"prefix": prefix} if prefix else {}
        self._store: Any = resumable_sync.open_store(url, grace=float(grace), **options)
        more: dict[str, Any] = {"recover": self._recover} if self._new else {}
        self._context: Any = ResumableStreamContext(
            self._store, heartbeat=float(grace) / 4, on_error=self._failed, **more
        )
        self._count = 0
        self._over = threading.Event()

    def note(self, kind: str, **values: object) -> None:
        event = {"kind": kind, "edition": self._edition, "pid": os.getpid(), "t": time.monotonic(), **values}
        os.write(self._log, (json.dumps(event) + "\n").encode())

    def run(self) -> None:
        threads = [threading.Thread(target=self._loop, args=(self._begin, 0.1))]
        threads += [threading.Thread(target=self._loop, args=(act, 0.02)) for act in (self._view, self._view)]
        threads += [
            threading.Thread(target=self._loop, args=(self._look, 0.1)),
            threading.Thread(target=self._pulse),
        ]
        for thread in threads:
            thread.start()
        print("ready", flush=True)
        sys.stdin.readline()
        self._over.set()
        for thread in threads:
            thread.join()
        print("over", flush=True)
        sys.stdin.read()
        self._context.close()
        self._store.close()

    def _loop(self, act: Callable[[random.Random], None], seconds: float) -> None:
        rng = random.Random(f"{self._seed} {act.__name__}")
        while not self._over.is_set():
            try:
                act(rng)
            except BaseException as error:
                self.note("fault", what=f"{act.__name__}: {error!r}")
            self._over.wait(rng.uniform(0, 2 * seconds))

    def _pulse(self) -> None:
        """Note whenever this process had to wait for its turn for so long that its leases may have run out."""
        while not self._over.is_set():
            began = time.monotonic()
            self._over.wait(0.1)
            if time.monotonic() - began > self._grace / 3:
                self.note("late")

    def _source(self, stream_id: str, size: int) -> Callable[[], Iterator[bytes]]:
        def make_stream() -> Iterator[bytes]:
            rng = random.Random()
            offset = current_producer().offset if self._new else 0
            while offset < size:
                length = min(rng.randint(1, 60), size - offset)
                yield text(stream_id, offset, offset + length)
                offset += length
                threading.Event().wait(rng.uniform(0, 0.04))

        return make_stream

    def _recover(self, info: Any) -> Callable[[], Iterator[bytes]]:
        return self._source(info.stream_id, int(info.metadata["size"]))

    def _failed(self, stream_id: str, error: BaseException) -> None:
        self.note("error", id=stream_id, error=type(error).__name__, status=str(getattr(error, "status", "")))

    def _begin(self, rng: random.Random) -> None:
        self._count += 1
        how = rng.choice(("handover", "handover", "plain", "shared")) if self._new else "plain"
        stream_id = f"{self._edition}-{how}-{os.getpid()}-{self._count}"
        size = rng.choice((100, 600, 1500))
        self.note("begun", id=stream_id, how=how, size=size)
        if how == "shared":
            try:
                writer = self._context.shared_writer(stream_id, "me", create=True)
                for offset in range(0, size, 50):
                    writer.write(text(stream_id, offset, offset + 50))
                    threading.Event().wait(rng.uniform(0, 0.04))
                writer.end()
            except StreamFinalizedError as error:
                self._failed(stream_id, error)
            return
        more = {"handover": HANDOVER} if how == "handover" else {}
        self._context.run(stream_id, self._source(stream_id, size), metadata={"size": str(size)}, **more)

    def _choose(self, rng: random.Random) -> Any:
        infos = list(self._store.streams())
        running = [info for info in infos if info.status == "streaming"]
        return rng.choice(running or infos) if infos else None

    def _view(self, rng: random.Random) -> None:
        info = self._choose(rng)
        if info is None:
            return
        stream_id, generation = info.stream_id, info.generation
        offset = rng.choice((0, rng.randint(0, info.size)))
        leaves = rng.random() < 0.3
        how = "done"
        try:
            for piece in self._context.require_resume(stream_id, f"{generation}-{offset}" if offset else ""):
                if piece != text(stream_id, offset, offset + len(piece)):
                    raise AssertionError(f"wrong bytes of {stream_id} behind {offset}")
                offset += len(piece)
                if self._over.is_set() or leaves and rng.random() < 0.1:
                    return
        except StreamCancelledError:
            how = "cancelled"
        except ProducerInterruptedError:
            how = "interrupted"
        self.note("ended", id=stream_id, how=how, size=offset)

    def _look(self, rng: random.Random) -> None:
        self._store.sweep()
        info = self._choose(rng)
        if info is not None and rng.random() < 0.2:
            self.note("cancel", id=info.stream_id)
            self._context.cancel(info.stream_id)


if __name__ == "__main__":
    Worker(*sys.argv[1:]).run()
