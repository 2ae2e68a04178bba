"""Whatever a source, its exceptions or the hooks do, the stream ends: none stays `streaming` for ever (G5, G7)."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from resumable_sync import MemoryStore, ProducerFailedError, ResumableStreamContext, SQLiteStore, Status
from resumable_sync.contract import Lease

from ..support import wait_until


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


class Untouchable:
    """An iterable whose every attribute raises, but for what iteration needs."""

    def __iter__(self) -> Iterator[bytes]:
        return iter([b"x"])

    def __getattr__(self, name: str) -> object:
        raise ZeroDivisionError(name)


def raising(error: BaseException) -> Callable[[], Iterator[bytes]]:
    def make_stream() -> Iterator[bytes]:
        yield b"x"
        raise error

    return make_stream


def ended(context: ResumableStreamContext, stream_id: str) -> Status:
    wait_until(lambda: context.status(stream_id).ended, what="the stream ends")
    return context.status(stream_id)


@pytest.mark.parametrize("error", [Unprintable(), SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_any_exception_of_a_source_ends_its_stream(error: BaseException) -> None:
    with MemoryStore() as store, ResumableStreamContext(store) as context:
        context.run("s", raising(error))
        assert ended(context, "s") is Status.ERROR
        info = context.info("s")
        assert info is not None and (info.error or "").startswith(type(error).__name__)


def test_a_source_whose_attributes_raise_is_read_to_its_end() -> None:
    with MemoryStore() as store, ResumableStreamContext(store) as context:
        context.run("s", Untouchable)
        assert ended(context, "s") is Status.DONE


@pytest.mark.parametrize("hook", ["on_append", "on_finalize", "on_error"])
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, ValueError])
def test_a_hook_that_exits_changes_nothing(hook: str, error: type[BaseException]) -> None:
    def leave(*arguments: object) -> None:
        raise error

    hooks: dict[str, Any] = {hook: leave}
    with MemoryStore() as store, ResumableStreamContext(store, **hooks) as context:
        context.run("good", lambda: [b"x"])
        context.run("bad", raising(ValueError("bad")))
        assert ended(context, "good") is Status.DONE
        assert ended(context, "bad") is Status.ERROR


def test_an_exit_in_on_acquire_leaves_no_producer() -> None:
    """It is raised in the application's own thread, and is the application's to want."""

    def leave(stream_id: str, role: str) -> None:
        raise SystemExit

    with MemoryStore() as store, ResumableStreamContext(store, on_acquire=leave) as context:
        with pytest.raises(SystemExit):
            context.run("s", lambda: [b"x"])
        assert context.status("s") is Status.INTERRUPTED


def test_a_store_that_fails_to_end_a_stream_lets_its_lease_run_out(caplog: pytest.LogCaptureFixture) -> None:
    class Faulty(MemoryStore):
        def finalize(self, lease: Lease, *ending: Any, **rest: Any) -> None:
            raise OSError("raw")

    with Faulty(grace=0.3) as store, ResumableStreamContext(store, heartbeat=0.1) as context:
        context.run("s", lambda: [b"x"])
        assert ended(context, "s") is Status.INTERRUPTED
    assert "could not be ended" in caplog.text


@pytest.mark.parametrize("nothing", [b"", "", bytearray(), memoryview(b"")])
@pytest.mark.parametrize("stop", ["cancel", "delete", "close"])
def test_a_source_of_nothing_is_stopped_at_its_next_chunk(nothing: bytes | str, stop: str) -> None:
    begun = threading.Event()
    closed = threading.Event()
    pace = threading.Event()

    def make_stream() -> Iterator[bytes | str]:
        begun.set()
        try:
            while True:
                pace.wait(0.001)
                yield nothing
        finally:
            closed.set()

    with MemoryStore() as store, ResumableStreamContext(store, heartbeat=0.1) as context:
        context.run("s", make_stream)
        assert begun.wait(20)  # one that is stopped before it begins never runs, and has nothing to close
        context.close() if stop == "close" else getattr(context, stop)("s")
        assert closed.wait(20)


@pytest.mark.parametrize("way", ["return", "raise", "yield on"])
def test_a_child_that_a_source_forks_leaves_the_stream_alone(way: str, tmp_path: object) -> None:
    """The child runs on in a copy of the producer; what it does must not reach the parent's stream."""

    def make_stream() -> Iterator[bytes]:
        yield b"first half "
        child = os.fork()
        if child == 0:
            if way == "raise":
                raise ValueError("in the child")
            if way == "yield on":
                yield b"of the child"
            return
        os.waitpid(child, 0)
        yield b"second half"

    with SQLiteStore(f"{tmp_path}/s.db") as store, ResumableStreamContext(store) as context:
        assert b"".join(context.run("s", make_stream)) == b"first half second half"
        assert context.status("s") is Status.DONE


def test_a_failed_source_says_so_to_its_viewer() -> None:
    with MemoryStore() as store, ResumableStreamContext(store) as context:
        pieces = context.run("s", raising(Unprintable()))
        with pytest.raises(ProducerFailedError):
            for piece in pieces:
                assert piece == b"x"
