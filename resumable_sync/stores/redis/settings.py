"""Connections to Redis, made from a client's settings or a URL: always with the store's own timeouts and bytes.

The store makes no use of the client's pool. Its own connections decode nothing, retry nothing by themselves
(the store repeats what is safe to repeat) and wait for replies no longer than it wants to.
"""

from __future__ import annotations

import copy
import inspect
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool

try:
    import hiredis
except ImportError:  # then redis-py packs by itself
    hiredis = None  # type: ignore[assignment]

CONNECT_SECONDS = 2.0
"""Seconds that making a connection may take at most."""

# What a client says of how it behaves: timeouts, retries, pools and the form of replies are the store's own. All
# else says who and where it is, and is kept, also what only a connection class of the application's own knows.
_OWN = re.compile(
    r"socket_timeout|socket_connect_timeout|retry|retry_on_.*|health_check_interval|max_connections|timeout"
    r"|queue_class|decode_responses|encoding|encoding_errors|legacy_responses|parser_class|command_packer"
    r"|event_dispatcher|cache.*|single_connection_client|connection_pool.*|connection_class|nodes_flag|ssl"
    r"|.*maint_notifications.*|maintenance_.*|orig_.*|himport_registry|driver_info"
)
_SENTINEL_PORT = 26379


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "1", "yes", "false", "0", "no"):
        raise ValueError(f"{text!r} is not true or false")
    return text.lower() in ("true", "1", "yes")


# What a URL's query may say for each connection, and how it is read.


def _protocol(text: str) -> int:
    if text not in ("2", "3"):
        raise ValueError("it is 2 or 3")
    return int(text)


def _certificates(text: str) -> str:
    if text not in ("none", "optional", "required"):
        raise ValueError("it is none, optional or required")
    return text


_URL_OPTIONS: Mapping[str, Callable[[str], object]] = {
    "db": int,
    "username": str,
    "password": str,
    "protocol": _protocol,
    "client_name": str,
    "lib_name": str,
    "lib_version": str,
    "socket_keepalive": _boolean,
    "socket_read_size": int,
    "ssl_keyfile": str,
    "ssl_certfile": str,
    "ssl_password": str,
    "ssl_cert_reqs": _certificates,
    "ssl_ca_certs": str,
    "ssl_ca_path": str,
    "ssl_ca_data": str,
    "ssl_check_hostname": _boolean,
    "ssl_min_version": int,
    "ssl_ciphers": str,
}

# Nobody is there, or the address leads nowhere: known at once.
_NOBODY = (ConnectionRefusedError, FileNotFoundError, socket.gaierror)

Address = tuple[str, int]
ConnectionType = Callable[..., Any]


def is_refused(error: BaseException | None) -> bool:
    """Whether no server was there to connect to: refused, no such socket, no such host."""
    return error is not None and isinstance(error.__cause__ or error.__context__, _NOBODY)


class Endpoint:
    """How to reach one server: makes connections of `kind` with `settings`. Immutable; thread-safe.

    `find` tells the address afresh for each connection: it is how Sentinel's present primary is followed. `remap`
    makes of an address that a cluster names the one to connect to.
    """

    def __init__(
        self,
        kind: ConnectionType,
        settings: Mapping[str, Any],
        find: Callable[[], Address] | None = None,
        remap: Callable[[Address], Address] | None = None,
    ) -> None:
        self._kind = kind
        self._settings = _kept(settings)
        self._find = find
        self._remap = remap

    def at(self, address: Address) -> Endpoint:
        """The same for a server elsewhere."""
        host, port = address if self._remap is None else self._remap(address)
        return Endpoint(self._kind, {**self._settings, "host": host, "port": port}, remap=self._remap)

    @property
    def is_found(self) -> bool:
        """Whether its address is asked for with each connection."""
        return self._find is not None

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
        connection = self._kind(
            **settings,
            socket_timeout=timeout,
            socket_connect_timeout=min(CONNECT_SECONDS, timeout),
            retry=Retry(NoBackoff(), 0),
        )
        connection._command_packer = _Packer(connection._command_packer)
        return connection


_TEXTS = frozenset({str, bytes})


