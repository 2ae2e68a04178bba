"""Durable Streams servers in processes of their own, which can be killed and come back at the same address."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import urlencode

from ..support import PATIENCE, ROOT, wait_until
from .application import PREFIX

THREADS = 32

START = "-1"
NEXT = "stream-next-offset"


class Reply(NamedTuple):
    """A whole response. Names of headers are in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def offset(self) -> str:
        return self.headers[NEXT]


class Client:
    """One connection at a time to one server, made anew when it is gone. One thread."""

    def __init__(self, port: int, timeout: float = PATIENCE) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)

    def ask(
        self,
        method: str,
        stream: str,
        body: bytes | None = None,
        query: Mapping[str, Any] | None = None,
        **headers: Any,
    ) -> Reply:
        """One request, sent once; OSError or HTTPException if its answer is not known. `Content_Type` is
        text/plain where there is a body and it is not given."""
        names = {name.replace("_", "-"): str(value) for name, value in headers.items()}
        if body is not None:
            names.setdefault("Content-Type", "text/plain")
        path = f"{PREFIX}/{stream}" + (f"?{urlencode(query)}" if query else "")
        try:
            self._http.request(method, path, body, names)
            response = self._http.getresponse()
            return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        except BaseException:
            self._http.close()
            raise

    def put(self, stream: str, body: bytes | None = None, **headers: Any) -> Reply:
        headers.setdefault("Content_Type", "text/plain")
        return self.ask("PUT", stream, body, **headers)

    def post(self, stream: str, body: bytes, **headers: Any) -> Reply:
        return self.ask("POST", stream, body, **headers)

    def get(self, stream: str, offset: str = START, **query: Any) -> Reply:
        return self.ask("GET", stream, query={"offset": offset, **query})

    def whole(self, stream: str) -> bytes:
        """All that is stored."""
        found, offset = b"", START
        while True:
            reply = self.get(stream, offset)
            assert reply.status == 200, reply
            found += reply.body
            if "stream-up-to-date" in reply.headers:
                return found
            offset = reply.offset

    def messages(self, stream: str) -> list[Any]:
        """All that is stored, of JSON."""
        found: list[Any] = []
        offset = START
        while True:
            reply = self.get(stream, offset)
            assert reply.status == 200, reply
            found += reply.json
            if "stream-up-to-date" in reply.headers:
                return found
            offset = reply.offset

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def produced(producer_id: str, epoch: int, seq: int) -> dict[str, str]:
    """The headers of an idempotent producer."""
    return {"Producer_Id": producer_id, "Producer_Epoch": str(epoch), "Producer_Seq": str(seq)}


class Server:
    """gunicorn with `workers` processes; waitress where that is 0. Its listening socket outlives it.

    So clients that come while it is down wait instead of being refused.
    """

    def __init__(
        self, directory: Path, store: str, *, workers: int, threads: int = THREADS, **options: Any
    ) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.workers = workers
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.log = directory / "server.log"
        self._threads = threads
        self.environment = {
            **os.environ,
            "TEST_STORE": store,
            "TEST_OPTIONS": json.dumps({"long_poll_seconds": 0.5, **options}),
            "PYTHONWARNINGS": "default",
        }
        self.process = self._launch()

    def _launch(self) -> subprocess.Popen[bytes]:
        number = str(self._listener.fileno())
        if self.workers == 0:
            command = [sys.executable, "-m", "tests.durable.application", number, str(self._threads)]
        else:
            command = [
                sys.executable,
                "-m",
                "gunicorn",
                "tests.durable.application:from_environment()",
                "--config",
                str(ROOT / "tests" / "wsgi" / "gunicorn_conf.py"),
                "--chdir",
                str(ROOT),
                "--bind",
                f"fd://{number}",
                "--workers",
                str(self.workers),
                "--worker-class",
                "gthread",
                "--threads",
                str(self._threads),
                "--keep-alive",
                "75",  # clients do not repeat a POST whose connection was closed under them
                "--graceful-timeout",
                "1",  # it waits for idle connections, too
                "--worker-tmp-dir",
                str(self._directory),
                "--no-control-socket",
            ]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command,
                env=self.environment,
                cwd=ROOT,
                pass_fds=[self._listener.fileno()],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def await_start(self) -> Server:
        """Wait until it answers."""
        with Client(self.port) as client:
            assert client.ask("HEAD", "is-it-there").status == 404
        return self

    def client(self, timeout: float = PATIENCE) -> Client:
        return Client(self.port, timeout)

    def address(self, stream: str) -> str:
        """The URL of a stream."""
        return f"{self.url}{PREFIX}/{stream}"

    def worker_pids(self) -> list[int]:
        """The processes that answer, as far as they have been started."""
        if self.workers == 0:
            return [self.process.pid]
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def kill_worker(self, chance: random.Random) -> None:
        """SIGKILL for one worker; gunicorn starts another."""
        pids = self.worker_pids()
        if pids:
            os.kill(chance.choice(pids), signal.SIGKILL)

    def kill(self) -> None:
        """SIGKILL for all of its processes. Whoever is connected sees the connection break off."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)

    def start(self) -> None:
        """Come back after `kill`."""
        self.process = self._launch()

    def close(self) -> None:
        """End it in an orderly way."""
        try:
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGTERM)
                try:
                    self.process.wait(20)
                except subprocess.TimeoutExpired:
                    self.kill()
                    raise
        finally:
            self._listener.close()

    def complaints(self) -> list[str]:
        """What its log says of exceptions that nobody caught."""
        lines = self.log.read_text("utf-8", "replace").splitlines()
        return [line for line in lines if "Traceback" in line]

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if kind is None:
            assert not self.complaints(), self.log.read_text("utf-8", "replace")[-4000:]


class Events:
    """A live reader of server-sent events, over a connection of its own."""

    def __init__(self, port: int, stream: str, offset: str = START) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        self._http.request("GET", f"{PREFIX}/{stream}?" + urlencode({"offset": offset, "live": "sse"}))
        self.response = self._http.getresponse()
        self.status = self.response.status

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Event and data, until the server ends the response or the connection breaks (OSError, HTTPException)."""
        event = "message"
        data: list[str] = []
        for raw in self.response:
            line = raw.decode("utf-8").rstrip("\n")
            if not line:
                if data:
                    yield event, "\n".join(data)
                event, data = "message", []
            elif line.startswith("event:"):
                event = line[6:].strip()
            elif line.startswith("data:"):
                data.append(line[5:].removeprefix(" "))

    def close(self) -> None:
        self.response.close()
        self._http.close()


@contextmanager
def nginx(directory: Path, upstream: int, port: int) -> Iterator[None]:
    """nginx on `port`, in front of a server, over HTTP/1.1, with nothing held back."""
    configuration = directory / "nginx.conf"
    configuration.write_text(
        f"""daemon off; master_process off; pid {directory}/nginx.pid; error_log stderr warn;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
  server {{
    listen 127.0.0.1:{port};
    client_max_body_size 32m;
    location / {{
      proxy_pass http://127.0.0.1:{upstream};
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_buffering off;
      proxy_read_timeout 75s;
    }}
  }}
}}
""",
        encoding="utf-8",
    )
    with (directory / "nginx.log").open("wb") as log:
        process = subprocess.Popen(
            ["nginx", "-p", str(directory), "-c", str(configuration), "-e", "stderr"], stdout=log, stderr=log
        )
    try:
        wait_until(lambda: _listens(port), what="nginx's answer")
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
