"""The scenarios: who competes, and with how much work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
        Contestant(known[name][0], programs, known[name][1], "node", needs_redis=name != "memory") for name in names
    ]


def _python(program: str | tuple[str, ...], *names: str) -> list[Contestant]:
    programs = (program,) if isinstance(program, str) else program
    known = {
        "assistant": ("PyPI assistant-stream", {"library": "assistant-stream", "store": "redis"}),
        "assistant-memory": ("PyPI assistant-stream, in memory", {"library": "assistant-stream", "store": "memory"}),
        "pubsub": ("PyPI resumable-stream", {"library": "resumable-stream", "store": "redis"}),
        "sse": ("PyPI resumable-sse", {"library": "resumable-sse", "store": "redis"}),
    }
    return [
        Contestant(known[name][0], programs, known[name][1], "python", needs_redis=name != "assistant-memory")
        for name in names
    ]


_ALL_NODE = ("memory", "ioredis", "redis")
_PAIR = ("tail.producer", "tail.viewer")

SCENARIOS = [
    Scenario(
        "append",
        "One hot stream, as far ahead of the store as by default",
        [
            *_ours("append.hot"),
            _floor("one script call with 100 chunks", "redis_script", redis=True, batch=100),
            _floor("SQLite rows, 100 a commit", "sqlite_rows"),
            *_node("append", *_ALL_NODE),
            *_python("append", "assistant", "assistant-memory"),
        ],
        {"streams": 1, "chunks": 50_000},
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
            *_python("append", "assistant"),
        ],
        {"streams": 1, "chunks": 20_000},
        {"streams": 1, "chunks": 1_000},
        headline=("chunks_per_s", "cpu_us_per_chunk"),
    ),
    Scenario(
        "hot-streams",
        "100 hot streams together",
        [*_ours("append.hot"), *_node("append", *_ALL_NODE), *_python("append", "assistant")],
        {"streams": 100, "chunks": 50_000},
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
            *_python("tail", "assistant", "pubsub", "sse"),
        ],
        {"streams": 1, "viewers": 1, "chunks": 400, "rate": 100},
        {"streams": 1, "viewers": 1, "chunks": 60, "rate": 200},
        comparable=False,
        headline=("p50_ms", "p99_ms"),
    ),
    Scenario(
        "tail-across",
        "Latency of live chunks, 100 a second, producer and viewer in two processes",
        [
            *_ours(_PAIR, ("sqlite", "redis")),
            *_node(("producer", "viewer"), "ioredis", "pubsub"),
        ],
        {"streams": 1, "viewers": 1, "chunks": 400, "rate": 100},
        {"streams": 1, "viewers": 1, "chunks": 60, "rate": 200},
        comparable=False,
        headline=("p50_ms", "p99_ms"),
    ),
]
