"""`publish`: sources, endings, exit codes, signals."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import Cli, heed_signals, one_line, until


def test_stdin_reaches_followers_that_came_before_during_and_after(cli: Cli) -> None:
    data = os.urandom(8_000_000)
    wanted = hashlib.sha256(data).hexdigest()
    assert cli.run("ls").returncode == 0
    with (cli.home / "before").open("wb") as output:
        before = cli.start("follow", "big", "--wait", "30", stdout=output)
    publisher = cli.start("publish", "big")
    assert publisher.stdin is not None
    publisher.stdin.write(data[:3_000_000])
    until(lambda: cli.stored("big") >= 3_000_000 - 65_536, "the first part is stored")
    with (cli.home / "during").open("wb") as output:
        during = cli.start("follow", "big", stdout=output)
    publisher.stdin.write(data[3_000_000:])
    publisher.stdin.close()
    assert publisher.wait(30) == 0
    after = cli.run("follow", "big")
    assert (before.wait(30), during.wait(30), after.returncode) == (0, 0, 0)
    for found in ((cli.home / "before").read_bytes(), (cli.home / "during").read_bytes(), after.stdout):
        assert hashlib.sha256(found).hexdigest() == wanted


def test_bytes_are_published_as_they_come(cli: Cli) -> None:
    publisher = cli.start("publish", "drop")
    follower = cli.start("follow", "drop", "--wait", "20")
    assert publisher.stdin is not None and follower.stdout is not None
    publisher.stdin.write(b"x")
    assert follower.stdout.read(1) == b"x"  # long before a buffer is full, and before the end
    publisher.stdin.close()
    assert (publisher.wait(20), follower.wait(20)) == (0, 0)


def test_a_file_with_metadata(cli: Cli, tmp_path: Path) -> None:
    source = tmp_path / "source.txt"
    source.write_bytes(b"from a file")
    result = cli.run(
        "publish", "f", str(source), "--ttl", "60", "--metadata", "owner=ada", "--content-type", "text/plain"
    )
    assert (result.returncode, result.stderr) == (0, b"")
    details = cli.status("f")
    assert details is not None and details["metadata"] == {"owner": "ada", "content-type": "text/plain"}
    assert cli.run("follow", "f").stdout == b"from a file"


@pytest.mark.parametrize("name", ["missing.txt", "."])
def test_a_file_that_cannot_be_read_takes_no_id(cli: Cli, tmp_path: Path, name: str) -> None:
    result = cli.run("publish", "f", str(tmp_path / name))
    assert result.returncode == 1 and "cannot read" in one_line(result.stderr)
    assert cli.status("f") is None


def test_a_taken_id_is_refused_and_its_stream_untouched(cli: Cli) -> None:
    assert cli.run("publish", "once", input=b"first").returncode == 0
    result = cli.run("publish", "once", input=b"second")
    assert result.returncode == 8 and "once is in use (done, 5 bytes)" in one_line(result.stderr)
    assert cli.run("follow", "once").stdout == b"first"


def test_a_bad_id_and_bad_options(cli: Cli) -> None:
    result = cli.run("publish", "no/slash")
    assert result.returncode == 2 and "not a stream id" in one_line(result.stderr)
    result = cli.run("publish", "id", "--ttl", "-1")
    assert result.returncode == 2 and "ttl" in one_line(result.stderr)
    for options in (["--metadata", "novalue"], ["--ttl", "soon"], ["file", "--", "true"], ["--"]):
        result = cli.run("publish", "id", *options)
        assert result.returncode == 2 and b"Traceback" not in result.stderr
    assert cli.status("id") is None


def test_a_command(cli: Cli) -> None:
    result = cli.run("publish", "cmd", "--", "sh", "-c", "printf a; printf -- --; cat", input=b"stdin")
    assert (result.returncode, result.stderr) == (0, b"")
    assert cli.run("follow", "cmd").stdout == b"a--stdin"


@pytest.mark.parametrize(("script", "code"), [("echo part; exit 7", 7), ("echo part; kill -9 $$", 137)])
def test_a_failing_command_fails_the_stream(cli: Cli, script: str, code: int) -> None:
    result = cli.run("publish", "bad", "--", "sh", "-c", script)
    assert result.returncode == code and "5 bytes" in one_line(result.stderr)
    follower = cli.run("follow", "bad")
    assert (follower.returncode, follower.stdout) == (3, b"part\n")
    assert "sh " in one_line(follower.stderr)


def test_a_command_that_does_not_exist_takes_no_id(cli: Cli) -> None:
    result = cli.run("publish", "none", "--", "/no/such/command")
    assert result.returncode == 127 and "command not found" in one_line(result.stderr)
    assert cli.status("none") is None


@pytest.mark.parametrize(("is_directory", "reason"), [(False, "not executable"), (True, "a directory")])
def test_a_command_that_is_none_takes_no_id(cli: Cli, tmp_path: Path, is_directory: bool, reason: str) -> None:
    path = tmp_path / "thing"
    path.mkdir() if is_directory else path.write_text("text")
    result = cli.run("publish", "none", "--", str(path))
    assert result.returncode == 126 and reason in one_line(result.stderr)
    assert cli.status("none") is None


def test_a_command_that_cannot_be_run(cli: Cli, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    result = cli.run("publish", "odd", "--", str(script))
    assert result.returncode in (126, 127) and "cannot run" in one_line(result.stderr)
    assert cli.run("follow", "odd").returncode == 3


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_stream_as_interrupted_with_all_that_was_read(cli: Cli, signum: int) -> None:
    publisher = cli.start("publish", "stop")
    follower = cli.start("follow", "stop", "--wait", "20")
    assert publisher.stdin is not None and follower.stdout is not None
    publisher.stdin.write(b"so far")
    assert follower.stdout.read(6) == b"so far"
    began = time.monotonic()
    os.kill(publisher.pid, signum)
    _, stderr = publisher.communicate(timeout=20)
    assert publisher.returncode == 128 + signum and "interrupted after 6 bytes" in one_line(stderr)
    assert follower.wait(20) == 4
    assert time.monotonic() - began < 5  # two seconds at most, and what a busy machine adds


def test_ctrl_c_on_a_pipeline_is_not_taken_for_the_end_of_its_source(cli: Cli) -> None:
    """The terminal signals all of it: what feeds us ends, too."""
    for number in range(5):
        shell = ["sh", "-c", 'sleep 1000 | "$@"', "sh", *cli.command("publish", f"p{number}")]
        pipeline = subprocess.Popen(
            shell, env=cli.environment, start_new_session=True, stderr=subprocess.PIPE, preexec_fn=heed_signals
        )
        until(lambda: cli.status(f"p{number}"), "the stream is there")
        os.killpg(pipeline.pid, signal.SIGINT)
        _, stderr = pipeline.communicate(timeout=20)
        one_line(stderr)
        details = cli.status(f"p{number}")
        assert details is not None and details["status"] == "interrupted"


def _running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("how", ["signal", "cancel", "delete"])
def test_stopping_ends_the_command_and_what_it_started(cli: Cli, how: str) -> None:
    script = "sleep 1000 & echo $! $$; wait"
    publisher = cli.start("publish", "cmd", "--", "sh", "-c", script)
    follower = cli.start("follow", "cmd", "--wait", "20")
    assert follower.stdout is not None
    pids = [int(word) for word in follower.stdout.readline().split()]
    assert len(pids) == 2 and all(map(_running, pids))
    if how == "signal":
        os.kill(publisher.pid, signal.SIGINT)
    else:
        assert cli.run(how, "cmd").returncode == 0
    _, stderr = publisher.communicate(timeout=20)
    one_line(stderr)
    codes = {"signal": (130, 4), "cancel": (5, 5), "delete": (6, 6)}
    assert (publisher.returncode, follower.wait(20)) == codes[how]
    until(lambda: not any(map(_running, pids)), "the command and its child are gone")


def test_a_command_that_ignores_sigterm_is_killed(cli: Cli) -> None:
    script = "import signal,os,time; signal.signal(15, 1); print(os.getpid(), flush=True); time.sleep(1000)"
    publisher = cli.start("publish", "deaf", "--", sys.executable, "-c", script)
    follower = cli.start("follow", "deaf", "--wait", "20")
    assert follower.stdout is not None
    pid = int(follower.stdout.readline())
    began = time.monotonic()
    os.kill(publisher.pid, signal.SIGTERM)
    assert publisher.wait(20) == 143
    assert time.monotonic() - began < 10  # the two seconds that it is given, and what a busy machine adds
    until(lambda: not _running(pid), "the command is gone")


def test_cancelled_from_elsewhere_while_silent(cli: Cli) -> None:
    publisher = cli.start("publish", "quiet")
    until(lambda: cli.status("quiet"), "the stream is there")
    assert cli.run("cancel", "quiet").returncode == 0
    assert publisher.wait(5) == 5  # within a heartbeat, and what a busy machine adds
    assert publisher.stderr is not None and "cancelled by somebody else" in one_line(publisher.stderr.read())


def test_kill_9_shows_as_interrupted_within_two_seconds(cli: Cli) -> None:
    publisher = cli.start("publish", "dead")
    followers = [cli.start("follow", "dead", "--wait", "20") for _ in range(3)]
    assert publisher.stdin is not None
    publisher.stdin.write(b"all that was made")
    for follower in followers:
        assert follower.stdout is not None and follower.stdout.read(17) == b"all that was made"
    began = time.monotonic()
    os.kill(publisher.pid, signal.SIGKILL)
    assert [follower.wait(20) for follower in followers] == [4, 4, 4]
    assert time.monotonic() - began < 5  # two seconds at most, and what a busy machine adds
    details = cli.status("dead")
    assert details is not None and (details["status"], details["size"]) == ("interrupted", 17)


def test_closed_standard_descriptors(cli: Cli) -> None:
    """A closed stdin or stdout must not make the database's descriptor take its number."""
    shell = ["sh", "-c", '"$@" <&- >&- 2>&-', "sh"]
    result = subprocess.run([*shell, *cli.command("publish", "in")], env=cli.environment, timeout=60)
    assert result.returncode == 1
    assert cli.run("publish", "out", input=b"data").returncode == 0
    result = subprocess.run([*shell, *cli.command("follow", "out")], env=cli.environment, timeout=60)
    assert result.returncode == 1
    assert cli.run("check").returncode == 0


def test_progress_on_a_terminal_only(cli: Cli) -> None:
    master, slave = os.openpty()
    try:
        publisher = cli.start("publish", "shown", stderr=slave)
        assert publisher.stdin is not None
        publisher.stdin.write(b"x" * 5000)
        shown = b""
        while b"5.0 kB" not in shown:
            shown += os.read(master, 1000)
        publisher.stdin.close()
        while b"done in" not in shown:
            shown += os.read(master, 1000)
        assert publisher.wait(20) == 0 and b"shown: 5.0 kB" in shown
    finally:
        os.close(master)
        os.close(slave)
