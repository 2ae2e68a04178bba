"""`delete` and `cancel` of many: the choice, the question, the dry run, and what is left alone."""

from __future__ import annotations

import os
import pty
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing

import pytest

from resumable_sync import SQLiteStore
from resumable_sync.contract import Lease

from .conftest import DEADLINE, Cli, one_line, until


@pytest.fixture
def store(cli: Cli) -> Iterator[SQLiteStore]:
    """The command line's store, with streams of every kind, and a record that the library keeps for itself."""
    cli.database.parent.mkdir(parents=True, mode=0o700)
    with SQLiteStore(cli.database, grace=600) as store:
        for stream_id, owner, ending in (
            ("a.1", "ada", "done"),
            ("a.2", "ada", "error"),
            ("a.3", "bob", ""),
            ("a.4", "bob", "interrupted"),
            ("b.1", "ada", ""),
            ("chat.a", "ada", "done"),
        ):
            lease = store.acquire(stream_id, metadata={"owner": owner})
            assert isinstance(lease, Lease)
            if ending:
                store.finalize(lease, ending)
        yield store


def statuses(store: SQLiteStore) -> dict[str, str]:
    return {info.stream_id: info.status.value for info in store.streams(internal=True)}


def at_a_terminal(cli: Cli, answer: str, *arguments: str) -> tuple[int, str]:
    """Run it with a terminal as stdin and stderr, and answer its question."""
    mine, its = pty.openpty()
    try:
        process = cli.start(*arguments, stdin=its, stderr=its)
        shown = b""

        def asked() -> bool:
            nonlocal shown
            shown += os.read(mine, 4096)
            return b"[y/N]" in shown

        until(asked, "the question")
        os.write(mine, answer.encode() + b"\n")
        assert process.stdout is not None
        out = process.stdout.read()
        return process.wait(DEADLINE), shown.decode() + out.decode()
    finally:
        os.close(mine)
        os.close(its)


def test_delete_by_prefix_and_status(cli: Cli, store: SQLiteStore) -> None:
    result = cli.run("delete", "--prefix", "a.", "--status", "error,interrupted", "--yes")
    assert (result.returncode, result.stdout, result.stderr) == (0, b"deleted 2 streams\n", b"")
    assert statuses(store) == {"a.1": "done", "a.3": "streaming", "b.1": "streaming", "chat.a": "done"}
    result = cli.run("delete", "--metadata", "owner=bob", "--yes")
    assert (result.returncode, result.stdout) == (0, b"deleted 1 stream\n")
    assert cli.run("delete", "--prefix", "", "--yes").stdout == b"deleted 2 streams\n"
    assert statuses(store) == {"chat.a": "done"}  # the library's own
    result = cli.run("delete", "--prefix", "chat.", "--yes")
    assert result.returncode == 0 and "no stream is chosen" in one_line(result.stderr)
    assert statuses(store) == {"chat.a": "done"}


def test_cancel_takes_what_runs(cli: Cli, store: SQLiteStore) -> None:
    assert cli.run("cancel", "--prefix", "a.", "--yes").stdout == b"cancelled 1 stream\n"
    assert statuses(store)["a.3"] == "cancelled" and statuses(store)["b.1"] == "streaming"
    assert cli.run("cancel", "--metadata", "owner=ada", "--yes").stdout == b"cancelled 1 stream\n"
    assert statuses(store)["a.1"] == "done" and statuses(store)["b.1"] == "cancelled"


def test_a_dry_run_changes_nothing(cli: Cli, store: SQLiteStore) -> None:
    before = statuses(store)
    result = cli.run("delete", "--prefix", "a.", "--dry-run")
    assert result.stdout.decode().splitlines() == ["a.1  done", "a.2  error", "a.3  streaming", "a.4  interrupted"]
    assert result.returncode == 0 and "4 streams would be deleted" in one_line(result.stderr)
    result = cli.run("cancel", "--prefix", "", "--dry-run", "--yes")
    assert result.stdout.decode().splitlines() == ["a.3  streaming", "b.1  streaming"]
    assert statuses(store) == before


