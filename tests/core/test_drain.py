"""Draining: the sources run on to their own ends, nothing begins, and there is a time at which all is over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resumable_sync import (
    Batch,
    MemoryStore,
    ProducerInterruptedError,
    ResumableStreamContext,
    Status,
    Store,
    StoreUnavailableError,
    StreamFinalizedError,
    current_producer,
    open_store,
)
from resumable_sync.wsgi import resume_response, resume_sse_response
from resumable_sync.wsgi.bodies import ResponseAbortedError

from ..backends import Backend
from ..support import PATIENCE, ROOT, wait_until

LONG = 2 * PATIENCE


class Feed:
    """A source that yields `chunk` and then, once it is let go, `last`. A stop lets it go, too."""

    def __init__(self) -> None:
        self.free = threading.Event()

    def __call__(self) -> Iterator[bytes]:
        current_producer().on_cancel(self.free.set)
        yield b"so far"
        assert self.free.wait(PATIENCE)
        yield b", and the rest"


WHOLE = b"so far, and the rest"


class Viewer:
    """Follows in a thread of its own."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.data = b""
        self.error: BaseException | None = None
        self._pieces = pieces
        self._thread = threading.Thread(target=self._view, daemon=True)
        self._thread.start()

    def _view(self) -> None:
        try:
            for piece in self._pieces:
                self.data += piece
        except Exception as error:
            self.error = error

    @property
    def gone(self) -> bool:
        return not self._thread.is_alive()


class Drain:
    """A drain in a thread of its own, under way once this is made."""

    def __init__(self, context: ResumableStreamContext, timeout: float = LONG) -> None:
        self.result: bool | None = None
        self._thread = threading.Thread(target=self._run, args=(context, timeout), daemon=True)
        self._thread.start()
        wait_until(lambda: context.closed)

    def _run(self, context: ResumableStreamContext, timeout: float) -> None:
        self.result = context.close(timeout, drain=True)

    @property
    def over(self) -> bool:
        return not self._thread.is_alive()

    def wait(self) -> bool:
        self._thread.join(PATIENCE)
        assert self.result is not None
        return self.result


def has(context: ResumableStreamContext, stream_id: str, data: bytes) -> bool:
    batch = context.store.read(stream_id)
    return batch.data == data


def begin(context: ResumableStreamContext, stream_id: str = "s") -> Feed:
    feed = Feed()
    assert context.start(stream_id, feed)
    wait_until(lambda: has(context, stream_id, b"so far"))
    return feed


@pytest.fixture
def context(store: Store) -> Iterator[ResumableStreamContext]:
    with ResumableStreamContext(store) as made:
        yield made


def test_nothing_begins_and_sources_run_on(context: ResumableStreamContext) -> None:
    feed = begin(context)
    drain = Drain(context)
    doors: list[Callable[[], object]] = [
        lambda: context.run("new", lambda: [b"x"]),
        lambda: context.start("new", lambda: [b"x"]),
        lambda: context.produce("new", lambda: [b"x"]),
        lambda: context.writer("new").__enter__(),
        lambda: context.start("s", lambda: [b"x"]),
        lambda: context.resume("s"),
        lambda: context.require_resume("s"),
        lambda: context.resume("new", wait=1.0),
    ]
    for door in doors:
        with pytest.raises(StoreUnavailableError) as raised:
            door()
        assert not raised.value.transient
    assert context.status("new") is Status.MISSING and context.status("s") is Status.STREAMING
    assert not drain.over
    feed.free.set()
    assert drain.wait() is True
    assert context.status("s") is Status.DONE and context.store.read("s").data == WHOLE


