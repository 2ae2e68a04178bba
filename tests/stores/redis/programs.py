"""Programs run as processes of their own: `python -m tests.stores.redis.programs NAME URL ARGUMENT…`."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from resumable_sync import ResumableStreamContext, ResumableStreamError, open_store
from resumable_sync.contract import Store, TakeoverStore

from ..faults.programs import name_of, pause, say
from ..faults.source import chunks


def append(url: str, stream_id: str, seed: str, grace: str, handover: str = "0") -> None:
    """Append for ever, and say how much was acknowledged; say why once refused."""
    store = open_store(url, grace=float(grace))
    assert isinstance(store, TakeoverStore) and isinstance(store, Store)
    lease = store.acquire(stream_id, handover=float(handover))
    assert lease is not None
    say("acquired", lease.generation)
    source = chunks(int(seed))
    try:
        while True:
            store.append(lease, next(source), next(source))
            say("stored", lease.offset)
    except ResumableStreamError as error:
        say("refused", name_of(error), lease.offset)
    store.close()


def produce(url: str, stream_id: str, seed: str, grace: str) -> None:
    """Produce through a context until stdin closes; says when the source was closed and how it ended."""
    store = open_store(url, grace=float(grace))

    def source() -> Iterator[bytes]:
        try:
            for chunk in chunks(int(seed)):
                yield chunk
                pause(0.005)
        finally:
            say("closed")

    context = ResumableStreamContext(store, on_finalize=lambda _, status, __: say("final", status))
    context.run(stream_id, source)
    say("running")
    sys.stdin.read()
    context.close()
    store.close()


if __name__ == "__main__":
    {"append": append, "produce": produce}[sys.argv[1]](*sys.argv[2:])