def test_without_a_terminal_it_refuses(cli: Cli, store: SQLiteStore) -> None:
    before = statuses(store)
    for command in ("delete", "cancel"):
        result = cli.run(command, "--prefix", "a.", input=b"y\n")
        assert result.returncode == 2 and b"add --yes" in result.stderr and result.stdout == b""
        closed = subprocess.run(
            ["sh", "-c", 'exec "$@" <&-', "sh", *cli.command(command, "--prefix", "a.")],
            env=cli.environment,
            capture_output=True,
            timeout=60,
        )
        assert closed.returncode == 2
    assert statuses(store) == before


def test_the_question(cli: Cli, store: SQLiteStore) -> None:
    before = statuses(store)
    for answer in ("", "n", "maybe"):
        code, shown = at_a_terminal(cli, answer, "delete", "--prefix", "a.")
        assert code == 1 and "delete 4 streams (a.1, a.2, a.3, ...)? [y/N]" in shown
    assert statuses(store) == before
    code, shown = at_a_terminal(cli, "Y", "cancel", "--prefix", "a.")
    assert code == 0 and "cancel 1 stream (a.3)?" in shown and "cancelled 1 stream" in shown
    assert statuses(store) == {**before, "a.3": "cancelled"}


def test_what_has_changed_since_the_question_is_kept(cli: Cli, store: SQLiteStore) -> None:
    mine, its = pty.openpty()
    try:
        process = cli.start("delete", "--prefix", "a.", "--status", "error,interrupted", stdin=its)
        assert process.stderr is not None and process.stdout is not None
        assert process.stderr.read(6) == b"delete"  # it has asked
        store.delete("a.2")
        assert store.acquire("a.2") is not None  # begun anew
        os.write(mine, b"yes\n")
        out, said = process.communicate(timeout=DEADLINE)
        assert process.returncode == 0 and out == b"deleted 1 stream\n"
        assert b"1 stream left alone: changed or gone meanwhile" in said
    finally:
        os.close(mine)
        os.close(its)
    assert statuses(store)["a.2"] == "streaming" and "a.4" not in statuses(store)


def test_what_was_done_before_a_failure_is_told(cli: Cli, store: SQLiteStore) -> None:
    with closing(sqlite3.connect(cli.database)) as connection:
        connection.execute(
            "CREATE TRIGGER refuse BEFORE DELETE ON streams WHEN old.stream_id = 'a.3'"
            " BEGIN SELECT RAISE(ABORT, 'refused'); END"
        )
    result = cli.run("delete", "--prefix", "a.", "--yes")
    assert result.returncode not in (0, 2) and result.stdout == b""
    assert b"deleted 2 streams of 4 before it stopped" in result.stderr and b"refused" in result.stderr
    assert statuses(store).keys() == {"a.3", "a.4", "b.1", "chat.a"}


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["x", "--prefix", "a."],
        ["x", "--dry-run"],
        ["--dry-run"],
        ["--yes"],
        ["--metadata", "owner"],
        ["--metadata", "owner=ada", "--metadata", "owner=bob", "--yes"],
    ],
)
def test_wrong_usage(cli: Cli, store: SQLiteStore, arguments: list[str]) -> None:
    before = statuses(store)
    for command in ("delete", "cancel"):
        result = cli.run(command, *arguments)
        assert result.returncode == 2 and b"usage:" in result.stderr
    assert cli.run("delete", "--status", "finished", "--yes").returncode == 2
    assert cli.run("delete", "--status", "missing", "--yes").returncode == 2  # a Status, but of no stream
    assert cli.run("ls", "--metadata", "owner=ada", "--metadata", "owner=bob").returncode == 2
    assert cli.run("cancel", "--status", "done", "--yes").returncode == 2
    assert statuses(store) == before
