"""Node processes that answer for the JavaScript implementations, and what to do where there are none."""

from __future__ import annotations

import base64
import functools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest
from filelock import FileLock

NODE = Path(__file__).parent / "node"
OLDER = NODE / "older"
AGUI = NODE / "agui"
"""The adopted and newest clients, older ones that people still run, and those of AG-UI: packages of their own."""


class JavaScript:
    """Questions to a driver in tests/node. One test at a time."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, ask: str, **request: Any) -> Any:
        """The answer; AssertionError with what JavaScript raised."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"ask": ask, **request}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"node ended with {self._process.poll()}"
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer.get("value")

    def encode(self, format_name: str, chunks: list[Any]) -> bytes:
        """The bytes that the encoder of JavaScript makes of chunks."""
        return base64.b64decode(self.ask("encode", format=format_name, chunks=chunks)["body"])

    def decode(self, format_name: str, body: bytes, size: int = 0, **options: Any) -> Any:
        """The message that the decoder of JavaScript reads, cut into pieces of `size` (0: whole)."""
        encoded = base64.b64encode(body).decode()
        return self.ask("decode", format=format_name, body=encoded, size=size, options=options)

    def ai(self, version: int | str, body: bytes, size: int = 0) -> Any:
        """The message, and the errors told, that the AI SDK reads."""
        return self.ask("ai", version=version, body=base64.b64encode(body).decode(), size=size)


def cannot(what: str, reason: str) -> NoReturn:
    """Never silently: a skip that says what was not run, a failure where everything must run."""
    problem = f"{what} NOT TESTED: {reason}"
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(problem)
    pytest.skip(problem)


@functools.cache
def missing_packages(directory: Path = NODE) -> str | None:
    """Install the packages locked in `directory` if that was not done; why it cannot be done, or None."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return "node or npm is not installed"
    installed = directory / "node_modules" / ".complete"  # ours: npm's own mark is there before all packages are
    locked = directory / "package-lock.json"
    with FileLock(directory / "node_modules.lock"):  # processes that share the suite install them once
        if installed.exists() and installed.stat().st_mtime >= locked.stat().st_mtime:
            return None
        try:
            command = [npm, "ci", "--ignore-scripts", "--legacy-peer-deps", "--no-audit", "--no-fund"]
            done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=100)
        except subprocess.TimeoutExpired:
            return "npm ci took too long"
        if done.returncode != 0:
            return f"npm ci failed: {done.stderr[-500:]}"
        installed.touch()
        return None


class Bundles:
    """The scripts of pages in tests/node, with all that they import. Each is made once in `directory`, which
    processes may share."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def script(self, entry: str, version: int = 7) -> bytes:
        """The page's script with the AI SDK of that version; without the packages a skip, in CI a failure."""
        missing = missing_packages()
        if missing is not None:
            cannot("THE PAGES IN A BROWSER WERE", missing)
        made = self._directory / f"{entry}-{version}.js"
        with FileLock(f"{made}.lock"):
            if not made.exists():
                unfinished = made.with_suffix(".unfinished")
                command = ["node", "bundle.mjs", entry, str(unfinished), str(version)]
                subprocess.run(command, cwd=NODE, check=True, timeout=60)
                unfinished.rename(made)
        return made.read_bytes()


@contextmanager
def running(driver: str, *arguments: str, directory: Path = NODE) -> Iterator[JavaScript | str]:
    """A running driver of tests/node or a folder of it, or why there is none."""
    missing = missing_packages(directory)
    if missing is not None:
        yield missing
        return
    with started(directory, driver, *arguments) as process:
        yield process


@contextmanager
def started(directory: Path, driver: str, *arguments: str) -> Iterator[JavaScript]:
    """A driver that is started in `directory`, with the packages that are installed there."""
    with subprocess.Popen(
        ["node", driver, *arguments],
        cwd=directory,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    ) as process:
        try:
            yield JavaScript(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(10)