def test_viewers_go_elsewhere_or_stay_to_the_end(backend: Backend, context: ResumableStreamContext) -> None:
    feed = begin(context)
    plain = Viewer(context.require_resume("s"))
    events = Viewer(iter(resume_sse_response(context, "s", environ={})))
    raw = Viewer(iter(resume_response(context, "s", environ={})))
    viewers = (plain, events, raw)
    wait_until(lambda: all(b"so far" in viewer.data for viewer in viewers))
    drain = Drain(context)
    if backend.shared:
        wait_until(lambda: all(viewer.gone for viewer in viewers))  # while the source still runs
        assert isinstance(plain.error, StoreUnavailableError) and "resume" in str(plain.error)
        assert events.error is None and b"event: end" not in events.data
        assert isinstance(raw.error, ResponseAbortedError)
        assert not drain.over
    feed.free.set()
    assert drain.wait() is True
    wait_until(lambda: all(viewer.gone for viewer in viewers))
    if not backend.shared:
        assert plain.error is None and plain.data == WHOLE and raw.error is None and raw.data == WHOLE
        assert events.error is None and b"event: end" in events.data and b'"done"' in events.data


def test_a_slow_viewer_of_a_store_of_its_own_gets_everything() -> None:
    with MemoryStore() as store, ResumableStreamContext(store, read_bytes=1) as context:
        pieces = context.run("s", lambda: [b"a", b"b", b"c"])
        assert next(pieces) == b"a"
        wait_until(lambda: context.status("s") is Status.DONE)
        drain = Drain(context)
        assert next(pieces) == b"b" and not drain.over
        assert list(pieces) == [b"c"]
        assert drain.wait() is True


def test_a_viewer_on_its_way_into_a_wait_is_sent_away_while_the_sources_run() -> None:
    entered, go_on = threading.Event(), threading.Event()

    class Shared(MemoryStore):
        shared = True

        def read(self, *arguments: Any, timeout: float = 0.0, **options: Any) -> Batch:
            if timeout:
                entered.set()
                assert go_on.wait(PATIENCE)
            return super().read(*arguments, timeout=timeout, **options)

    with Shared() as store, ResumableStreamContext(store) as context:
        feed = begin(context)
        viewer = Viewer(context.require_resume("s"))
        assert entered.wait(PATIENCE)
        drain = Drain(context)
        go_on.set()
        wait_until(lambda: viewer.gone, 10.0)  # by itself it would read again after 15 s
        assert isinstance(viewer.error, StoreUnavailableError) and not drain.over
        feed.free.set()
        assert drain.wait() is True


def test_what_is_left_is_interrupted(context: ResumableStreamContext) -> None:
    blocked = threading.Event()

    def source() -> Iterator[bytes]:
        yield b"so far"
        blocked.wait(PATIENCE)

    short = begin(context, "short")
    context.start("long", source)
    wait_until(lambda: has(context, "long", b"so far"))
    short.free.set()
    assert context.close(0.3, drain=True) is False
    assert context.status("short") is Status.DONE
    assert context.status("long") is Status.INTERRUPTED and context.store.read("long").data == b"so far"
    blocked.set()


@pytest.mark.parametrize("timeout", [float("inf"), 1e300, threading.TIMEOUT_MAX])
def test_a_drain_without_an_end(context: ResumableStreamContext, timeout: float) -> None:
    feed = begin(context)
    drain = Drain(context, timeout)
    feed.free.set()
    assert drain.wait() is True


def test_a_drain_of_nothing_is_over_at_once(context: ResumableStreamContext) -> None:
    began = time.monotonic()
    assert context.close(LONG, drain=True) is True
    assert time.monotonic() - began < PATIENCE
    assert context.close(LONG, drain=True) is True and context.close() is True


def test_a_plain_close_ends_a_drain(context: ResumableStreamContext) -> None:
    begin(context)
    drain = Drain(context)
    assert context.close() is False
    assert drain.wait() is False
    assert context.status("s") is Status.INTERRUPTED


def test_a_plain_close_ends_a_drain_though_the_source_blocks(context: ResumableStreamContext) -> None:
    blocked = threading.Event()

    def source() -> Iterator[bytes]:
        yield b"so far"
        blocked.wait(LONG)

    context.start("s", source)
    wait_until(lambda: has(context, "s", b"so far"))
    drain = Drain(context)
    assert context.close(0.5) is False
    assert drain.wait() is False  # not after half of what its time was
    assert context.status("s") is Status.INTERRUPTED
    blocked.set()


