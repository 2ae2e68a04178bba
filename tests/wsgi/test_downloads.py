"""Downloads by curl, wget and Chromium, directly and through nginx: cut anywhere and resumed they are exact, and
what failed is never taken for complete."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import select
import shutil
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ..javascript import cannot
from ..support import PATIENCE, wait_until
from .application import EXPORT
from .nginx import Nginx, nginx
from .servers import Gunicorn, Server, in_process

if TYPE_CHECKING:
    from selenium import webdriver

SERVERS = ["wsgiref", "werkzeug", "waitress", "gthread", "sync"]
CUT_OFF = {18, 56}
"""curl's exit codes: transfer closed before its end, receiving failed."""
FAILED_HALF = len(EXPORT) // 2

numbers = itertools.count()


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        cannot(f"DOWNLOADS BY {name} WERE", f"{name} is missing")
    return found


@contextlib.contextmanager
def serving(kind: str, directory: Path) -> Iterator[Server]:
    running: Any
    if kind == "gthread":
        running = Gunicorn(directory, "memory://", "--workers", "1")
    elif kind == "sync":  # one request at a time in each worker
        store = f"sqlite:///{directory / 'streams.db'}"
        running = Gunicorn(directory, store, "--workers", "3", "--worker-class", "sync", "--threads", "1")
    else:
        running = in_process(kind)
    with running as found:
        yield found


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(request.param, tmp_path_factory.mktemp(request.param)) as found:
        yield found


@pytest.fixture(scope="module")
def gunicorn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving("gthread", tmp_path_factory.mktemp("gunicorn")) as found:
        yield found


