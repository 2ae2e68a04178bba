"""The probe: told by the socket alone, whatever lies unread in it."""

from __future__ import annotations

import io
import select
import socket
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from resumable_sync.wsgi import probe
from resumable_sync.wsgi.probe import Probe, find_probe

from .support import wait_until


@pytest.fixture(params=["poll", "peek"])
def pair(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Any]]:
    """A connection over TCP, its server's end first, on a system with and without POLLRDHUP."""
    if request.param == "peek":
        monkeypatch.setattr(probe, "_RDHUP", 0)
        monkeypatch.setattr(probe, "_GONE", select.POLLERR | select.POLLHUP | select.POLLNVAL)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    with server, client:
        yield server, client


def test_here_until_closed(pair: tuple[socket.socket, socket.socket]) -> None:
    server, client = pair
    looked = Probe(server)
    assert not looked.gone()
    server.sendall(b"x")
    assert not looked.gone()
    client.recv(1)
    client.close()
    wait_until(looked.gone)
    server.close()
    assert looked.gone()
    looked.close()


def test_bytes_that_nobody_reads(pair: tuple[socket.socket, socket.socket]) -> None:
    server, client = pair
    client.sendall(b"a pipelined request")
    assert select.select([server], [], [], 5)[0]
    assert not Probe(server).gone()
    assert server.recv(100) == b"a pipelined request"


def test_unread_bytes_before_the_end() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            theirs.sendall(b"x")
        assert Probe(ours).gone()


def test_a_reset_connection(pair: tuple[socket.socket, socket.socket]) -> None:
    server, client = pair
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    wait_until(Probe(server).gone)


def test_never_blocks_a_socket_with_a_timeout(pair: tuple[socket.socket, socket.socket]) -> None:
    server, _ = pair
    server.settimeout(30)
    looked = Probe(server)
    thread = threading.Thread(target=looked.gone)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()


# By probe: the ways in which servers show their connection to it. A new probe of PROBES is a line here.
Show = Callable[[Any, pytest.MonkeyPatch], dict[str, Any]]


def in_a_channel(connection: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    class Channel:
        socket = connection

        def check_client_disconnected(self) -> bool:
            return False

    return {"waitress.client_disconnected": Channel().check_client_disconnected}


def in_its_module(connection: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setitem(sys.modules, "uwsgi", types.SimpleNamespace(connection_fd=connection.fileno))
    return {"uwsgi.version": b"2.0"}


SHOWN: dict[str, list[Show]] = {
    "_of_its_key": [
        lambda connection, _: {"gunicorn.socket": connection},
        lambda connection, _: {"werkzeug.socket": connection},
    ],
    "_of_waitress": [in_a_channel],
    "_of_uwsgi": [in_its_module],
    "_of_wsgiref": [lambda connection, _: {"wsgi.input": connection.makefile("rb")}],
}


BRIDGED = {"_of_a2wsgi", "_of_hypercorn"}  # they need their servers: test_matrix.py has them


@pytest.mark.parametrize("probe_of", [each for each in probe.PROBES if each.__name__ not in BRIDGED])
def test_where_each_server_shows_its_connection(
    probe_of: Callable[[dict[str, Any]], Probe | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for show in SHOWN[probe_of.__name__]:
        ours, theirs = socket.socketpair()
        with io.BytesIO() as body, ours:
            environ = {"wsgi.input": body, **show(ours, monkeypatch)}
            assert [other for other in probe.PROBES if _finds(other, environ)] == [probe_of]
            found = find_probe(environ)
            assert found is not None and not found.gone()
            theirs.close()
            assert found.gone()
            found.close()
            found.close()
            assert ours.fileno() != -1  # the server's own socket stays the server's
            environ["wsgi.input"].close()


def _finds(probe_of: Callable[[dict[str, Any]], Probe | None], environ: dict[str, Any]) -> bool:
    found = probe_of(environ)
    if found is not None:
        found.close()
    return found is not None


def test_servers_that_show_none() -> None:
    assert find_probe({}) is None
    assert find_probe({"wsgi.input": io.BytesIO(), "waitress.client_disconnected": lambda: False}) is None


def test_gevent_is_gone_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patched, `select.poll` knows no POLLRDHUP: the probe asks gevent for the original."""
    asked = []

    def get_original(module: str, name: str) -> Any:
        asked.append((module, name))
        return select.poll

    monkey = types.SimpleNamespace(is_module_patched=lambda name: True, get_original=get_original)
    monkeypatch.setitem(sys.modules, "gevent.monkey", monkey)
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            assert not Probe(ours).gone()
        assert Probe(ours).gone()
    assert asked == [("select", "poll")] * 2
