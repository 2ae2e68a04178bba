"""Programs that the fault tests run as processes of their own, to kill, freeze, fork and starve them.

`python -m tests.stores.faults.programs NAME ARGUMENT…`; each prints a line for everything that it did.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

from resumable_sync import ResumableStreamContext, ResumableStreamError, StreamFinalizedError
from resumable_sync.stores.sqlite import SQLiteStore

from .source import chunks, text

_programs: dict[str, Callable[..., object]] = {}


def program(function: Callable[..., object]) -> Callable[..., object]:
    """Register a function under its name."""
    _programs[function.__name__] = function
    return function


def say(*words: object) -> None:
    """Print a line, whole, at once."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def name_of(error: BaseException | None) -> str:
    """The error's class, and for an ended stream its ending."""
    if isinstance(error, StreamFinalizedError):
        return f"{type(error).__name__} {error.status}"
    return "done" if error is None else type(error).__name__


def pause(seconds: float) -> None:
    """Do nothing for a while: what the rate of a source is made of."""
    threading.Event().wait(seconds)


@program
def append(path: str, stream_id: str, seed: str, grace: str = "15", rest: str = "0", handover: str = "0") -> None:
    """Append for ever, and say how much was acknowledged; say why once refused."""
    store = SQLiteStore(path, grace=float(grace))
    lease = store.acquire(stream_id, handover=float(handover))
    if lease is None:
        say("taken")
        return
    say("acquired", lease.generation)
    source = chunks(int(seed))
    try:
        while True:
            store.append(lease, next(source), next(source))
            say("stored", lease.offset)
            pause(float(rest))
    except ResumableStreamError as error:
        say("refused", name_of(error))
    store.close()


@program
def take_over(path: str, stream_id: str, length: str, grace: str = "15") -> None:
    """Wait until nobody produces the stream, then go on with it, up to `length` bytes more, and end it."""
    store = SQLiteStore(path, grace=float(grace))
    info = store.info(stream_id)
    assert info is not None
    say("waiting")
    lease = None
    while lease is None:
        if stream_id in store.orphans():
            lease = store.take_over(stream_id, info.generation)
        pause(0.05)
    say("took", lease.offset)
    end = lease.offset + int(length)
    while lease.offset < end:
        store.append(lease, text(lease.offset, min(lease.offset + 700, end)))
    store.finalize(lease, "done")
    say("ended", lease.offset)
    store.close()


@program
def produce(path: str, stream_id: str, seed: str, grace: str = "15", rest: str = "0", who: str = "a") -> None:
    """Produce through a context until stdin closes. Says what was acknowledged and how it came to an end."""
    store = SQLiteStore(path, grace=float(grace))
    total = 0

    def appended(_: str, length: int) -> None:
        nonlocal total
        total += length
        say("stored", total)

    def source() -> Iterator[bytes]:
        try:
            for chunk in chunks(int(seed), who):
                yield chunk
                if float(rest):
                    pause(float(rest))
        finally:
            say("closed")

    context = ResumableStreamContext(
        store,
        heartbeat=float(grace) / 3,
        on_append=appended,
        on_error=lambda _, error: say("failed", name_of(error)),
        on_finalize=lambda _, status, __: say("final", status),
    )
    context.run(stream_id, source)
    say("running")
    sys.stdin.read()
    context.close()
    store.close()


@program
def info(path: str, stream_id: str) -> None:
    """What a new process sees."""
    store = SQLiteStore(path)
    found = store.info(stream_id)
    listed = [stream.status for stream in store.streams() if stream.stream_id == stream_id]
    if found is None:
        say("missing")
    else:
        say(found.status, found.size, found.producer_alive, *listed)
    store.close()


@program
def follow(path: str, stream_id: str, after: str = "", who: str = "a") -> None:
    """Follow to the end, verify each byte; say how many there were and how it ended."""
    store = SQLiteStore(path)
    context = ResumableStreamContext(store)
    offset = int(after.split("-")[1]) if after else 0
    pieces = context.require_resume(stream_id, after)
    say("following")
    ending: BaseException | None = None
    try:
        for piece in pieces:
            if piece != text(offset, offset + len(piece), who):
                sys.exit(f"wrong bytes behind {offset}")
            offset += len(piece)
            say("at", offset)
    except ResumableStreamError as error:
        ending = error
    say("ended", time.monotonic(), offset, name_of(ending))
    store.close()


@program
def race(path: str) -> None:
    """For each line `ID TIME` try to become its producer at that (monotonic) time."""
    store = SQLiteStore(path)
    say("ready")
    for line in sys.stdin:
        stream_id, at = line.split()
        while time.monotonic() < float(at):
            pass
        try:
            lease = store.acquire(stream_id)
        except ResumableStreamError as error:
            say("failed", repr(error))
        else:
            say("lost" if lease is None else "won")
    store.close()


