"""Runs the command line as real subprocesses on a real SQLite file of each test's own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ..support import wait_until

DEADLINE = 20.0


def until(predicate: Callable[[], object], what: str, seconds: float = DEADLINE) -> None:
    """Return once `predicate()` is true; fail after `seconds`."""
    wait_until(predicate, seconds, what)


def heed_signals() -> None:
    """A test run in the background may ignore signals, which its children would inherit."""
    for signum in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(signum, signal.SIG_DFL)


class Cli:
    """Runs `python -m resumable_sync` with a state directory below `home`."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {**os.environ, "XDG_STATE_HOME": str(home), "PYTHONUNBUFFERED": "1"}
        self.environment.pop("RESUMABLE_STORE", None)
        self.database = home / "resumable_sync" / "streams.db"
        self._processes: list[subprocess.Popen[bytes]] = []

    def run(self, *arguments: str, input: bytes = b"", **options: Any) -> subprocess.CompletedProcess[bytes]:
        """Run to the end; stdout and stderr are captured."""
        options.setdefault("env", self.environment)
        return subprocess.run(self.command(*arguments), input=input, capture_output=True, timeout=60, **options)

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start with pipes; it is killed after the test if it still runs."""
        for stream in ("stdin", "stdout", "stderr"):
            options.setdefault(stream, subprocess.PIPE)
        command = options.pop("command", None) or self.command(*arguments)
        process = subprocess.Popen(command, env=self.environment, bufsize=0, preexec_fn=heed_signals, **options)
        self._processes.append(process)
        return process

    def start_patient(self, *arguments: str) -> subprocess.Popen[bytes]:
        """As `start`, but further signals count as company of the first however late a busy machine sends them."""
        code = "import sys; from resumable_sync.cli import main, signals; signals._CLEANING_SECONDS = 600; "
        return self.start(command=[sys.executable, "-c", code + "sys.exit(main())", *arguments])

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "resumable_sync", *arguments]

    def status(self, stream_id: str) -> dict[str, Any] | None:
        """What `status --json` says; None for exit code 7."""
        result = self.run("status", stream_id, "--json")
        if result.returncode == 7:
            return None
        assert result.returncode == 0, result.stderr
        details: dict[str, Any] = json.loads(result.stdout)
        return details

    def stored(self, stream_id: str) -> int:
        """Bytes stored of a stream; -1 if there is none."""
        details = self.status(stream_id)
        return -1 if details is None else int(details["size"])

    def end(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    runner = Cli(tmp_path / "state")
    yield runner
    runner.end()


def one_line(stderr: bytes) -> str:
    """The one line on stderr, which is no traceback."""
    text = stderr.decode()
    assert "Traceback" not in text, text
    lines = text.splitlines()
    assert len(lines) == 1 and lines[0].startswith("resumable-sync: "), text
    return lines[0]
