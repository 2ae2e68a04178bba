"""The benchmarks run. What they measure is not judged here."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.scenarios import SCENARIOS

from .javascript import cannot

ROOT = Path(__file__).parents[1]


FEW = ["append", "tail-across", "replay-10k", "tail-at-1-ms", "write-amplification", "durable", "http"]
"""One of each kind: they take a few seconds."""


@pytest.mark.timeout(600)  # some forty processes, one after the other
@pytest.mark.parametrize("names", [FEW, pytest.param([], marks=pytest.mark.heavy)], ids=["few", "all"])
def test_quick_run(names: list[str], tmp_path: Path) -> None:
    if not names and importlib.util.find_spec("gevent") is None:
        cannot("the benchmarks with gevent", "install the extra: servers")
    scenarios = [scenario for scenario in SCENARIOS if scenario.name in names or not names]
    command = [sys.executable, "-m", "benchmarks", *names, "--quick", "--json", "figures.json", "--plot", "plots"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin:/usr/local/bin"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "figures.json").read_text("utf-8"))
    assert (tmp_path / "plots" / "append.svg").read_text("utf-8").startswith("<svg")
    assert document.keys() == {"schema", "quick", "environment", "scenarios", "aims", "seconds"}
    assert document["environment"].keys() >= {"commit", "cpu", "cores", "python", "sqlite", "packages", "peers"}
    assert list(document["scenarios"]) == [scenario.name for scenario in scenarios]
    for scenario in scenarios:
        measured = document["scenarios"][scenario.name]
        assert not measured["failed"]
        for contestant in scenario.contestants:
            if contestant.kind not in ("ours", "floor"):
                assert contestant.name not in measured["results"]
            elif shutil.which("redis-server") or not contestant.needs_redis:
                metrics = measured["results"][contestant.name]["metrics"]
                assert metrics.keys() & set(scenario.headline), contestant.name
                assert all(len(metric["samples"]) == measured["rounds"] for metric in metrics.values())
            assert contestant.name in done.stdout or contestant.kind in ("node", "python")
