"""Distance: a relay between clients and Redis that holds back what it forwards, in each direction for half the
round trip. `python -m benchmarks.relay LISTEN TARGET SECONDS`, both UNIX sockets."""

from __future__ import annotations

import contextlib
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

_START_SECONDS = 10.0


@contextlib.contextmanager
def relayed(directory: Path, target: str, seconds: float) -> Iterator[str]:
    """The path of a socket that leads to `target`, a round trip of `seconds` away."""
    path = directory / "relay.sock"
    command = [sys.executable, "-m", "benchmarks.relay", str(path), target, str(seconds)]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[1])
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not path.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the relay does not start")
            time.sleep(0.01)  # a process does not tell when it listens
        yield str(path)
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    """Forward until the process is ended."""
    path, target, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{path}.new")
    listener.listen(512)
    Path(f"{path}.new").rename(path)  # there only once it listens
    while True:
        client, _ = listener.accept()
        server = socket.socket(socket.AF_UNIX)
        server.connect(target)
        for source, sink in ((client, server), (server, client)):
            _forward(source, sink, seconds / 2)


def _forward(source: socket.socket, sink: socket.socket, seconds: float) -> None:
    held: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()

    def take() -> None:
        data = b"."
        while data:
            try:
                data = source.recv(1 << 18)
            except OSError:
                data = b""
            held.put((time.monotonic() + seconds, data))

    def give() -> None:
        while True:
            due, data = held.get()
            early = due - time.monotonic()
            if early > 0:
                time.sleep(early)
            try:
                if not data:
                    return sink.shutdown(socket.SHUT_WR)
                sink.sendall(data)
            except OSError:
                return

    for run in (take, give):
        threading.Thread(target=run, daemon=True).start()


if __name__ == "__main__":
    main()
