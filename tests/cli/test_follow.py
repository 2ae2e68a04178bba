"""`follow`: cursors, interruptions, and outputs that go away."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from .conftest import Cli, one_line, until


def _cursor(line: str) -> str:
    match = re.search(r"--after (\S+)$", line)
    assert match is not None, line
    return match[1]


def test_after_a_cursor(cli: Cli) -> None:
    cli.run("publish", "ten", input=b"0123456789")
    details = cli.status("ten")
    assert details is not None
    generation = details["cursor"].partition("-")[0]
    for offset in range(11):
        result = cli.run("follow", "ten", "--after", f"{generation}-{offset}")
        assert (result.returncode, result.stdout) == (0, b"0123456789"[offset:])


def test_refused_cursors_and_missing_ids(cli: Cli) -> None:
    cli.run("publish", "ten", input=b"0123456789")
    details = cli.status("ten")
    assert details is not None
    generation = int(details["cursor"].partition("-")[0])
    for cursor, code in (
        ("nonsense", 2),
        (f"{generation}-11", 2),
        (f"{generation}-999999999999999999", 2),
        (f"{generation - 1}-3", 6),
        (f"{generation + 1}-3", 6),
    ):
        result = cli.run("follow", "ten", "--after", cursor)
        assert (result.returncode, result.stdout) == (code, b"")
        one_line(result.stderr)
    assert cli.run("follow", "ten", f"--after=-{generation}").returncode == 2
    result = cli.run("follow", "nobody", "--wait", "0")
    assert result.returncode == 7 and "no stream nobody" in one_line(result.stderr)
    began = time.monotonic()
    assert cli.run("follow", "nobody", "--wait", "0.5").returncode == 7
    assert time.monotonic() - began >= 0.5


def test_ctrl_c_tells_where_to_go_on(cli: Cli) -> None:
    publisher = cli.start("publish", "talk")
    follower = cli.start("follow", "talk", "--wait", "20")
    assert publisher.stdin is not None and follower.stdout is not None
    publisher.stdin.write(b"before ")
    assert follower.stdout.read(7) == b"before "
    began = time.monotonic()
    os.kill(follower.pid, signal.SIGINT)
    rest, stderr = follower.communicate(timeout=20)
    assert (follower.returncode, rest) == (130, b"")
    assert time.monotonic() - began < 5  # at once, and what a busy machine adds
    publisher.stdin.write(b"after")
    publisher.stdin.close()
    assert publisher.wait(20) == 0  # a viewer that leaves stops nothing
    assert cli.run("follow", "talk", "--after", _cursor(one_line(stderr))).stdout == b"after"


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_output_is_full_loses_no_byte(cli: Cli, signum: int) -> None:
    data = os.urandom(1_000_000)
    assert cli.run("publish", "big", input=data).returncode == 0
    follower = cli.start("follow", "big")
    assert follower.stdout is not None
    begin = follower.stdout.read(1000)
    until(lambda: _blocked_in_write(follower.pid), "the pipe is full")
    os.kill(follower.pid, signum)
    assert follower.wait(20) == 128 + signum
    begin += follower.stdout.read()
    assert follower.stderr is not None
    result = cli.run("follow", "big", "--after", _cursor(one_line(follower.stderr.read())))
    assert result.returncode == 0 and begin + result.stdout == data


def _blocked_in_write(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/wchan").read_text() in ("pipe_write", "anon_pipe_write")
    except PermissionError:
        pytest.skip("cannot see what another process waits for")


def test_a_reader_that_leaves_early(cli: Cli) -> None:
    cli.run("publish", "big", input=bytes(1_000_000))
    follower = cli.start("follow", "big")
    assert follower.stdout is not None and follower.stderr is not None
    assert len(follower.stdout.read(5)) == 5
    follower.stdout.close()
    assert follower.wait(20) == 141
    assert "nobody reads the output" in one_line(follower.stderr.read())


def test_a_reader_that_leaves_a_silent_stream(cli: Cli) -> None:
    publisher = cli.start("publish", "silent")
    follower = cli.start("follow", "silent", "--wait", "20")
    assert publisher.stdin is not None and follower.stdout is not None and follower.stderr is not None
    publisher.stdin.write(b"x")
    assert follower.stdout.read(1) == b"x"
    follower.stdout.close()
    assert follower.wait(5) == 141
    assert _cursor(one_line(follower.stderr.read())).endswith("-1")


def test_a_full_output(cli: Cli) -> None:
    cli.run("publish", "some", input=b"bytes")
    with open("/dev/full", "wb") as full:
        result = subprocess.run(
            cli.command("follow", "some"), stdout=full, stderr=subprocess.PIPE, env=cli.environment, timeout=60
        )
    assert result.returncode == 1
    line = one_line(result.stderr)
    assert "No space left" in line and _cursor(line).endswith("-0")


def test_cancelled_and_deleted_under_a_follower(cli: Cli) -> None:
    for command, code in (("cancel", 5), ("delete", 6)):
        publisher = cli.start("publish", command)
        follower = cli.start("follow", command, "--wait", "20")
        assert publisher.stdin is not None and follower.stdout is not None and follower.stderr is not None
        publisher.stdin.write(b"x")
        assert follower.stdout.read(1) == b"x"
        assert cli.run(command, command).returncode == 0
        assert follower.wait(20) == code
        one_line(follower.stderr.read())
