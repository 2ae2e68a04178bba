"""What the measured programs share: the job, the chunks, the figures."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from resumable_sync import ResumableStreamContext
from resumable_sync.stores import open_store
from resumable_sync.types import Store

CHUNK_BYTES = 64
WARM_UP_CHUNKS = 20  # of a stamped stream, whose latencies are not counted
RANDOM_SEED = 5

Metrics = dict[str, float]


class Job:
    """What the benchmark asked of this process, and its line to it."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        self.arguments = arguments
        self.directory: str = arguments["directory"]
        self.redis: str = arguments["redis"]  # the path of the server's socket

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def open(self, **options: Any) -> Store:
        """The store that is measured."""
        kind = self["store"]
        if kind == "memory":
            return open_store("memory://", **{"max_streams": 1_000_000, **options})
        if kind == "sqlite":
            return open_store(f"sqlite:///{self.directory}/streams.db", **options)
        return open_store(f"unix://{self.redis}", **options)

    def say(self, event: str) -> None:
        """Tell the benchmark how far this process is."""
        print(json.dumps({"event": event}), flush=True)

    def wait(self) -> None:
        """Wait until the benchmark says to go on."""
        sys.stdin.readline()


def chunk(number: int) -> bytes:
    """The chunk of this number: 64 bytes of ASCII, the same for everybody."""
    return b"%063d\n" % number


def chunks(count: int) -> list[bytes]:
    """The first `count` chunks, made before the clock starts."""
    return [chunk(number) for number in range(count)]


def sha256(pieces: Iterable[bytes]) -> str:
    """The digest of all pieces."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


class Stamped:
    """A paced source: `rate` chunks a second, each with the time when it was made. Pacing is its only wait.

    The pace is kept from the start on, so a source that was held up catches up. `greet`: the first chunk is made
    at once, so that a viewer that has it is known to be there. `delay`: seconds by which the first one is late.
    """

    def __init__(self, count: int, rate: float, *, greet: bool = False, delay: float = 0.0) -> None:
        self._count = count
        self._delay = delay
        self._greet = greet
        self._rate = rate
        self._digest = hashlib.sha256()
        self.begin = threading.Event()  # no chunk is made before it is set

    def __call__(self) -> Iterator[bytes]:
        first = 0
        if self._greet:
            yield self._make(0)
            first = 1
        self.begin.wait()
        start = time.monotonic() + self._delay - first / self._rate
        for number in range(first, self._count):
            early = start + number / self._rate - time.monotonic()
            if early > 0:
                time.sleep(early)
            yield self._make(number)

    def _make(self, number: int) -> bytes:
        made = b"%020d %042d\n" % (time.monotonic_ns(), number)
        self._digest.update(made)
        return made

    @property
    def sha256(self) -> str:
        """The digest of all that was made."""
        return self._digest.hexdigest()


def independent(streams: int, count: int, rate: float) -> list[Stamped]:
    """A source for each of many streams, out of step: their chunks come evenly spread over time."""
    return [Stamped(count, rate, delay=number / streams / rate) for number in range(streams)]


class Arrivals:
    """What a viewer got of a stamped stream: the latency of each chunk in ns, and the digest of all."""

    def __init__(self) -> None:
        self.latencies: list[int] = []
        self._digest = hashlib.sha256()

    def follow(self, pieces: Iterable[bytes]) -> None:
        """Take pieces until the stream's end. They may hold several chunks, but whole ones."""
        for piece in pieces:
            now = time.monotonic_ns()
            for begin in range(0, len(piece), CHUNK_BYTES):
                self.latencies.append(now - int(piece[begin : begin + 20]))
            self._digest.update(piece)

    @property
    def sha256(self) -> str:
        """The digest of all that arrived."""
        return self._digest.hexdigest()


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value that `share` of the ordered values do not exceed."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def latency_metrics(arrivals: Iterable[Arrivals]) -> Metrics:
    """p50, p99 and the worst of all viewers' latencies together, in ms, without the warm-up."""
    found = sorted(ns / 1e6 for each in arrivals for ns in each.latencies[WARM_UP_CHUNKS:])
    return {"p50_ms": percentile(found, 0.5), "p99_ms": percentile(found, 0.99), "max_ms": found[-1]}


def check_arrivals(sources: Sequence[Stamped], arrivals: Sequence[Arrivals]) -> str:
    """One digest for all; raises where a viewer got other bytes than its source made."""
    for source, arrived in zip(sources, arrivals, strict=True):
        if source.sha256 != arrived.sha256:
            raise AssertionError("a viewer got other bytes than were sent")
    return sha256(source.sha256.encode() for source in sources)


def start_threads(targets: Iterable[Callable[[], object]]) -> list[threading.Thread]:
    """A running daemon thread for each target."""
    threads = [threading.Thread(target=target, daemon=True) for target in targets]
    for thread in threads:
        thread.start()
    return threads


def collect_garbage() -> None:
    """Collect that of all that went before the measurement. A full collection holds up all threads for tens of ms,
    and whether one would fall into a run of 3 s hangs on how many modules were imported: it decided the p99."""
    gc.collect()


def resident_bytes(peak: bool = False) -> int:
    """Memory of this process in RAM, now or at its highest."""
    label = "VmHWM:" if peak else "VmRSS:"
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(label))


class RedisMeter:
    """CPU seconds, commands (those inside scripts too), and connections of the Redis server, since this was made.

    Its own are taken off."""

    def __init__(self, path: str) -> None:
        import redis

        self._client = redis.Redis(unix_socket_path=path)
        self._before = self._look()

    def _look(self) -> dict[str, Any]:
        return dict(self._client.info("all"))

    def metrics(self) -> Metrics:
        """The figures up to now."""
        after, before = self._look(), self._before
        return {
            "redis_cpu_s": sum(after[name] - before[name] for name in ("used_cpu_user", "used_cpu_sys")),
            "redis_commands": after["total_commands_processed"] - before["total_commands_processed"] - 1,
            "connections": after["connected_clients"] - 1,
        }


class Produced:
    """A context whose finished producers can be awaited."""

    def __init__(self, store: Store, **options: Any) -> None:
        self._ended = threading.Semaphore(0)
        self.context = ResumableStreamContext(store, on_finalize=self._finish, **options)

    def _finish(self, stream_id: str, status: object, error: object) -> None:
        self._ended.release()

    def wait(self, streams: int = 1) -> None:
        """Wait until so many streams have ended, all of them well or not."""
        for _ in range(streams):
            if not self._ended.acquire(timeout=120):
                raise TimeoutError("a stream did not end")


def fresh_path(job: Job, name: str) -> str:
    """A path for a file of this process alone."""
    return os.path.join(job.directory, f"{name}-{os.getpid()}")