class _Packer:
    """Packs commands as redis-py would, but gives hiredis no numbers: it does not check what becomes of them, and
    the process crashes where a signal handler raises meanwhile (hiredis 3.5)."""

    def __init__(self, packer: Any) -> None:
        self._packer = packer
        self._has_hiredis = hasattr(hiredis, "pack_command")

    def pack(self, *arguments: Any) -> Any:
        """The parts of the command."""
        if not _TEXTS.issuperset(map(type, arguments)):
            arguments = tuple(str(each) if isinstance(each, (int, float)) else each for each in arguments)
        elif self._has_hiredis and type(arguments[0]) is str and " " not in arguments[0]:
            return [hiredis.pack_command(arguments)]  # as redis-py does, after a look at each argument of its own
        return self._packer.pack(*arguments)


class Target:
    """Where a store's streams live: one server (or Sentinel's primary), or a cluster's first known nodes."""

    def __init__(self, endpoints: list[Endpoint], is_cluster: bool = False) -> None:
        self.endpoints = endpoints
        self.is_cluster = is_cluster


def _kept(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if not _OWN.fullmatch(name)}


def from_client(client: Any) -> Target:
    """What a redis.Redis (also one of Sentinel) or redis.RedisCluster client is connected to.

    ValueError for an asynchronous client or anything else, and for a pool of the application's own, which may know
    better than its settings how to connect.
    """
    nodes = getattr(client, "nodes_manager", None)
    if isinstance(client, redis.RedisCluster) and nodes is not None:
        settings = dict(nodes.connection_kwargs)
        settings["redis_connect_func"] = _after_connecting(client.user_on_connect_func)
        kind = settings.get("connection_class") or (SSLConnection if settings.get("ssl") else Connection)
        _check_pool(getattr(nodes, "connection_pool_class", redis.ConnectionPool))
        remap = getattr(nodes, "address_remap", None)
        known = [{**settings, "host": node.host, "port": node.port} for node in nodes.nodes_cache.values()]
        return Target([Endpoint(kind, each, remap=remap) for each in known], True)
    if not isinstance(client, redis.Redis):
        raise ValueError(
            f"RedisStore needs a redis.Redis or redis.RedisCluster client, not {type(client).__name__}"
            " (an asyncio client will not do: its connections belong to an event loop)"
        )
    pool = client.connection_pool
    settings = pool.connection_kwargs
    _check_pool(type(pool))
    if isinstance(pool, SentinelConnectionPool):
        if not pool.is_master:
            raise ValueError("RedisStore needs the primary: make the client with Sentinel.master_for(...)")
        if not _is_of_redis_py(pool.connection_class):
            raise ValueError("RedisStore cannot follow a primary with a connection class of one's own")
        kind = SSLConnection if issubclass(pool.connection_class, SSLConnection) else Connection
        manager = pool.sentinel_manager
        sentinels = [_login(sentinel.connection_pool) for sentinel in manager.sentinels]
        return Target([_sentinel(pool.service_name, sentinels, kind, settings, manager)])
    return Target([Endpoint(pool.connection_class, settings)])


def _is_of_redis_py(made: Any) -> bool:
    return str(made.__module__).partition(".")[0] == "redis"


def _check_pool(pool: Any) -> None:
    """ValueError if the store's own connections might not be what this class of pools makes."""
    if not (_is_of_redis_py(pool.make_connection) and _is_of_redis_py(pool.get_connection)):
        raise ValueError(f"RedisStore makes connections of its own, and cannot make those of {pool.__name__}")


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
        if parts.scheme != "unix" and not re.fullmatch("/?[0-9]*/?", parts.path):
            raise ValueError(f"a Redis database is a number, not {parts.path!r}")
        if parts.scheme == "unix" and (parts.hostname or not parts.path.strip("/")):
            raise ValueError("the socket's path is to follow unix://: write unix:///run/redis.sock")
        if parts.path.strip("/") and parts.scheme != "unix" and "db" in dict(parse_qsl(parts.query)):
            raise ValueError("the URL names two databases; write redis://host:port/0, or ?db=0")
        pool = redis.ConnectionPool.from_url(url.partition("?")[0])
        kind = pool.connection_class
        return Target([Endpoint(kind, {**pool.connection_kwargs, **_query(parts.query, kind)})])
    if parts.scheme not in ("redis+sentinel", "redis+cluster"):
        raise ValueError(f"{url!r} is no Redis URL")
    is_cluster = parts.scheme == "redis+cluster"
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    kind = SSLConnection if _boolean(options.pop("ssl", "false")) else Connection
    login = {}
    if not is_cluster:
        for key in ("username", "password"):
            if f"sentinel_{key}" in options:
                login[key] = options.pop(f"sentinel_{key}")
    settings: dict[str, Any] = {}
    user, _, hosts = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    if name:
        settings["username"] = unquote(name)
    if password:
        settings["password"] = unquote(password)
    addresses = [_address(host, 6379 if is_cluster else _SENTINEL_PORT, url) for host in hosts.split(",")]
    service, _, database = parts.path.strip("/").partition("/")
    if is_cluster:
        if service not in ("", "0") or database or options.get("db", "0") != "0":
            raise ValueError("a Redis Cluster has no database but 0")
        settings.update(_query(options, kind))
        return Target([Endpoint(kind, settings).at(address) for address in addresses], True)
    if not service:
        raise ValueError("the URL names no service; write redis+sentinel://host:port/service/0")
    settings["db"] = int(database or 0)
    settings.update(_query(options, kind))
    sentinels = [{"host": host, "port": port, **login} for host, port in addresses]
    return Target([_sentinel(service, sentinels, kind, settings)])


