"""Ready-made sources: the bytes of a descriptor, and the stdout of a command.

Each is made first and run by one producer, as `context.run(stream_id, source.chunks)`. `stop` breaks its wait from
another thread; hand it to `current_producer().on_cancel`, so that a cancel need not wait for the next byte.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence

__all__ = ["CommandFailed", "CommandSource", "DescriptorSource"]

READ_BYTES = 64 * 1024
"""Bytes that one read takes at most: what a pipe holds."""

_KILL_SECONDS = 1.0  # between asking a command to end and killing it


class CommandFailed(Exception):
    """The command could not be run, or did not exit with 0. `exit_code` is as a shell gives it."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class DescriptorSource:
    """Yields the bytes of a file descriptor as they come, without waiting for a full buffer.

    Owns the descriptor: `chunks` closes it at its end, and when it is closed. `chunks` is run once, by one thread.
    `stop` may be called from any thread, at any time; then what was yielded so far is all.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._stopped = threading.Event()
        self._lock = threading.Lock()  # guards _closed and writing to the pipe, which wakes the reader
        self._closed = False
        self._wake_reader, self._wake_writer = os.pipe()

    def chunks(self) -> Iterator[bytes]:
        """Yield what is read, up to 64 KiB at once, to the end or to `stop`. Blocks. OSError if reading fails."""
        try:
            poller = select.poll()
            poller.register(self._descriptor, select.POLLIN)
            poller.register(self._wake_reader, select.POLLIN)
            while not self._stopped.is_set():
                poller.poll()
                if self._stopped.is_set():
                    return
                data = os.read(self._descriptor, READ_BYTES)
                if not data:
                    return
                yield data
        finally:
            with self._lock:
                self._closed = True
                for descriptor in (self._descriptor, self._wake_reader, self._wake_writer):
                    os.close(descriptor)

    def stop(self) -> None:
        """End `chunks`, also while it waits. Thread-safe; idempotent; does not block."""
        with self._lock:
            self._stopped.set()  # before the wake-up, which makes the reader check it
            if not self._closed:
                os.write(self._wake_writer, b"x")


class CommandSource:
    """Yields what a command writes to its stdout. It inherits stdin and stderr.

    `command` is the program and its arguments; no shell is involved. The command leads a session of its own, so
    that Ctrl-C reaches this program alone, which then ends the stream in order, and the command together with what
    that started in its process group. `chunks` is run once, by one thread; `stop` may be called from any thread.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)
        self._lock = threading.Lock()  # guards the fields below
        self._stopped = False
        self._process: subprocess.Popen[bytes] | None = None
        self._output: DescriptorSource | None = None

    def chunks(self) -> Iterator[bytes]:
        """Run the command and yield what it writes, to its end or to `stop`. Blocks.

        CommandFailed if it cannot be run, or does not exit with 0 by itself. OSError if reading fails.
        """
        name = self._command[0]
        with self._lock:
            if self._stopped:
                return
            try:
                process = self._process = subprocess.Popen(
                    self._command, stdout=subprocess.PIPE, bufsize=0, start_new_session=True
                )
            except OSError as error:
                code = 127 if isinstance(error, FileNotFoundError) else 126
                raise CommandFailed(f"cannot run {name}: {error.strerror or error}", code) from error
            assert process.stdout is not None
            with process.stdout as pipe:
                output = self._output = DescriptorSource(os.dup(pipe.fileno()))
        try:
            yield from output.chunks()
            status = process.wait()
            if status and not self._stopped:
                how = f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"
                raise CommandFailed(f"{name} {how}", 128 - status if status < 0 else status)
        finally:
            self.stop()

    def stop(self) -> None:
        """End the command: SIGTERM, a second later SIGKILL. Returns when it is gone. Thread-safe; idempotent."""
        with self._lock:
            self._stopped = True
            process, output = self._process, self._output
        if output is not None:
            output.stop()
        if process is None or process.poll() is not None:
            return
        _signal_group(process, signal.SIGTERM)
        try:
            process.wait(_KILL_SECONDS)
        except subprocess.TimeoutExpired:
            _signal_group(process, signal.SIGKILL)
            process.wait()


def _signal_group(process: subprocess.Popen[bytes], signum: int) -> None:
    """Signal a running command and what it started. The group is the command's own: see start_new_session."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signum)
