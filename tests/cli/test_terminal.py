"""Closed and broken standard streams, ids that look like options, and stored text on a terminal."""

from __future__ import annotations

import fcntl
import json
import os
import re
import struct
import subprocess
import termios
from pathlib import Path

import pytest

from resumable_sync import SQLiteStore
from resumable_sync.cli.terminal import printable

from .conftest import Cli, one_line


@pytest.fixture
def hostile(cli: Cli) -> str:
    """A stream whose error and metadata hold what moves a terminal's cursor, and the URL of its store."""
    store = SQLiteStore(cli.home.parent / "hostile.db")
    lease = store.acquire("x", metadata={"title\x1b]0;owned\x07": "a\x1b[2Jb\x9b1m\u202ec"})
    assert lease is not None
    store.append(lease, b"payload \x1b[31m\n")
    store.finalize(lease, "error", "boom\x1b[2J\r\x7f")
    store.close()
    return f"sqlite:///{cli.home.parent}/hostile.db"


def _harmless(shown: bytes) -> bool:
    return re.search(r"[^\n\t -~]", shown.decode()) is None


def test_stored_text_does_not_control_the_terminal(cli: Cli, hostile: str) -> None:
    shown = cli.run("status", "x", "--store", hostile)
    assert shown.returncode == 0 and _harmless(shown.stdout), shown.stdout
    assert b"\\x1b[2J" in shown.stdout and b"\\u202e" in shown.stdout and b"boom" in shown.stdout
    for verbose in ([], ["--verbose"]):
        follower = cli.run("follow", "x", "--store", hostile, *verbose)
        assert follower.returncode == 3 and follower.stdout == b"payload \x1b[31m\n"  # as it was published
        assert _harmless(follower.stderr) and b"boom\\x1b[2J" in follower.stderr
    details = json.loads(cli.run("status", "x", "--json", "--store", hostile).stdout)
    assert details["error"] == "boom\x1b[2J\r\x7f"
    assert details["metadata"] == {"title\x1b]0;owned\x07": "a\x1b[2Jb\x9b1m\u202ec"}


def test_printable() -> None:
    assert printable("añ€ 語\\") == "añ€ 語\\"
    assert printable("\x00\t\n\x1b\x7f\x9b\u202e\udc80") == r"\x00\t\n\x1b\x7f\x9b\u202e\udc80"


_WAYS_WITHOUT_STDERR = [
    'exec "$@" 2>&-',
    'exec "$@" 2>/dev/full',
    '{ "$@"; echo $? >&3; } 3>code 2>&1 >out | true',
]


def _without_stderr(cli: Cli, way: str, *arguments: str) -> tuple[int, bytes]:
    """Exit code and stdout, with a stderr that is closed, full, or a pipe that nobody reads."""
    result = subprocess.run(
        ["sh", "-c", way, "sh", *cli.command(*arguments)],
        env={**cli.environment, "PYTHONWARNINGS": "always"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        cwd=cli.home,
        timeout=60,
    )
    if "3>code" in way:
        return int((cli.home / "code").read_text()), (cli.home / "out").read_bytes()
    return result.returncode, result.stdout


@pytest.mark.parametrize("way", _WAYS_WITHOUT_STDERR)
def test_stdout_holds_nothing_but_the_stream_when_stderr_is_gone(cli: Cli, hostile: str, way: str) -> None:
    cli.home.mkdir(exist_ok=True)
    for arguments, wanted in (
        (["follow", "x", "--store", hostile], (3, b"payload \x1b[31m\n")),
        (["follow", "x", "--store", hostile, "--verbose"], (3, b"payload \x1b[31m\n")),
        (["follow", "x", "--no-such-option"], (2, b"")),
        (["status", "nobody", "--verbose"], (7, b"")),
        (["publish", "x", "--verbose", "--", "false"], (1, b"")),
        (["cancel", "x", "--store", hostile], (1, b"")),
    ):
        assert _without_stderr(cli, way, *arguments) == wanted


@pytest.mark.parametrize("arguments", [["ls"], ["--version"], ["follow", "x"], ["status", "x"]])
def test_a_closed_stdout_is_a_failure(cli: Cli, arguments: list[str]) -> None:
    cli.run("publish", "x", input=b"data")
    result = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *cli.command(*arguments)],
        env={name: value for name, value in cli.environment.items() if name != "PYTHONUNBUFFERED"},
        stderr=subprocess.PIPE,
        timeout=60,
    )
    assert result.returncode == 1 and "Bad file descriptor" in one_line(result.stderr)


def test_a_closed_stdin_takes_no_id(cli: Cli) -> None:
    result = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *cli.command("publish", "x")],
        env=cli.environment,
        stderr=subprocess.PIPE,
        timeout=60,
    )
    assert result.returncode == 1 and "cannot read standard input" in one_line(result.stderr)
    assert cli.status("x") is None


def test_an_output_that_cannot_show_every_character(cli: Cli) -> None:
    cli.run("publish", "x", "--metadata", "title=“ü”", input=b"")
    result = cli.run("status", "x", env={**cli.environment, "PYTHONIOENCODING": "ascii"})
    assert result.returncode == 0 and b"title=\\u201c\\xfc\\u201d" in result.stdout


def test_ids_that_begin_with_a_dash(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"file")
    assert cli.run("publish", "--quiet", "--", "-a", input=b"stdin").returncode == 0
    assert cli.run("publish", "--ttl", "60", "--", "-b", str(tmp_path / "file")).returncode == 0
    assert cli.run("publish", "--", "--json", "--", "echo", "--", "x").returncode == 0
    for stream_id, data in (("-a", b"stdin"), ("-b", b"file"), ("--json", b"-- x\n")):
        assert cli.run("follow", "--", stream_id).stdout == data
        assert cli.run("status", "--", stream_id).returncode == 0
    assert cli.run("cancel", "--", "-a").returncode == 1
    assert cli.run("delete", "--", "-a").returncode == 0
    assert cli.run("publish", "--").returncode == 2
    assert cli.run("publish", "--", "-c", "--").returncode == 2


def test_a_dashed_id_in_what_follow_says(cli: Cli) -> None:
    cli.run("publish", "--", "-x", input=b"bytes")
    with open("/dev/full", "wb") as full:
        result = subprocess.run(
            cli.command("follow", "--", "-x"), stdout=full, stderr=subprocess.PIPE, env=cli.environment, timeout=60
        )
    words = one_line(result.stderr).partition("go on with: resumable-sync ")[2].split()
    assert cli.run(*words).stdout == b"bytes"


def test_options_between_id_and_file(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"data")
    assert cli.run("publish", "x", "--ttl", "60", str(tmp_path / "file"), "--quiet").returncode == 0
    assert cli.run("follow", "x").stdout == b"data"
    result = cli.run("publish", "y", str(tmp_path / "file"), "more")
    assert result.returncode == 2 and b"unrecognized arguments: more" in result.stderr


def test_progress_keeps_to_one_line_of_a_narrow_terminal(cli: Cli) -> None:
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    try:
        publisher = cli.start("publish", "n" * 100, stderr=slave)
        assert publisher.stdin is not None
        publisher.stdin.write(b"x" * 5000)
        publisher.stdin.close()
        shown = b""
        while b"done in" not in shown or not shown.endswith(b"\n"):
            shown += os.read(master, 1000)
        assert publisher.wait(20) == 0
    finally:
        os.close(master)
        os.close(slave)
    lines = [line for line in re.split(rb"\r\n|\r\x1b\[K", shown) if line]
    assert lines and all(len(line) < 40 for line in lines), lines
    assert b"..." in lines[-1] and b"5.0 kB" in lines[-1]
