"""What README's table of servers says, each started for real, in processes of its own, on a SQLite file.

gunicorn, uWSGI and werkzeug run always, the others with `-m heavy`.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from resumable_sync import open_store

from ..javascript import cannot
from ..support import PATIENCE, end_process, wait_until
from .servers import HEARTBEAT, THREADS, VIEWERS, Server

ROOT = Path(__file__).parents[2]
MODULE = "tests.wsgi.module:application"
APACHE_MODULES = Path("/usr/lib/apache2/modules")
LAUNCHED = ("cheroot", "gevent", "uvicorn", "hypercorn", "werkzeug")


@dataclass(frozen=True)
class Cell:
    """What one kind of server can do."""

    kind: str
    shows_viewers: bool = True  # a viewer that leaves frees its thread within two heartbeats
    told_of_sigterm: bool = True  # its streams are ended, and its viewers told, at once
    threads: bool = True  # several viewers at once
    breaks_off: bool = True  # raw bytes of a stream that failed do not look complete


HEAVY = pytest.mark.heavy
KINDS = [
    Cell("gunicorn-gthread"),
    Cell("uwsgi-lazy"),
    Cell("werkzeug"),
    pytest.param(Cell("gunicorn-sync", threads=False), marks=HEAVY),
    pytest.param(Cell("gunicorn-gevent"), marks=HEAVY),
    pytest.param(Cell("uwsgi-forked"), marks=HEAVY),
    pytest.param(Cell("uwsgi-single", threads=False), marks=HEAVY),
    pytest.param(Cell("cheroot"), marks=HEAVY),
    pytest.param(Cell("gevent"), marks=HEAVY),
    pytest.param(Cell("uvicorn"), marks=HEAVY),
    pytest.param(Cell("hypercorn"), marks=HEAVY),
    pytest.param(Cell("granian", told_of_sigterm=False), marks=HEAVY),
    pytest.param(Cell("mod_wsgi", shows_viewers=False, breaks_off=False), marks=HEAVY),
]


def need(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        cannot(package, "install the extra: servers")


def script(name: str) -> str:
    found = shutil.which(name, path=sysconfig.get_path("scripts"))
    if found is None:
        cannot(name, "install the extra: ci")
    return found


class Running(Server):
    """A server of this kind, and the store that it uses."""

    def __init__(self, cell: Cell, directory: Path) -> None:
        self.cell = cell
        self.directory = directory
        self.url = f"sqlite:///{directory / 'streams.db'}"
        self.log = directory / "log"
        self._made: list[Path] = []
        with socket.create_server(("127.0.0.1", 0)) as listener:
            super().__init__(listener.getsockname()[1], cell.kind)
            descriptor = listener.fileno()
            command = self._command(descriptor)
            if cell.kind in ("granian", "mod_wsgi"):  # these bind by themselves
                listener.close()
            with self.log.open("wb") as log:
                self.process = subprocess.Popen(
                    command,
                    env={
                        **os.environ,
                        "TEST_STORE": self.url,
                        "TEST_VIEWERS": str(VIEWERS),
                        "TEST_HEARTBEAT": str(HEARTBEAT),
                    },
                    cwd=ROOT,
                    pass_fds=[] if listener.fileno() < 0 else [descriptor],
                    stdout=log,
                    stderr=log,
                )
        try:
            wait_until(self._answers, PATIENCE)
        except BaseException:
            self.close()
            raise

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return bool(self.ask("/viewers"))
        except (OSError, http.client.HTTPException):
            return False

    def _command(self, descriptor: int) -> Sequence[str]:
        kind, threads = self.kind, str(THREADS)
        python = sys.executable, "-m"
        if kind.startswith("gunicorn"):
            worker = kind.partition("-")[2]
            if worker == "gevent":
                need("gevent")
            more = ("--threads", threads) if worker == "gthread" else ()
            own = ("--graceful-timeout", "5", "--worker-tmp-dir", str(self.directory), "--no-control-socket")
            return (
                *python,
                "gunicorn",
                MODULE,
                "--bind",
                f"fd://{descriptor}",
                "--worker-class",
                worker,
                *more,
                *own,
            )
        if kind.startswith("uwsgi"):
            mode: tuple[str, ...] = {
                "uwsgi-lazy": ("--threads", threads, "--enable-threads", "--lazy-apps"),
                "uwsgi-forked": ("--threads", threads, "--enable-threads"),
                "uwsgi-single": ("--enable-threads",),
            }[kind]
            alone = (
                "--master",
                "--single-interpreter",
                "--need-app",
                "--die-on-term",
                "--worker-reload-mercy",
                "5",
            )
            place = ("--virtualenv", sys.prefix, "--pythonpath", str(ROOT), "--module", MODULE)
            return (script("uwsgi"), "--http-socket", f"fd://{descriptor}", *mode, *alone, *place)
        if kind in LAUNCHED:
            need(kind)
            return (*python, "tests.wsgi.launch", kind, str(descriptor))
        if kind == "granian":
            need("granian")
            where = ("--interface", "wsgi", "--host", "127.0.0.1", "--port", str(self.port))
            how = ("--blocking-threads", threads, "--workers-kill-timeout", "2", "--no-log")
            return (*python, "granian", *where, *how, MODULE)
        return self._apache()

    def _apache(self) -> Sequence[str]:
        if not (APACHE_MODULES / "mod_wsgi.so").exists():
            cannot("mod_wsgi", "install the packages apache2 and libapache2-mod-wsgi-py3")
        here = Path(tempfile.mkdtemp(prefix="resumable-sync-"))  # where its user may go, too
        self.url = f"sqlite:///{here / 'streams.db'}"
        entry = here / "entry.wsgi"
        settings = {"TEST_STORE": self.url, "TEST_VIEWERS": VIEWERS, "TEST_HEARTBEAT": HEARTBEAT}
        entry.write_text(
            f"import os\nos.environ.update({ {name: str(value) for name, value in settings.items()} !r})\n"
            "from tests.wsgi.module import application\n"
        )
        self._made.append(here)
        os.chmod(here, 0o777)
        paths = f"{ROOT}:{sysconfig.get_path('purelib')}"
        (here / "apache.conf").write_text(
            f"ServerName localhost\nServerRoot {here}\nPidFile {here}/pid\nListen 127.0.0.1:{self.port}\n"
            f"ErrorLog {here}/error.log\nUser nobody\nGroup nogroup\n"
            f"LoadModule mpm_event_module {APACHE_MODULES}/mod_mpm_event.so\n"
            f"LoadModule authz_core_module {APACHE_MODULES}/mod_authz_core.so\n"
            f"LoadModule wsgi_module {APACHE_MODULES}/mod_wsgi.so\n"
            f"WSGISocketPrefix {here}/wsgi\n"
            f"WSGIDaemonProcess streams threads={THREADS} python-path={paths} shutdown-timeout=5\n"
            f"WSGIScriptAlias / {entry} process-group=streams application-group=%{{GLOBAL}}\n"
        )
        return ("/usr/sbin/apache2", "-f", str(here / "apache.conf"), "-D", "FOREGROUND")

    def close(self) -> None:
        for directory in self._made:
            shutil.rmtree(directory, ignore_errors=True)
        if self.process.poll() is None:
            end_process(self.process, signal.SIGTERM)


@pytest.fixture(scope="module", params=KINDS, ids=lambda cell: cell.kind)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(request.param, tmp_path_factory.mktemp("server"))
    yield running
    running.close()


@pytest.mark.parametrize("route", ["raw", "sse"])
def test_a_viewer_that_leaves(server: Running, route: str) -> None:
    """Its thread is free within two heartbeats where the server shows the connection, else at the stream's end."""
    stream_id = f"silent-{route}"
    count = VIEWERS if server.cell.threads else 1
    viewers = [server.get(f"/{route}/{stream_id}") for _ in range(count)]
    for viewer in viewers:
        viewer.read_until(b"hello")
    if server.cell.threads:
        refused = server.get(f"/{route}/{stream_id}")
        assert refused.status == 503 and refused.headers["retry-after"] == "5"
        refused.leave()
    left = time.monotonic()
    for viewer in viewers:
        viewer.leave()
    if server.cell.shows_viewers:
        wait_until(lambda: server.viewers() == 0)
        assert time.monotonic() - left < 2 * HEARTBEAT + 2
    with open_store(server.url) as store:
        assert store.status(stream_id) == "streaming"
        assert store.cancel(stream_id)
    wait_until(lambda: server.viewers() == 0)


