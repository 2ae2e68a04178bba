"""A TCP proxy that cuts connections at places of its choice."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

Decide = Callable[[str, bytes], str | bytes]
"""Called with "request" or "reply" and the piece, for each one; returns "pass", "drop" (the piece alone, without
a word), "cut" (drop the piece and both sides), "pass-cut" (forward it, then cut) or what to forward in its place
before the cut."""


class CuttingProxy:
    """Forwards connections to `target`; `decide` says what happens to each piece, `size` how large it may be."""

    def __init__(self, target: int, decide: Decide, size: Callable[[], int] = lambda: 65536) -> None:
        self._target = target
        self._decide = decide
        self._size = size
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.cuts = 0
        self._lock = threading.Lock()  # guards cuts and _open
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Cut everything and accept no more."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        with self._lock:
            sockets = list(self._open)
        for each in sockets:
            _shut(each)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()
                continue
            with self._lock:
                self._open |= {client, server}
            ends = threading.Barrier(2)
            for source, sink, kind in ((client, server, "request"), (server, client, "reply")):
                threading.Thread(target=self._pump, args=(source, sink, kind, ends), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, kind: str, ends: threading.Barrier) -> None:
        try:
            while piece := source.recv(self._size()):
                verdict = self._decide(kind, piece)
                if isinstance(verdict, bytes):
                    piece, verdict = verdict, "pass-cut"
                if verdict.startswith("pass"):
                    sink.sendall(piece)
                if verdict.endswith("cut"):
                    with self._lock:
                        self.cuts += 1
                    break
        except OSError:
            pass
        _shut(source)
        _shut(sink)
        try:
            ends.wait(10)
        except threading.BrokenBarrierError:
            pass
        source.close()
        with self._lock:
            self._open.discard(source)


def _shut(each: socket.socket) -> None:
    try:
        each.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
