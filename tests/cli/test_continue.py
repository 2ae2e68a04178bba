"""`publish --continue`: the next run of a command goes on where a killed or stopped one was."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from resumable_sync import Lease
from resumable_sync.cli.publish import _Publication
from resumable_sync.producer import Producer, current

from .conftest import Cli, one_line, until

DATA = os.urandom(300_000)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_next_run_skips_what_is_stored(cli: Cli, signum: signal.Signals) -> None:
    assert cli.run("ls").returncode == 0
    with (cli.home / "followed").open("wb") as output:
        follower = cli.start("follow", "dump", "--wait", "60", stdout=output)
    first = cli.start("publish", "dump", "--continue")
    assert first.stdin is not None and first.stderr is not None
    first.stdin.write(DATA[:100_000])
    until(lambda: cli.stored("dump") == 100_000, "the first part is stored")
    first.send_signal(signum)
    first.wait(30)
    if signum != signal.SIGKILL:
        assert first.returncode == 128 + signum
        assert "publish --continue dump may go on" in one_line(first.stderr.read())
    details = cli.status("dump")
    assert details is not None and details["status"] == "streaming" and details["producer_alive"] is False
    second = cli.run("publish", "dump", "--continue", input=DATA)
    assert (second.returncode, second.stderr) == (0, b"")
    assert follower.wait(60) == 0
    assert (cli.home / "followed").read_bytes() == DATA
    details = cli.status("dump")
    assert details is not None and details["term"] == 2


def test_without_the_option_the_id_is_in_use(cli: Cli) -> None:
    first = cli.start("publish", "dump", "--continue")
    until(lambda: cli.stored("dump") == 0, "the stream has begun")
    first.kill()
    first.wait(30)
    refused = cli.run("publish", "dump", input=DATA)
    assert refused.returncode == 8 and "--continue goes on with it soon" in one_line(refused.stderr)


def test_a_source_that_gives_less_than_is_stored_is_an_error(cli: Cli) -> None:
    first = cli.start("publish", "dump", "--continue")
    assert first.stdin is not None
    first.stdin.write(b"0123456789")
    until(lambda: cli.stored("dump") == 10, "it is stored")
    first.kill()
    first.wait(30)
    second = cli.run("publish", "dump", "--continue", input=b"0123")
    assert second.returncode == 3 and "only 4 of the 10 bytes that are stored" in one_line(second.stderr)
    assert cli.run("follow", "dump").returncode == 3


def test_the_handover_runs_out(cli: Cli) -> None:
    first = cli.start("publish", "dump", "--continue", "--handover", "0.2")
    until(lambda: cli.stored("dump") == 0, "the stream has begun")
    first.send_signal(signal.SIGTERM)
    first.wait(30)
    assert cli.run("follow", "dump").returncode == 4
    assert cli.run("publish", "dump", "--continue", input=DATA).returncode == 8


def test_what_is_skipped_is_no_silence() -> None:
    """Otherwise --idle-timeout would end a stream while its source gives again what is stored."""

    class Source:
        def chunks(self) -> Iterator[bytes]:
            yield from (b"01", b"23", b"45", b"67")

        def stop(self) -> None:
            pass

    class NoSignals:
        pending = None

    source: Any = Source()
    signals: Any = NoSignals()
    publication = _Publication(source, None, signals, 60.0)
    token = current.set(Producer(Lease("dump", 1, offset=5)))
    try:
        assert list(publication.make_stream()) == [b"", b"", b"5", b"67"]
    finally:
        current.reset(token)
