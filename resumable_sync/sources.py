"""Ready-made sources: the bytes of a descriptor, and the output of a command.

Each is made first and run by one producer, as `context.run(stream_id, source.chunks)`. When the stream is stopped,
it is stopped at once, also while it waits for the next byte. `stop` does the same from any thread.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from .interrupts import Event
from .producer import current

__all__ = ["CommandFailed", "CommandSource", "DescriptorSource"]

READ_BYTES = 64 * 1024
"""Bytes that one read takes at most: what a pipe holds."""

_KILL_SECONDS = 1.0  # between asking a command to end and killing it, and then until it is given up
_POLL_SECONDS = 0.01


def _stop_with_producer(stop: Callable[[], object]) -> None:
    """Have `stop` called when the stream is stopped for which this thread produces, if there is one."""
    producer = current.get(None)
    if producer is not None:
        producer.on_cancel(stop)


class CommandFailed(Exception):
    """The command could not be run, or did not exit with 0 by itself. `exit_code` is as a shell gives it.

    127: there is no such command; 126: it cannot be run; 128 + n: signal n killed it.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class DescriptorSource:
    """Yields the bytes of a file descriptor as they come, without waiting for a full buffer.

    For a pipe, a socket, a terminal or a file. From the first chunk asked for, the source owns the descriptor: it
    is closed when `chunks` ends, fails or is closed. Before that it is the caller's. `chunks` is run once, by one
    thread; `stop` may be called from any thread, at any time.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()  # guards the fields below, and the pipe against being written when closed
        self._stopped = False
        self._wake_writer: int | None = None  # of the pipe that wakes the reader, while that reads

    def chunks(self) -> Iterator[bytes]:
        """Yield what is read, up to 64 KiB at once, until there is no more, or until `stop`.

        Blocks while there is nothing to read. OSError if reading fails.
        """
        _stop_with_producer(self.stop)
        try:
            wake_reader, wake_writer = os.pipe()
            try:
                poller = select.poll()
                poller.register(self._descriptor, select.POLLIN)
                poller.register(wake_reader, select.POLLIN)
                with self._lock:
                    self._wake_writer = wake_writer
                while not self._stopped:
                    poller.poll()
                    if self._stopped:
                        return
                    try:
                        data = os.read(self._descriptor, READ_BYTES)
                    except BlockingIOError:  # another reader of the same non-blocking pipe was faster
                        continue
                    if not data:
                        return
                    yield data
            finally:
                with self._lock:
                    self._wake_writer = None
                os.close(wake_reader)
                os.close(wake_writer)
        finally:
            os.close(self._descriptor)

    def stop(self) -> None:
        """End `chunks`, even while it waits. Thread-safe, idempotent, does not block.

        What `chunks` has yielded is all then; called before it, `stop` makes it yield nothing.
        """
        with self._lock:
            first, self._stopped = not self._stopped, True
            if first and self._wake_writer is not None:
                os.write(self._wake_writer, b"x")  # one byte into an empty pipe: does not block


class CommandSource:
    """Runs a command and yields what it writes to its stdout. It inherits stdin and stderr.

    `command` is the program and its arguments; no shell is involved. `stderr`: its stderr goes the same way,
    through one pipe, so that both come in the order in which they were written, as with `2>&1`. The command leads
    a session and a process group of its own, so that Ctrl-C in a terminal reaches this program alone, which can
    end the stream in order.

    When `chunks` is stopped, closed or fails, the whole group is ended: the command and what it started, unless
    that left the group. A command that ends by itself leaves what it started in the background alone, as in a
    shell. `chunks` is run once, by one thread; `stop` may be called from any thread, at any time.
    """

    def __init__(self, command: Sequence[str], *, stderr: bool = False) -> None:
        self._command = list(command)
        self._stderr = subprocess.STDOUT if stderr else None
        self._lock = threading.Lock()  # guards the fields below; held while the command is started, so that
        self._stopped = False  # a stop comes either before that, or finds the process
        self._process: subprocess.Popen[bytes] | None = None  # while there may be something to end
        self._output: DescriptorSource | None = None
        self._gone = Event()  # the first stop has ended the group

    def chunks(self) -> Iterator[bytes]:
        """Start the command and yield what it writes, up to 64 KiB at once, to its end or until `stop`.

        Blocks while the command is silent. Raises CommandFailed if it cannot be run or does not exit with 0 by
        itself, after all that it wrote; OSError if reading fails. Stopped, it ends without an exception. Closing
        it blocks as `stop` does.
        """
        _stop_with_producer(self.stop)
        name = self._command[0]
        with self._lock:
            if self._stopped:
                return
            try:
                process = self._process = subprocess.Popen(
                    self._command, stdout=subprocess.PIPE, stderr=self._stderr, bufsize=0, start_new_session=True
                )
            except OSError as error:
                code = 127 if isinstance(error, FileNotFoundError) else 126
                raise CommandFailed(f"cannot run {name}: {error.strerror or error}", code) from error
            assert process.stdout is not None
            with process.stdout as pipe:
                output = self._output = DescriptorSource(os.dup(pipe.fileno()))
        try:
            yield from output.chunks()
            if self._stopped:
                return
            status = process.wait()
            with self._lock:
                if self._stopped:
                    return
                self._process = None
            if status:
                how = f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"
                raise CommandFailed(f"{name} {how}", 128 - status if status < 0 else status)
        finally:
            self.stop()

    def stop(self) -> None:
        """End `chunks`, and the command's process group: SIGTERM, and SIGKILL for what is left after a second.

        Returns when the group is gone, at the latest after two seconds. Thread-safe; idempotent. Before `chunks`:
        the command will not be run.
        """
        with self._lock:
            first, self._stopped = not self._stopped, True
            process, output = self._process, self._output
        if output is not None:
            output.stop()
        if process is None:
            return
        if not first:
            self._gone.wait()
            return
        try:
            _end_group(process)
        finally:
            self._gone.set()


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End the process group that `process` leads or led: it lives, and keeps its number, while it has a member."""
    for signum in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + _KILL_SECONDS
        left = _signal_group(process.pid, signum)
        while left and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)  # no system call waits for a group
            process.poll()  # a dead leader counts as a member until it is waited for
            left = _signal_group(process.pid, 0)
        if not left:
            return


def _signal_group(group: int, signum: int) -> bool:
    """Signal a process group. False if it is gone, or may not be signalled because it runs as another user."""
    try:
        os.killpg(group, signum)
    except (ProcessLookupError, PermissionError):
        return False
    return True
