"""A Redis server of the benchmark's own: on a UNIX socket in a temporary directory, keeping nothing on disk."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

_START_SECONDS = 10.0


@contextlib.contextmanager
def redis_server(directory: Path) -> Iterator[str | None]:
    """The path of its socket, or None where redis-server is not installed."""
    program = shutil.which("redis-server")
    if program is None:
        yield None
        return
    path = directory / "redis.sock"
    place = ["--port", "0", "--unixsocket", str(path), "--dir", str(directory)]
    settings = [*place, "--save", "", "--appendonly", "no"]
    server = subprocess.Popen([program, *settings], stdout=subprocess.DEVNULL)
    try:
        _await_start(path, server)
        yield str(path)
    finally:
        server.terminate()
        server.wait()


def _await_start(path: Path, server: subprocess.Popen[bytes]) -> None:
    import redis

    deadline = time.monotonic() + _START_SECONDS
    client = redis.Redis(unix_socket_path=str(path))
    while True:
        try:
            client.ping()
            client.close()
            return
        except redis.ConnectionError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise
        time.sleep(0.02)  # a server does not tell when it is up


def flush(path: str) -> None:
    """Empty it, so that each run begins alike."""
    import redis

    client = redis.Redis(unix_socket_path=path)
    client.flushall()
    client.close()
