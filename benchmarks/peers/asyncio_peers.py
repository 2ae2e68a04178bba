"""The peers on PyPI, which are for asyncio: `python asyncio_peers.py PROGRAM JOB`, in an environment of their own.

The same programs, chunks and figures as benchmarks/programs, of which nothing can be imported here.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

WARM_UP_CHUNKS = 20

Source = Callable[[], AsyncIterator[Any]]


class Library:
    """A peer behind one face. `follow` returns an async iterator of bytes."""

    text = False  # whether it carries strings

    async def run(self, stream_id: str, source: Source) -> None:
        raise NotImplementedError

    async def follow(self, stream_id: str) -> AsyncIterator[bytes]:
        raise NotImplementedError

    async def ended(self, count: int) -> None:
        raise NotImplementedError


class AssistantStream(Library):
    """assistant_stream.resumable, on redis.asyncio or in memory."""

    def __init__(self, job: dict[str, Any]) -> None:
        from assistant_stream import resumable

        if job["store"] == "memory":
            store = resumable.create_in_memory_resumable_stream_store()
        else:
            import redis.asyncio

            client = redis.asyncio.Redis(unix_socket_path=job["redis"], max_connections=2000)
            store = resumable.create_redis_resumable_stream_store(client)
        self._tasks: list[Awaitable[None]] = []
        self._context = resumable.create_resumable_stream_context(store=store, wait_until=self._tasks.append)

    async def run(self, stream_id: str, source: Source) -> None:
        await self._context.run(stream_id, source)

    async def follow(self, stream_id: str) -> AsyncIterator[bytes]:
        found: AsyncIterator[bytes] = await self._context.require_resume(stream_id)
        return found

    async def ended(self, count: int) -> None:
        await asyncio.gather(*self._tasks)


class ResumableStream(Library):
    """resumable_stream: publishes to whoever listens and keeps the stream in the producer's memory."""

    text = True

    def __init__(self, job: dict[str, Any]) -> None:
        import resumable_stream

        url = f"unix://{job['redis']}"
        self._ends = [resumable_stream.RedisPublisher(url), resumable_stream.RedisSubscriber(url)]
        self._futures: list[Awaitable[None]] = []
        self._context = resumable_stream.create_resumable_stream_context(
            publisher=self._ends[0], subscriber=self._ends[1], wait_until=self._futures.append
        )

    async def run(self, stream_id: str, source: Source) -> None:
        for end in self._ends:
            await end.connect()
        await self._context.create_new_resumable_stream(stream_id, source)

    async def follow(self, stream_id: str) -> AsyncIterator[bytes]:
        pieces = await self._context.resume_existing_stream(stream_id)
        return (piece.encode() async for piece in pieces)

    async def ended(self, count: int) -> None:
        await asyncio.gather(*self._futures)


class ResumableSSE(Library):
    """resumable_sse: the first viewer starts the source."""

    text = True

    def __init__(self, job: dict[str, Any]) -> None:
        import redis.asyncio
        from resumable_sse.factory import get_streamer

        self._streamer = get_streamer("redis", redis.asyncio.Redis(unix_socket_path=job["redis"]))
        self._sources: dict[str, Source] = {}

    async def run(self, stream_id: str, source: Source) -> None:
        self._sources[stream_id] = source

    async def follow(self, stream_id: str) -> AsyncIterator[bytes]:
        events = self._streamer.stream(stream_id, self._sources[stream_id]())
        return (event["data"].encode() async for event in events if event["event"] == "message")

    async def ended(self, count: int) -> None:
        """The viewers' end is the only one there is."""


class FastAPIResumableStream(Library):
    """fastapi_resumable_stream: a list in Redis for each stream, five commands in turn for each chunk."""

    text = True

    def __init__(self, job: dict[str, Any]) -> None:
        import redis.asyncio
        from fastapi_resumable_stream import ResumableStream as Streams

        self._streams = Streams(redis.asyncio.Redis(unix_socket_path=job["redis"], max_connections=2000))

    async def run(self, stream_id: str, source: Source) -> None:
        await self._streams.start(stream_id, source)  # its viewer, which nobody follows, does nothing

    async def follow(self, stream_id: str) -> AsyncIterator[bytes]:
        pieces = await self._streams.resume(stream_id)
        assert pieces is not None
        return (piece.encode() async for piece in pieces)

    async def ended(self, count: int) -> None:
        """It names its producers' tasks, and gives no other sign of their end."""
        running = (task for task in asyncio.all_tasks() if task.get_name().startswith("fastapi-resumable-stream:"))
        await asyncio.gather(*running)


LIBRARIES = {
    "assistant-stream": AssistantStream,
    "resumable-stream": ResumableStream,
    "resumable-sse": ResumableSSE,
    "fastapi-resumable-stream": FastAPIResumableStream,
}


