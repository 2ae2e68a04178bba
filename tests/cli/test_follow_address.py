"""`follow https://…`: the same bytes, messages and exit codes as from a store."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess

import pytest

from resumable_sync import ResumableStreamContext
from resumable_sync.wsgi import ViewerCap

from ..client.conftest import Site, site  # noqa: F401  a fixture
from ..support import PATIENCE, wait_until
from ..wsgi.support import Feed, ended
from .conftest import Cli, one_line


def outcome(process: subprocess.Popen[bytes]) -> tuple[int, bytes]:
    """Exit code and output; with another code than 0 there is one line on stderr, without one there is none."""
    stdout, stderr = process.communicate(timeout=PATIENCE)
    if process.returncode:
        one_line(stderr)
    else:
        assert stderr == b""
    return process.returncode, stdout


def test_exit_codes(cli: Cli, site: Site) -> None:  # noqa: F811
    context = site.context
    context.produce("done", ended("all of it"))
    feeds = {name: Feed("begun") for name in ("error", "interrupted", "lost")}
    other = ResumableStreamContext(site.store)
    for name, feed in feeds.items():
        (other if name == "interrupted" else context).start(name, feed)
    followers = {name: cli.start("follow", site.url("json", name)) for name in feeds}
    for follower in followers.values():
        assert follower.stdout is not None and follower.stdout.read(5) == b"begun"
    other.close()
    feeds["error"].end(ValueError("it broke"))
    context.delete("lost")
    url = site.url("text", "done")
    private = f"{site.base}/private/raw/done"
    header = "-H", "authorization: Bearer token"
    others = [
        ((url,), (0, b"all of it")),
        ((private, *header), (0, b"all of it")),
        ((private,), (1, b"")),
        ((url, "--after", "nonsense"), (2, b"")),
        (("http://[::1/",), (2, b"")),
        ((site.url("raw", "nobody"), "--wait", "0"), (7, b"")),
        (("http://127.0.0.1:1/", "--patience", "0.2"), (9, b"")),
    ]
    running = [cli.start("follow", *arguments) for arguments, _ in others]
    for process, (arguments, expected) in zip(running, others, strict=True):
        assert outcome(process) == expected, arguments
    codes = {name: outcome(follower)[0] for name, follower in followers.items()}
    assert codes == {"error": 3, "interrupted": 4, "lost": 6}
    wrong = [["--store", "memory://", "follow", url], ["follow", "done", *header], ["follow", url, "-H", "x"]]
    for process in [cli.start(*words) for words in wrong]:
        assert process.wait(PATIENCE) == 2


def test_ctrl_c_tells_where_to_go_on(cli: Cli, site: Site) -> None:  # noqa: F811
    feed = Feed("before ")
    site.context.start("talk", feed)
    follower = cli.start("follow", site.url("raw", "talk") + "?a=1&b=2")
    assert follower.stdout is not None and follower.stdout.read(7) == b"before "
    os.kill(follower.pid, signal.SIGINT)
    rest, stderr = follower.communicate(timeout=PATIENCE)
    assert (follower.returncode, rest) == (130, b"")
    feed.put("after")
    feed.end()
    words = shlex.split(one_line(stderr).rpartition("go on with: ")[2])
    again = cli.run(*words[1:])
    assert (again.returncode, again.stdout) == (0, b"after"), words


def test_a_reader_that_leaves_a_silent_stream(cli: Cli, site: Site) -> None:  # noqa: F811
    site.context.start("silent", Feed("x"))
    follower = cli.start("follow", site.url("raw", "silent"))
    assert follower.stdout is not None and follower.stderr is not None
    assert follower.stdout.read(1) == b"x"
    follower.stdout.close()
    assert follower.wait(PATIENCE) == 141
    line = one_line(follower.stderr.read())
    assert "nobody reads the output" in line and line.endswith("-1")


@pytest.mark.heavy  # the client's own tests cover it
def test_a_cap_for_event_sources_is_come_back_to(cli: Cli, site: Site) -> None:  # noqa: F811
    site.context.produce("done", ended("all of it"))
    cap = site.viewers = ViewerCap(1, retry_after=1, event_source=True)
    place = cap.enter()
    assert place is not None
    follower = cli.start("follow", site.url("text", "done"))
    wait_until(lambda: site.requests, what="the first request")
    place.release()
    assert outcome(follower) == (0, b"all of it") and len(site.requests) == 2
