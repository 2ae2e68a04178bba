"""A connection that is reset unless the body comes to its end, and which those are."""

from __future__ import annotations

import io
import logging
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from resumable_sync import MemoryStore, ResumableStreamContext
from resumable_sync.wsgi import reset as module
from resumable_sync.wsgi import resume_response, stream_response
from resumable_sync.wsgi.probe import find_probe
from resumable_sync.wsgi.reset import Reset, find_reset

from .support import Feed, Reply, request, wait_until

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A connection over TCP, its server's end first."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    client.settimeout(30)
    with server, client:
        yield server, client


def finish(server: socket.socket) -> None:
    """As servers do."""
    try:
        server.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # it is not connected any more: socketserver and gunicorn take that as well
    server.close()


def test_fired(pair: Pair) -> None:
    server, client = pair
    reset = Reset(server)
    reset.arm()
    server.sendall(b"hello")
    reset.fire()
    reset.fire()
    finish(server)
    assert client.recv(10) == b"hello"
    with pytest.raises(ConnectionResetError):
        client.recv(10)


def test_disarmed(pair: Pair) -> None:
    server, client = pair
    reset = Reset(server)
    reset.arm()
    server.sendall(b"hello")
    reset.disarm()
    reset.disarm()
    reset.fire()
    finish(server)
    assert client.recv(10) == b"hello" and client.recv(10) == b""


def test_armed_and_then_closed_by_the_kernel_alone(pair: Pair) -> None:
    server, client = pair
    reset = Reset(server)
    reset.arm()
    server.close()
    reset._release()  # as where the process ends
    with pytest.raises(ConnectionResetError):
        client.recv(10)


def test_never_armed(pair: Pair) -> None:
    server, client = pair
    Reset(server).fire()
    finish(server)
    assert client.recv(10) == b""


def test_a_connection_that_has_gone(pair: Pair) -> None:
    """Also its number may be another's by now."""
    server, client = pair
    reset = Reset(server)
    server.close()
    reset.arm()
    reset.fire()
    armed = Reset(client)
    armed.arm()
    number = client.fileno()
    client.close()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        others = [socket.create_connection(listener.getsockname()) for _ in range(3)]
        accepted = [listener.accept()[0] for _ in others]
        assert number in {each.fileno() for each in (listener, *others, *accepted)}
    armed.fire()
    for other, its in zip(others, accepted):
        other.sendall(b"x")
        assert its.recv(1) == b"x"
        other.close()
        its.close()


def channel(server: socket.socket) -> dict[str, Any]:
    class Channel:
        socket = server

        def check_client_disconnected(self) -> bool:
            return False

    return {"waitress.client_disconnected": Channel().check_client_disconnected}


SHOWN: dict[str, tuple[Callable[[socket.socket], dict[str, Any]], bool]] = {
    "gunicorn": (lambda server: {"gunicorn.socket": server}, True),
    "werkzeug with threads": (lambda server: {"werkzeug.socket": server, "wsgi.multithread": True}, True),
    "werkzeug without": (lambda server: {"werkzeug.socket": server, "wsgi.multithread": False}, False),
    "waitress": (channel, True),
    "wsgiref": (lambda server: {"wsgi.input": server.makefile("rb")}, False),
}


@pytest.mark.parametrize("kind", SHOWN)
def test_where_the_server_tells_the_end(pair: Pair, kind: str) -> None:
    """Over HTTP/1.1, by chunks, unless it knows none."""
    show, sends_chunks = SHOWN[kind]
    for protocol, framed in (("HTTP/1.1", sends_chunks), ("HTTP/1.0", False)):
        environ = {"wsgi.input": io.BytesIO(), **show(pair[0]), "SERVER_PROTOCOL": protocol}
        assert (find_reset(environ, find_probe(environ)) is None) is framed, protocol
        environ["wsgi.input"].close()


def test_one_warning_where_nothing_can_be_reset(caplog: pytest.LogCaptureFixture) -> None:
    module._warn.cache_clear()
    ours, theirs = socket.socketpair()  # a Unix socket knows no resets
    old = {"SERVER_PROTOCOL": "HTTP/1.0"}
    with ours, theirs, caplog.at_level(logging.WARNING, "resumable_sync"):
        assert find_reset(old, None) is None  # a test client
        assert find_reset({"SERVER_SOFTWARE": "granian", "SERVER_PROTOCOL": "HTTP/1.1"}, None) is None
        assert not caplog.records
        for _ in range(2):
            environ = {**old, "SERVER_SOFTWARE": "gunicorn/1", "gunicorn.socket": ours}
            assert find_reset(environ, find_probe(environ)) is None
        assert [record.message.split(" ")[0] for record in caplog.records] == ["gunicorn/1"]
        assert find_reset({**old, "SERVER_SOFTWARE": "granian"}, None) is None
    assert "proxy_http_version 1.1" in caplog.text
    module._warn.cache_clear()


@pytest.fixture
def context() -> Iterator[ResumableStreamContext]:
    store = MemoryStore()
    with ResumableStreamContext(store) as made:
        yield made
    store.close()


def over_http_1_0(response: Any, server: socket.socket) -> Reply:
    environ = {**request(), "gunicorn.socket": server, "SERVER_PROTOCOL": "HTTP/1.0"}
    started: list[Any] = []
    body = response(environ, lambda *arguments: started.append(arguments))
    status, headers = started[0]
    return Reply(status, headers, body)


def test_a_response_that_comes_to_its_end(context: ResumableStreamContext, pair: Pair) -> None:
    server, client = pair
    feed = Feed(b"abc")
    reply = over_http_1_0(stream_response(context, "s", feed), server)
    feed.end()
    assert reply.read() == b"abc"
    finish(server)
    assert client.recv(10) == b""


@pytest.mark.parametrize("how", ["cancelled", "closed", "collected"])
def test_a_response_that_does_not(context: ResumableStreamContext, pair: Pair, how: str) -> None:
    server, client = pair
    reply = over_http_1_0(stream_response(context, "s", Feed(b"abc")), server)
    reply.read_bytes(3)
    if how == "cancelled":
        context.cancel("s")
        with pytest.raises(ConnectionResetError):
            reply.read()
    elif how == "closed":
        reply.close()
    else:
        del reply
    with pytest.raises(ConnectionResetError):
        client.recv(10)


def test_a_response_that_never_began_leaves_the_connection_alone(
    context: ResumableStreamContext, pair: Pair
) -> None:
    """The server may have an error page to send."""
    server, client = pair
    reply = over_http_1_0(stream_response(context, "s", Feed(b"abc")), server)
    reply.close()
    server.sendall(b"x")
    finish(server)
    assert client.recv(10) == b"x" and client.recv(10) == b""


def test_a_known_length_needs_no_reset(context: ResumableStreamContext, pair: Pair) -> None:
    server, client = pair
    feed = Feed(b"abc")
    feed.end()
    assert list(context.run("s", feed)) == [b"abc"]
    wait_until(lambda: context.status("s") == "done")
    reply = over_http_1_0(resume_response(context, "s"), server)
    assert reply.headers["content-length"] == "3" and next(iter(reply.body)) == b""
    reply.close()
    finish(server)
    assert client.recv(10) == b""
