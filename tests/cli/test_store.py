"""`ls`, `status`, `cancel`, `delete`, `sweep`, `check`, and stores in trouble."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Cli, one_line, until


def test_ls_and_status(cli: Cli) -> None:
    assert cli.run("ls").stdout == b""
    cli.run("publish", "b", input=b"12345")
    cli.run("publish", "a", "--", "sh", "-c", "exit 1")
    lines = cli.run("ls").stdout.decode().splitlines()
    assert [line.split()[:2] for line in lines] == [["ID", "STATUS"], ["a", "error"], ["b", "done"]]
    rows = [json.loads(line) for line in cli.run("ls", "--json").stdout.splitlines()]
    assert [(row["id"], row["status"], row["size"]) for row in rows] == [("a", "error", 0), ("b", "done", 5)]
    assert rows[1] == cli.status("b")
    shown = cli.run("status", "b").stdout.decode()
    assert "done" in shown and rows[1]["cursor"] in shown
    result = cli.run("status", "c")
    assert result.returncode == 7 and "no stream c" in one_line(result.stderr)


def test_cancel_and_delete(cli: Cli) -> None:
    publisher = cli.start("publish", "x")
    until(lambda: cli.status("x"), "the stream is there")
    assert cli.run("cancel", "x").returncode == 0
    assert publisher.wait(20) == 5
    again = cli.run("cancel", "x")
    assert again.returncode == 0 and "has already ended" in one_line(again.stderr)
    cli.run("publish", "y", input=b"y")
    ended = cli.run("cancel", "y")
    assert ended.returncode == 1 and "has already ended: done" in one_line(ended.stderr)
    assert cli.run("delete", "y").returncode == 0
    for command in ("delete", "cancel", "status", "follow"):
        result = cli.run(command, "y")
        assert result.returncode == 7
        one_line(result.stderr)
    assert cli.run("publish", "y", input=b"again").returncode == 0


def test_sweep_and_check(cli: Cli) -> None:
    cli.run("publish", "short", "--ttl", "0.1", input=b"x")
    cli.run("publish", "long", input=b"x")
    until(lambda: cli.status("short") is None, "the short one has expired")
    assert cli.run("sweep").returncode == 0
    assert [json.loads(line)["id"] for line in cli.run("ls", "--json").stdout.splitlines()] == ["long"]
    result = cli.run("check")
    assert (result.returncode, result.stdout) == (0, b"all streams are whole\n")
    with sqlite3.connect(cli.database) as connection:
        connection.execute("UPDATE streams SET size = size + 1")
    connection.close()
    result = cli.run("check")
    assert result.returncode == 1 and b"long" in result.stdout


def test_the_default_store_is_private_and_named_ones_win(cli: Cli, tmp_path: Path) -> None:
    cli.run("publish", "here", input=b"x")
    assert stat.S_IMODE(cli.database.parent.stat().st_mode) == 0o700
    other = f"sqlite:///{tmp_path}/other.db"
    assert cli.run("--store", other, "publish", "there", input=b"x").returncode == 0
    assert cli.run("status", "there", "--store", other).returncode == 0
    assert cli.run("status", "there").returncode == 7
    assert cli.run("status", "there", env={**cli.environment, "RESUMABLE_STORE": other}).returncode == 0
    home = {**cli.environment, "XDG_STATE_HOME": "relative", "HOME": str(tmp_path / "home")}
    assert cli.run("publish", "x", input=b"x", env=home).returncode == 0
    assert (tmp_path / "home/.local/state/resumable_sync/streams.db").is_file()


@pytest.mark.parametrize(
    "url", ["postgres://x", "sqlite://", "plainword", "sqlite:///x.db?colour=red", "memory://x"]
)
def test_a_url_that_is_no_store(cli: Cli, url: str) -> None:
    result = cli.run("ls", "--store", url)
    assert result.returncode == 2
    one_line(result.stderr)


@pytest.mark.parametrize(
    "command",
    [
        ["ls"],
        ["status", "x"],
        ["follow", "x"],
        ["publish", "x"],
        ["cancel", "x"],
        ["delete", "x"],
        ["sweep"],
        ["check"],
    ],
)
def test_a_corrupt_file(cli: Cli, tmp_path: Path, command: list[str]) -> None:
    path = tmp_path / "corrupt.db"
    path.write_bytes(os.urandom(50_000))
    before = path.read_bytes()
    result = cli.run("--store", f"sqlite:///{path}", *command, input=b"data")
    assert result.returncode == 9 and str(path) in one_line(result.stderr)
    assert path.read_bytes() == before


def test_a_place_that_cannot_be_written(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    result = cli.run("ls", "--store", f"sqlite:///{tmp_path}/file/x.db")
    assert result.returncode == 9
    one_line(result.stderr)
    result = cli.run("ls", env={**cli.environment, "XDG_STATE_HOME": str(tmp_path / "file")})
    assert result.returncode == 9
    one_line(result.stderr)


def test_a_locked_file(cli: Cli) -> None:
    """A writer that never lets go: reading goes on, writing gives up with a line."""
    cli.run("publish", "x", input=b"x")
    connection = sqlite3.connect(cli.database, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        assert cli.run("follow", "x").stdout == b"x"
        result = cli.run("delete", "x")
        assert result.returncode == 9 and "lock" in one_line(result.stderr)
    finally:
        connection.close()
    assert cli.run("delete", "x").returncode == 0


def test_a_closed_output_of_ls(cli: Cli) -> None:
    cli.run("publish", "x", input=b"x")
    with open("/dev/full", "wb") as full:
        result = subprocess.run(
            cli.command("ls"), stdout=full, stderr=subprocess.PIPE, env=cli.environment, timeout=60
        )
    assert result.returncode == 1
    assert "No space left" in one_line(result.stderr)
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run(
        cli.command("ls"), stdout=writer, stderr=subprocess.PIPE, env=cli.environment, timeout=60
    )
    os.close(writer)
    assert (result.returncode, result.stderr) == (141, b"")


def test_help_and_version(cli: Cli) -> None:
    for arguments in (["--help"], ["publish", "--help"], ["follow", "--help"], ["demo", "--help"]):
        result = cli.run(*arguments)
        assert result.returncode == 0 and b"examples:" in result.stdout
    assert cli.run("--version").stdout.startswith(b"resumable-sync ")
    assert cli.run().returncode == 2
    assert subprocess.run([sys.executable, "-c", "import resumable_sync.cli"]).returncode == 0


def test_ls_lists_what_is_asked_for(cli: Cli) -> None:
    cli.run("publish", "a.1", "--metadata", "owner=ada", input=b"x")
    cli.run("publish", "a.2", "--", "false")
    cli.run("publish", "b.1", "--metadata", "owner=bob", input=b"x")

    def ids(*options: str) -> list[str]:
        lines = cli.run("ls", "--json", *options).stdout.splitlines()
        return [json.loads(line)["id"] for line in lines]

    assert ids() == ["a.1", "a.2", "b.1"]
    assert ids("--prefix", "a.") == ["a.1", "a.2"]
    assert ids("--status", "done") == ["a.1", "b.1"]
    assert ids("--status", "error,interrupted") == ["a.2"]
    assert ids("--metadata", "owner=bob", "--status", "done") == ["b.1"]
    assert cli.run("ls", "--prefix", "a.", "--count").stdout == b"2\n"
    refused = cli.run("ls", "--status", "finished")
    assert refused.returncode == 2 and b"use streaming, cancelled, done, error, interrupted" in refused.stderr
