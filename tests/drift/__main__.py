"""Install the newest npm clients in a temporary directory and tell what differs from what is tested here.

Compared are: the types and fields of the AI SDK's stream with tests/assistant/formats/coverage.json, its finish
reasons with those of the adopted version, and what the worked examples become. Exits 0 if nothing differs, 1 if
something does, 2 if the packages cannot be installed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..assistant.formats.coverage import unknown
from ..assistant.formats.remade import differences, kept
from ..javascript import NODE, JavaScript, started

_INSTALL_SECONDS = 300
_FOLLOWED = {"ai7": "ai", "assistant-stream": "assistant-stream", "zod": "zod"}
"""The names in tests/node/package.json whose packages are followed, and what these are called."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m tests.drift", description=__doc__.partition("\n")[0])
    parser.add_argument("--ai", metavar="VERSION", default="latest", help="of the AI SDK (default: latest)")
    parser.add_argument(
        "--assistant-stream", metavar="VERSION", default="latest", help="of assistant-stream (default: latest)"
    )
    parser.add_argument(
        "--zod", metavar="VERSION", default="latest", help="of what the AI SDK's schemas are made with"
    )
    parser.add_argument(
        "--installed", metavar="DIRECTORY", type=Path, help="compare what is installed there; installs nothing"
    )
    given = parser.parse_args(arguments)
    if given.installed is not None:
        return _compare(given.installed)
    wanted = {"ai7": f"npm:ai@{given.ai}", "assistant-stream": given.assistant_stream, "zod": given.zod}
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made)
        problem = _install(directory, wanted)
        if problem is not None:
            print(problem, file=sys.stderr)
            return 2
        return _compare(directory)


def _install(directory: Path, wanted: dict[str, str]) -> str | None:
    """Install the adopted packages with those that are `wanted` in their places; what went wrong, or None."""
    npm = shutil.which("npm")
    if npm is None:
        return "npm is not installed"
    for program in NODE.glob("*.mjs"):
        shutil.copy(program, directory)
    package = json.loads((NODE / "package.json").read_text("utf-8"))
    compared = {name: version for name, version in package["dependencies"].items() if name in ("ai5", "ai6")}
    package["dependencies"] = {**compared, **wanted}
    (directory / "package.json").write_text(json.dumps(package), "utf-8")
    command = [npm, "install", "--ignore-scripts", "--legacy-peer-deps", "--no-audit", "--no-fund"]
    try:
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=_INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        return f"npm install took more than {_INSTALL_SECONDS} seconds"
    return None if done.returncode == 0 else f"npm install failed: {done.stderr[-1000:]}"


def _compare(directory: Path) -> int:
    for name, package in _FOLLOWED.items():
        print(
            f"{package}: adopted {_version(NODE / 'package.json', name)}, compared {_installed(directory, name)}"
        )
    with started(directory, "driver.mjs") as javascript:
        told = 0
        for line in told_of(javascript):
            print(line)
            told += 1
    print(f"{told} differences" if told else "nothing differs")
    return 1 if told else 0


def told_of(javascript: JavaScript) -> Iterator[str]:
    """A line for each difference."""
    schema = javascript.ask("schema", version=7)
    yield from unknown(schema)
    adopted = json.loads((Path(__file__).with_name("finish_reasons.json")).read_text("utf-8"))
    for reason in sorted({*schema["finishReasons"]} ^ {*adopted}):
        yield f"finish finishReason {reason}: {'gone' if reason in adopted else 'new'}"
    for kind in ("controller", "decode", "ai"):
        for name, example in kept(kind).items():
            try:
                found = differences(javascript, kind, example)
            except AssertionError as refused:  # what JavaScript raised
                found = [f": cannot be made any more: {refused}"]
            yield from (f"{kind}/{name}{line}" for line in found)


def _version(package: Path, name: str) -> str:
    known: Any = json.loads(package.read_text("utf-8"))["dependencies"]
    return str(known[name]).rpartition("@")[2]


def _installed(directory: Path, name: str) -> str:
    package = directory / "node_modules" / name / "package.json"
    return str(json.loads(package.read_text("utf-8"))["version"])


if __name__ == "__main__":
    sys.exit(main())
