"""Takeover against everything at once: appends in flight, lost replies, endings, cancel, expiry, delete, release,
other takeovers, with processes that are killed and frozen (G3, G4, G5, G11).

Each process writes down what it did and saw; the histories are judged at the end.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from resumable_sync import Status, StreamNotFoundError, open_store
from resumable_sync.contract import Maintenance

from ...figures import Report
from ...support import PATIENCE, Process, read_records
from .places import Place
from .rounds import rounds
from .takeover_programs import RECORD, record

PROGRAMS = "tests.stores.faults.takeover_programs"
GRACE = 0.6
PROCESSES = 3
THREADS = 3
IDS = [f"c{number}" for number in range(3)]
CLOCK = 0.1
"""Seconds by which the clocks of the stores and of the processes may differ, and a call may be late."""

Event = dict[str, Any]


class History:
    """What happened to one generation."""

    def __init__(self, events: list[Event], killed: set[int], lossless: bool) -> None:
        self.reads = [event for event in events if event["kind"] == "read"]
        self.wins = sorted((e for e in events if e["kind"] == "won"), key=lambda e: e["term"])
        self.calls = [event for event in events if event["kind"] in ("append", "finalize", "release", "late")]
        self.cancels = [event for event in events if event["kind"] == "cancel"]
        self._killed = killed
        self._lossless = lossless
        self.data: str = max((event["data"] for event in self.reads), key=len, default="")

    def check(self) -> None:
        self._check_terms()
        self._check_bytes()
        self._check_calls()
        self._check_ending()
        self._check_that_none_was_taken_from_a_living_one()

    def _check_terms(self) -> None:
        terms = [win["term"] for win in self.wins]
        assert len(terms) == len(set(terms)), f"two winners of a term: {self.wins}"
        for earlier, later in zip(self.wins, self.wins[1:]):
            assert earlier["offset"] <= later["offset"] and earlier["t0"] < later["t1"], (earlier, later)

    def _check_bytes(self) -> None:
        for event in self.reads:
            assert self.data.startswith(event["data"]), f"two readers saw different bytes: {event} {self.data}"
        begins = {win["token"]: win["offset"] for win in self.wins}
        offset, seen = 0, []
        while offset < len(self.data):
            token = self.data[offset : offset + RECORD - 7]
            assert token in begins and token not in seen, f"a record of an earlier term, or of nobody: {self.data}"
            assert begins[token] == offset, (token, begins[token], offset, self.data)
            seen.append(token)
            number = 0
            while self.data[offset : offset + RECORD - 7] == token:
                assert self.data[offset : offset + RECORD] == record(token, number).decode(), self.data
                offset += RECORD
                number += 1
        order = [win["token"] for win in self.wins if win["token"] in seen]
        assert seen == order, "the terms are in order"

    def _check_calls(self) -> None:
        for call in self.calls:
            later = [win for win in self.wins if win["term"] > call["term"]]
            records = "".join(
                record(call["token"], call["first"] + each).decode() for each in range(call["count"])
            )
            if call["result"] == "ok":
                assert call["kind"] != "late", f"a released lease appended: {call}"
                # Not after somebody else has won; each call of a lost reply may have been the one that counted.
                assert not any(win["t1"] < call["t0"] for win in later), (call, later)
                if call["kind"] == "append":
                    stored = slice(call["offset"] - len(records), call["offset"])
                    for read in self.reads:
                        if read["t0"] > call["t1"] and read["whole"]:
                            assert read["data"][stored] == records, (call, read)
            elif self._lossless and call["result"] != "unknown" and call["attempts"] == 1 and records:
                # Over a wire the store may have made the call twice, and the first reply was lost.
                assert records not in self.data, f"it was refused, and is there: {call}"

    def _check_ending(self) -> None:
        ended = [read for read in self.reads if read["status"] != "streaming"]
        endings = {read["status"] for read in ended}
        made = [call for call in self.calls if call["kind"] == "finalize" and call["result"] == "ok"]
        endings |= {call["status"] for call in made}
        endings |= {"cancelled" for _ in self.cancels}
        assert len(endings) <= 1, (endings, made, self.cancels)
        for read in ended:
            if read["whole"]:
                assert read["data"] == self.data, "something came after the ending"
        known = min([each["t1"] for each in (*ended, *made, *self.cancels)], default=float("inf"))
        for event in (*self.wins, *(call for call in self.calls if call["result"] == "ok")):
            if event["kind"] in ("won", "append"):
                assert event["t0"] < known, f"after the ending: {event}"

    def _check_that_none_was_taken_from_a_living_one(self) -> None:
        for earlier, later in zip(self.wins, self.wins[1:]):
            if later["term"] != earlier["term"] + 1 or earlier["pid"] in self._killed:
                continue
            own = [call for call in self.calls if call["token"] == earlier["token"]]
            if any(call["kind"] == "release" for call in own):
                continue
            signs = [call["t0"] for call in own if call["result"] == "ok" and call["attempts"] == 1]
            last = max([earlier["t0"], *(t0 for t0 in signs if t0 < later["t0"])])
            assert later["t1"] > last + GRACE - CLOCK, f"the lease had not run out: {earlier} {later} {own}"


class Contest:
    """The processes, which are killed, frozen and started again at random."""

    def __init__(self, url: str, directory: Path) -> None:
        self._url = url
        self._directory = directory
        self._random = random.Random(7)
        self._running: list[Process] = []
        self._started = 0
        self.killed: set[int] = set()
        self.counts: Counter[str] = Counter()

    def start(self) -> None:
        log = self._directory / f"log-{self._started}"
        self._started += 1
        self._running.append(Process(PROGRAMS, "contend", self._url, GRACE, log, self._started, THREADS, *IDS))

    def disturb(self) -> None:
        victim = self._random.choice(self._running)
        if self._random.random() < 0.15:
            self.killed.add(victim.pid)
            victim.kill()
            self._running.remove(victim)
            victim.__exit__(None, None, None)
            self.start()
            self.counts["kills"] += 1
        else:
            victim.signal(signal.SIGSTOP)
            threading.Event().wait(self._random.choice((0.02, 0.1, GRACE * 1.5)))
            victim.signal(signal.SIGCONT)
            self.counts["freezes"] += 1

    def end(self) -> None:
        """Let all come to their ends: none exits before all are over."""
        for process in self._running:
            process.say("no more")
        for process in self._running:
            process.until("over")
        for process in self._running:
            process.say_no_more()
            assert process.wait() == 0, process.stderr()
            assert not process.stderr(), process.stderr()

    def __enter__(self) -> Contest:
        for _ in range(PROCESSES):
            self.start()
        for process in self._running:
            process.until("ready")
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running:
            process.__exit__(None, None, None)


@rounds(8, 1000, 3600)
def test_takeover_against_everything(rounds: int, place: Place, tmp_path: Path, report: Report) -> None:
    """Until there were so many takeovers: one winner, nothing of an earlier term later, one ending."""
    events: list[Event] = []
    with Contest(place.lossy_url, tmp_path) as contest:
        deadline = time.monotonic() + max(PATIENCE, 2.0 * rounds)
        while sum(event["kind"] == "won" and event["term"] > 1 for event in events) < rounds:
            assert time.monotonic() < deadline, Counter(event["kind"] for event in events)
            for _ in range(3):
                threading.Event().wait(0.1)
                contest.disturb()
            events = read_records(tmp_path, "log-*")
        contest.end()
    events = read_records(tmp_path, "log-*")
    with open_store(place.url, grace=GRACE) as store:
        for info in store.streams():
            began = time.monotonic()
            try:
                batch = store.read(info.stream_id, max_bytes=1 << 20)
            except StreamNotFoundError:
                assert info.ttl < 1  # it has expired since it was listed
                continue
            assert batch.status is not Status.MISSING
            events.append(
                {
                    "kind": "read",
                    "id": info.stream_id,
                    "g": batch.generation,
                    "t0": began,
                    "t1": time.monotonic(),
                    "data": batch.data.decode(),
                    "status": str(batch.status),
                    "whole": True,
                }
            )
        assert isinstance(store, Maintenance) and store.check() == []
    histories: dict[tuple[str, int], list[Event]] = defaultdict(list)
    for event in events:
        histories[event["id"], event["g"]].append(event)
    for found in histories.values():
        History(found, contest.killed, not place.proxies).check()
    refused = Counter(event["result"] for event in events if event.get("result", "ok") != "ok")
    report(
        generations=len(histories),
        takeovers=sum(event["kind"] == "won" and event["term"] > 1 for event in events),
        appends=sum(event["kind"] == "append" and event["result"] == "ok" for event in events),
        reads=sum(event["kind"] == "read" for event in events),
        cuts=sum(proxy.cuts for proxy in place.proxies),
        **contest.counts,
        **refused,
    )
