"""gunicorn with the application of these tests, and a wire to it that can be cut."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

from ...wsgi.servers import Gunicorn


class ChatServer(Gunicorn):
    """`store` is a URL; processes of their own."""

    def __init__(self, directory: Path, store: str, workers: int) -> None:
        self.store = store
        self.gates = directory / "gates"
        self.pages = directory / "pages"
        for made in (self.gates, self.pages):
            made.mkdir()
        super().__init__(
            directory,
            store,
            "--workers",
            str(workers),
            viewers=16,
            application="tests.assistant.http.application:from_environment()",
            settings={"TEST_GATES": str(self.gates), "TEST_PAGES": str(self.pages)},
        )

    def url(self, path: str, port: int = 0) -> str:
        return f"http://127.0.0.1:{port or self.port}{path}"

    def open_gate(self, chat_id: str) -> None:
        """Let the answers of this chat go on."""
        (self.gates / chat_id).touch()


class Wire:
    """Forwards one connection at a time to a server, and cuts it once the answer has shown `mark`."""

    def __init__(self, port: int, mark: bytes) -> None:
        self._to = port
        self._mark = mark
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.cuts = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, socket.create_connection(("127.0.0.1", self._to)) as server:
                upwards = threading.Thread(target=_pump, args=(client, server), daemon=True)
                upwards.start()
                self._forward(server, client)
                for end in (client, server):  # wakes the other direction
                    with contextlib.suppress(OSError):
                        end.shutdown(socket.SHUT_RD)
                upwards.join(10)

    def _forward(self, server: socket.socket, client: socket.socket) -> None:
        seen = b""
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                client.sendall(data)
                seen = (seen + data)[-(65536 + len(self._mark)) :]
                if self._mark in seen:
                    self.cuts += 1
                    # A reset: what a lost network looks like to whoever keeps writing.
                    for end in (client, server):
                        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)


@contextlib.contextmanager
def wire(server: ChatServer, mark: bytes) -> Iterator[Wire]:
    made = Wire(server.port, mark)
    try:
        yield made
    finally:
        made.close()
