"""Flask: what its handlers and extensions make of a stream, and its test client."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from resumable_sync import MemoryStore, current_producer

from ..support import PATIENCE, wait_until
from .apps import own_test
from .apps.flask_app import create_app
from .support import Site, need


class Words:
    """A source that gives the rest of what it was asked once it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def __call__(self, question: str) -> Iterator[str]:
        current_producer().on_cancel(self.go.set)
        yield "begun "
        self.go.wait(PATIENCE)
        yield question


@pytest.fixture
def words() -> Words:
    return Words()


@pytest.fixture
def app(words: Words) -> Iterator[Any]:
    with MemoryStore() as store:
        made = create_app(store, words)
        yield made
        made.context.close()


def test_an_application_tests_itself() -> None:
    own_test.test_an_answer()


@pytest.mark.parametrize("compressed", [False, True])
def test_every_piece_comes_at_once(app: Any, words: Words, compressed: bool) -> None:
    """Through a handler that touches every response, and through Flask-Compress, which leaves streams alone."""
    if compressed:
        need("flask_compress")
        from flask_compress import Compress

        app.config["COMPRESS_MIMETYPES"] = ["text/html", "text/plain", "text/event-stream"]
        app.config["COMPRESS_MIN_SIZE"] = 0
        Compress(app)
    asked = {"Accept-Encoding": "gzip, br"}
    with Site(app) as site:
        connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=PATIENCE)
        connection.request("GET", "/page", headers=asked)
        page = connection.getresponse()
        assert (page.headers["Content-Encoding"] is not None) is compressed and page.headers["ETag"]
        page.read()
        found = []
        for path in ("/files/a", "/answers/b"):
            words.go.clear()
            connection.request("POST", path, "äöü".encode(), headers=asked)
            response = connection.getresponse()
            assert response.headers["Content-Encoding"] == "identity" and response.headers["ETag"] is None
            assert (response.headers["X-Served-By"], response.headers["X-Streamed"]) == ("touched", "True")
            begun = b""
            while b"begun " not in begun:  # the source waits: what was held back would never come
                begun += response.read1()
            words.go.set()
            found.append(begun + response.read())
        connection.close()
    assert found[0] == "begun äöü".encode()
    assert "data: äöü".encode() in found[1] and b'"status": "done"' in found[1]


def test_parts_of_a_download_beside_compression(app: Any, words: Words) -> None:
    need("flask_compress")
    from flask_compress import Compress

    app.config["COMPRESS_MIN_SIZE"] = 0
    Compress(app)
    words.go.set()
    client = app.test_client()
    asked = {"Accept-Encoding": "gzip"}
    assert client.post("/files/f", data="and ended", headers=asked).data == b"begun and ended"
    part = client.get("/files/f", headers={**asked, "Range": "bytes=6-8"})
    assert (part.status_code, part.data) == (206, b"and") and part.headers["Content-Range"] == "bytes 6-8/15"
    tag = part.headers["ETag"]
    assert client.get("/files/f", headers={**asked, "If-None-Match": tag}).status_code == 304
    assert client.get("/files/f", headers={**asked, "Range": "bytes=6-", "If-Range": tag}).data == b"and ended"


def test_the_test_client_closes_early(app: Any, words: Words) -> None:
    """A viewer that leaves gives its place back, and stops nothing."""
    client = app.test_client()
    response = client.post("/files/f", data="and ended")
    pieces = iter(response.response)
    while next(pieces) != b"begun ":
        pass
    assert app.viewers.viewers == 1
    response.close()
    assert app.viewers.viewers == 0 and app.context.status("f") == "streaming"
    with client.get("/answers/f") as again:  # events of the same stream
        assert again.status_code == 200 and app.viewers.viewers == 1
    assert app.viewers.viewers == 0
    words.go.set()
    wait_until(lambda: app.context.status("f") == "done")
    assert client.get("/files/f").data == b"begun and ended"
