"""The client against real servers: exact over whatever happens on the way, and loud about every other end."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from resumable_sync import (
    InvalidCursorError,
    InvalidStreamIdError,
    ProducerFailedError,
    ProducerInterruptedError,
    ResumableStreamContext,
    ResumableStreamError,
    SQLiteStore,
    StreamCancelledError,
    StreamLostError,
    StreamNotFoundError,
)
from resumable_sync.client import Following, RefusedError, UnreachableError, follow
from resumable_sync.errors import MalformedStreamError
from resumable_sync.wsgi import ViewerCap

from ..support import PATIENCE, wait_until
from ..wsgi.servers import Gunicorn
from ..wsgi.support import Feed, ended
from .conftest import FORMATS, Site
from .relay import Fate, relay

each_format = pytest.mark.parametrize("format", FORMATS)
ENDINGS: dict[str, type[ResumableStreamError]] = {
    "error": ProducerFailedError,
    "interrupted": ProducerInterruptedError,
    "cancelled": StreamCancelledError,
    "lost": StreamLostError,
}


def lines(count: int, seed: int) -> list[bytes]:
    chance = random.Random(seed)
    return [f"{number}: {'ünïcödé ' * chance.randrange(1, 30)}\n".encode() for number in range(count)]


def download(stream: Following) -> bytes:
    with stream:
        return b"".join(stream)


@pytest.mark.parametrize(
    ("site", "format", "longest"),
    [
        ("waitress", "raw", 1500),
        pytest.param("werkzeug", "raw", 1500, marks=pytest.mark.heavy),
        ("wsgiref", "raw", 1500),
        pytest.param("waitress", "json", 4000, marks=pytest.mark.heavy),
        ("werkzeug", "text", 2500),
        pytest.param("wsgiref", "base64", 2500, marks=pytest.mark.heavy),
    ],
    indirect=["site"],
)
def test_a_download_that_is_cut_again_and_again_is_exact(site: Site, format: str, longest: int) -> None:
    """Live at first, then what is stored; wsgiref speaks HTTP/1.0, where a cut looks like an end."""
    chance = random.Random(7)
    chunks = lines(250, 3)
    first, second = chunks[:150], chunks[150:]
    feed = Feed(*first)
    site.context.start("s", feed)
    cut_at = [chance.randrange(1, longest) for _ in range(2000)]
    ways = iter([Fate(size, chance.choice(["end", "reset"])) for size in cut_at])
    with relay(site.port, lambda: next(ways)) as wire:
        stream = follow(f"http://127.0.0.1:{wire.port}/{format}/s")
        found = b""
        for piece in stream:
            found += piece
            assert stream.cursor.endswith(f"-{len(found)}") and stream.status == "streaming"
            if second and len(found) >= sum(map(len, first)):
                feed.put(*second)
                feed.end()
                second = []
        assert wire.cuts >= 50
    assert found == b"".join(chunks) and stream.status == "done"
    assert list(stream) == []


def ending_of(site: Site, how: str, feed: Feed) -> None:
    if how == "error":
        feed.end(ValueError("it broke"))
    elif how == "cancelled":
        site.context.cancel("s")
    elif how == "lost":
        site.context.delete("s")
    else:
        site.context.close()
        site.context = ResumableStreamContext(site.store)


@each_format
@pytest.mark.parametrize("how", ENDINGS)
def test_each_ending_is_raised_once(site: Site, format: str, how: str) -> None:
    feed = Feed("hello")
    site.context.start("s", feed)
    stream = follow(site.url(format, "s"))
    assert next(stream) == b"hello"
    ending_of(site, how, feed)
    with pytest.raises(ENDINGS[how]) as raised:
        next(stream)
    assert type(raised.value) is ENDINGS[how] and stream.status == how
    if how == "error" and format != "raw":
        assert "it broke" in str(raised.value)
    assert list(stream) == []
    if how != "lost":
        with pytest.raises(ENDINGS[how]):
            download(follow(site.url(format, "s"), after=stream.cursor))


@each_format
def test_what_is_over_is_over_at_once(site: Site, format: str) -> None:
    site.context.produce("s", ended("one", "two"))
    stream = follow(site.url(format, "s"))
    assert download(stream) == b"onetwo"
    assert len(site.requests) == 1
    again = follow(site.url(format, "s"), after=stream.cursor)
    assert download(again) == b"" and again.status == "done" and again.cursor == stream.cursor
    generation = stream.cursor.partition("-")[0]
    assert download(follow(site.url(format, "s"), after=f"{generation}-4")) == b"wo"


def test_missing_and_wrong(site: Site) -> None:
    url = site.url("raw", "s")
    with pytest.raises(StreamNotFoundError) as missing:
        follow(url)
    assert isinstance(missing.value.__cause__, RefusedError)
    assert (missing.value.__cause__.status, missing.value.__cause__.body) == (404, b'{"error":"stream not found"}')
    timer = threading.Timer(0.3, lambda: site.context.start("s", ended("late")))
    timer.start()
    stream = follow(url, wait=PATIENCE)
    timer.join()
    assert download(stream) == b"late"
    generation = int(stream.cursor.partition("-")[0])
    with pytest.raises(StreamLostError):
        follow(url, after=f"{generation - 1}-0")
    for wrong in ("nonsense", f"{generation}-99"):
        with pytest.raises(InvalidCursorError):
            follow(url, after=wrong)
    with pytest.raises(InvalidStreamIdError):
        follow(site.url("raw", "~"))
    for arguments in ({"wait": -1.0}, {"patience": -1.0}, {"read_timeout": 0.0}, {"format": "sse"}):
        with pytest.raises(ValueError):
            follow(url, **arguments)
    for address in ("ftp://host/", "host/s", "http://", "http://[::1/", "http://host:x/"):
        with pytest.raises(ValueError):
            follow(address)


def test_a_server_that_is_busy_is_asked_again_when_it_says(site: Site) -> None:
    url = site.url("text", "s")
    site.context.produce("s", ended("whole"))
    site.answers += [
        ("503 Service Unavailable", [("Retry-After", "1")], b"busy"),
        ("429 Too Many Requests", [], b""),
        ("502 Bad Gateway", [], b"<html>"),
    ]
    began = time.monotonic()
    assert download(follow(url)) == b"whole"
    assert time.monotonic() - began >= 1 and len(site.requests) == 4
    site.answers += [("503 Service Unavailable", [("Retry-After", "1000")], b"")]
    with pytest.raises(UnreachableError):
        follow(url)  # not a thousand seconds later
    site.answers += [("503 Service Unavailable", [("Retry-After", "Fri, 31 Dec 1999 23:59:59 GMT")], b"")]
    assert download(follow(url)) == b"whole"


def test_what_is_refused_is_told(site: Site) -> None:
    site.context.produce("s", ended("whole"))
    private = site.base + "/private/text/s"
    with pytest.raises(RefusedError, match="401") as refused:
        follow(private)
    assert refused.value.status == 401 and refused.value.body.startswith(b"who are you?")
    assert len(refused.value.body) == 500
    assert download(follow(private, headers={"Authorization": "Bearer token"})) == b"whole"

    class Token(httpx.Auth):
        def auth_flow(self, request: httpx.Request) -> Iterator[httpx.Request]:  # type: ignore[override]
            request.headers["Authorization"] = "Bearer token"
            yield request

    assert download(follow(private, auth=Token())) == b"whole"
    url = site.url("raw", "s")
    site.answers.append(("200 OK", [("Content-Type", "text/html")], b"<h1>Log in</h1>"))
    with pytest.raises(RefusedError, match="no resumable stream, but text/html"):
        follow(url)
    with pytest.raises(RefusedError, match="no events, but application/octet-stream"):
        follow(url, format="events")
    site.answers += [("302 Found", [("Location", url)], b"")] * 30
    with pytest.raises(RefusedError, match="redirects"):
        follow(url)
    site.answers.clear()
    site.answers.append(("307 Temporary Redirect", [("Location", site.url("text", "s"))], b""))
    assert download(follow(site.base + "/elsewhere")) == b"whole"
    site.context.produce("cr", ended("one\r\ntwo"))
    with pytest.raises(MalformedStreamError, match="json"):
        download(follow(site.url("text", "cr")))
    assert download(follow(site.url("json", "cr"))) == b"one\r\ntwo"


@pytest.mark.parametrize("format", ["raw", "text"])
def test_a_connection_that_stalls_is_given_up(site: Site, format: str) -> None:
    chunks = lines(100, 5)
    feed = Feed(*chunks)
    site.context.start("s", feed)
    fates = iter([Fate(1500, "stall"), Fate(900, "stall")])
    with relay(site.port, lambda: next(fates, Fate())) as wire:
        stream = follow(f"http://127.0.0.1:{wire.port}/{format}/s", read_timeout=0.5)
        found = next(stream)
        while len(found) < sum(map(len, chunks)):
            found += next(stream)
        feed.end()
        assert found + download(stream) == b"".join(chunks) and wire.stalls == 2


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(UnreachableError, match="no answer for 0.3 s"):
        follow(f"http://127.0.0.1:{port}/", patience=0.3)
    with pytest.raises(UnreachableError):  # certainly not executed, and so repeated for as long
        follow(f"http://127.0.0.1:{port}/", patience=0.3, method="POST", content=b"x")


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("format", ["raw", "text"])
def test_close_ends_a_wait_at_once(site: Site, format: str, given: bool) -> None:
    site.context.start("s", Feed("hello"))
    with httpx.Client() as client:
        stream = follow(site.url(format, "s"), client=client if given else None, read_timeout=2 * PATIENCE)
        raised: list[BaseException] = []

        def run() -> None:
            try:
                for piece in stream:
                    assert piece == b"hello"
            except BaseException as error:
                raised.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        wait_until(lambda: stream.cursor.endswith("-5"))
        stream.close()
        thread.join(PATIENCE)
        assert not thread.is_alive() and isinstance(raised[0], UnreachableError)
        assert not client.is_closed
        closed = follow(site.url(format, "s"), client=client)
        assert next(closed) == b"hello"
        closed.close()
        with pytest.raises(UnreachableError, match="go on after"):  # not as if it had been all
            next(closed)


@each_format
def test_a_post_begins_and_gets_go_on(site: Site, format: str) -> None:
    body = b"a question, and its answer\n" * 100
    fates = iter([Fate(), Fate(700)])  # the first is refused
    with relay(site.port, lambda: next(fates, Fate())) as wire:
        base = f"http://127.0.0.1:{wire.port}/{format}/"
        site.answers.append(("503 Service Unavailable", [], b""))
        stream = follow(base + "s", method="POST", content=body)
        assert download(stream) == body
        posts = [request for request in site.requests if request[0] == "POST"]
        assert len(posts) == 2 and site.requests[-1][:2] == ("GET", f"/{format}/s")
        assert site.requests[-1][2].startswith(stream.cursor.partition("-")[0])
        del site.requests[:]
        assert download(follow(base + "s", method="POST", content=body, after=stream.cursor)) == b""
        assert [request[0] for request in site.requests] == ["GET"]
    site.answers.append(("504 Gateway Timeout", [], b""))
    with pytest.raises(UnreachableError) as unknown:
        follow(site.url(format, "t"), method="POST", content=body)
    assert unknown.value.fate_unknown
    assert (
        download(follow(site.url(format, "t"), method="POST", content=body, resume_url=site.url("raw", "t")))
        == body
    )


def test_a_server_that_is_killed_and_comes_back(tmp_path: Path) -> None:
    """The producer lives elsewhere; the client comes through the death of everything that served it."""
    url = f"sqlite:///{tmp_path}/streams.db"
    chunks = lines(200, 9)
    feed = Feed(*chunks[:100])
    with SQLiteStore(tmp_path / "streams.db") as store, ResumableStreamContext(store) as context:
        context.start("s", feed)
        with Gunicorn(tmp_path, url) as server, relay(server.port, Fate) as wire:
            stream = follow(f"http://127.0.0.1:{wire.port}/again/s")
            found = b""
            while len(found) < sum(map(len, chunks[:100])):
                found += next(stream)
            worker = int(server.ask("/viewers")["pid"])
            for pid in (server.process.pid, worker):
                subprocess.run(["kill", "-9", str(pid)], check=True)
            server.process.wait()
            feed.put(*chunks[100:])
            feed.end()
            rest: list[bytes] = []
            thread = threading.Thread(target=lambda: rest.append(download(stream)), daemon=True)
            thread.start()
            with Gunicorn(tmp_path, url) as second:
                wire.target = second.port
                thread.join(PATIENCE)
            assert found + rest[0] == b"".join(chunks) and stream.status == "done"


def test_httpx_is_named_where_it_is_missing() -> None:
    code = "import sys; sys.modules['httpx'] = None; import resumable_sync.wsgi, resumable_sync.client"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 'pip install "resumable_sync[client]"' in result.stderr and result.returncode == 1


@pytest.mark.parametrize("method", [pytest.param("GET", marks=pytest.mark.heavy), "POST"])
def test_a_cap_for_event_sources_is_come_back_to(site: Site, method: str) -> None:
    """What begins the stream was executed then, and is not sent again."""
    cap = site.viewers = ViewerCap(1, retry_after=1, event_source=True)
    place = cap.enter()
    assert place is not None
    if method == "GET":
        site.context.produce("s", lambda: [b"all ", b"of it"])

    def leave() -> None:
        wait_until(lambda: len(site.requests) == 1)
        place.release()

    leaving = threading.Thread(target=leave)
    leaving.start()
    with follow(
        site.url("json", "s"), method=method, content=b"all of it" if method == "POST" else None
    ) as stream:
        assert b"".join(stream) == b"all of it" and stream.status == "done"
    leaving.join()
    assert [each[0] for each in site.requests] == [method, "GET"]


def test_a_cap_for_event_sources_in_the_middle(site: Site) -> None:
    """The cursor stays; and the patience is the same as with 503."""
    cap = site.viewers = ViewerCap(1, retry_after=1, event_source=True)
    feed = Feed("begun ")
    site.context.start("s", feed)
    with follow(site.url("text", "s")) as stream:
        assert next(stream) == b"begun " and cap.enter() is None
    wait_until(lambda: cap.viewers == 0)
    place = cap.enter()
    assert place is not None
    with pytest.raises(UnreachableError, match="too many viewers"):
        follow(site.url("text", "s"), after=stream.cursor, patience=0.2)
    place.release()
    feed.end()
    with follow(site.url("text", "s"), after=stream.cursor) as stream:
        assert list(stream) == []
    assert stream.status == "done"
