"""Which stream is the newest of a chat: many processes' worth of threads, slow ones, records that expire, workers
of edition 1."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from resumable_sync import MemoryStore, ResumableStreamContext, current_producer, open_store
from resumable_sync.assistant import AssistantEndpoints
from resumable_sync.assistant.newest import ActiveStreams, Claim
from resumable_sync.contract import Status, Store, StreamInfo
from resumable_sync.errors import StoreUnavailableError, UnsupportedError
from resumable_sync.stores.notes import Commit, Creation

from ...backends import BACKEND_PARAMS, BACKENDS, Backend
from ...stores.contract.file_store import FileStore
from ...wsgi.support import wait_until
from .support import Script, call

EDITION_1 = Path(__file__).parents[2] / "data" / "edition_1"
WHEEL = EDITION_1 / "resumable_sync-0.1.0-py3-none-any.whl"

SEND: dict[str, Any] = {"id": "c", "messages": [{"id": "u", "role": "user", "parts": []}]}
GOES_ON: dict[str, Any] = {
    "id": "c",
    "messages": [{"id": "A", "role": "assistant", "parts": [{"type": "text", "text": "May I?"}]}],
}


def records(store: Any) -> list[StreamInfo]:
    """What is kept of chats, and of messages that go on."""
    return list(store.streams(prefix="chat.", internal=True))


def test_the_last_one_counts(backend: Backend, store: Store) -> None:
    second = backend.second(store)
    here, there = ActiveStreams(store), ActiveStreams(second)
    assert here.newest("c") is None
    for number in range(7):
        (here if number % 2 else there).begin("c", f"s{number}").end()
        assert here.newest("c") == there.newest("c") == f"s{number}"
    (record,) = records(store)  # however many messages the chat has
    assert record.shared and record.size == 0 and list(store.streams()) == []
    for chat_id in ("C", "c/d", "\ud800", "ü" * 5000, "../x"):
        assert here.newest(chat_id) is None
        here.begin(chat_id, "other").end()
        assert there.newest(chat_id) == "other"
    assert here.newest("c") == "s6"
    assert ActiveStreams(store, "elsewhere").newest("c") is None
    second.close()


def test_an_older_stream_that_ends_later_hides_nothing(store: Store) -> None:
    active = ActiveStreams(store)
    claims = [active.begin("c", f"s{number}") for number in range(4)]
    for claim in claims:
        claim.end()
        assert active.newest("c") == "s3"


def test_many_at_once(backend: Backend, store: Store) -> None:
    """Each of several processes begins streams. A reader never sees none, nor one again that another has followed;
    and the last one standing is one of the last of each."""
    stores = [backend.second(store) for _ in range(4)]
    ActiveStreams(store).begin("c", "first").end()
    start = threading.Barrier(5)
    failures: list[BaseException] = []
    done = threading.Event()
    seen: list[str | None] = []

    def begin(index: int) -> None:
        try:
            active = ActiveStreams(stores[index])
            start.wait(20)
            for number in range(8):
                active.begin("c", f"s{index}-{number}").end()
        except BaseException as error:
            failures.append(error)

    def look() -> None:
        active = ActiveStreams(store)
        start.wait(20)
        while not done.is_set():
            seen.append(active.newest("c"))

    threads = [threading.Thread(target=begin, args=(index,)) for index in range(4)]
    looking = threading.Thread(target=look)
    for thread in (*threads, looking):
        thread.start()
    for thread in threads:
        thread.join(60)
    done.set()
    looking.join(20)
    assert failures == []
    in_turn = [stream_id for stream_id, _ in itertools.groupby(seen)]
    assert None not in in_turn and len(set(in_turn)) == len(in_turn)
    assert ActiveStreams(store).newest("c") in {f"s{index}-7" for index in range(4)}
    ActiveStreams(store).begin("c", "last").end()
    assert ActiveStreams(store).newest("c") == "last"
    for other in stores:
        if other is not store:
            other.close()


class Passed(MemoryStore):
    """A store in front of which one caller is held up: before its next calls so many others begin streams."""

    def __init__(self, schedule: list[int]) -> None:
        super().__init__()
        self.schedule: list[int] | None = None
        """None: nobody is held up."""
        self.later: list[str] = []
        """Streams that others have begun since the one that is held up has taken a place."""
        self._planned = schedule[::-1]

    def begin(self, stream_id: str) -> None:
        self.schedule = self._planned
        ActiveStreams(self).begin("c", stream_id)
        self.schedule = None

    def _let_pass(self) -> None:
        schedule, self.schedule = self.schedule, None
        if schedule:
            for number in range(schedule.pop()):
                self.later.append(f"meanwhile-{len(schedule)}-{number}")
                ActiveStreams(self).begin("c", self.later[-1]).end()
        self.schedule = schedule

    def _took_place(self) -> None:
        if self.schedule is not None:
            self.later.clear()

    def _info(self, stream_id: str) -> StreamInfo | None:
        self._let_pass()
        return super()._info(stream_id)

    def _create(self, creation: Creation, token: str) -> StreamInfo | None:
        self._let_pass()
        info = super()._create(creation, token)
        if info is not None:
            self._took_place()
        return info

    def _commit(self, commit: Commit) -> str:
        self._let_pass()
        cursor = super()._commit(commit)
        self._took_place()
        return cursor


@given(st.lists(st.integers(0, 3), max_size=12), st.integers(0, 3))
@example([0, 0, 0, 2], 2)  # others pass while it is about to take the place
def test_a_slow_one_that_others_pass(schedule: list[int], before: int) -> None:
    """Between any two of its calls any number of others begin. When it returns, only such as began after it had
    taken its place can be newer."""
    with Passed(schedule) as store:
        for number in range(before):
            ActiveStreams(store).begin("c", f"before-{number}").end()
        store.begin("slow")
        assert ActiveStreams(store).newest("c") == ["slow", *store.later][-1]
        assert len(records(store)) == 1
        ActiveStreams(store).begin("c", "later").end()
        assert ActiveStreams(store).newest("c") == "later"


def test_too_many_at_once() -> None:
    class Hopeless(MemoryStore):
        def _create(self, creation: Creation, token: str) -> StreamInfo | None:
            return None

    with Hopeless() as store, pytest.raises(StoreUnavailableError):
        ActiveStreams(store).begin("c", "s")


def test_a_record_lives_as_long_as_its_stream(backend: Backend) -> None:
    """Ended streams expire soon here, records included; those of a running stream do not, though it is silent."""
    store = backend.make(ttl=2.0, finished_ttl=0.5)
    with ResumableStreamContext(store, heartbeat=0.1) as context:
        script = Script("Hel")
        app = AssistantEndpoints(context, script, authorize=None)
        sent = call(app, "POST", "/", GOES_ON)
        sent.read_until(b"Hel")
        passed = threading.Event()
        assert not passed.wait(3.0)  # longer than the life of anything that nobody keeps alive
        assert app.newest_stream("c") == sent.headers["x-resumable-stream-id"]
        assert len(records(store)) == 2
        resumed = call(app, "GET", "/c/stream")
        script.put(None)
        assert b"May I?" in resumed.read()
        wait_until(lambda: app.newest_stream("c") is None and records(store) == [], 20)
    store.close()


def test_a_source_that_cannot_be_made_ends_its_claim(store: Store) -> None:
    def fails() -> Any:
        current_producer()._on_end(claim.end)
        raise ValueError("no source")

    with ResumableStreamContext(store) as context:
        active = ActiveStreams(store)
        claim = active.begin("c", "s")
        context.start("s", fails)
        wait_until(lambda: (record := active.record("c")) is not None and record.status is Status.DONE, 20)
        assert context.status("s") is Status.ERROR


def test_how_a_message_ended_that_its_stream_does_not_tell(backend: Backend, store: Store) -> None:
    second = backend.second(store)
    here, there = ActiveStreams(store), ActiveStreams(second)
    claim = here.begin("c", "s", awaited=True)
    assert there.record("c") == ("s", "streaming", True, None)
    claim.note("error")
    claim.note("cancelled")  # the first counts
    assert there.record("c") == ("s", "streaming", True, "error")
    claim.end(Status.INTERRUPTED)
    assert there.record("c") == ("s", "interrupted", True, "error")
    there.begin("c", "t")
    claim.end()  # it has the place no longer
    assert here.record("c") == ("t", "streaming", False, None)
    second.close()


def test_an_ending_is_noted_once_the_store_is_back() -> None:
    class Away(MemoryStore):
        calls = 0

        def _commit(self, commit: Commit) -> str:
            self.calls += 1
            if self.calls < 3:
                raise StoreUnavailableError("away")
            return super()._commit(commit)

    with Away() as store:
        claim = ActiveStreams(store).begin("c", "s")
        claim.note("error", patience=20)
        record = ActiveStreams(store).record("c")
        assert record is not None and record.ending == "error"


def test_a_process_that_died_before_the_application_had_the_message(
    context: ResumableStreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has noted nothing more: its message is told for `ending_seconds`, and for the grace time at least."""

    def endpoints(**options: Any) -> AssistantEndpoints:
        return AssistantEndpoints(
            context, Script("Hello", None), authorize=None, on_finish=lambda *_: returned.set(), **options
        )

    returned = threading.Event()
    app = endpoints()
    monkeypatch.setattr(Claim, "end", lambda *_: None)
    live = call(app, "POST", "/", SEND).read()
    assert returned.wait(20)
    at_once = endpoints(ending_seconds=0)
    for each in app, at_once:
        assert call(each, "GET", "/c/stream").read() == live
    later = SimpleNamespace(time=lambda: time.time() + 2 * context.store.grace)
    monkeypatch.setattr("resumable_sync.assistant.http.endpoints.time", later)
    assert call(app, "GET", "/c/stream").read() == live
    assert call(at_once, "GET", "/c/stream").status == 204


