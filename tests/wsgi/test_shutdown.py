"""Processes that are told to end: streams end as `interrupted`, threads of viewers come free."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from resumable_sync import ResumableStreamContext, open_store
from resumable_sync.wsgi import close_on_sigterm
from resumable_sync.wsgi.shutdown import _Accepting

SCRIPT = """
import os, signal, sys, threading
from resumable_sync import ResumableStreamContext, current_producer, open_store
from resumable_sync.wsgi import close_on_sigterm

def say(text):  # in one write: a signal handler may come in between
    os.write(1, (text + "\\n").encode())

former = sys.argv[2]
if former == "handled":
    signal.signal(signal.SIGTERM, lambda number, frame: say("handled"))
elif former == "ignored":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
context = ResumableStreamContext(open_store(sys.argv[1]))
close_on_sigterm(context)

def silent():
    yield b"abc"
    current_producer().cancelled.wait(60)

def follow():
    try:
        for piece in context.run("s", silent):
            say("following")
    except Exception as ending:
        say("ended " + type(ending).code)
    finally:
        finished.set()

finished = threading.Event()
viewer = threading.Thread(target=follow)
try:
    viewer.start()  # the signal may come in here already: it is sent once the viewer follows
    while not finished.wait(0.1):
        pass  # in slices: a signal that comes just before a wait does not interrupt it
except KeyboardInterrupt:
    say("interrupt")
finally:
    viewer.join(30)  # what it says is what the test looks at
"""


@pytest.mark.parametrize(
    ("former", "number", "said", "code"),
    [
        ("default", signal.SIGTERM, [], 143),
        ("handled", signal.SIGTERM, ["handled"], 0),
        ("ignored", signal.SIGTERM, [], 0),
        ("default", signal.SIGINT, ["interrupt"], 0),
    ],
)
def test_a_script_that_is_told_to_end(
    tmp_path: Path, former: str, number: signal.Signals, said: list[str], code: int
) -> None:
    url = f"sqlite:///{tmp_path / 'streams.db'}"
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, url, former],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "following\n"
        process.send_signal(number)
        rest = process.stdout.read().split("\n")
        assert process.wait(20) == code
    # The viewer is sent away, or it is quick enough to see how the stream ended.
    assert [line for line in rest if line and not line.startswith("ended")] == said
    assert "ended unavailable" in rest or "ended interrupted" in rest
    store = open_store(url)
    assert store.status("s") == "interrupted"
    store.close()


def test_only_in_the_main_thread(context: ResumableStreamContext) -> None:
    raised: list[BaseException] = []

    def elsewhere() -> None:
        try:
            close_on_sigterm(context)
        except ValueError as error:
            raised.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert len(raised) == 1 and not context.closed


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # threads that the child does not need
def test_a_forked_child_leaves_the_parents_streams_alone(context: ResumableStreamContext) -> None:
    """It has inherited the handler; the signal it gets is its own affair."""
    formers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)}
    try:
        close_on_sigterm(context)
        child = os.fork()
        if child == 0:
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            except SystemExit as ending:
                os._exit(int(ending.code or 0) if isinstance(ending.code, int) else 1)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 143
        assert not context.closed
    finally:
        for number, former in formers.items():
            signal.signal(number, former)


class Worker:
    """What tells a gunicorn worker from those of another server."""

    def __init__(self, directory: Path, listener: socket.socket) -> None:
        self.ppid = os.getppid()
        self.sockets = [listener]
        self.cfg = self
        self.worker_tmp_dir = str(directory)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def test_of_workers_that_would_go_at_once_one_goes_on_accepting(tmp_path: Path, listener: socket.socket) -> None:
    for _ in range(20):
        workers = [_Accepting(Worker(tmp_path, listener)) for _ in range(5)]
        stayed: list[_Accepting] = []
        together = threading.Barrier(len(workers))

        def leave(
            worker: _Accepting, together: threading.Barrier = together, stayed: list[_Accepting] = stayed
        ) -> None:
            together.wait(30)
            if not worker.leave_to_others():
                stayed.append(worker)

        threads = [threading.Thread(target=leave, args=(worker,)) for worker in workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        (last,) = stayed
        successor = _Accepting(Worker(tmp_path, listener))  # and now the one that stayed may go
        assert last.leave_to_others() and not successor.leave_to_others()
        for worker in [*workers, successor]:
            worker.stop()
            worker.stop()
            assert not worker.leave_to_others()
        assert not list(tmp_path.iterdir())


def test_where_workers_cannot_know_of_one_another_each_is_alone(
    tmp_path: Path, listener: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    missing = [_Accepting(Worker(tmp_path / "missing", listener)) for _ in range(2)]
    assert not any(worker.leave_to_others() for worker in missing) and "only one" in caplog.text
    for worker in missing:
        worker.stop()
