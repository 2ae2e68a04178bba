"""The protocol's published conformance suite, over HTTP. It must run whole: what it leaves out seems to pass."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from ..backends import BACKENDS
from .servers import Server

PASSED = 332
"""Tests of suite 0.3.6, less the six of the reserved subscription APIs, which are opt-in."""
LEFT_OUT = 6
SECONDS = 200.0
"""For one run; on an idle machine it takes 20 to 30."""


class Setting(NamedTuple):
    """A store, and how many gunicorn workers share it; 0: waitress."""

    store: str
    workers: int


def conform(settings: Sequence[Setting], node: Path, directory: Path) -> None:
    """Run the suite against a server for each setting, side by side: nearly all of a run is waiting."""
    with ExitStack() as stack:
        servers = []
        for setting in settings:
            own = directory / f"{setting.store}-{setting.workers}"
            own.mkdir()
            server = Server(own, BACKENDS[setting.store].url(own), workers=setting.workers)
            servers.append(stack.enter_context(server))

        def run(server: Server) -> _Run:
            made = _Run(server.await_start(), node, server.log.parent)
            stack.callback(made.end)
            return made

        runs = list(map(run, servers))
        found = {setting: each.result() for setting, each in zip(settings, runs)}
        for setting, server in zip(settings, servers):
            for _ in range(2):  # its lifetimes are of real seconds, which a busy machine does not keep
                if found[setting].failures:
                    found[setting] = found[setting].repeated(run(server).result())
    failed = {str(setting): result.failures for setting, result in found.items() if result.failures}
    assert not failed, json.dumps(failed, indent=1)
    counts = {setting: (result.run, result.left_out) for setting, result in found.items()}
    assert counts == dict.fromkeys(settings, (PASSED, LEFT_OUT))


class _Result(NamedTuple):
    """Of one run."""

    run: int
    left_out: int
    failures: dict[str, str]
    """What failed, and the first line of why."""

    def repeated(self, again: _Result) -> _Result:
        """With what the same tests did again: only what failed each time has failed."""
        return again._replace(
            failures={name: why for name, why in again.failures.items() if name in self.failures}
        )


class _Run:
    """vitest, at work."""

    def __init__(self, server: Server, node: Path, directory: Path) -> None:
        self._report = directory / "report.json"
        self._report.unlink(missing_ok=True)
        self._log = directory / "vitest.log"
        command = ["node", "node_modules/vitest/vitest.mjs", "run", "--reporter=json"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, f"--outputFile={self._report}"],
                cwd=node,
                env={**server.environment, "DS_URL": server.url, "DS_LONG_POLL_MS": "500"},
                stdout=log,
                stderr=log,
            )

    def result(self) -> _Result:
        """Waits for its end."""
        self._process.wait(SECONDS)
        assert self._report.exists(), self._log.read_text("utf-8", "replace")
        report = json.loads(self._report.read_text("utf-8"))
        failures = {
            test["fullName"]: test["failureMessages"][0].splitlines()[0]
            for file in report["testResults"]
            for test in file["assertionResults"]
            if test["status"] == "failed"
        }
        run = report["numPassedTests"] + report["numFailedTests"]
        return _Result(run, report["numPendingTests"] + report["numTodoTests"], failures)

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()


@pytest.mark.redis
@pytest.mark.timeout(3 * SECONDS)
def test_every_store_conforms(node: Path, tmp_path: Path) -> None:
    """Where processes can share the store, two of them answer."""
    conform([Setting("memory", 0), Setting("sqlite", 2), Setting("redis", 2)], node, tmp_path)


@pytest.mark.heavy
@pytest.mark.timeout(3 * SECONDS)
@pytest.mark.parametrize(
    "setting",
    [
        pytest.param(Setting(store, workers), marks=[pytest.mark.redis] if store == "redis" else [])
        for store, workers in (("memory", 1), ("sqlite", 0), ("sqlite", 1), ("redis", 0), ("redis", 1))
    ],
    ids=lambda setting: f"{setting.store}-{setting.workers}",
)
def test_other_servers_conform(setting: Setting, node: Path, tmp_path: Path) -> None:
    """waitress (0), and gunicorn with one worker."""
    conform([setting], node, tmp_path)
