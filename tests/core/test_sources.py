"""Sources: who closes the descriptor, and what becomes of a command and of what it started."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from resumable_sync import MemoryStore, ResumableStreamContext
from resumable_sync.sources import CommandFailed, CommandSource, DescriptorSource

from ..support import PATIENCE, wait_until


def _running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _begin(source: CommandSource) -> tuple[Iterator[bytes], list[int]]:
    """Start a command whose first line names processes."""
    chunks = source.chunks()
    line = b""
    while not line.endswith(b"\n"):
        line += next(chunks)
    return chunks, [int(word) for word in line.split()]


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for descriptor in (reader, writer):
        if _is_open(descriptor):
            os.close(descriptor)


def test_a_descriptor_belongs_to_the_source_from_the_first_chunk_on(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    chunks = DescriptorSource(reader).chunks()
    assert _is_open(reader)
    os.write(writer, b"x")
    assert next(chunks) == b"x"
    chunks.close()  # type: ignore[attr-defined]  # a generator
    assert not _is_open(reader)


@pytest.mark.parametrize("blocking", [True, False])
def test_stop_breaks_the_wait_for_a_descriptor(pipe: tuple[int, int], blocking: bool) -> None:
    reader, writer = pipe
    os.set_blocking(reader, blocking)
    source = DescriptorSource(reader)
    os.write(writer, b"x")
    found: list[bytes] = []
    thread = threading.Thread(target=lambda: found.extend(source.chunks()))
    thread.start()
    wait_until(lambda: found)
    for _ in range(100_000):  # more than a pipe holds: only the first call writes
        source.stop()
    thread.join(20)
    assert found == [b"x"] and not _is_open(reader)


def test_stopped_before_it_runs(pipe: tuple[int, int], tmp_path: Path) -> None:
    source = DescriptorSource(pipe[0])
    source.stop()
    assert list(source.chunks()) == [] and not _is_open(pipe[0])
    command = CommandSource(["touch", str(tmp_path / "made")])
    command.stop()
    assert list(command.chunks()) == [] and not (tmp_path / "made").exists()


def test_a_descriptor_that_cannot_be_read(pipe: tuple[int, int]) -> None:
    with pytest.raises(OSError):
        list(DescriptorSource(os.open("/", os.O_RDONLY)).chunks())
    assert list(CommandSource(["echo", "x"]).chunks()) == [b"x\n"]


@pytest.mark.parametrize(
    ("command", "code"),
    [(["false"], 1), (["sh", "-c", "kill -9 $$"], 137), (["/no/such"], 127), (["/etc/passwd"], 126)],
)
def test_a_command_that_fails(command: list[str], code: int) -> None:
    with pytest.raises(CommandFailed) as failed:
        list(CommandSource(command).chunks())
    assert failed.value.exit_code == code and command[0] in str(failed.value)


@pytest.mark.parametrize(
    ("leader", "child"),
    [
        ('sh -c "$1" &', "echo $$; exec sleep 1000"),  # the leader exits at once
        ('sh -c "$1" &', "trap '' TERM; echo $$; exec sleep 1000"),  # and its child is deaf
        ('sh -c "$1" & wait', "trap '' TERM; echo $$ $PPID; exec sleep 1000"),  # only the leader heeds SIGTERM
        ("trap '' TERM; sh -c \"$1\" & wait", "echo $$ $PPID; exec sleep 1000"),  # nobody does
    ],
)
@pytest.mark.parametrize("how", ["stop", "close"])
def test_no_member_of_the_group_outlives_the_end(leader: str, child: str, how: str) -> None:
    source = CommandSource(["sh", "-c", leader, "sh", child])
    chunks, pids = _begin(source)
    assert _running(pids[0])
    began = time.monotonic()
    if how == "stop":
        stops = [threading.Thread(target=source.stop) for _ in range(3)]
        for stop in stops:
            stop.start()
        assert list(chunks) == []
        for stop in stops:
            stop.join(20)
    else:
        chunks.close()  # type: ignore[attr-defined]  # a generator
    assert time.monotonic() - began < 10  # SIGKILL comes after one second
    wait_until(lambda: not any(map(_running, pids)), 10)  # who was killed goes as the machine finds time


def test_members_get_time_to_clean_up_after_their_leader(tmp_path: Path) -> None:
    child = f"trap 'sleep 0.2; echo cleaned > {tmp_path}/done; exit' TERM; echo $$; while :; do sleep 0.01; done"
    source = CommandSource(["sh", "-c", 'sh -c "$1" & wait', "sh", child])
    chunks, pids = _begin(source)
    source.stop()
    assert not any(map(_running, pids))
    assert list(chunks) == []
    assert (tmp_path / "done").read_text() == "cleaned\n"


def test_a_command_that_ends_by_itself_leaves_its_background_alone() -> None:
    source = CommandSource(["sh", "-c", "sleep 1000 > /dev/null & echo $!"])
    chunks, pids = _begin(source)
    try:
        assert list(chunks) == []
        source.stop()
        assert _running(pids[0])
    finally:
        os.kill(pids[0], signal.SIGKILL)


@pytest.mark.parametrize("kind", ["descriptor", "command"])
@pytest.mark.parametrize("how", ["cancel", "delete", "close"])
def test_a_silent_source_is_stopped_with_its_stream(pipe: tuple[int, int], kind: str, how: str) -> None:
    """At once: neither at its next byte, which never comes, nor at a heartbeat."""
    reader, writer = pipe
    os.write(writer, b"x")
    command = CommandSource(["/bin/sh", "-c", "printf x; exec sleep 1000"])
    source = DescriptorSource(reader) if kind == "descriptor" else command
    with MemoryStore(grace=3000) as store, ResumableStreamContext(store, heartbeat=1000) as context:
        over = threading.Event()

        def make() -> Iterator[bytes]:
            try:
                yield from source.chunks()
            finally:
                over.set()

        assert next(context.run("s", make)) == b"x"
        if how == "close":
            context.close()
        else:
            getattr(context, how)("s")
        assert over.wait(PATIENCE)
        assert context.status("s") == {"cancel": "cancelled", "delete": "missing", "close": "interrupted"}[how]
    if kind == "descriptor":
        assert not _is_open(reader)
    else:
        assert command._process is not None and command._process.poll() is not None
