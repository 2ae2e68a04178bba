"""Two unix users share a file through a common group, as the README says. Needs root, to become either of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from ...support import wait_until

pytestmark = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="two users: only root can become them"
)

USERS, GROUP = (60_001, 60_002), 60_010

# The interpreter may lie where only root can read, so all that a store imports is imported before.
PROGRAM = textwrap.dedent("""
    import os, sys, tempfile
    from resumable_sync import SQLiteStore

    user, group, umask, path = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3], 8), sys.argv[4]
    with tempfile.TemporaryDirectory() as directory, SQLiteStore(directory + "/warm.db") as warm:
        lease = warm.acquire("s")
        warm.append(lease, b"x")
        warm.read("s", lease.cursor, timeout=0.01)
        warm.cancel("s")
        warm.sweep()
    os.setgroups([group])
    os.setgid(user)
    os.setuid(user)
    os.umask(umask)
    open(path, "ab").close()
    leases = {}
    with SQLiteStore(path, grace=120.0) as store:
        for line in sys.stdin:
            verb, stream_id, *rest = line.split()
            if verb == "acquire":
                leases[stream_id] = store.acquire(stream_id)
                answer = leases[stream_id].cursor
            elif verb == "append":
                answer = store.append(leases[stream_id], rest[0].encode())
            elif verb == "read":
                batch = store.read(stream_id, rest[0], timeout=30.0)
                answer = batch.data.decode() or batch.status
            elif verb == "cancel":
                answer = store.cancel(stream_id)
            else:
                answer = store.status(stream_id)
            print(answer, flush=True)
""")


class User:
    """A process of a user, which does what it is told."""

    def __init__(self, user: int, umask: str, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(user), str(GROUP), umask, str(path)],
            cwd=Path(__file__).parents[3],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, *words: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, *words: str) -> str:
        self.tell(*words)
        return self.answer()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def path() -> Iterator[Path]:
    """In a directory of the group, below one that everybody may pass; pytest's own is for its user alone."""
    outer = Path(tempfile.mkdtemp())
    outer.chmod(0o711)
    shared = outer / "shared"
    shared.mkdir()
    os.chown(shared, 0, GROUP)
    shared.chmod(0o2770)
    yield shared / "streams.db"
    shutil.rmtree(outer)


@pytest.mark.parametrize("umask", ["002", "007"])
def test_two_users_of_one_group(umask: str, path: Path) -> None:
    first = User(USERS[0], umask, path)
    users = [first]
    try:
        cursor = first.ask("acquire", "a")
        second = User(USERS[1], umask, path)
        users.append(second)
        assert second.ask("status", "a") == "streaming"
        second.tell("read", "a", cursor)  # waits, and is woken by the other user's append
        first.ask("append", "a", "abc")
        assert second.answer() == "abc"
        own = second.ask("acquire", "b")
        second.ask("append", "b", "def")
        assert first.ask("read", "b", own) == "def"
        assert first.ask("cancel", "b") == "True" and second.ask("status", "b") == "cancelled"
        first.kill()  # its lock file is there for the other user to try
        wait_until(lambda: second.ask("status", "a") == "interrupted", 60.0)  # long before its lease runs out
        third = User(USERS[0], umask, path)
        users.append(third)
        assert third.ask("read", "a", cursor) == "abc"
    finally:
        for user in users:
            user.kill()
