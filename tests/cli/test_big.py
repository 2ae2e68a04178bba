"""Much data, little memory; and a disk that fills up. Long: run with -m heavy."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Cli, one_line, until

_MEGABYTES = 200
_MAX_RESIDENT_KILOBYTES = 150_000

# Runs the command line and reports its own peak memory, in kilobytes, on a descriptor of its own.
_MEASURED = """
import os, resource, sys
from resumable_sync.cli import main
code = main(sys.argv[2:])
os.write(int(sys.argv[1]), b"%d" % resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
sys.exit(code)
"""


class _Measured:
    def __init__(self, cli: Cli, *arguments: str, stdin: int = subprocess.DEVNULL) -> None:
        self._reader, writer = os.pipe()
        program = [sys.executable, "-c", _MEASURED, str(writer), *arguments]
        self._command = subprocess.Popen(
            program, stdin=stdin, stdout=subprocess.PIPE, env=cli.environment, pass_fds=[writer]
        )
        self._digest = subprocess.Popen(["sha256sum"], stdin=self._command.stdout, stdout=subprocess.PIPE)
        assert self._command.stdout is not None
        self._command.stdout.close()
        os.close(writer)

    def result(self) -> tuple[int, str, int]:
        """Exit code, SHA-256 of stdout, peak memory."""
        digest, _ = self._digest.communicate(timeout=100)
        code = self._command.wait(20)
        with os.fdopen(self._reader, "rb") as reader:
            return code, digest.decode().split()[0], int(reader.read())


@pytest.mark.heavy
def test_200_megabytes_and_three_followers(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "data"
    with path.open("wb") as file:
        for _ in range(_MEGABYTES):
            file.write(os.urandom(1_000_000))
    wanted = subprocess.run(["sha256sum", str(path)], capture_output=True, text=True, check=True).stdout.split()[0]
    before = _Measured(cli, "follow", "big")
    with subprocess.Popen(["cat", str(path)], stdout=subprocess.PIPE) as source:
        assert source.stdout is not None
        publisher = _Measured(cli, "publish", "big", stdin=source.stdout.fileno())
        source.stdout.close()
        until(lambda: cli.stored("big") > 1_000_000, "some of it is stored")
        during = _Measured(cli, "follow", "big")
        published = publisher.result()
    after = _Measured(cli, "follow", "big")
    results = [before.result(), during.result(), after.result()]
    assert [(code, digest) for code, digest, _ in results] == [(0, wanted)] * 3
    assert published[0] == 0
    assert max(peak for _, _, peak in [published, *results]) < _MAX_RESIDENT_KILOBYTES


@pytest.mark.heavy
def test_a_disk_that_fills_up(cli: Cli) -> None:
    """As a limit on the size of files: what was stored stays readable, the rest is refused with one line."""
    cli.run("publish", "before", input=b"kept")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))

    result = cli.run("publish", "full", input=os.urandom(10_000_000), preexec_fn=limit)
    assert result.returncode == 9 and "bytes of stream full are stored" in one_line(result.stderr)
    stored = int(one_line(result.stderr).split(" bytes of stream")[0].split()[-1])
    follower = cli.run("follow", "full")
    assert follower.returncode == 4 and len(follower.stdout) >= stored > 1_000_000
    assert cli.run("follow", "before").stdout == b"kept"
    assert cli.run("check").returncode == 0
