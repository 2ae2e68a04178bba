"""Runs contestants: a fresh process for each, in interleaved rounds, and sums their figures up."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .redis_server import flush
from .relay import relayed

_PROCESS_SECONDS = 240.0


@dataclass(frozen=True)
class Contestant:
    """One way of doing a scenario's work. `programs`: one, or a producer and a viewer, each in its own process."""

    name: str
    programs: tuple[str, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    kind: str = "ours"
    """`ours`, `floor`, or the runtime of a peer: `node`, `python`."""
    needs_redis: bool = False
    needs: str = ""
    """A module that must be installed; otherwise it is left out."""


@dataclass(frozen=True)
class Scenario:
    """The same work for all contestants."""

    name: str
    title: str
    contestants: Sequence[Contestant]
    work: Mapping[str, Any]
    quick: Mapping[str, Any]
    """What `--quick` does instead: the same work, less of it."""
    rounds: int = 3
    comparable: bool = True
    """Whether all contestants deliver the very same bytes, so that their digests are compared."""
    headline: Sequence[str] = ()
    """The metrics of the table."""


class RunFailed(Exception):
    """A contestant's process failed, or delivered other bytes than it should."""


class Runner:
    """Runs scenarios one after the other. `commands` gives the command line prefix of each kind."""

    def __init__(
        self,
        redis: str | None,
        commands: Mapping[str, Sequence[str]],
        progress: Callable[[str], None],
        *,
        quick: bool,
    ) -> None:
        self._redis = redis
        self._commands = {"ours": _own(), "floor": _own(), **commands}
        self._progress = progress
        self._quick = quick

    def run(self, scenario: Scenario) -> dict[str, Any]:
        """All rounds of a scenario; the figures as they go into the JSON."""
        work = dict(scenario.quick if self._quick else scenario.work)
        rounds = 1 if self._quick else scenario.rounds
        entrants = [each for each in scenario.contestants if self._can_run(each)]
        found: dict[str, list[dict[str, Any]]] = {each.name: [] for each in entrants}
        failed: dict[str, str] = {}
        for number in range(rounds):
            # Another order in each round, so that nobody always comes after the same neighbour.
            shift = number % max(1, len(entrants))
            for contestant in entrants[shift:] + entrants[:shift]:
                if contestant.name in failed:
                    continue
                self._progress(f"{scenario.name} {number + 1}/{rounds}: {contestant.name}")
                try:
                    found[contestant.name].append(self._run_once(contestant, work))
                except RunFailed as error:
                    if contestant.kind in ("ours", "floor"):
                        raise
                    # A peer that cannot do the work is reported so, with the last line that it wrote.
                    failed[contestant.name] = str(error).strip().splitlines()[-1]
        if scenario.comparable:
            _compare_digests(scenario.name, found)
        return {
            "title": scenario.title,
            "work": work,
            "rounds": rounds,
            "failed": failed,
            "results": {
                each.name: {"kind": each.kind, "metrics": _summary(found[each.name])}
                for each in entrants
                if found[each.name]
            },
        }

    def _can_run(self, contestant: Contestant) -> bool:
        if contestant.needs and importlib.util.find_spec(contestant.needs) is None:
            self._progress(f"{contestant.needs} is not installed: {contestant.name} is left out")
            return False
        return contestant.kind in self._commands and (self._redis is not None or not contestant.needs_redis)

    def _run_once(self, contestant: Contestant, work: Mapping[str, Any]) -> dict[str, Any]:
        if self._redis is not None:
            flush(self._redis)
        with contextlib.ExitStack() as stack:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="resumable-bench-"))
            redis = self._redis or ""
            if "distance_ms" in work:
                redis = stack.enter_context(relayed(Path(directory), redis, work["distance_ms"] / 1e3))
            job = {**work, **contestant.arguments, "directory": directory, "redis": redis}
            processes: list[_Process] = []
            try:
                first, *others = contestant.programs
                processes.append(_Process(self._commands[contestant.kind], first, job))
                for program in others:
                    processes[0].await_event("begun")
                    processes.append(_Process(self._commands[contestant.kind], program, job))
                    processes[-1].await_event("ready")
                if others:
                    processes[0].go()
                results = [process.result() for process in processes]
            finally:
                for process in processes:
                    process.end()
        digests = {result["sha256"] for result in results if "sha256" in result}
        if len(results) > 1 and len(digests) != 1:
            raise RunFailed(f"{contestant.name}: the viewer got other bytes than were sent")
        metrics: dict[str, float] = {}
        for result in results:
            metrics |= result["metrics"]
        return {"metrics": metrics, "sha256": results[0].get("sha256")}


class _Process:
    """A contestant's process. A timer kills it when it takes too long."""

    def __init__(self, command: Sequence[str], program: str, job: Mapping[str, Any]) -> None:
        self._name = program
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [*command, program, json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._timer = threading.Timer(_PROCESS_SECONDS, self._process.kill)
        self._timer.start()

    def await_event(self, event: str) -> None:
        if self._line().get("event") != event:
            raise RunFailed(f"{self._name}: expected {event}")

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def result(self) -> dict[str, Any]:
        found = self._line()
        while "event" in found:
            found = self._line()
        if "metrics" not in found:
            raise RunFailed(f"{self._name}: no result but {found}")
        return found

    def end(self) -> None:
        """The process has ended when this returns."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        if sys.exc_info()[0] is not None:
            self._process.kill()
        self._process.wait()
        self._process.stdout.close()
        self._timer.cancel()
        self._errors.close()

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        while line and not line.startswith("{"):
            line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            raise RunFailed(f"{self._name} ended with {self._process.returncode}: {self._errors.read()[-2000:]}")
        found: dict[str, Any] = json.loads(line)
        return found


def _own() -> Sequence[str]:
    return (sys.executable, "-m", "benchmarks.programs")


def own_directory() -> Path:
    """Where the files beside this one are."""
    return Path(__file__).parent


def _compare_digests(name: str, found: Mapping[str, list[dict[str, Any]]]) -> None:
    digests = {each: {result["sha256"] for result in results} for each, results in found.items()}
    if len(set().union(*digests.values())) > 1:
        raise RunFailed(f"{name}: the contestants delivered different bytes: {digests}")


def _summary(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    summary = {}
    for metric in results[0]["metrics"]:
        samples = [result["metrics"][metric] for result in results]
        summary[metric] = {"median": statistics.median(samples), "samples": samples}
    return summary