@pytest.fixture(scope="module")
def proxy(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    with nginx(tmp_path_factory.mktemp("nginx"), f"127.0.0.1:{server.port}") as found:
        yield found


class Cutter:
    """A relay to `port` that resets its first connections after as many bytes of answers as `lengths` has. `cuts`
    counts them. (Where a connection merely ends, within a chunk, wget takes what it has for complete.)"""

    def __init__(self, port: int, lengths: list[int]) -> None:
        self._target = port
        self._lengths = iter(lengths)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._over, self._ending = socket.socketpair()
        self.port = self._listener.getsockname()[1]
        self.cuts = 0

    def __enter__(self) -> Cutter:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        self._ending.close()  # wakes those that relay: a browser keeps its connections
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        self._over.close()

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            self._start(self._relay, client, next(self._lengths, None))

    def _relay(self, client: socket.socket, left: int | None) -> None:
        with client, socket.create_connection(("127.0.0.1", self._target)) as server:
            while True:
                ready, _, _ = select.select([client, server, self._over], [], [], PATIENCE)
                if self._over in ready:
                    return
                try:
                    if client in ready:
                        request = client.recv(65536)
                        if not request:
                            return
                        server.sendall(request)
                    if server in ready:
                        piece = server.recv(65536 if left is None else min(left, 65536))
                        if not piece:
                            return
                        client.sendall(piece)
                        if left is not None:
                            left -= len(piece)
                except OSError:  # one of them was reset: so is the other
                    _reset_when_closed(client)
                    return
                if left == 0:
                    self.cuts += 1
                    _reset_when_closed(client)
                    return
                assert ready, "nothing comes"


def _reset_when_closed(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def curl(url: str, file: Path, *options: str) -> int:
    command = [program("curl"), "--silent", "--show-error", "--max-time", str(PATIENCE), *options]
    return subprocess.run([*command, "--output", str(file), url], capture_output=True).returncode


def is_prefix(file: Path) -> bool:
    return not file.exists() or EXPORT.startswith(file.read_bytes())


def resumed_by_curl(port: int, prefix: str, chance: random.Random, directory: Path, cuts: int) -> int:
    """Download a stream that is produced meanwhile, and cut that often; the number of cuts."""
    file, stream_id = directory / "curl", f"curl-{next(numbers)}"
    with Cutter(port, [chance.randrange(400, 20_000) for _ in range(cuts)]) as cutter:
        url = f"http://127.0.0.1:{cutter.port}{prefix}/raw/{stream_id}?source=export"
        while (code := curl(url, file, "--continue-at", "-")) != 0:
            assert code in {18, 52, 56} and is_prefix(file)
        assert file.read_bytes() == EXPORT
        file.unlink()
        return cutter.cuts


def resumed_by_wget(port: int, prefix: str, chance: random.Random, directory: Path, cuts: int) -> int:
    """As `resumed_by_curl`, but wget itself tries again."""
    file, stream_id = directory / "wget", f"wget-{next(numbers)}"
    with Cutter(port, [chance.randrange(400, 20_000) for _ in range(cuts)]) as cutter:
        url = f"http://127.0.0.1:{cutter.port}{prefix}/raw/{stream_id}?source=export"
        options = ["--continue", "--tries=0", "--waitretry=0", "--no-verbose", f"--timeout={PATIENCE:g}"]
        done = subprocess.run([program("wget"), *options, "-O", str(file), url], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert file.read_bytes() == EXPORT, done.stderr
        file.unlink()
        return cutter.cuts


@pytest.mark.parametrize("download", [resumed_by_curl, resumed_by_wget])
def test_cut_anywhere_and_resumed(server: Server, tmp_path: Path, download: Callable[..., int]) -> None:
    chance = random.Random(f"{server.kind}")
    assert download(server.port, "", chance, tmp_path, cuts=3) > 0


@pytest.mark.parametrize("download, version", [(resumed_by_curl, "1.0"), (resumed_by_wget, "1.1")])
def test_cut_anywhere_before_nginx(
    server: Server, proxy: Nginx, tmp_path: Path, download: Callable[..., int], version: str
) -> None:
    chance = random.Random(f"{server.kind} {version}")
    assert download(proxy.port, f"/{version}", chance, tmp_path, cuts=2) > 0


@pytest.mark.heavy
@pytest.mark.parametrize("download", [resumed_by_curl, resumed_by_wget])
@pytest.mark.parametrize("prefix", ["", "/1.0", "/1.1"])
def test_cut_fifty_times(
    server: Server, proxy: Nginx, tmp_path: Path, download: Callable[..., int], prefix: str
) -> None:
    chance, cuts = random.Random(), 0
    while cuts < 50:
        cuts += download(proxy.port if prefix else server.port, prefix, chance, tmp_path, cuts=12)


def test_a_file_that_is_complete_stays(gunicorn: Server, tmp_path: Path) -> None:
    file, url = tmp_path / "file", f"http://127.0.0.1:{gunicorn.port}/raw/complete?source=export"
    assert curl(url, file) == 0
    wait_until(lambda: gunicorn.ask("/status/complete")["status"] == "done")
    assert curl(url, file, "--continue-at", "-") == 0 and file.read_bytes() == EXPORT
    done = subprocess.run([program("wget"), "--continue", "-q", "-O", str(file), url])
    assert done.returncode == 0 and file.read_bytes() == EXPORT


def test_a_file_of_another_life_is_neither_spliced_nor_complete(gunicorn: Server, tmp_path: Path) -> None:
    """What has begun anew is shorter than the file; and what is not there does not begin for it."""
    file = tmp_path / "file"
    for path, stream_id in (("/raw/none?source=export", "none"), ("/resume/other", "other")):
        if stream_id == "other":
            viewer = gunicorn.get("/raw/other?source=silent")
            viewer.read_until(b"hello")
            viewer.leave()
        file.write_bytes(b"bytes of another life")
        url = f"http://127.0.0.1:{gunicorn.port}{path}"
        assert curl(url, file, "--continue-at", "-") == 33  # cannot resume
        done = subprocess.run([program("wget"), "--continue", "-q", "-O", str(file), url])
        assert done.returncode == 8 and file.read_bytes() == b"bytes of another life"  # the server's error
    assert gunicorn.ask("/status/none")["status"] == "missing"


ROUTES = ["direct 1.0", pytest.param("direct 1.1", marks=pytest.mark.heavy), "nginx 1.0", "nginx 1.1"]


def through(route: str, server: Server, proxy: Nginx) -> tuple[str, list[str]]:
    """Where curl asks, and its options."""
    way, version = route.split()
    if way == "nginx":
        return f"http://127.0.0.1:{proxy.port}/{version}", []
    return f"http://127.0.0.1:{server.port}", [f"--http{version}"]


@pytest.mark.parametrize("route", ROUTES)
def test_a_stream_that_fails_does_not_look_complete(
    server: Server, proxy: Nginx, tmp_path: Path, route: str
) -> None:
    """Neither to one who follows it, nor to those who come later, or with all its bytes. One that is done does."""
    base, options = through(route, server, proxy)
    stream_id, file = f"failing-{next(numbers)}", tmp_path / "file"
    assert curl(f"{base}/raw/{stream_id}?source=failing_export", file, *options) in CUT_OFF
    assert is_prefix(file)
    wait_until(lambda: server.ask(f"/status/{stream_id}")["status"] == "error")
    url = f"{base}/resume/{stream_id}"
    # Where nothing is left to send, waitress makes it a 500: curl "cannot resume".
    refused = CUT_OFF | {33} if server.kind == "waitress" else CUT_OFF
    for _ in range(2):
        assert curl(url, file, *options, "--continue-at", "-") in refused
        assert file.read_bytes() == EXPORT[:FAILED_HALF]
    assert curl(url, file, *options) in CUT_OFF
    assert file.read_bytes() == EXPORT[:FAILED_HALF]
    assert curl(f"{base}/raw/good-{stream_id}?source=export", file, *options) == 0
    assert file.read_bytes() == EXPORT


@contextlib.contextmanager
def following(url: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A curl that has received the `hello` of a stream that goes on."""
    command = [program("curl"), "--silent", "--no-buffer", "--max-time", str(PATIENCE), *options, url]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stdout.read(5) == b"hello"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("route", ["direct 1.0", "nginx 1.0", "nginx 1.1"])
def test_a_stream_that_is_cancelled_does_not_look_complete(server: Server, proxy: Nginx, route: str) -> None:
    base, options = through(route, server, proxy)
    stream_id = f"cancelled-{next(numbers)}"
    with following(f"{base}/raw/{stream_id}?source=silent", *options) as viewer:
        assert server.ask(f"/cancel/{stream_id}")["cancelled"] is True
        assert viewer.wait(PATIENCE) in CUT_OFF
    if route == "nginx 1.0":
        wait_until(lambda: "while reading upstream" in proxy.log())
        assert "Connection reset by peer" in proxy.log()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_worker_that_is_killed_does_not_look_like_the_end(tmp_path: Path, version: str) -> None:
    """The kernel resets its connections: the switch was set before."""
    with (
        Gunicorn(tmp_path, "memory://", "--workers", "1") as server,
        nginx(tmp_path, f"127.0.0.1:{server.port}") as proxy,
    ):
        pid = server.ask("/viewers")["pid"]
        with (
            following(f"http://127.0.0.1:{proxy.port}/{version}/raw/killed") as viewer,
            following(f"http://127.0.0.1:{server.port}/raw/killed", f"--http{version}") as near,
        ):
            os.kill(pid, signal.SIGKILL)
            assert {viewer.wait(PATIENCE), near.wait(PATIENCE)} <= CUT_OFF
        wait_until(lambda: _is_served_anew(server, pid))  # gunicorn does not end well before that


def _is_served_anew(server: Server, pid: int) -> bool:
    """Whether there is another worker."""
    try:
        return bool(server.ask("/viewers")["pid"] != pid)
    except OSError:
        return False


class Downloads:
    """The downloads of a Chromium."""

    _ITEM = "document.querySelector('downloads-manager')?.shadowRoot.querySelector('downloads-item')?.shadowRoot"

    def __init__(self, browser: webdriver.Chrome, directory: Path) -> None:
        self._browser = browser
        self._directory = directory
        options = {"behavior": "allow", "downloadPath": str(directory)}
        browser.execute_cdp_cmd("Browser.setDownloadBehavior", options)

    def begin(self, url: str) -> None:
        self._browser.get("data:text/html,<a id=link download>")
        self._browser.execute_script("link.href = arguments[0]; link.click()", url)

    def failed(self) -> bool:
        """Whether the newest download is one that has failed and can be resumed."""
        if not self._browser.current_url.startswith("chrome://downloads"):
            self._browser.get("chrome://downloads")
        return bool(
            self._browser.execute_script(
                f"const item = {self._ITEM}; return item && /Failed/.test(item.textContent)"
                " && /Resume/.test(item.getElementById('pause-or-resume')?.textContent)"
            )
        )

    def resume(self) -> None:
        wait_until(self.failed)
        self._browser.execute_script(f"{self._ITEM}.getElementById('pause-or-resume').click()")

    def complete(self) -> bytes | None:
        """The file, once it is complete."""
        files = list(self._directory.iterdir())
        if len(files) == 1 and files[0].suffix != ".crdownload":
            return files[0].read_bytes()
        return None


@pytest.mark.parametrize("route", ["direct 1.1", "nginx 1.0"])
def test_a_browser_resumes_its_download(
    gunicorn: Server, tmp_path: Path, browser: webdriver.Chrome, route: str
) -> None:
    directory = tmp_path / "downloads"
    directory.mkdir()
    with nginx(tmp_path, f"127.0.0.1:{gunicorn.port}") as proxy:
        way, version = route.split()
        port, prefix = (proxy.port, f"/{version}") if way == "nginx" else (gunicorn.port, "")
        with Cutter(port, [20_000]) as cutter:
            stream_id = f"browser-{next(numbers)}"
            downloads = Downloads(browser, directory)
            downloads.begin(f"http://127.0.0.1:{cutter.port}{prefix}/raw/{stream_id}?source=export")
            downloads.resume()
            wait_until(lambda: downloads.complete() is not None)
            assert downloads.complete() == EXPORT and cutter.cuts == 1
            browser.get("about:blank")


@pytest.mark.parametrize("when", ["while it is followed", "when it had failed before"])
def test_a_browser_sees_that_a_download_failed(
    gunicorn: Server, tmp_path: Path, browser: webdriver.Chrome, when: str
) -> None:
    directory = tmp_path / "downloads"
    directory.mkdir()
    stream_id = f"browser-{next(numbers)}"
    with nginx(tmp_path, f"127.0.0.1:{gunicorn.port}") as proxy:
        url = f"http://127.0.0.1:{proxy.port}/1.0/raw/{stream_id}?source=failing_export"
        if when == "when it had failed before":
            assert curl(url, tmp_path / "file") in CUT_OFF
            wait_until(lambda: gunicorn.ask(f"/status/{stream_id}")["status"] == "error")
        downloads = Downloads(browser, directory)
        downloads.begin(url)
        wait_until(downloads.failed)
        assert downloads.complete() is None
        browser.get("about:blank")