def test_head(server: Running) -> None:
    reply = server.get("/raw/head", "HEAD")
    assert (reply.status, reply.headers["x-resumable-status"], reply.read()) == (200, "missing", b"")
    reply.leave()
    reply = server.get("/resume/head", "HEAD")
    assert (reply.status, reply.read()) == (404, b"")
    reply.leave()


def test_a_source_that_fails(server: Running) -> None:
    """Events tell; raw bytes do not reach the length that is announced."""
    events = server.get("/sse/failed?source=failing")
    assert re.findall(rb'event: end\ndata: {"status": "(\w+)"', events.read()) == [b"error"]
    events.leave()
    broken_off = (http.client.IncompleteRead, http.client.RemoteDisconnected)
    with contextlib.ExitStack() as leaving, pytest.raises(broken_off):
        raw = server.get("/resume/failed")
        leaving.callback(raw.leave)
        raw.read()


def test_a_stream_that_is_stopped_under_its_viewer(server: Running) -> None:
    """Raw bytes of unknown length are broken off."""
    raw = server.get("/raw/stopped")
    raw.read_until(b"hello")
    with open_store(server.url) as store:
        assert store.cancel("stopped")
    if server.cell.breaks_off:
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            raw.read()
    else:
        assert raw.read() == b""
    raw.leave()


def test_sigterm(server: Running) -> None:
    """The last one. No stream stays as it was, no viewer takes it for complete."""
    viewer = server.get("/sse/at-the-end")
    viewer.read_until(b"hello")
    began = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    try:
        rest = viewer.read()
    except (http.client.IncompleteRead, ConnectionError):
        rest = b""
    assert b'"done"' not in rest
    viewer.leave()
    server.process.wait(PATIENCE)
    if server.cell.told_of_sigterm:
        assert time.monotonic() - began < 10
    with open_store(server.url) as store:
        wait_until(lambda: store.status("at-the-end") == "interrupted")