class Stamped:
    """A paced source whose chunks tell when they were made."""

    def __init__(self, job: dict[str, Any], text: bool, number: int) -> None:
        self._job = job
        self._delay = number / job["streams"] / job["rate"]  # out of step with the others
        self._text = text
        self.digest = hashlib.sha256()
        self.begin = asyncio.Event()

    async def __call__(self) -> AsyncIterator[Any]:
        await self.begin.wait()
        start = time.monotonic() + self._delay
        for number in range(self._job["chunks"]):
            early = start + number / self._job["rate"] - time.monotonic()
            if early > 0:
                await asyncio.sleep(early)
            made = b"%020d %042d\n" % (time.monotonic_ns(), number)
            self.digest.update(made)
            yield made.decode() if self._text else made


class Arrivals:
    """What a viewer got."""

    def __init__(self) -> None:
        self.latencies: list[int] = []
        self.digest = hashlib.sha256()

    async def follow(self, pieces: AsyncIterator[bytes]) -> None:
        async for piece in pieces:
            now = time.monotonic_ns()
            for begin in range(0, len(piece), 64):
                self.latencies.append(now - int(piece[begin : begin + 20]))
            self.digest.update(piece)


def latency_metrics(arrivals: list[Arrivals]) -> dict[str, float]:
    """As in benchmarks.programs.support."""
    found = sorted(ns / 1e6 for each in arrivals for ns in each.latencies[WARM_UP_CHUNKS:])
    return {
        "p50_ms": found[len(found) // 2],
        "p99_ms": found[min(len(found) - 1, int(0.99 * len(found)))],
        "max_ms": found[-1],
    }


async def list_source(made: list[bytes]) -> AsyncIterator[bytes]:
    for each in made:
        yield each


async def append(job: dict[str, Any], library: Library) -> dict[str, Any]:
    """Hot streams, up to the stored ending."""
    streams = job["streams"]
    made = [b"%063d\n" % number for number in range(job["chunks"] // streams)]
    await library.run("warm-up", lambda: list_source(made[:1000]))
    await library.ended(1)
    cpu, begin = time.process_time(), time.perf_counter()
    for number in range(streams):
        await library.run(f"hot-{number}", lambda: list_source(made))
    await library.ended(1 + streams)
    seconds = time.perf_counter() - begin
    metrics = {
        "chunks_per_s": streams * len(made) / seconds,
        "cpu_us_per_chunk": (time.process_time() - cpu) / (streams * len(made)) * 1e6,
    }
    return {"metrics": metrics, "sha256": await digest_of(library, f"hot-{streams - 1}")}


async def digest_of(library: Library, stream_id: str) -> str:
    """What is stored, hashed."""
    digest = hashlib.sha256()
    async for piece in await library.follow(stream_id):
        digest.update(piece)
    return digest.hexdigest()


async def tail(job: dict[str, Any], library: Library) -> dict[str, Any]:
    """One viewer for each stream, in this process."""
    sources = [Stamped(job, library.text, number) for number in range(job["streams"])]
    arrivals, followers = [], []
    for number, source in enumerate(sources):
        await library.run(f"live-{number}", source)
        for _ in range(job["viewers"]):
            arrived = Arrivals()
            arrivals.append(arrived)
            followers.append(asyncio.ensure_future(arrived.follow(await library.follow(f"live-{number}"))))
    await asyncio.sleep(0.2)  # there is no sign by which to see that they wait
    gc.collect()  # as benchmarks.programs.support.collect_garbage() does, and why
    cpu, begin = time.process_time(), time.monotonic()
    for source in sources:
        source.begin.set()
    await library.ended(len(sources))
    await asyncio.gather(*followers)
    metrics = {"cpu_s": time.process_time() - cpu, "seconds": time.monotonic() - begin}
    metrics["cpu_us_per_delivery"] = metrics["cpu_s"] / (len(arrivals) * job["chunks"]) * 1e6
    for place, arrived in enumerate(arrivals):
        if arrived.digest.digest() != sources[place // job["viewers"]].digest.digest():
            raise AssertionError("a viewer got other bytes than were sent")
    return {"metrics": metrics | latency_metrics(arrivals)}


async def replay(job: dict[str, Any], library: Library) -> dict[str, Any]:
    """Stores a stream, then reads it back in the same process."""
    made = [b"%063d\n" % number for number in range(job["chunks"])]
    await library.run("stored", lambda: list_source(made))
    await library.ended(1)
    begin, first, count = time.perf_counter(), 0.0, 0
    async for piece in await library.follow("stored"):
        first = first or time.perf_counter() - begin
        count += len(piece)
    seconds = time.perf_counter() - begin
    metrics = {"chunks_per_s": count / 64 / seconds, "first_byte_ms": first * 1e3}
    return {"metrics": metrics, "sha256": await digest_of(library, "stored")}


async def main() -> None:
    """Run one program; its result is the last line."""
    job = json.loads(sys.argv[2])
    programs = {"append": append, "tail": tail, "replay": replay}
    result = await programs[sys.argv[1]](job, LIBRARIES[job["library"]](job))
    print(json.dumps(result), flush=True)


asyncio.run(main())
