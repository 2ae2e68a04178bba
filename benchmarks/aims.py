"""What the figures should show, as ratios of medians within one run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

_IOREDIS = "npm assistant-stream, ioredis"
_NODE_REDIS = "npm assistant-stream, node-redis"
_PUBSUB = "npm resumable-stream"


class Aim(NamedTuple):
    """`metric` of `who`, divided by that of `whom` (by 1 if it is empty), is to be at least or at most `limit`.

    `whom` may name a contestant of another scenario as `scenario/contestant`, and another metric behind a colon.
    """

    title: str
    scenario: str
    metric: str
    who: str
    whom: str
    limit: float
    at_least: bool = True


AIMS = [
    Aim("append to Redis / npm assistant-stream on ioredis", "append", "chunks_per_s", "ours redis", _IOREDIS, 40),
    Aim("append to Redis / floor, one script call with 100 chunks", "append", "chunks_per_s", "ours redis",
        "floor: one script call with 100 chunks", 0.6),
    Aim("acknowledged append to Redis / npm assistant-stream on ioredis", "append-acknowledged", "chunks_per_s",
        "ours redis", _IOREDIS, 1.7),
    Aim("acknowledged append to Redis / redis-py evalsha() of the same script", "append-acknowledged",
        "chunks_per_s", "ours redis", "floor: redis-py evalsha(), the same script", 0.9),
    Aim("100 hot streams to Redis / npm assistant-stream on node-redis", "hot-streams", "chunks_per_s",
        "ours redis", _NODE_REDIS, 2),
    Aim("append to SQLite / floor, 100 rows a commit", "append", "chunks_per_s", "ours sqlite",
        "floor: SQLite rows, 100 a commit", 0.7),
    Aim("append to memory / npm assistant-stream in memory", "append", "chunks_per_s", "ours memory",
        "npm assistant-stream, in memory", 1.5),
    Aim("tail p50 over Redis, one process / npm assistant-stream", "tail", "p50_ms", "ours redis", _IOREDIS,
        1 / 120, False),
    Aim("tail p50 over Redis, two processes / npm assistant-stream", "tail-across", "p50_ms", "ours redis",
        _IOREDIS, 1 / 120, False),
    Aim("tail p50 over Redis, one process / floor, XREAD wake", "tail", "p50_ms", "ours redis",
        "floor: XREAD wake", 2.5, False),
    Aim("tail p50 over Redis, two processes / floor, XREAD wake", "tail-across", "p50_ms", "ours redis",
        "tail/floor: XREAD wake", 2.5, False),
    Aim("tail p50 over Redis, one process / npm resumable-stream", "tail", "p50_ms", "ours redis", _PUBSUB, 1, False),
    Aim("tail p50 over Redis, two processes / npm resumable-stream", "tail-across", "p50_ms", "ours redis",
        _PUBSUB, 1, False),
    Aim("tail p50 SQLite, one process, ms", "tail", "p50_ms", "ours sqlite", "", 0.25, False),
    Aim("tail p99 SQLite, one process, ms", "tail", "p99_ms", "ours sqlite", "", 3, False),
    Aim("tail p50 SQLite, two processes, ms", "tail-across", "p50_ms", "ours sqlite", "", 0.6, False),
    Aim("tail p99 SQLite, two processes, ms", "tail-across", "p99_ms", "ours sqlite", "", 3, False),
]  # fmt: skip


def judge(scenarios: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each aim whose scenario was run, with what was measured and whether that is enough; None: not measured."""
    judged = []
    for aim in AIMS:
        if aim.scenario not in scenarios:
            continue
        value = _median(scenarios, aim.scenario, aim.who, aim.metric)
        if aim.whom and value is not None:
            where, _, whom = aim.whom.rpartition("/") if aim.whom.split("/")[0] in scenarios else ("", "", aim.whom)
            whom, _, metric = whom.partition("::")
            against = _median(scenarios, where or aim.scenario, whom, metric or aim.metric)
            value = value / against if against else None
        met = None if value is None else (value >= aim.limit if aim.at_least else value <= aim.limit)
        sign = "≥" if aim.at_least else "≤"
        judged.append({"title": aim.title, "limit": f"{sign} {aim.limit:.3g}", "value": value, "met": met})
    return judged


def _median(scenarios: Mapping[str, Any], scenario: str, contestant: str, metric: str) -> float | None:
    try:
        value: float = scenarios[scenario]["results"][contestant]["metrics"][metric]["median"]
    except KeyError:
        return None
    return value
