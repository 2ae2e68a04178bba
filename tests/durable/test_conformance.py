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
            if found[setting][
                1
            ]:  # its lifetimes are of real seconds, which a busy machine does not keep: once more
                found[setting] = run(server).result()
    failed = {setting: failures for setting, (_, failures) in found.items() if failures}
    assert not failed, json.dumps({str(setting): failures for setting, failures in failed.items()}, indent=1)
    assert {setting: counts for setting, (counts, _) in found.items()} == dict.fromkeys(
        settings, {"numPassedTests": PASSED, "numFailedTests": 0, "numPendingTests": LEFT_OUT, "numTodoTests": 0}
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

    def result(self) -> tuple[dict[str, int], list[str]]:
        """Counts of tests, and what failed, with the first line of why."""
        self._process.wait(SECONDS)
        assert self._report.exists(), self._log.read_text("utf-8", "replace")
        report = json.loads(self._report.read_text("utf-8"))
        names = ("numPassedTests", "numFailedTests", "numPendingTests", "numTodoTests")
        failures = [
            f"{test['fullName']}: {test['failureMessages'][0].splitlines()[0]}"
            for file in report["testResults"]
            for test in file["assertionResults"]
            if test["status"] == "failed"
        ]
        return {name: report[name] for name in names}, failures

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()


@pytest.mark.redis
@pytest.mark.timeout(2 * SECONDS)
def test_every_store_conforms(node: Path, tmp_path: Path) -> None:
    """Where processes can share the store, two of them answer."""
    conform([Setting("memory", 0), Setting("sqlite", 2), Setting("redis", 2)], node, tmp_path)


@pytest.mark.heavy
@pytest.mark.timeout(2 * SECONDS)
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
