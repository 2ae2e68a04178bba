"""`publish`: a copy on stdout, the command's stderr, silent sources, ids used again; what followers are told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from .conftest import Cli, one_line, until

DATA = bytes(range(256)) * 2000


def test_tee_copies_byte_for_byte(cli: Cli) -> None:
    result = cli.run("publish", "x", "--tee", input=DATA)
    assert (result.returncode, result.stdout, result.stderr) == (0, DATA, b"")
    assert cli.run("follow", "x").stdout == DATA


@pytest.mark.parametrize("way", ['exec "$@" >&-', 'exec "$@" >/dev/full', '{ "$@"; echo $? >&3; } 3>&2 | true'])
def test_the_stream_goes_on_when_the_copy_cannot_be_written(cli: Cli, way: str) -> None:
    result = subprocess.run(
        ["sh", "-c", way, "sh", *cli.command("publish", "x", "--tee")],
        input=DATA,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=cli.environment,
        timeout=60,
    )
    assert result.returncode == 0
    assert "the stream goes on" in one_line(result.stderr.removesuffix(b"0\n" if "3>&2" in way else b""))
    assert cli.run("follow", "x").stdout == DATA


def test_a_signal_while_nobody_reads_the_copy(cli: Cli) -> None:
    publisher = cli.start("publish", "x", "--tee", "--", "cat", "/dev/zero")
    until(lambda: cli.stored("x") >= 65536, "the pipe is full")
    os.kill(publisher.pid, signal.SIGTERM)
    assert publisher.wait(20) == 143
    assert (cli.status("x") or {})["status"] == "interrupted"


def test_stderr_of_a_command_in_the_order_of_writing(cli: Cli) -> None:
    script = "for i in 1 2 3; do echo out$i; echo err$i >&2; done"
    result = cli.run("publish", "x", "--stderr", "--tee", "--", "sh", "-c", script)
    assert (result.returncode, result.stderr) == (0, b"")
    assert cli.run("follow", "x").stdout == result.stdout == b"out1\nerr1\nout2\nerr2\nout3\nerr3\n"


@pytest.mark.parametrize("words", [[], [sys.executable]])
def test_stderr_without_a_command_is_wrong_usage(cli: Cli, words: list[str]) -> None:
    result = cli.run("publish", "x", "--stderr", *words)
    assert result.returncode == 2 and "needs a command" in one_line(result.stderr)
    assert cli.status("x") is None


def test_a_silent_source(cli: Cli) -> None:
    result = cli.run("publish", "x", "--idle-timeout", "0.5", "--", "sh", "-c", "echo a; sleep 1000")
    assert result.returncode == 3 and "silent for too long" in one_line(result.stderr)
    follower = cli.run("follow", "x")
    assert (follower.returncode, follower.stdout) == (3, b"a\n")


def test_restart(cli: Cli) -> None:
    assert cli.run("publish", "x", "--", "false").returncode == 1
    result = cli.run("publish", "x", "--restart", "interrupted,cancelled", input=b"no")
    assert result.returncode == 8 and "--restart error" in one_line(result.stderr)
    assert cli.run("publish", "x", "--restart", "interrupted,error", input=b"again").returncode == 0
    assert cli.run("follow", "x").stdout == b"again"


@pytest.mark.parametrize(
    "options",
    [["--restart", "streaming"], ["--restart", ""], ["--idle-timeout", "0"], ["--idle-timeout", "nan"], ["-id"]],
)
def test_wrong_usage(cli: Cli, options: list[str]) -> None:
    result = cli.run("publish", "x", *options)
    assert result.returncode == 2 and b"Traceback" not in result.stderr
    assert cli.status("x") is None


def test_an_id_that_looks_like_an_option_is_told_where_it_goes(cli: Cli) -> None:
    for words in (["follow", "-x"], ["status", "-x"], ["publish", "-id"]):
        result = cli.run(*words)
        assert result.returncode == 2 and b'goes after "--"' in result.stderr


@pytest.mark.parametrize(("signum", "told"), [(signal.SIGTERM, "was shut down"), (signal.SIGKILL, "was lost")])
def test_followers_are_told_a_stopped_producer_from_a_lost_one(cli: Cli, signum: int, told: str) -> None:
    publisher = cli.start("publish", "x")
    follower = cli.start("follow", "x", "--wait", "20")
    assert publisher.stdin is not None and follower.stdout is not None and follower.stderr is not None
    publisher.stdin.write(b"a")
    assert follower.stdout.read(1) == b"a"
    os.kill(publisher.pid, signum)
    assert follower.wait(20) == 4 and told in one_line(follower.stderr.read())


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_that_cannot_be_written(cli: Cli, option: str, unbuffered: str) -> None:
    with open("/dev/full", "wb") as full:
        environment = {**cli.environment, "PYTHONUNBUFFERED": unbuffered}
        result = subprocess.run(
            cli.command(option), stdout=full, stderr=subprocess.PIPE, env=environment, timeout=60
        )
    assert result.returncode == 1 and "No space left" in one_line(result.stderr)
