"""What the figures should show, as ratios of medians within one run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

_IOREDIS = "npm assistant-stream, ioredis"
_NODE_REDIS = "npm assistant-stream, node-redis"
_PUBSUB = "npm resumable-stream"


class Figure(NamedTuple):
    """Where a median is found."""

    scenario: str
    contestant: str
    metric: str


class Aim(NamedTuple):
    """`measured`, divided by `against` if there is one, is to be at least or at most `limit`."""

    title: str
    measured: Figure
    limit: float
    against: Figure | None = None
    at_least: bool = True
    minus: bool = False
    """`against` is taken off instead."""


_SCRIPT = "floor: one script call with 100 chunks"
_SAME = "floor: redis-py evalsha(), the same script"
_ROWS = "floor: SQLite rows, 100 a commit"
_MEMORY_PEER = "npm assistant-stream, in memory"
_XREAD = Figure("tail", "floor: XREAD wake", "p50_ms")
_XRANGE = "floor: XRANGE by 1000, a row for each chunk"
_SINGLY = "ours redis, a row for each chunk"
_CONDITION = "floor: Condition wake"


def _rate(title: str, scenario: str, who: str, whom: str, limit: float) -> Aim:
    measured, against = (Figure(scenario, name, "chunks_per_s") for name in (who, whom))
    return Aim(f"{title} / {whom}", measured, limit, against)


def _at_most(title: str, scenario: str, who: str, metric: str, limit: float, whom: str | Figure = "") -> Aim:
    against = Figure(scenario, whom, metric) if isinstance(whom, str) else whom
    title = f"{title} / {against.contestant}" if whom else title
    return Aim(title, Figure(scenario, who, metric), limit, against if whom else None, at_least=False)


AIMS = [
    _rate("append to Redis", "append", "ours redis", _IOREDIS, 40),
    _rate("append to Redis", "append", "ours redis", _SCRIPT, 0.6),
    _rate("acknowledged append to Redis", "append-acknowledged", "ours redis", _IOREDIS, 1.7),
    _rate("acknowledged append to Redis", "append-acknowledged", "ours redis", _SAME, 0.9),
    _rate("100 hot streams to Redis", "hot-streams", "ours redis", _NODE_REDIS, 2),
    _rate("append to SQLite", "append", "ours sqlite", _ROWS, 0.7),
    _rate("append to memory", "append", "ours memory", _MEMORY_PEER, 1.5),
    _at_most("tail p50 Redis, one process", "tail", "ours redis", "p50_ms", 1 / 120, _IOREDIS),
    _at_most("tail p50 Redis, two processes", "tail-across", "ours redis", "p50_ms", 1 / 120, _IOREDIS),
    _at_most("tail p50 Redis, one process", "tail", "ours redis", "p50_ms", 2.5, _XREAD),
    _at_most("tail p50 Redis, two processes", "tail-across", "ours redis", "p50_ms", 2.5, _XREAD),
    _at_most("tail p50 Redis, one process", "tail", "ours redis", "p50_ms", 1, _PUBSUB),
    _at_most("tail p50 Redis, two processes", "tail-across", "ours redis", "p50_ms", 1, _PUBSUB),
    _at_most("tail p50 SQLite, one process, ms", "tail", "ours sqlite", "p50_ms", 0.25),
    _at_most("tail p99 SQLite, one process, ms", "tail", "ours sqlite", "p99_ms", 3),
    _at_most("tail p50 SQLite, two processes, ms", "tail-across", "ours sqlite", "p50_ms", 0.6),
    _at_most("tail p99 SQLite, two processes, ms", "tail-across", "ours sqlite", "p99_ms", 3),
    _at_most("100 streams on Redis, one process, p99 ms", "many-streams", "ours redis", "p99_ms", 1),
    _at_most("100 streams on Redis, two processes, p99 ms", "many-streams-across", "ours redis", "p99_ms", 4),
    _at_most("100 streams on Redis, connections", "many-streams", "ours redis", "connections", 4),
    _at_most("100 streams on Redis, CPU", "many-streams", "ours redis", "cpu_s", 1, _IOREDIS),
    _rate("replay of 10,000 from Redis, a row for each", "replay-10k", _SINGLY, _IOREDIS, 5),
    _rate("replay of 10,000 from Redis, a row for each", "replay-10k", _SINGLY, _XRANGE, 0.7),
    _rate("replay of 10,000 from Redis, hot source", "replay-10k", "ours redis", _IOREDIS, 5),
    _at_most("first byte from Redis, a row for each", "replay-10k", _SINGLY, "first_byte_ms", 0.1, _IOREDIS),
    _at_most("first byte from Redis, hot source", "replay-10k", "ours redis", "first_byte_ms", 0.1, _IOREDIS),
    Aim("replay from memory, chunks/s", Figure("replay-1m", "ours memory", "chunks_per_s"), 10e6),
    Aim("replay from SQLite, chunks/s", Figure("replay-1m", "ours sqlite", "chunks_per_s"), 8e6),
    *(
        _at_most(f"500 viewers on {store}, p50 ms", "fan-out-500", f"ours {store}", "p50_ms", 15)
        for store in ("memory", "sqlite", "redis")
    ),
    *(
        _at_most(
            f"500 viewers on {store}, CPU per delivery",
            "fan-out-500",
            f"ours {store}",
            "cpu_us_per_delivery",
            1.3,
            _CONDITION,
        )
        for store in ("memory", "sqlite", "redis")
    ),
    _at_most(
        "commands per chunk at 500 viewers, Redis",
        "fan-out-500",
        "ours redis",
        "commands_per_chunk",
        1.1,
        Figure("fan-out-1", "ours redis", "commands_per_chunk"),
    ),
    _at_most("connections at 500 viewers, Redis", "fan-out-500", "ours redis", "connections", 9),
    *(
        Aim(
            f"parked viewer on {store} beside its thread, KiB",
            Figure("idle", f"ours {store}", "kib_per_viewer"),
            32,
            Figure("idle", "floor: bare threads", "kib_per_viewer"),
            False,
            True,
        )
        for store in ("memory", "sqlite", "redis")
    ),
    *(
        _at_most(f"idle CPU on {store}, %", "idle", f"ours {store}", "cpu_percent", 2)
        for store in ("memory", "sqlite", "redis")
    ),
    *(
        _at_most(
            f"resume, longest / shortest stream, {store}", "resume", f"ours {store}", "longest_over_shortest", 1.5
        )
        for store in ("memory", "sqlite", "redis")
    ),
    *(
        _at_most(
            f"{operation} at 10,000 streams / at 10, {store}",
            "growth",
            f"ours {store}",
            f"{operation}_growth",
            1.5,
        )
        for store in ("memory", "sqlite", "redis")
        for operation in ("append", "read", "election")
    ),
    _at_most("100 streams on SQLite, one process, p50 ms", "many-streams", "ours sqlite", "p50_ms", 1),
    _at_most("100 streams on SQLite, one process, p99 ms", "many-streams", "ours sqlite", "p99_ms", 8),
    *(
        _at_most(f"100 streams on {store}, CPU", "many-streams", f"ours {store}", "cpu_s", limit, _CONDITION)
        for store, limit in (("memory", 2), ("sqlite", 3), ("redis", 3))
    ),
    *(
        _rate(f"append to Redis at {ms} ms", f"append-at-{ms}-ms", "ours redis", whom, limit)
        for ms in (1, 5)
        for whom, limit in ((_SCRIPT, 0.7), (_IOREDIS, 100))
    ),
    *(
        _at_most(f"5,000 gevent viewers on {store}, {name}", "gevent-viewers-5000", f"ours {store}", metric, limit)
        for store in ("memory", "sqlite", "redis")
        for name, metric, limit in (("p99 ms", "p99_ms", 300), ("KiB each", "kib_per_viewer", 40))
    ),
    *(
        # Beside what the relay itself makes of the distance.
        Aim(
            f"tail p50 Redis at {ms} ms, ms more than an XREAD there",
            Figure(f"tail-at-{ms}-ms", "ours redis", "p50_ms"),
            0.5,
            Figure(f"tail-at-{ms}-ms", "floor: XREAD wake", "p50_ms"),
            False,
            True,
        )
        for ms in (0.5, 1, 5)
    ),
    *(
        _at_most(f"bytes to disk for a byte, {way}", "write-amplification", f"ours sqlite, {way}", *limit)
        for way, limit in (
            ("100 live streams", ("written_per_byte", 20)),
            ("one slow stream", ("written_per_byte", 60)),
            ("one hot stream", ("written_per_byte", 3)),
        )
    ),
    *(
        _rate(
            "8 writers",
            "shared",
            f"ours {store}, commits to one stream",
            f"ours {store}, appends of 8 leases",
            0.5,
        )
        for store in ("memory", "sqlite", "redis")
    ),
    _rate("UI messages", "chat", "ours ui-message-stream encoder", "ours data-stream encoder", 0.5),
    _at_most(
        "UI messages, 400 KB of arguments / 100 KB, over 4",
        "chat",
        "ours ui-message-stream encoder",
        "growth_over_size",
        1.5,
    ),
    *(
        Aim(
            f"appends over HTTP to {store}",
            Figure("durable", f"ours {store}, workers: 2", "appends_per_s"),
            3,
            Figure("durable", "npm @durable-streams/server, in files", "appends_per_s"),
        )
        for store in ("sqlite", "redis")
    ),
]


def judge(scenarios: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each aim whose scenario was run: its limit, what was measured, whether it is enough (None: unknown)."""
    judged = []
    for aim in AIMS:
        if aim.measured.scenario not in scenarios:
            continue
        value = _median(scenarios, aim.measured)
        if aim.against is not None and value is not None:
            against = _median(scenarios, aim.against)
            if not against:
                value = None
            else:
                value = value - against if aim.minus else value / against
        met = None if value is None else (value >= aim.limit if aim.at_least else value <= aim.limit)
        sign = "≥" if aim.at_least else "≤"
        limit = f"{aim.limit:.3g}" if aim.limit < 1e4 else f"{aim.limit / 1e6:.3g} M"
        judged.append({"title": aim.title, "limit": f"{sign} {limit}", "value": value, "met": met})
    return judged


def _median(scenarios: Mapping[str, Any], figure: Figure) -> float | None:
    try:
        value: float = scenarios[figure.scenario]["results"][figure.contestant]["metrics"][figure.metric]["median"]
    except KeyError:
        return None
    return value