@program
def write(path: str, stream_id: str, transactions: str, seed: str) -> None:
    """Append in so many transactions, then finish."""
    store = SQLiteStore(path)
    lease = store.acquire(stream_id)
    assert lease is not None
    say("acquired")
    sys.stdin.readline()
    source = chunks(int(seed), largest=300)
    worst = 0.0
    errors = 0
    for _ in range(int(transactions)):
        began = time.monotonic()
        try:
            store.append(lease, next(source))
        except ResumableStreamError as error:
            errors += 1
            say("failed", repr(error))
            break
        worst = max(worst, time.monotonic() - began)
    store.finalize(lease, "done")
    say("wrote", lease.offset, errors, worst)
    store.close()


@program
def flood(path: str, stream_id: str, megabytes: str) -> None:
    """Append as fast as it goes, from a line of stdin on; says how long that took and what memory it needed."""
    store = SQLiteStore(path)
    lease = store.acquire(stream_id)
    assert lease is not None
    say("acquired")
    sys.stdin.readline()
    began = time.monotonic()
    chunk = bytes(64 * 1024)
    worst = 0.0
    for _ in range(int(megabytes) * 16):
        at = time.monotonic()
        store.append(lease, chunk)
        worst = max(worst, time.monotonic() - at)
    store.finalize(lease, "done")
    say("flooded", time.monotonic() - began, worst, resident())
    store.close()


@program
def sip(path: str, stream_id: str) -> None:
    """Take a byte a second of what a context yields, until stdin closes; says what memory that needed."""
    store = SQLiteStore(path)
    pieces = ResumableStreamContext(store).require_resume(stream_id)
    enough = threading.Event()

    def wait_for_end() -> None:
        sys.stdin.read()
        enough.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    say("sipping", resident())
    taken = 0
    for piece in pieces:
        for _ in piece:
            taken += 1
            if enough.wait(1.0):
                say("sipped", taken, resident())
                return


def resident() -> int:
    """Bytes of memory that this process holds."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@program
def hold(path: str, kind: str) -> None:
    """Keep the file locked until stdin closes: a writer that never ends its transaction."""
    import sqlite3

    connection = sqlite3.connect(path, isolation_level=None, timeout=30)
    connection.execute(f"BEGIN {kind}")
    say("locked")
    sys.stdin.read()
    connection.execute("ROLLBACK")
    connection.close()
    say("free")


@program
def fork(path: str, stream_id: str, seed: str, how: str) -> None:
    """Produce, and for each line of stdin fork a child that reads, produces a stream of its own, and stays."""
    store = SQLiteStore(path)
    total = 0

    def appended(_: str, length: int) -> None:
        nonlocal total
        total += length
        say("stored", total)

    context = ResumableStreamContext(store, on_append=appended)
    viewer = context.run(stream_id, lambda: chunks(int(seed)))
    next(viewer)

    def child() -> None:
        began = time.monotonic()
        # Reads what the parent makes, from the start and with a generator that the parent began.
        piece = next(context.require_resume(stream_id))
        if piece != text(0, len(piece)):
            say("child wrong bytes")
        next(viewer)
        # Produces streams of its own, through the inherited context and store.
        own = f"{stream_id}-child"
        made = b"".join(context.run(own, lambda: [text(0, 700, "c"), text(700, 1400, "c")]))
        if made != text(0, 1400, "c"):
            say("child wrong bytes of its own")
        say("child", os.getpid(), time.monotonic() - began)
        while os.getppid() == parent:
            pause(0.02)
        try:
            for _ in context.require_resume(stream_id):
                pass
        except ResumableStreamError as error:
            say("orphan", name_of(error))
        pause(60)

    parent = os.getpid()
    say("ready")
    for _ in sys.stdin:
        if how == "multiprocessing":
            import multiprocessing

            multiprocessing.get_context("fork").Process(target=child, daemon=True).start()
        elif os.fork() == 0:
            try:
                child()
            except BaseException as error:
                say("child failed", repr(error))
            finally:
                os._exit(0)


@program
def leave(path: str, stream_id: str, way: str, source_kind: str) -> None:
    """Start a producer and end the interpreter in some way."""
    store = SQLiteStore(path)
    context = ResumableStreamContext(store)

    def blocked() -> Iterator[bytes]:
        yield b"one chunk"
        threading.Event().wait()

    def busy() -> Iterator[bytes]:
        yield from chunks(1)

    def spinning() -> Iterator[bytes]:
        yield b"one chunk"
        while True:
            pass

    source = {"blocked": blocked, "busy": busy, "spinning": spinning}[source_kind]
    viewer = context.run(stream_id, source)
    next(viewer)
    say("running", os.getpid())
    sys.stdin.readline()
    say("leaving", time.monotonic())
    if way == "exit":
        sys.exit(3)
    elif way == "raise":
        raise RuntimeError("unhandled, on purpose")
    elif way == "_exit":
        os._exit(4)
    elif way == "sigterm":
        os.kill(os.getpid(), signal.SIGTERM)
        pause(60)


def main() -> None:
    """Run the program that the command line names."""
    name, *arguments = sys.argv[1:]
    _programs[name](*arguments)


if __name__ == "__main__":
    main()
