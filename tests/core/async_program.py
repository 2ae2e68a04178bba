"""Produces a stream that awaits for ever, in the main thread, and tells how it was stopped."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator

from resumable_sync import ResumableStreamContext, SQLiteStore
from resumable_sync.async_source import from_async


async def source() -> AsyncIterator[bytes]:
    try:
        yield b"so far"
        asyncio.get_running_loop().call_soon(print, "awaiting")
        await asyncio.Event().wait()
    except BaseException as raised:
        print("cleaned up after", type(raised).__name__)
        raise


def raise_timeout(*_: object) -> None:
    """As the time limits of task queues do."""
    raise TimeoutError


def main(path: str) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGUSR1, raise_timeout)
    context = ResumableStreamContext(SQLiteStore(path))
    try:
        context.produce("s", from_async(source))
    except BaseException as raised:
        print("left by", type(raised).__name__)
    print("status", context.status("s"))


if __name__ == "__main__":
    main(sys.argv[1])
