"""Connections to Redis, made from a client's settings or a URL: always with the store's own timeouts and bytes.

The store makes no use of the client's pool. Its own connections decode nothing, retry nothing by themselves
(the store repeats what is safe to repeat) and wait for replies no longer than it wants to.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

CONNECT_SECONDS = 2.0
"""Seconds that making a connection may take at most."""

# The settings of a client that say who and where it is; those of its behaviour are the store's own.
_KEPT = re.compile(
    r"host|port|path|db|username|password|credential_provider|protocol|client_name|socket_type"
    r"|socket_keepalive|socket_keepalive_options|socket_read_size|redis_connect_func|ssl_.*"
)
_SENTINEL_PORT = 26379

Address = tuple[str, int]
ConnectionType = Callable[..., Any]


class Endpoint:
    """How to reach one server: makes connections of `kind` with `settings`. Immutable; thread-safe.

    `find` tells the address afresh for each connection: it is how Sentinel's present primary is followed.
    """

    def __init__(
        self, kind: ConnectionType, settings: Mapping[str, Any], find: Callable[[], Address] | None = None
    ) -> None:
        self._kind = kind
        self._settings = {name: value for name, value in settings.items() if _KEPT.fullmatch(name)}
        self._find = find

    def at(self, address: Address) -> Endpoint:
        """The same for a server elsewhere."""
        return Endpoint(self._kind, {**self._settings, "host": address[0], "port": address[1]})

    @property
    def address(self) -> Address:
        """Where the settings lead, if that is a host and a port."""
        return self._settings.get("host", "localhost"), int(self._settings.get("port", 6379))

    def connection(self, timeout: float) -> Any:
        """A new connection that waits `timeout` seconds for each reply. It connects with its first command.

        With Sentinel this asks for the primary's address and may raise redis.ConnectionError.
        """
        settings = dict(self._settings)
        if self._find is not None:
            settings["host"], settings["port"] = self._find()
        return self._kind(
            **settings,
            socket_timeout=timeout,
            socket_connect_timeout=min(CONNECT_SECONDS, timeout),
            retry=Retry(NoBackoff(), 0),
        )


class Target:
    """Where a store's streams live: one server (or Sentinel's primary), or a cluster's first known nodes."""

    def __init__(self, endpoints: list[Endpoint], is_cluster: bool = False) -> None:
        self.endpoints = endpoints
        self.is_cluster = is_cluster


def from_client(client: Any) -> Target:
    """What a redis.Redis (also one of Sentinel) or redis.RedisCluster client is connected to.

    ValueError for an asynchronous client or anything else.
    """
    nodes = getattr(client, "nodes_manager", None)
    if isinstance(client, redis.RedisCluster) and nodes is not None:
        settings = dict(nodes.connection_kwargs)
        settings["redis_connect_func"] = _after_connecting(client.user_on_connect_func)
        kind = SSLConnection if settings.get("ssl") else Connection
        known = nodes.nodes_cache.values()
        return Target([Endpoint(kind, settings).at((node.host, node.port)) for node in known], True)
    if not isinstance(client, redis.Redis):
        raise ValueError(
            f"RedisStore needs a redis.Redis or redis.RedisCluster client, not {type(client).__name__}"
            " (an asyncio client will not do: its connections belong to an event loop)"
        )
    pool = client.connection_pool
    settings = pool.connection_kwargs
    if isinstance(pool, SentinelConnectionPool):
        if not pool.is_master:
            raise ValueError("RedisStore needs the primary: make the client with Sentinel.master_for(...)")
        kind = SSLConnection if issubclass(pool.connection_class, SSLConnection) else Connection
        manager = pool.sentinel_manager
        sentinels = [_login(sentinel.connection_pool) for sentinel in manager.sentinels]
        return Target([_sentinel(pool.service_name, sentinels, kind, settings)])
    return Target([Endpoint(pool.connection_class, settings)])


def _after_connecting(own: Callable[[Any], object] | None) -> Callable[[Any], None] | None:
    """The application's `redis_connect_func` as a RedisCluster client calls it: after the usual steps."""
    if own is None:
        return None

    def connected(connection: Any) -> None:
        connection.on_connect()
        own(connection)

    return connected


def from_url(url: str) -> Target:
    """What `url` names: redis://, rediss://, unix:// as redis-py takes them,
    redis+sentinel://[user:password@]host:port[,host:port…]/service[/db][?sentinel_password=…&ssl=true&…], or
    redis+cluster://[user:password@]host:port[,host:port…][?ssl=true&…]. ValueError for any other."""
    parts = urlsplit(url)
    if parts.scheme in ("redis", "rediss", "unix"):
        pool = redis.ConnectionPool.from_url(url)
        return Target([Endpoint(pool.connection_class, pool.connection_kwargs)])
    if parts.scheme not in ("redis+sentinel", "redis+cluster"):
        raise ValueError(f"{url!r} is no Redis URL")
    options = dict(parse_qsl(parts.query))
    settings: dict[str, Any] = {key: value for key, value in options.items() if key.startswith("ssl_")}
    if "protocol" in options:
        settings["protocol"] = int(options["protocol"])
    user, _, hosts = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    if name:
        settings["username"] = unquote(name)
    if password:
        settings["password"] = unquote(password)
    kind = SSLConnection if options.get("ssl") in ("true", "1") else Connection
    default_port = 6379 if parts.scheme == "redis+cluster" else _SENTINEL_PORT
    addresses = [_address(host, default_port, url) for host in hosts.split(",")]
    if parts.scheme == "redis+cluster":
        return Target([Endpoint(kind, settings).at(address) for address in addresses], True)
    service, _, database = parts.path.strip("/").partition("/")
    if not service:
        raise ValueError(f"{url!r} names no service; write redis+sentinel://host:port/service/0")
    login = {key: options[f"sentinel_{key}"] for key in ("username", "password") if f"sentinel_{key}" in options}
    settings["db"] = int(database or 0)
    return Target(
        [_sentinel(service, [{"host": host, "port": port, **login} for host, port in addresses], kind, settings)]
    )


def _address(host: str, default_port: int, url: str) -> Address:
    match = re.fullmatch(r"(\[[^\]]+\]|[^:\[\]]+)(?::([0-9]+))?", host)
    if match is None:
        raise ValueError(f"{host!r} in {url!r} is no host:port")
    return match[1].strip("[]"), int(match[2] or default_port)


def _login(pool: Any) -> dict[str, Any]:
    """What it takes to reach the Sentinel of this pool."""
    names = re.compile("host|port|username|password|credential_provider|redis_connect_func|ssl_.*")
    found = {name: value for name, value in pool.connection_kwargs.items() if names.fullmatch(name)}
    return {**found, "ssl": issubclass(pool.connection_class, SSLConnection)}


def _sentinel(
    service: str, sentinels: list[dict[str, Any]], kind: ConnectionType, settings: Mapping[str, Any]
) -> Endpoint:
    """An endpoint whose address is whatever these sentinels say at the moment."""
    manager: Any = Sentinel([])  # type: ignore[no-untyped-call]
    manager.sentinels = [
        redis.Redis(
            **sentinel,
            socket_timeout=CONNECT_SECONDS,
            socket_connect_timeout=CONNECT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        for sentinel in sentinels
    ]

    def find() -> Address:
        host, port = manager.discover_master(service)
        return str(host), int(port)

    return Endpoint(kind, settings, find)
