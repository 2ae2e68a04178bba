"""gunicorn with two workers, and nginx in front of it, configured as `resumable_sync.wsgi.operations` says."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ..support import PATIENCE, ROOT, end_process, wait_until
from ..test_metrics import Samples, free_ports, scrape
from ..wsgi import nginx
from .texts import shown

_APPLICATION = """\
from tests.operations.sources import add_routes, model_tokens, recover

{text}
add_routes(app, context, viewers)


@app.get("/edition")
def edition():
    return "{edition}"
"""


class Reply(NamedTuple):
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float


class Deployment:
    """Both servers. `port` is nginx's: all requests go there."""

    def __init__(self, directory: Path, url: str) -> None:
        self.directory = directory
        self.log = directory / "gunicorn.log"
        self._url = url
        self._stack = contextlib.ExitStack()
        self._metrics = free_ports(4)
        self.edition("1")
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._start(listener)
            upstream = f"127.0.0.1:{listener.getsockname()[1]}"
        places = {"server 127.0.0.1:8000": f"server {upstream}"}
        proxy = directory / "nginx"
        proxy.mkdir()
        try:
            started = nginx.serving(
                proxy, lambda port: shown("nginx.conf", {**places, "listen 80;": f"listen 127.0.0.1:{port};"})
            )
            self.port = self._stack.enter_context(started).port
            wait_until(lambda: len(self.workers_that_answer()) == 2)
        except BaseException:
            self.close()
            raise

    def _start(self, listener: socket.socket) -> None:
        ports = self._metrics
        conf = self.directory / "gunicorn.conf.py"
        changes = {
            '"127.0.0.1:8000"': f'"fd://{listener.fileno()}"',
            "range(9200, 9200 + 2 * workers)": repr(ports),
            "list_every=60": "list_every=0.2",
        }
        conf.write_text(shown("gunicorn.conf.py", changes))
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "RESUMABLE_STORE": self._url,
            "TEST_DIRECTORY": str(self.directory),
            # Two editions of one size within a second: a .pyc of the first would be taken for one of the second.
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "--no-control-socket"],
                cwd=self.directory,
                env=environment,
                pass_fds=[listener.fileno()],
                stdout=log,
                stderr=log,
            )

    def edition(self, name: str) -> None:
        """Install an edition of the application, which a reload loads."""
        unfinished = self.directory / "app.new"
        unfinished.write_text(_APPLICATION.format(text=shown("app.py"), edition=name))
        unfinished.rename(self.directory / "app.py")

    def connect(
        self, method: str, path: str, body: str | None = None, **headers: str
    ) -> http.client.HTTPConnection:
        """A request, on a connection of its own, whose answer has not come yet."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named)
        return connection

    def ask(self, path: str, method: str = "GET", body: str | None = None) -> Reply:
        """One whole request."""
        began = time.monotonic()
        with contextlib.closing(self.connect(method, path, body)) as connection:
            response = connection.getresponse()
            found = response.read()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, headers, found, time.monotonic() - began)

    def health(self) -> tuple[Reply, Mapping[str, object]]:
        """What /health says."""
        reply = self.ask("/health")
        return reply, json.loads(reply.body)

    def workers(self) -> set[int]:
        """The process ids of all workers, also of those that drain."""
        assert self.process.poll() is None, self.log.read_text()
        master = self.process.pid
        return set(map(int, Path(f"/proc/{master}/task/{master}/children").read_text().split()))

    def workers_that_answer(self) -> set[int]:
        """Of some requests, the process ids of who answered."""
        replies = [self.ask("/worker") for _ in range(10)]
        return {int(reply.body) for reply in replies if reply.status == 200}

    def producer(self, name: str) -> int:
        """The process id of who produces this answer, or did."""
        path = self.directory / f"producer-{name}"
        wait_until(path.exists)
        wait_until(path.read_text)
        return int(path.read_text())

    def figures(self) -> list[Samples]:
        """What the workers show, each at a port of its own."""
        found = []
        for port in self._metrics:
            try:
                found.append(scrape(port))
            except (urllib.error.URLError, OSError):  # nobody listens there, or not any more
                continue
        return found

    def total(self, name: str, **labels: str) -> float:
        """One figure, of all workers."""
        return sum(each[name, tuple(sorted(labels.items()))] for each in self.figures())

    def most(self, name: str, **labels: str) -> float:
        """One figure, where it is highest."""
        return max(each.get((name, tuple(sorted(labels.items()))), 0.0) for each in self.figures())

    def close(self) -> None:
        """End both."""
        try:
            if self.process.poll() is None:
                end_process(self.process, signal.SIGQUIT)  # without a drain
        finally:
            self._stack.close()


@contextlib.contextmanager
def deployed(directory: Path, url: str) -> Iterator[Deployment]:
    """Both servers, in `directory`."""
    deployment = Deployment(directory, url)
    try:
        yield deployment
    finally:
        deployment.close()
