"""Other libraries, installed by name from npm and PyPI into a cache folder of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

_NPM = ("assistant-stream", "resumable-stream", "ioredis", "redis", "@durable-streams/server")
_PYPI = ("assistant-stream", "resumable-stream", "resumable-sse", "fastapi-resumable-stream", "redis", "hiredis")


class Installed(NamedTuple):
    """Command line prefixes by runtime, and versions by package."""

    commands: dict[str, Sequence[str]]
    versions: dict[str, str]


def cache_folder() -> Path:
    """$RESUMABLE_BENCH_CACHE, or a folder below ~/.cache."""
    return Path(os.environ.get("RESUMABLE_BENCH_CACHE") or Path.home() / ".cache" / "resumable_sync-benchmarks")


def install(progress: Callable[[str], None]) -> Installed:
    """Install what is not there yet. A runtime that is missing is left out, with a line that says so."""
    installed = Installed({}, {})
    for runtime, setup in (("node", _install_node), ("python", _install_python)):
        try:
            setup(cache_folder() / runtime, installed, progress)
        except (OSError, subprocess.CalledProcessError) as error:
            progress(f"peers on {runtime} are left out: {error}")
    return installed


def _install_node(folder: Path, installed: Installed, progress: Callable[[str], None]) -> None:
    modules = folder / "node_modules"
    folder.mkdir(parents=True, exist_ok=True)
    if not all((modules / name / "package.json").exists() for name in _NPM):
        progress(f"npm install {' '.join(_NPM)}")
        (folder / "package.json").write_text('{"private": true, "type": "module"}\n', encoding="utf-8")
        subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", *_NPM],
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    for source in Path(__file__).parent.glob("*.mjs"):
        shutil.copy(source, folder / source.name)  # beside node_modules, where its imports are looked up
    for name in _NPM:
        found = json.loads((modules / name / "package.json").read_text("utf-8"))
        installed.versions[f"npm {name}"] = found["version"]
    installed.commands["node"] = ("node", str(folder / "peer.mjs"))


def _install_python(folder: Path, installed: Installed, progress: Callable[[str], None]) -> None:
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    listing = [str(python), "-m", "pip", "--disable-pip-version-check", "list", "--format", "json"]
    versions = _versions(listing)
    if not versions.keys() >= set(_PYPI):
        progress(f"pip install {' '.join(_PYPI)}")
        subprocess.run(
            [str(python), "-m", "pip", "install", "--quiet", *_PYPI],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        versions = _versions(listing)
    installed.versions.update({f"PyPI {name}": versions[name] for name in _PYPI})
    installed.commands["python"] = (str(python), str(Path(__file__).parent / "asyncio_peers.py"))


def _versions(listing: Sequence[str]) -> dict[str, str]:
    found = subprocess.run(listing, check=True, capture_output=True, text=True).stdout
    return {each["name"]: each["version"] for each in json.loads(found)}
