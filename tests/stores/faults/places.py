"""Stores that several processes share, as they are and over connections that are cut at random."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ...support import wait_until
from ..redis.proxy import CuttingProxy
from ..redis.server import shared_server
from ..redis.test_cluster import Cluster
from ..redis.test_cuts import Chance

ONE_IN = 40
"""Pieces on the wire of which one is lost, with its connection."""


class Place(NamedTuple):
    """One store: its URL as it is, and with losses."""

    url: str
    lossy_url: str
    proxies: Sequence[CuttingProxy] = ()


@contextlib.contextmanager
def redis_place(prefix: str) -> Iterator[Place]:
    with contextlib.closing(CuttingProxy(shared_server().port, Chance(11, ONE_IN))) as proxy:
        direct = f"{shared_server().url}?prefix={prefix}"
        yield Place(direct, f"redis://127.0.0.1:{proxy.port}/0?prefix={prefix}", [proxy])


@contextlib.contextmanager
def cluster_place(prefix: str) -> Iterator[Place]:
    """All clients, also the viewer, come through the proxies: a cluster tells them only one way."""
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(contextlib.closing(Cluster()))
        proxies = []
        for number, node in enumerate(cluster.nodes):
            proxy = CuttingProxy(node.port, Chance(number, ONE_IN))
            stack.enter_context(contextlib.closing(proxy))
            node.command(
                "CONFIG",
                "SET",
                "cluster-announce-port",
                proxy.port,
                "cluster-announce-bus-port",
                node.port + 10_000,
            )
            proxies.append(proxy)
        ports = sorted(proxy.port for proxy in proxies)
        for node in cluster.nodes:
            wait_until(lambda: sorted(slot[2][1] for slot in node.command("CLUSTER", "SLOTS")) == ports)
        url = f"redis+cluster://127.0.0.1:{ports[0]}?prefix={prefix}"
        yield Place(url, url, proxies)