def test_two_drains(context: ResumableStreamContext) -> None:
    feed = begin(context)
    first, second = Drain(context), Drain(context)
    feed.free.set()
    assert first.wait() is True and second.wait() is True


def test_writers_drain(context: ResumableStreamContext) -> None:
    go_on = threading.Event()

    def write() -> None:
        with context.writer("s") as out:
            out.write(b"so far")
            assert go_on.wait(PATIENCE)
            out.write(b", and the rest")

    thread = threading.Thread(target=write)
    thread.start()
    wait_until(lambda: context.status("s") is Status.STREAMING)
    drain = Drain(context)
    go_on.set()
    assert drain.wait() is True
    thread.join(PATIENCE)
    assert context.status("s") is Status.DONE and context.store.read("s").data == WHOLE


def test_a_writer_that_does_not_end_in_time(context: ResumableStreamContext) -> None:
    with pytest.raises((ProducerInterruptedError, StreamFinalizedError)):
        with context.writer("s") as out:
            out.write(b"so far")
            assert Drain(context, 0.2).wait() is False
            out.write(b"late")
    assert context.status("s") is Status.INTERRUPTED and context.store.read("s").data == b"so far"


def test_produce_drains(context: ResumableStreamContext) -> None:
    feed = Feed()
    found: list[Status] = []
    thread = threading.Thread(target=lambda: found.append(context.produce("s", feed)))
    thread.start()
    wait_until(lambda: context.status("s") is Status.STREAMING)
    drain = Drain(context)
    feed.free.set()
    assert drain.wait() is True
    thread.join(PATIENCE)
    assert found == [Status.DONE]


def test_an_election_that_is_under_way_is_waited_for() -> None:
    entered, go_on = threading.Event(), threading.Event()

    class Slow(MemoryStore):
        def acquire(self, *arguments: Any, **options: Any) -> Any:
            entered.set()
            assert go_on.wait(PATIENCE)
            return super().acquire(*arguments, **options)

    with Slow() as store, ResumableStreamContext(store) as context:
        starting = threading.Thread(target=context.start, args=("s", lambda: [b"whole"]))
        starting.start()
        assert entered.wait(PATIENCE)
        drain = Drain(context)
        assert not drain.over
        go_on.set()
        assert drain.wait() is True
        starting.join(PATIENCE)
        assert store.status("s") is Status.DONE


def test_a_source_that_fails_while_it_drains(context: ResumableStreamContext) -> None:
    free = threading.Event()

    def source() -> Iterator[bytes]:
        yield b"so far"
        assert free.wait(PATIENCE)
        raise ValueError("of the source")

    context.start("s", source)
    wait_until(lambda: has(context, "s", b"so far"))
    drain = Drain(context)
    free.set()
    assert drain.wait() is True
    assert context.status("s") is Status.ERROR


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_that_is_forked_meanwhile_does_not_drain(tmp_path: Path) -> None:
    with open_store(f"sqlite:///{tmp_path / 'streams.db'}") as store, ResumableStreamContext(store) as context:
        feed = begin(context)
        drain = Drain(context)
        child = os.fork()
        if child == 0:
            fine = not context.closed and context.start("child", lambda: [b"x"])
            fine = (
                fine and b"".join(context.require_resume("child")) == b"x" and context.close(PATIENCE, drain=True)
            )
            os._exit(0 if fine else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert not drain.over and store.status("s") is Status.STREAMING
        feed.free.set()
        assert drain.wait() is True and store.status("s") is Status.DONE


SCRIPT = """
import os, signal, sys, threading
from resumable_sync import ResumableStreamContext, current_producer, open_store
from resumable_sync.wsgi import close_on_sigterm

store = open_store(sys.argv[1])
context = ResumableStreamContext(store)
seconds = float(sys.argv[3])

def source():
    stopped = current_producer().cancelled
    for number in range(10):
        yield b"%d" % number
        if stopped.wait(seconds / 10):
            return

way = sys.argv[2]
if way == "signal":
    close_on_sigterm(context, drain=100)
context.start("s", source)
print("running", flush=True)
if way == "exit":
    threading.Thread(target=context.close, args=(100,), kwargs={"drain": True}, daemon=True).start()
    while not context.closed:
        pass
else:
    while True:
        signal.pause()
"""


def script(url: str, way: str, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, url, way, str(seconds)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "running\n"
    return process


@pytest.mark.parametrize("way", ["exit", "signal"])
def test_the_interpreter_s_exit_waits_for_a_drain(tmp_path: Path, way: str) -> None:
    url = f"sqlite:///{tmp_path / 'streams.db'}"
    with script(url, way, 2.0) as process:
        if way == "signal":
            process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=PATIENCE)
        assert process.returncode == (143 if way == "signal" else 0) and not said, said
    with open_store(url) as store:
        assert store.status("s") is Status.DONE and store.read("s").data == b"0123456789"


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_a_drain(tmp_path: Path, second: signal.Signals) -> None:
    url = f"sqlite:///{tmp_path / 'streams.db'}"
    with script(url, "signal", LONG) as process, open_store(url) as store:
        wait_until(lambda: store.status("s") is Status.STREAMING)
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.0)  # it drains
        process.send_signal(second)
        _, said = process.communicate(timeout=PATIENCE / 2)
        assert process.returncode == 143 and "Traceback" not in said, said
        assert store.status("s") is Status.INTERRUPTED


