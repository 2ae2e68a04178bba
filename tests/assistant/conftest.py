"""The Node process that answers for the JavaScript implementations."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

NODE = Path(__file__).parent.parent / "node"


class JavaScript:
    """Questions to tests/node/driver.mjs. One test at a time."""

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

    def ai(self, version: int, body: bytes, size: int = 0) -> Any:
        """The message, and the errors told, that the AI SDK reads."""
        return self.ask("ai", version=version, body=base64.b64encode(body).decode(), size=size)


def _cannot(reason: str) -> NoReturn:
    """Never silently: a skip that says what was not run, a failure where everything must run."""
    problem = f"THE JAVASCRIPT CLIENTS WERE NOT TESTED: {reason}"
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(problem)
    pytest.skip(problem)


@pytest.fixture(scope="session")
def _node() -> Iterator[JavaScript | str]:
    """A running driver, or why there is none."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        yield "node or npm is not installed"
        return
    installed = NODE / "node_modules" / ".package-lock.json"
    locked = NODE / "package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < locked.stat().st_mtime:
        try:
            done = subprocess.run(
                [npm, "ci", "--no-audit", "--no-fund"], cwd=NODE, capture_output=True, text=True, timeout=100
            )
        except subprocess.TimeoutExpired:
            yield "npm ci took too long"
            return
        if done.returncode != 0:
            yield f"npm ci failed: {done.stderr[-500:]}"
            return
    with subprocess.Popen(
        [node, "driver.mjs"], cwd=NODE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:
        try:
            yield JavaScript(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(10)


@pytest.fixture
def javascript(_node: JavaScript | str) -> JavaScript:
    """The JavaScript implementations, or a skip (in CI a failure) that says why they are missing."""
    if isinstance(_node, str):
        _cannot(_node)
    return _node
