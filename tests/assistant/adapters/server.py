"""A server that speaks the streams of models' providers, byte by byte as a test has it."""

from __future__ import annotations

import json
import queue
import socket
import socketserver
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ...support import PATIENCE

CHUNKED = b"Transfer-Encoding: chunked\r\n"


@dataclass
class Answer:
    """One answer: pieces of the body, each sent by itself; a number holds it until the test has let it go on."""

    pieces: Iterable[bytes | int]
    chunked: bool = True
    """Else the body ends with the connection, so that a cut looks like an end."""
    complete: bool = True
    gone: threading.Event = field(default_factory=threading.Event)
    """Set once the client has closed its connection in the middle."""
    held: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)


class ModelServer:
    """Serves the answers that a test plans, in their order; `requests` are the bodies that were asked."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self._answers: queue.Queue[Answer] = queue.Queue()
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                outer._handle(self.rfile, self.connection)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            block_on_close = False

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def plan(self, *answers: Answer) -> None:
        for answer in answers:
            self._answers.put(answer)

    def _handle(self, file: Any, connection: socket.socket) -> None:
        while (line := file.readline()).strip():
            headers = {}
            while header := file.readline().strip():
                name, _, value = header.partition(b":")
                headers[name.lower()] = value.strip()
            body = file.read(int(headers.get(b"content-length", 0)))
            self.requests.append(json.loads(body or b"null"))
            if not self._send(self._answers.get(timeout=PATIENCE), connection):
                return
        assert not line.strip()

    def _send(self, answer: Answer, connection: socket.socket) -> bool:
        """Send it; whether another request may follow."""
        how = CHUNKED if answer.chunked else b"Connection: close\r\n"
        try:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n" + how + b"\r\n")
            for piece in answer.pieces:
                if isinstance(piece, int):
                    if not self._hold(answer, connection):
                        return False
                elif piece:
                    connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if answer.chunked else piece)
            if answer.chunked and answer.complete:
                connection.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            answer.gone.set()
            return False
        return answer.chunked and answer.complete

    def _hold(self, answer: Answer, connection: socket.socket) -> bool:
        """Until the test lets it go on; False if the client has gone before."""
        answer.held.set()
        connection.settimeout(0.01)
        while not answer.go.is_set():
            try:
                if not connection.recv(1):
                    answer.gone.set()
                    return False
            except TimeoutError:
                continue
        connection.settimeout(None)
        return True

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join(PATIENCE)
        self._server.server_close()


@contextmanager
def serving_models() -> Iterator[ModelServer]:
    server = ModelServer()
    try:
        yield server
    finally:
        server.close()


def sse(*events: Any, named: bool = False, done: bool = False) -> bytes:
    """Events as providers send them: Anthropic and OpenAI's responses name them, chat completions end them."""
    lines = [
        (f"event: {event['type']}\n" if named else "") + f"data: {json.dumps(event, ensure_ascii=False)}\n\n"
        for event in events
    ]
    return ("".join(lines) + ("data: [DONE]\n\n" if done else "")).encode()
