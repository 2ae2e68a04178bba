"""What tests of several processes share: waiting with a deadline, and child processes that talk in lines."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

PATIENCE = 60.0
"""Seconds after which a test gives up on something that has no promised time: a crowded machine is slow."""


def wait_until(predicate: Callable[[], object], timeout: float = PATIENCE, what: str = "") -> float:
    """Poll until `predicate()` is true; returns the seconds that took, fails after `timeout`."""
    began = time.monotonic()
    pause = threading.Event()  # never set
    while not predicate():
        if time.monotonic() - began > timeout:
            raise AssertionError(f"not within {timeout:g} s: {what or predicate}")
        pause.wait(0.002)
    return time.monotonic() - began


def read_records(directory: Path, pattern: str) -> list[dict[str, Any]]:
    """The JSON lines of these files, to which processes may be writing: one that is not whole yet is left out."""
    texts = [path.read_text() for path in directory.glob(pattern)]
    return [json.loads(line) for text in texts for line in text.splitlines(keepends=True) if line.endswith("\n")]


def end_process(process: subprocess.Popen[Any], signum: int) -> None:
    """Signal it and wait for its end. One that does not obey is killed, and fails the test (TimeoutExpired)."""
    process.send_signal(signum)
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


class Process:
    """A Python process running a module, with its output as lines. Killed at the end of the `with` block.

    Its stdout is read all the time, so it never blocks on a full pipe; its stderr is kept for messages.
    """

    def __init__(self, module: str, *arguments: object) -> None:
        self._stderr = tempfile.TemporaryFile("w+")
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        self.popen = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=ROOT,
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
        )
        self.pid = self.popen.pid
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def line(self, timeout: float = PATIENCE) -> str:
        """The next line of output; fails if the process ends or stays silent."""
        try:
            line = self._lines.get(timeout=timeout)
        except queue.Empty:
            raise AssertionError(f"no output within {timeout:g} s; stderr: {self.stderr()}") from None
        if line is None:
            self._lines.put(None)
            raise AssertionError(f"the process ended with {self.popen.poll()}; stderr: {self.stderr()}")
        return line

    def until(self, prefix: str, timeout: float = PATIENCE) -> str:
        """Skip lines up to one that begins with `prefix`; returns what follows the prefix."""
        deadline = time.monotonic() + timeout
        while True:
            line = self.line(max(0.0, deadline - time.monotonic()))
            if line.startswith(prefix):
                return line[len(prefix) :].strip()

    def rest(self, timeout: float = PATIENCE) -> list[str]:
        """The lines left, after the process (and whoever inherited its stdout) has ended."""
        self._reader.join(timeout)
        assert not self._reader.is_alive(), "stdout is still open"
        lines = []
        while (line := self._lines.get()) is not None:
            lines.append(line)
        self._lines.put(None)
        return lines

    def say(self, text: str) -> None:
        """Send it a line."""
        assert self.popen.stdin is not None
        self.popen.stdin.write(text + "\n")
        self.popen.stdin.flush()

    def say_no_more(self) -> None:
        """Close its stdin."""
        assert self.popen.stdin is not None
        self.popen.stdin.close()

    def signal(self, number: int) -> None:
        """Send a signal to this process alone."""
        self.popen.send_signal(number)

    def kill(self) -> float:
        """SIGKILL; returns the monotonic time of it."""
        self.popen.kill()
        return time.monotonic()

    def wait(self, timeout: float = PATIENCE) -> int:
        """Its exit code."""
        return self.popen.wait(timeout)

    def stderr(self) -> str:
        """What it wrote to stderr so far."""
        self._stderr.seek(0)
        return self._stderr.read()

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.popen.poll() is None:
            self.popen.kill()  # also ends a stopped one
        self.popen.wait(PATIENCE)
        for pipe in (self.popen.stdin, self.popen.stdout):
            assert pipe is not None
            if pipe is self.popen.stdout:
                self._reader.join(PATIENCE)
            try:
                pipe.close()
            except BrokenPipeError:
                pass  # it ended with input unread
        self._stderr.close()