def _query(query: str | Mapping[str, str], kind: Any) -> dict[str, Any]:
    """The settings that a URL's query gives for connections of `kind`. ValueError for what these do not know."""
    given = parse_qsl(query, keep_blank_values=True) if isinstance(query, str) else list(query.items())
    accepted = {name for each in inspect.getmro(kind)[:-1] for name in inspect.signature(each).parameters}
    known = [name for name in _URL_OPTIONS if name in accepted]
    own = [name for name, _ in given if _OWN.fullmatch(name) and name != "ssl"]
    if own:
        raise ValueError(
            f"the store's timeouts, retries and connections are its own: take {_listed(own)} out of the URL"
        )
    unknown = [name for name, _ in given if name not in known]
    if unknown:
        tls = "" if issubclass(kind, SSLConnection) else "; those of TLS need rediss:// or ssl=true"
        raise ValueError(f"unknown options in a Redis URL: {_listed(unknown)}; known are {_listed(known)}{tls}")
    settings = {}
    for name, text in given:
        try:
            settings[name] = _URL_OPTIONS[name](text)
        except ValueError as error:
            raise ValueError(f"a Redis URL's option {name} cannot be read: {error}") from error
    return settings


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def _address(host: str, default_port: int, url: str) -> Address:
    match = re.fullmatch(r"(\[[^\]]+\]|[^:\[\]]+)(?::([0-9]+))?", host)
    if match is None:
        raise ValueError(f"{host!r} in {url!r} is no host:port")
    return match[1].strip("[]"), int(match[2] or default_port)


def _login(pool: Any) -> dict[str, Any]:
    """What it takes to reach the Sentinel of this pool."""
    _check_pool(type(pool))
    if not _is_of_redis_py(pool.connection_class):
        raise ValueError("RedisStore cannot reach Sentinels with a connection class of one's own")
    kept = {name: value for name, value in _kept(pool.connection_kwargs).items() if name != "socket_type"}
    return {**kept, "ssl": issubclass(pool.connection_class, SSLConnection)}


def _sentinel(
    service: str,
    sentinels: list[dict[str, Any]],
    kind: ConnectionType,
    settings: Mapping[str, Any],
    known: Any = None,
) -> Endpoint:
    """An endpoint whose address is whatever these sentinels say at the moment, to a Sentinel like `known`."""
    manager: Any = Sentinel([]) if known is None else copy.copy(known)  # type: ignore[no-untyped-call]
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
        try:
            host, port = manager.discover_master(service)
        except MasterNotFoundError:
            _check_sentinels(manager.sentinels)
            raise
        return str(host), int(port)

    return Endpoint(kind, settings, find)


def _check_sentinels(sentinels: Iterable[Any]) -> None:
    """Raise what the last one was refused with, if none of them is there: it says what is wrong."""
    refused: redis.ConnectionError | None = None
    for sentinel in sentinels:
        try:
            sentinel.ping()
        except redis.ConnectionError as error:
            if not is_refused(error):
                return
            refused = error
        except redis.RedisError:
            return
        else:
            return
    if refused is not None:
        raise refused from refused.__cause__ or refused.__context__  # which being raised here would replace
