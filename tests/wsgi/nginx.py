"""A real nginx on loopback, which asks one upstream over HTTP/1.0 and over HTTP/1.1, or does as it is told."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from ..javascript import cannot
from ..support import end_process, wait_until

_CONFIGURATION = """
daemon off;
user root;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log info;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    {servers}
}}
"""

_BOTH_VERSIONS = """
server {{
    listen 127.0.0.1:{port};
    location /1.0/ {{
        proxy_http_version 1.0;
        proxy_pass http://{upstream}/;
    }}
    location /1.1/ {{
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_pass http://{upstream}/;
    }}
}}
"""


class Nginx:
    """One that runs. Answers by HTTP/1.1."""

    def __init__(self, port: int, log: Path) -> None:
        self.port = port
        self._log = log

    def log(self) -> str:
        """Its error log so far."""
        return self._log.read_text()


@contextlib.contextmanager
def nginx(directory: Path, upstream: str) -> Iterator[Nginx]:
    """In front of `upstream`, `host:port` or `unix:/path:`; asks for `/1.0/…` and `/1.1/…` by these versions."""
    with serving(directory, lambda port: _BOTH_VERSIONS.format(port=port, upstream=upstream)) as found:
        yield found


@contextlib.contextmanager
def serving(directory: Path, servers: Callable[[int], str]) -> Iterator[Nginx]:
    """With what `servers` says within `http`, of a server that listens on `127.0.0.1:<port>`."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        cannot("PROXIES WERE", "nginx is missing")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        configuration = directory / "nginx.conf"
        configuration.write_text(_CONFIGURATION.format(directory=directory, servers=servers(port)))
        with (directory / "output").open("wb") as output:
            process = subprocess.Popen(
                [program, "-c", str(configuration), "-e", str(directory / "error.log")],
                env={**os.environ, "NGINX": f"{listener.fileno()};"},  # the socket that it takes over
                pass_fds=[listener.fileno()],
                stdout=output,
                stderr=output,
            )
    found = Nginx(port, directory / "error.log")

    def answers() -> bool:
        assert process.poll() is None, (directory / "output").read_text() + found.log()
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as connection:
                connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                return bool(connection.recv(1))
        except OSError:
            return False  # it is not ready

    try:
        wait_until(answers)
        yield found
    finally:
        end_process(process, signal.SIGTERM)
