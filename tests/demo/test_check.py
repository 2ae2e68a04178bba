"""`demo --check`, its servers and its sources, without a browser."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from resumable_sync.demo.answers import own_text_source
from resumable_sync.demo.story import Story, StoryError

from .conftest import Demo, until

_NO_FLASK = "import sys; sys.modules['flask'] = None; from resumable_sync.cli import main; sys.exit(main())"


def _run(*arguments: str, code: str | None = None) -> subprocess.CompletedProcess[str]:
    program = ["-m", "resumable_sync"] if code is None else ["-c", code]
    return subprocess.run([sys.executable, *program, *arguments], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(("code", "kind"), [(None, "Flask"), (_NO_FLASK, "bare WSGI")])
def test_the_story_with_and_without_flask(code: str | None, kind: str) -> None:
    result = _run("demo", "--check", code=code)
    assert (result.returncode, result.stderr) == (0, ""), result
    steps = [line.split()[0] for line in result.stdout.splitlines()]
    assert steps == ["server", "start", "raw", "resume", "resume", "compare", "stop", "all"]
    assert kind in result.stdout.splitlines()[0]


def test_the_story_with_a_file_and_with_a_command(tmp_path: Path) -> None:
    text = " ".join(f"wörd{number}" for number in range(300))
    path = tmp_path / "text.txt"
    path.write_text(text)
    result = _run("demo", "--check", "--file", str(path), "--rate", "2000")
    assert result.returncode == 0 and f"all {len(text.encode())} bytes" in result.stdout, result
    script = "import time\nfor number in range(200): print('line', number, flush=True); time.sleep(0.005)"
    result = _run("demo", "--check", "--", sys.executable, "-c", script)
    assert result.returncode == 0, result


def test_a_story_that_cannot_be_told_fails() -> None:
    result = _run("demo", "--check", "--", "true")
    assert result.returncode == 1 and result.stderr == ""
    assert result.stdout.splitlines()[-1].startswith("FAILED    stream story-")


def test_the_story_sees_a_difference(run_demo: Callable[..., Demo]) -> None:
    demo = run_demo("--rate", "500")
    expected = own_text_source(1.0).whole
    assert expected is not None
    Story(demo.url, expected, lambda line: None).play()
    with pytest.raises(StoryError, match="different from byte 1500 on"):
        Story(demo.url, expected[:1500] + b"?" + expected[1501:], lambda line: None).play()


def test_without_flask_one_line_says_what_to_install() -> None:
    result = _run("demo", code=_NO_FLASK)
    assert result.returncode == 1
    assert result.stderr == 'resumable-sync: the demo needs Flask: pip install "resumable_sync[demo]"\n'


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--file", "/no/such/file"], 1),
        (["--rate", "0"], 2),
        (["--rate", "0", "--", "true"], 2),
        (["--file", __file__, "--", "true"], 2),
        (["--", "/no/such/command"], 127),
        (["--port", "70000"], 1),
    ],
)
def test_bad_options(arguments: list[str], code: int, tmp_path: Path) -> None:
    result = _run("--store", f"sqlite:///{tmp_path}/x.db", "demo", *arguments)
    assert result.returncode == code and len(result.stderr.splitlines()) == 1, result


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = str(busy.getsockname()[1])
        result = _run("--store", f"sqlite:///{tmp_path}/x.db", "demo", "--port", port)
    assert result.returncode == 1 and "--port 0" in result.stderr


def _listed(demo: Demo) -> dict[str, str]:
    with urllib.request.urlopen(f"{demo.url}streams/list.json?order=newest", timeout=20) as response:
        return {stream["id"]: stream["status"] for stream in json.load(response)["streams"]}


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_a_restart_keeps_the_streams_as_interrupted(run_demo: Callable[..., Demo], signum: int) -> None:
    demo = run_demo("--rate", "5")
    request = urllib.request.Request(f"{demo.url}answers/kept", method="POST")
    with urllib.request.urlopen(request, timeout=20) as response:
        assert response.readline().startswith(b"retry")
        began = time.monotonic()
        code, said = demo.end(signum)
        assert time.monotonic() - began < 10  # the answer takes longer
    if signum == signal.SIGINT:
        assert code == 130 and said.count(b"\n") == 1 and b"Traceback" not in said
    demo.start()
    until(lambda: _listed(demo) == {"kept": "interrupted"}, "the stream is listed as interrupted", 5)


def test_requests_of_other_sites_are_refused(run_demo: Callable[..., Demo]) -> None:
    demo = run_demo()
    request = urllib.request.Request(
        f"{demo.url}answers/evil", method="POST", headers={"Sec-Fetch-Site": "cross-site"}
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=20)
    with refused.value:
        assert refused.value.code == 403
    assert _listed(demo) == {}


def test_viewers_that_leave_stop_nothing(run_demo: Callable[..., Demo], tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("word " * 100)
    demo = run_demo("--rate", "100", "--file", str(path))
    host = demo.url.split("/")[2]
    for number in range(20):
        connection = http.client.HTTPConnection(host, timeout=20)
        connection.request("POST" if number == 0 else "GET", "/answers/popular")
        assert connection.getresponse().status == 200
        connection.close()
    until(lambda: _listed(demo) == {"popular": "done"}, "the answer is done")
    code, said = demo.end(signal.SIGTERM)
    assert code == 143 and said.count(b"\n") == 1, said