def test_a_store_without_shared_streams_is_refused(tmp_path: Path) -> None:
    with FileStore(tmp_path) as store, ResumableStreamContext(store) as context:
        with pytest.raises(UnsupportedError, match="_commit"):
            AssistantEndpoints(context, Script(), authorize=None)


class Earlier:
    """Begins streams as edition 1 does."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.place = ActiveStreams(store)._id("c")

    def begin(self, stream_id: str) -> None:
        infos = [self._store.info(f"{self.place}.{place}") for place in (0, 1)]
        number = max((int(info.metadata["number"]) for info in infos if info is not None), default=0) + 1
        record_id = f"{self.place}.{number % 2}"
        self._store.delete(record_id)
        lease = self._store.acquire(record_id, metadata={"number": str(number), "stream": stream_id})
        assert lease is not None
        self._store.finalize(lease, "done")


@given(st.lists(st.sampled_from(["earlier", "this", "expire"]), max_size=12))
@example(["earlier", "earlier", "this", "expire", "earlier"])
@example(["this", "earlier"])
def test_two_editions_in_one_chat(steps: list[str]) -> None:
    """The last message counts, whichever edition began it, also where the earlier records have expired."""
    with MemoryStore() as store:
        earlier, active = Earlier(store), ActiveStreams(store)
        for number, step in enumerate(steps):
            stream_id = f"s{number}"
            if step == "expire":
                for place in (0, 1):
                    store.delete(f"{earlier.place}.{place}")
                continue
            if step == "earlier":
                earlier.begin(stream_id)
            else:
                active.begin("c", stream_id)
            assert active.newest("c") == stream_id


def test_a_message_that_looked_before_others_came() -> None:
    """What it knew of the earlier edition's records is as new as the place that it takes."""

    class Interleaved(MemoryStore):
        steps: list[Any] = []

        def _info(self, stream_id: str) -> StreamInfo | None:
            info = super()._info(stream_id)
            if self.steps:
                self.steps.pop(0)()
            return info

    def meanwhile() -> None:
        store.steps = []
        Earlier(store).begin("earlier")
        ActiveStreams(store).begin("c", "other")

    for at in range(3):
        with Interleaved() as store:
            ActiveStreams(store).begin("c", "first")
            store.steps = [*[lambda: None] * at, meanwhile]
            ActiveStreams(store).begin("c", "slow")
            assert ActiveStreams(store).newest("c") == "slow"


