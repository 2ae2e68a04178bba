"""The scenarios: who competes, and with how much work."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from resumable_sync.assistant.formats.registry import FORMATS

from .runner import Contestant, Scenario

STORES = ("memory", "sqlite", "redis")


def _ours(program: str | tuple[str, ...], stores: Sequence[str] = STORES, **arguments: Any) -> list[Contestant]:
    programs = (program,) if isinstance(program, str) else program
    return [
        Contestant(f"ours {store}", programs, {"store": store, **arguments}, needs_redis=store == "redis")
        for store in stores
    ]


def _floor(name: str, program: str, *, redis: bool = False, **arguments: Any) -> Contestant:
    return Contestant(f"floor: {name}", (f"floors.{program}",), arguments, "floor", redis)


def _node(program: str | tuple[str, ...], *names: str) -> list[Contestant]:
    programs = (program,) if isinstance(program, str) else program
    known = {
        "memory": ("npm assistant-stream, in memory", {"library": "assistant-stream", "store": "memory"}),
        "ioredis": ("npm assistant-stream, ioredis", {"library": "assistant-stream", "store": "ioredis"}),
        "redis": ("npm assistant-stream, node-redis", {"library": "assistant-stream", "store": "redis"}),
        "pubsub": ("npm resumable-stream", {"library": "resumable-stream", "store": "ioredis"}),
    }
    return [
        Contestant(known[name][0], programs, known[name][1], "node", needs_redis=name != "memory")
        for name in names
    ]


def _python(program: str | tuple[str, ...], *names: str) -> list[Contestant]:
    programs = (program,) if isinstance(program, str) else program
    known = {
        "assistant": ("PyPI assistant-stream", {"library": "assistant-stream", "store": "redis"}),
        "assistant-memory": (
            "PyPI assistant-stream, in memory",
            {"library": "assistant-stream", "store": "memory"},
        ),
        "pubsub": ("PyPI resumable-stream", {"library": "resumable-stream", "store": "redis"}),
        "sse": ("PyPI resumable-sse", {"library": "resumable-sse", "store": "redis"}),
        "fastapi": (
            "PyPI fastapi-resumable-stream",
            {"library": "fastapi-resumable-stream", "store": "redis"},
        ),
    }
    return [
        Contestant(known[name][0], programs, known[name][1], "python", needs_redis=name != "assistant-memory")
        for name in names
    ]


_ALL_NODE = ("memory", "ioredis", "redis")
_PAIR = ("tail.producer", "tail.viewer")


def _fan_out(viewers: int) -> Scenario:
    return Scenario(
        f"fan-out-{viewers}",
        f"Latency of 20 chunks a second for {viewers} viewers of one stream, one process",
        [
            *_ours("tail.one_process"),
            _floor("Condition wake", "condition_wake"),
            *_node("tail", "ioredis", "pubsub"),
        ],
        {"streams": 1, "viewers": viewers, "chunks": 60, "rate": 20},
        {"streams": 1, "viewers": min(viewers, 50), "chunks": 25, "rate": 100},
        rounds=2,
        comparable=False,
        headline=("p50_ms", "p99_ms", "cpu_us_per_delivery", "commands_per_chunk", "connections"),
    )


def _replay(name: str, title: str, chunks: int, rounds: int, *more: Contestant, stores: Sequence[str]) -> Scenario:
    return Scenario(
        name,
        title,
        [
            *_ours("replay.one_process", ("memory",), singly=False),
            *_ours(("replay.fill", "replay.read"), ("sqlite", "redis"), singly=False),
            *(
                Contestant(
                    f"ours {store}, a row for each chunk",
                    ("replay.fill", "replay.read"),
                    {"store": store, "singly": True},
                    needs_redis=store == "redis",
                )
                for store in stores
            ),
            _floor("XRANGE by 1000, a row for each chunk", "redis_xrange", redis=True),
            _floor("SQLite pages of 1000", "sqlite_pages"),
            *more,
        ],
        {"chunks": chunks},
        {"chunks": min(chunks, 10_000) // 5},
        rounds=rounds,
        headline=("chunks_per_s", "first_byte_ms", "peak_mib"),
    )


def _fan_out_across(viewers: int) -> Scenario:
    return Scenario(
        f"fan-out-across-{viewers}",
        f"Latency of 20 chunks a second for {viewers} viewers of one stream, in another process than its producer",
        _ours(_PAIR, ("sqlite", "redis")),
        {"streams": 1, "viewers": viewers, "chunks": 60, "rate": 20},
        {"streams": 1, "viewers": min(viewers, 50), "chunks": 25, "rate": 100},
        rounds=2,
        comparable=False,
        headline=("p50_ms", "p99_ms", "cpu_us_per_delivery"),
    )


def _gevent_viewers(viewers: int) -> Scenario:
    return Scenario(
        f"gevent-viewers-{viewers}",
        f"{viewers:,} viewers of one stream at 10 chunks a second, over HTTP, in one gevent worker on one core",
        [replace(each, needs="gevent") for each in _ours("gevent_viewers.serve")],
        {"viewers": viewers, "chunks": 60, "rate": 10},
        {"viewers": min(viewers, 50), "chunks": 25, "rate": 20},
        rounds=1,
        comparable=False,
        headline=("p50_ms", "p99_ms", "max_ms", "cpu_us_per_delivery", "kib_per_viewer"),
    )


def _distant(distance: float) -> list[Scenario]:
    """What goes to Redis and back, with a relay between that adds so many ms to each round trip."""
    title, at = f"at {distance:g} ms of distance from Redis", {"distance_ms": distance}
    return [
        Scenario(
            f"append-at-{distance:g}-ms",
            f"One hot stream, {title}",
            [
                *_ours("append.hot", ("redis",)),
                _floor("one script call with 100 chunks", "redis_script", redis=True, batch=100),
                *_node("append", "ioredis"),
                *_python("append", "assistant", "fastapi"),
            ],
            {"streams": 1, "chunks": 2_000, **at},
            {"streams": 1, "chunks": 200, **at},
            headline=("chunks_per_s", "cpu_us_per_chunk"),
        ),
        Scenario(
            f"append-acknowledged-at-{distance:g}-ms",
            f"One hot stream, each chunk acknowledged before the next, {title}",
            [
                *_ours("append.acknowledged", ("redis",)),
                _floor("redis-py evalsha(), one XADD", "redis_script", redis=True, batch=1),
            ],
            {"streams": 1, "chunks": 500, **at},
            {"streams": 1, "chunks": 50, **at},
            rounds=2,
            headline=("chunks_per_s",),
        ),
        Scenario(
            f"tail-at-{distance:g}-ms",
            f"Latency of live chunks, 50 a second, one viewer, {title}",
            [
                *_ours("tail.one_process", ("redis",)),
                _floor("XREAD wake", "xread_wake", redis=True),
                *_node("tail", "ioredis", "pubsub"),
            ],
            {"streams": 1, "viewers": 1, "chunks": 150, "rate": 50, **at},
            {"streams": 1, "viewers": 1, "chunks": 40, "rate": 100, **at},
            rounds=2,
            comparable=False,
            headline=("p50_ms", "p99_ms"),
        ),
        Scenario(
            f"many-streams-at-{distance:g}-ms",
            f"100 streams at 50 chunks a second each, a viewer each, {title}",
            [*_ours("tail.one_process", ("redis",)), *_node("tail", "ioredis")],
            {"streams": 100, "viewers": 1, "chunks": 100, "rate": 50, **at},
            {"streams": 10, "viewers": 1, "chunks": 30, "rate": 50, **at},
            rounds=2,
            comparable=False,
            headline=("p50_ms", "p99_ms", "cpu_s", "connections"),
        ),
    ]


def _write_amplification() -> Scenario:
    ways = {
        "100 live streams": (
            {"streams": 100, "chunks": 200, "rate": 50},
            {"streams": 10, "chunks": 20, "rate": 50},
        ),
        "one slow stream": ({"streams": 1, "chunks": 200, "rate": 50}, {"streams": 1, "chunks": 20, "rate": 50}),
        "one hot stream": (
            {"streams": 1, "chunks": 200_000, "rate": 0},
            {"streams": 1, "chunks": 2_000, "rate": 0},
        ),
    }
    return Scenario(
        "write-amplification",
        "Bytes that SQLite writes to the disk for each byte of 64-byte chunks",
        [
            Contestant(
                f"ours sqlite, {name}", ("disk.write_amplification",), {"store": "sqlite", "ways": ways[name]}
            )
            for name in ways
        ],
        {"quick": False},
        {"quick": True},
        rounds=2,
        comparable=False,
        headline=("written_per_byte",),
    )


_STARTS = {
    "floor: python -c pass": ["-c", "pass"],
    "floor: import flask": ["-c", "import flask"],
    "ours import resumable_sync": ["-c", "import resumable_sync"],
    "ours import resumable_sync.wsgi": ["-c", "import resumable_sync.wsgi"],
    "ours command line, --version": ["-m", "resumable_sync", "--version"],
    "ours command line, ls": ["-m", "resumable_sync", "ls"],
}

SCENARIOS = [
    Scenario(
        "append",
        "One hot stream, as far ahead of the store as by default",
        [
            *_ours("append.hot"),
            _floor("one script call with 100 chunks", "redis_script", redis=True, batch=100),
            _floor("SQLite rows, 100 a commit", "sqlite_rows"),
            *_node("append", *_ALL_NODE),
            *_python("append", "assistant", "fastapi", "assistant-memory"),
        ],
        {"streams": 1, "chunks": 20_000},
        {"streams": 1, "chunks": 2_000},
        headline=("chunks_per_s", "cpu_us_per_chunk"),
    ),
    Scenario(
        "append-acknowledged",
        "One hot stream, each chunk acknowledged before the next",
        [
            *_ours("append.acknowledged"),
            _floor("redis-py evalsha(), the same script", "redis_same_script", redis=True, store="redis"),
            _floor("redis-py evalsha(), one XADD", "redis_script", redis=True, batch=1),
            *_node("append", "ioredis", "redis"),
            *_python("append", "assistant", "fastapi"),
        ],
        {"streams": 1, "chunks": 10_000},
        {"streams": 1, "chunks": 1_000},
        headline=("chunks_per_s", "cpu_us_per_chunk"),
    ),
    Scenario(
        "hot-streams",
        "100 hot streams together",
        [*_ours("append.hot"), *_node("append", *_ALL_NODE), *_python("append", "assistant", "fastapi")],
        {"streams": 100, "chunks": 20_000},
        {"streams": 100, "chunks": 2_000},
        headline=("chunks_per_s", "cpu_us_per_chunk"),
    ),
    Scenario(
        "tail",
        "Latency of live chunks, 100 a second, one viewer, one process",
        [
            *_ours("tail.one_process"),
            _floor("Condition wake", "condition_wake"),
            _floor("XREAD wake", "xread_wake", redis=True),
            *_node("tail", "memory", "ioredis", "pubsub"),
            *_python("tail", "assistant", "pubsub", "sse", "fastapi"),
        ],
        {"streams": 1, "viewers": 1, "chunks": 300, "rate": 100},
        {"streams": 1, "viewers": 1, "chunks": 40, "rate": 200},
        comparable=False,
        headline=("p50_ms", "p99_ms"),
    ),
    Scenario(
        "tail-across",
        "Latency of live chunks, 100 a second, producer and viewer in two processes",
        [*_ours(_PAIR, ("sqlite", "redis")), *_node(("producer", "viewer"), "ioredis", "pubsub")],
        {"streams": 1, "viewers": 1, "chunks": 300, "rate": 100},
        {"streams": 1, "viewers": 1, "chunks": 40, "rate": 200},
        comparable=False,
        headline=("p50_ms", "p99_ms"),
    ),
    Scenario(
        "many-streams",
        "100 streams at 50 chunks a second each, a viewer each, one process",
        [
            *_ours("tail.one_process"),
            _floor("Condition wake", "condition_wake"),
            *_node("tail", "memory", "ioredis", "redis"),
            *_python("tail", "assistant", "fastapi"),
        ],
        {"streams": 100, "viewers": 1, "chunks": 150, "rate": 50},
        {"streams": 20, "viewers": 1, "chunks": 30, "rate": 50},
        rounds=2,
        comparable=False,
        headline=("p50_ms", "p99_ms", "cpu_s", "redis_cpu_s", "connections"),
    ),
    Scenario(
        "many-streams-across",
        "100 streams at 50 chunks a second each, producers in one process and a viewer each in another",
        [*_ours(_PAIR, ("sqlite", "redis")), *_node(("producer", "viewer"), "ioredis", "redis")],
        {"streams": 100, "viewers": 1, "chunks": 150, "rate": 50},
        {"streams": 20, "viewers": 1, "chunks": 30, "rate": 50},
        rounds=2,
        comparable=False,
        headline=("p50_ms", "p99_ms", "cpu_s", "redis_cpu_s", "connections"),
    ),
    _replay(
        "replay-10k",
        "Replay of 10,000 stored chunks",
        10_000,
        3,
        *_node(("fill", "read"), "ioredis", "redis"),
        *_node("read", "memory"),
        *_python("replay", "assistant", "fastapi", "assistant-memory"),
        stores=("sqlite", "redis"),
    ),
    _replay("replay-1m", "Replay of 1,000,000 stored chunks", 1_000_000, 2, stores=()),
    *map(_fan_out, (1, 10, 100, 500)),
    Scenario(
        "resume",
        "Resuming at a random byte, against the length of the stream",
        _ours("replay.resume"),
        {"lengths": [1_000, 10_000, 100_000, 1_000_000], "resumes": 300},
        {"lengths": [200, 2_000], "resumes": 20},
        rounds=2,
        comparable=False,
        headline=("p50_ms_1000", "p50_ms_10000", "p50_ms_100000", "p50_ms_1000000", "longest_over_shortest"),
    ),
    Scenario(
        "election",
        "Electing the producer of a fresh stream; a race of 8 threads",
        [*_ours("state.election"), *_node("election", "memory", "ioredis", "redis")],
        {"elections": 500},
        {"elections": 50},
        comparable=False,
        headline=("p50_ms", "p99_ms", "race_ms"),
    ),
    Scenario(
        "memory",
        "Bytes that a stored chunk of 64 bytes takes",
        _ours("state.memory_per_chunk"),
        {"chunks": 100_000},
        {"chunks": 5_000},
        rounds=2,
        comparable=False,
        headline=("bytes_hot", "bytes_singly"),
    ),
    Scenario(
        "idle",
        "1,000 parked viewers of 100 silent streams",
        [*_ours("state.parked"), Contestant("floor: bare threads", ("state.bare_threads",), kind="floor")],
        {"viewers": 1000, "streams": 100, "seconds": 5},
        {"viewers": 50, "streams": 5, "seconds": 0.3},
        rounds=2,
        comparable=False,
        headline=("kib_per_viewer", "cpu_percent", "redis_cpu_percent", "connections"),
    ),
    Scenario(
        "growth",
        "Append, read and election, against the number of streams in the store",
        _ours("state.growth"),
        {"steps": [10, 100, 1_000, 10_000], "operations": 300},
        {"steps": [10, 100], "operations": 20},
        rounds=2,
        comparable=False,
        headline=("append_growth", "read_growth", "election_growth", "append_ms_10000"),
    ),
    Scenario(
        "http",
        "HTTP from the memory store: first byte, replay, latency of 20 live chunks a second for 100 viewers",
        [
            Contestant(f"ours {server}", ("http.serve",), {"server": server})
            for server in ("gunicorn gthread", "waitress")
        ],
        {"viewers": 100, "chunks": 100, "rate": 20, "stored": 500_000, "requests": 100},
        {"viewers": 10, "chunks": 30, "rate": 50, "stored": 5_000, "requests": 10},
        rounds=2,
        comparable=False,
        headline=("first_byte_ms", "chunks_per_s", "p50_ms", "p99_ms", "viewers"),
    ),
    *map(_fan_out_across, (100, 500)),
    *map(_gevent_viewers, (500, 2_000, 5_000)),
    *(scenario for distance in (0.5, 1, 5) for scenario in _distant(distance)),
    Scenario(
        "shared",
        "8 threads write to one shared stream, each chunk acknowledged; beside 8 streams of their own",
        [
            replace(
                each, name=each.name + what, programs=(f"shared.{program}",), arguments={**each.arguments, **more}
            )
            for what, program, more in (
                (", commits to one stream", "commits", {"processes": 1}),
                (", commits of two processes", "commits", {"processes": 2}),
                (", appends of 8 leases", "direct_appends", {}),
                (", flushed writers of 8 streams", "appends", {}),
            )
            for each in _ours("")
            if "two" not in what or "memory" not in each.name
        ],
        {"threads": 8, "chunks": 400},
        {"threads": 8, "chunks": 20},
        rounds=3,
        comparable=False,
        headline=("chunks_per_s",),
    ),
    Scenario(
        "takeover",
        "A producer killed with -9, its stream continued by another process: the gap that a viewer sees",
        _ours("takeover.gap", ("sqlite", "redis")),
        {"kills": 10},
        {"kills": 1},
        rounds=2,
        comparable=False,
        headline=("p50_ms", "max_ms", "grace_ms"),
    ),
    Scenario(
        "chat",
        "Formats of assistant streams: text token by token, and a tool call whose arguments grow",
        [
            *(Contestant(f"ours {name} encoder", ("chat.encode",), {"format": name}) for name in FORMATS),
            Contestant("ours accumulator", ("chat.accumulate",)),
            Contestant("ours UI message accumulator", ("chat.accumulate_ui",)),
        ],
        {"tokens": 20_000, "arguments": [100_000, 400_000]},
        {"tokens": 500, "arguments": [2_000, 8_000]},
        rounds=3,
        comparable=False,
        headline=("chunks_per_s", "arguments_100_kb_ms", "arguments_400_kb_ms", "growth_over_size"),
    ),
    _write_amplification(),
    Scenario(
        "start",
        "From the start of a process to its end",
        [
            Contestant(name, ("start.process",), {"command": command}, "floor" if "floor" in name else "ours")
            for name, command in _STARTS.items()
        ],
        {"times": 15},
        {"times": 2},
        rounds=2,
        comparable=False,
        headline=("p50_ms", "max_ms"),
    ),
    Scenario(
        "durable",
        "Durable Streams: appends to one stream over 8 connections; a reader's latency meanwhile",
        [
            *(
                replace(
                    each, name=f"{each.name}, workers: {workers}", arguments={**each.arguments, "workers": workers}
                )
                for each, workers in zip(_ours("durable.serve"), (1, 2, 2))
            ),
            *(
                Contestant(
                    f"npm @durable-streams/server, {name}",
                    ("durable",),
                    {"files": files, "client": [sys.executable, "-m", "benchmarks.programs", "durable.load"]},
                    "node",
                )
                for name, files in (("in files", True), ("in memory", False))
            ),
        ],
        {"connections": 8, "appends": 6_000},
        {"connections": 8, "appends": 300},
        rounds=3,
        comparable=False,
        headline=("appends_per_s", "p50_ms", "p99_ms", "reader_p50_ms", "reader_p99_ms"),
    ),
]
