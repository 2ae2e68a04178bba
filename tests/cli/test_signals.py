"""Several signals: the first one is obeyed, whenever it comes and whatever follows it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from resumable_sync.cli.signals import Signals, Stopped

from .conftest import Cli, one_line, until
from .test_follow import _blocked_in_write, _cursor
from .test_publish import _running

_HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

PAIRS = [(signal.SIGINT, signal.SIGINT), (signal.SIGINT, signal.SIGTERM), (signal.SIGTERM, signal.SIGHUP)]


@pytest.fixture
def signals() -> Iterator[Signals]:
    before = {signum: signal.signal(signum, signal.SIG_DFL) for signum in _HANDLED}
    handler = Signals()
    handler.install()
    yield handler
    for signum, previous in before.items():
        signal.signal(signum, previous)


@pytest.mark.parametrize("pair", PAIRS)
def test_held_back_signals_are_obeyed_once(signals: Signals, pair: tuple[int, int]) -> None:
    heard: list[int] = []
    with pytest.raises(Stopped) as stopped:
        with signals.deferred(lambda: heard.append(1)):
            for signum in pair:
                signal.raise_signal(signum)
            heard.append(0)
    assert heard == [1, 1, 0] and stopped.value.exit_code == 128 + pair[0]
    signal.raise_signal(pair[1])  # one more while cleaning up
    with signals.deferred():
        signal.raise_signal(pair[0])


def test_nothing_is_raised_when_the_outcome_is_certain(signals: Signals) -> None:
    signals.disarm()
    signal.raise_signal(signal.SIGTERM)
    with signals.deferred():
        pass


def test_a_late_signal_kills() -> None:
    script = (
        "import signal, time\n"
        "from resumable_sync.cli import signals\n"
        "signals._CLEANING_SECONDS = 0.05\n"
        "signal.signal(signal.SIGTERM, signal.SIG_DFL)\n"
        "handler = signals.Signals()\n"
        "handler.install()\n"
        "try: signal.raise_signal(signal.SIGTERM)\n"
        "except signals.Stopped: print('cleaning', flush=True)\n"
        "time.sleep(0.1)\n"
        "signal.raise_signal(signal.SIGTERM)\n"
        "print('not reached')\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60)
    assert (result.returncode, result.stdout) == (-signal.SIGTERM, b"cleaning\n")


def _send_together(pid: int, pair: tuple[int, int]) -> None:
    """So that both are pending when the process goes on. Two equal ones count as one then: POSIX merges them."""
    for signum in (signal.SIGSTOP, *pair, signal.SIGCONT):
        os.kill(pid, signum)


@pytest.mark.parametrize("pair", PAIRS)
def test_two_signals_while_the_output_is_full(cli: Cli, pair: tuple[int, int]) -> None:
    data = os.urandom(1_000_000)
    assert cli.run("publish", "big", input=data).returncode == 0
    follower = cli.start("follow", "big")
    assert follower.stdout is not None and follower.stderr is not None
    begin = follower.stdout.read(1000)
    until(lambda: _blocked_in_write(follower.pid), "the pipe is full")
    _send_together(follower.pid, pair)
    assert follower.wait(20) in {128 + signum for signum in pair}
    begin += follower.stdout.read()
    result = cli.run("follow", "big", "--after", _cursor(one_line(follower.stderr.read())))
    assert result.returncode == 0 and begin + result.stdout == data


def _handles_signals(pid: int) -> bool:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) & 1 << (signal.SIGTERM - 1))
    return False


@pytest.mark.parametrize("pair", PAIRS)
def test_two_signals_while_publish_starts(cli: Cli, pair: tuple[int, int]) -> None:
    cli.run("publish", "other", input=b"")
    connection = sqlite3.connect(cli.database, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")  # the election waits for this
        publisher = cli.start("publish", "new")
        until(lambda: _handles_signals(publisher.pid), "it handles signals")
        _send_together(publisher.pid, pair)
    finally:
        connection.close()
    assert publisher.wait(20) in {128 + signum for signum in pair}
    assert publisher.stderr is not None
    one_line(publisher.stderr.read())
    details = cli.status("new")
    assert details is None or details["status"] == "interrupted"


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_interpreter_goes(cli: Cli, signum: int) -> None:
    """An object that lives until the interpreter takes down its modules sends one more."""
    code = f"""if True:
        import os, sys
        class Late:
            def __del__(self, kill=os.kill, pid=os.getpid()):
                kill(pid, {signum:d})
        late = Late()
        from resumable_sync.cli import main
        sys.exit(main())
    """
    assert cli.start(command=[sys.executable, "-c", code, "ls"]).wait(20) == 0


@pytest.mark.parametrize("pair", PAIRS)
def test_signals_while_publish_cleans_up(cli: Cli, pair: tuple[int, int]) -> None:
    """The command is deaf, so that ending it takes a second, in which more signals come."""
    publisher = cli.start_patient(
        "publish", "deaf", "--", "sh", "-c", "trap '' TERM; echo $$; while :; do sleep 0.1; done"
    )
    follower = cli.start("follow", "deaf", "--wait", "20")
    assert follower.stdout is not None
    pid = int(follower.stdout.readline())
    _send_together(publisher.pid, pair)
    until(lambda: (cli.status("deaf") or {})["status"] != "streaming", "it cleans up")
    for signum in pair:
        if publisher.poll() is None:
            os.kill(publisher.pid, signum)
    assert publisher.wait(60) in {128 + signum for signum in pair}
    assert publisher.stderr is not None and "ends as interrupted" in one_line(publisher.stderr.read())
    assert not _running(pid)
    assert follower.wait(60) == 4
