"""A server with a single thread is warned of, once in each process; one with threads and a test client are not."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask

from resumable_sync import MemoryStore, ResumableStreamContext
from resumable_sync.wsgi import sse_response, stream_response
from resumable_sync.wsgi.threads import _warn

from ..support import PATIENCE, ROOT

WARNING = "answers one request at a time"

SERVER = """
import logging, socketserver, sys
from wsgiref.simple_server import WSGIServer, make_server
import werkzeug.serving
from resumable_sync import MemoryStore, ResumableStreamContext
from resumable_sync.wsgi import sse_response, stream_response

logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
context = ResumableStreamContext(MemoryStore())

def application(environ, start_response):
    begin = sse_response if environ["PATH_INFO"] == "/sse" else stream_response
    return begin(context, environ["PATH_INFO"][1:], lambda: [b"whole"])(environ, start_response)

class Threading(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True

kind, threaded = sys.argv[1], sys.argv[2] == "threaded"
if kind == "wsgiref":
    server = make_server("127.0.0.1", 0, application, Threading if threaded else WSGIServer)
else:
    server = werkzeug.serving.make_server("127.0.0.1", 0, application, threaded=threaded)
print(server.server_port, flush=True)
server.serve_forever()
"""


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """What another test of this process was warned of."""
    _warn.cache_clear()
    yield
    _warn.cache_clear()


@pytest.mark.parametrize("kind", ["wsgiref", "werkzeug"])
@pytest.mark.parametrize("threads, warnings", [("single", 1), ("threaded", 0)])
def test_a_server(kind: str, threads: str, warnings: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, kind, threads],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            for path in ("raw", "sse", "raw", "sse"):
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=PATIENCE) as response:
                    assert b"whole" in response.read()
        finally:
            process.kill()
            _, said = process.communicate(timeout=PATIENCE)
    assert said.count(WARNING) == warnings, said
    assert not warnings or "--threads" in said


def test_a_test_client_is_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    app = Flask(__name__)
    with MemoryStore() as store, ResumableStreamContext(store) as context:

        @app.get("/<stream_id>")
        def stream(stream_id: str) -> Any:
            begin = sse_response if stream_id == "sse" else stream_response
            return begin(context, stream_id, lambda: [b"whole"])

        for path in ("/raw", "/sse"):
            assert b"whole" in app.test_client().get(path).data
    assert WARNING not in caplog.text
