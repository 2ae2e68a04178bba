"""The demo as a subprocess on a SQLite file of its own, and a headless browser."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..support import wait_until


def until(predicate: Callable[[], object], what: str, seconds: float = 20.0) -> None:
    """Return once `predicate()` is true; fail after `seconds`."""
    wait_until(predicate, seconds, what)


class Demo:
    """`resumable-sync demo` on `database`, at a port that stays the same across restarts."""

    def __init__(self, database: Path, *arguments: str) -> None:
        self.store = f"sqlite:///{database}"
        self._arguments = arguments
        self._port = 0
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "resumable_sync",
                "--store",
                self.store,
                "demo",
                "--port",
                str(self._port),
                *self._arguments,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=_heed_signals,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        assert line.startswith("http://"), line
        self.url = line.split()[0]
        self._port = int(self.url.rstrip("/").rpartition(":")[2])

    def end(self, signum: int) -> tuple[int, bytes]:
        """Signal it; returns its exit code and what it said on stderr."""
        self.process.send_signal(signum)
        _, said = self.process.communicate(timeout=20)
        return self.process.returncode, said


def _heed_signals() -> None:
    """A test run in the background may ignore signals, which its children would inherit."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_DFL)


@pytest.fixture
def run_demo(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    demos: list[Demo] = []

    def run(*arguments: str) -> Demo:
        demo = Demo(tmp_path / "streams.db", *arguments)
        demos.append(demo)
        return demo

    yield run
    for demo in demos:
        if demo.process.poll() is None:
            demo.end(signal.SIGKILL)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """One that a module's tests share, at the pace of a person who reads."""
    yield from _shared(tmp_path_factory)


@pytest.fixture(scope="module")
def quick_demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """As `demo`, for those who wait for the end of an answer."""
    yield from _shared(tmp_path_factory, "--rate", "50")


def _shared(tmp_path_factory: pytest.TempPathFactory, *arguments: str) -> Iterator[Demo]:
    demo = Demo(tmp_path_factory.mktemp("demo") / "streams.db", *arguments)
    try:
        yield demo
    finally:
        demo.end(signal.SIGKILL)
