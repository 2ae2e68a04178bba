"""A TCP relay that cuts its connections after so many bytes, or falls silent."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple


class Fate(NamedTuple):
    """What becomes of one connection."""

    size: int | None = None
    """Bytes of the replies that pass; None: all."""
    then: str = "end"
    """After these: "end" it, "reset" it, or "stall"."""


class Relay:
    """Forwards to `target`, a port that may change. `fate()` is asked for each connection."""

    def __init__(self, target: int, fate: Callable[[], Fate]) -> None:
        self.target = target
        self.cuts = 0
        self.stalls = 0
        self._fate = fate
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()  # guards cuts, stalls and _open
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        with self._lock:
            for each in self._open:
                _shut(each)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                continue
            with self._lock:
                self._open |= {client, server}
            both = threading.Barrier(2)
            for source, sink, fate in ((client, server, Fate()), (server, client, self._fate())):
                threading.Thread(target=self._pump, args=(source, sink, fate, both), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, fate: Fate, both: threading.Barrier) -> None:
        left = fate.size
        with contextlib.suppress(OSError):  # one side has left
            while piece := source.recv(65536):
                sink.sendall(piece if left is None else piece[:left])
                if left is None:
                    continue
                left -= len(piece)
                if left <= 0:
                    self._cut(source, sink, fate.then)
                    break
        _shut(source)
        _shut(sink)
        both.wait()
        source.close()
        with self._lock:
            self._open.discard(source)

    def _cut(self, source: socket.socket, sink: socket.socket, then: str) -> None:
        with self._lock:
            self.cuts += then != "stall"
            self.stalls += then == "stall"
        if then == "reset":
            sink.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        while then == "stall" and source.recv(65536):
            pass  # nothing of it arrives


def _shut(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def relay(target: int, fate: Callable[[], Fate]) -> Iterator[Relay]:
    made = Relay(target, fate)
    try:
        yield made
    finally:
        made.close()
