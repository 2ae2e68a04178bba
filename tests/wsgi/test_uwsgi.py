"""Reloads of a real uWSGI: sources run to their own ends, viewers go on in another worker."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from resumable_sync import MemoryStore, ResumableStreamContext
from resumable_sync.stores.sqlite import SQLiteStore
from resumable_sync.wsgi import close_with_uwsgi

from ..javascript import cannot
from ..support import PATIENCE, end_process, wait_until
from .deploy_application import chunks
from .servers import Server
from .test_deploys import asking, begin

ROOT = Path(__file__).parents[2]


class UWSGI(Server):
    """uWSGI with two workers of many threads."""

    def __init__(self, directory: Path) -> None:
        binary = shutil.which("uwsgi", path=sysconfig.get_path("scripts"))
        if binary is None:
            cannot("uWSGI", "install the extra: ci")
        self.directory = directory
        self.touched = directory / "reload"
        self.touched.touch()
        self.log = directory / "uwsgi.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    binary,
                    *("--http-socket", "127.0.0.1:0", "--master", "--workers", "2", "--threads", "40"),
                    *("--enable-threads", "--single-interpreter", "--lazy-apps", "--need-app", "--die-on-term"),
                    *("--virtualenv", sys.prefix, "--pythonpath", str(ROOT)),
                    *("--module", "tests.wsgi.uwsgi_application:application"),
                    *("--worker-reload-mercy", "60", "--touch-chain-reload", str(self.touched)),
                ],
                env={
                    **os.environ,
                    "TEST_STORE": f"sqlite:///{directory / 'streams.db'}",
                    "TEST_DIRECTORY": str(directory),
                    "TEST_DRAIN": "30",
                },
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )
        ready = "WSGI app 0"
        wait_until(lambda: self._text(ready) == 2 or self.process.poll() is not None, PATIENCE)
        bound = re.search(r"127\.0\.0\.1:(\d+) \(port auto-assigned\)", self.log.read_text())
        assert bound, self.log.read_text()
        super().__init__(int(bound[1]), "uwsgi")
        self.store = SQLiteStore(directory / "streams.db")

    def _text(self, wanted: str) -> int:
        return self.log.read_text().count(wanted)

    def reload(self) -> None:
        """One worker after the other."""
        os.utime(self.touched, (1, 1 + self.touched.stat().st_mtime))

    def is_reloaded(self) -> bool:
        """Whether each worker has been replaced."""
        return self._text("chain reloading complete") > 0

    def end(self) -> None:
        try:
            end_process(self.process, signal.SIGTERM)
        finally:
            self.store.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[UWSGI]:
    running = UWSGI(tmp_path)
    try:
        yield running
    finally:
        running.end()


def test_a_reload_in_a_chain_interrupts_no_answer(server: UWSGI, report: Callable[..., None]) -> None:
    with asking(server) as asked:
        # As events: they say whether they were cut.
        answers = begin(server, range(1, 20, 2), 15.0)  # longer than the reload of both workers takes
        server.reload()
        for answer in answers:
            answer.check()
        in_time = server.is_reloaded()  # a busy machine may take longer than the answers last
        wait_until(server.is_reloaded)
    report(slowest_short=max(asked), cuts=sum(answer.cuts for answer in answers))
    assert any(answer.cuts for answer in answers) or not in_time  # viewers were sent away
    text = server.log.read_text()
    assert "Traceback" not in text and "SIGKILL" not in text and "no mercy" not in text, text


def test_an_end_that_is_not_graceful_says_so_to_viewers(server: UWSGI) -> None:
    server.get("/start/long/60").leave()
    wait_until(lambda: server.store.read("long").size > len(chunks("long", 60)[0]))
    server.process.send_signal(signal.SIGTERM)
    wait_until(lambda: server.store.status("long") == "interrupted")
    assert server.process.wait(PATIENCE) == 0


def test_only_under_uwsgi() -> None:
    with pytest.raises(RuntimeError, match="use close_on_sigterm"):
        close_with_uwsgi(ResumableStreamContext(MemoryStore()))