PROGRAM = """
import sys
import resumable_sync
from resumable_sync.assistant.active import ActiveStreams
assert resumable_sync.__version__ == "0.1.0", resumable_sync.__file__
store = resumable_sync.open_store(sys.argv[1])
ActiveStreams(store).begin(sys.argv[2], sys.argv[3]).end()
print(ActiveStreams(store).newest(sys.argv[2]))
store.close()
"""


@pytest.mark.parametrize("name", [each for each in BACKEND_PARAMS if each.values[0] != "memory"])
def test_a_worker_of_edition_1(name: str, tmp_path: Path) -> None:
    url, chat_id = BACKENDS[name].url(tmp_path), str(uuid.uuid4())  # a server has been used by others, too
    with open_store(url) as store:
        for number in range(4):
            stream_id = f"s{number}"
            if number % 2:
                ActiveStreams(store).begin(chat_id, stream_id).end()
            else:
                ran = subprocess.run(
                    [sys.executable, "-c", PROGRAM, url, chat_id, stream_id],
                    env={**os.environ, "PYTHONPATH": str(WHEEL)},
                    cwd=EDITION_1,  # away from this edition's package
                    capture_output=True,
                    text=True,
                    timeout=120,
                )
                assert (ran.stdout.strip(), ran.returncode) == (stream_id, 0), ran.stderr
            assert ActiveStreams(store).newest(chat_id) == stream_id