STEPS = st.sampled_from(["start", "free", "drain", "close", "write", "view"])


@pytest.mark.parametrize("shared", [False, True])
@given(steps=st.lists(st.tuples(STEPS, st.integers(0, 3)), min_size=3, max_size=20))
def test_any_interleaving_leaves_one_ending_and_every_acknowledged_byte(
    shared: bool, steps: list[tuple[str, int]]
) -> None:
    class Kind(MemoryStore):
        pass

    Kind.shared = shared  # type: ignore[assignment,method-assign]
    endings: list[tuple[str, Status]] = []
    appended: dict[str, int] = {}

    def count(stream_id: str, length: int) -> None:
        appended[stream_id] = appended.get(stream_id, 0) + length

    store = Kind()
    context = ResumableStreamContext(
        store, on_finalize=lambda stream_id, status, _: endings.append((stream_id, status)), on_append=count
    )
    feeds: dict[str, Feed] = {}
    viewers: list[Viewer] = []
    threads: list[threading.Thread] = []
    for step, number in steps:
        stream_id = f"s{number}"
        try:
            if step == "start" and stream_id not in feeds:
                feed = Feed()
                if context.start(stream_id, feed):
                    feeds[stream_id] = feed
            elif step == "write":
                with context.writer(f"w{len(threads)}-{number}-{len(endings)}") as out:
                    out.write(b"so far")
                    out.flush()
                    out.write(b", and the rest")
            elif step == "view" and (pieces := context.resume(stream_id)) is not None:
                viewers.append(Viewer(pieces))
        except (StoreUnavailableError, StreamFinalizedError, ProducerInterruptedError):
            assert context.closed or step == "write"
        if step == "free" and stream_id in feeds:
            feeds[stream_id].free.set()
        elif step in ("drain", "close") and len(threads) < 4:
            drain = step == "drain"
            threads.append(
                threading.Thread(
                    target=context.close, args=(0.05 * number if drain else 0.5,), kwargs={"drain": drain}
                )
            )
            threads[-1].start()
    context.close(0.5)
    for thread in threads:
        thread.join(PATIENCE)
    wait_until(lambda: not context._running.get().producers)
    wait_until(lambda: all(viewer.gone for viewer in viewers))
    produced = [info for info in store.streams()]
    assert sorted(stream_id for stream_id, _ in endings) == sorted(info.stream_id for info in produced)
    for info in produced:
        data = store.read(info.stream_id).data
        assert WHOLE.startswith(data) and len(data) >= appended.get(info.stream_id, 0)
        assert (info.stream_id, info.status) in endings and info.status in (Status.DONE, Status.INTERRUPTED)
        assert info.status is not Status.DONE or data == WHOLE
    for viewer in viewers:
        assert WHOLE.startswith(viewer.data)
        assert viewer.error is not None or viewer.data == WHOLE
    store.close()
