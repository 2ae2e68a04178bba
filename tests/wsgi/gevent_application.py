"""One stream, or many, that a gevent worker shows thousands of viewers.

/start/COUNT/CHUNKS/SECONDS  produce COUNT streams of CHUNKS chunks, one every SECONDS: the time when it was made
/see/NUMBER                  follow one as raw bytes
/ping                        what a request costs meanwhile
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from resumable_sync import ResumableStreamContext, open_store
from resumable_sync.wsgi import close_on_sigterm, resume_response

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

context = ResumableStreamContext(open_store(os.environ["TEST_STORE"]))
close_on_sigterm(context)


def clock(chunks: int, seconds: float) -> Iterator[bytes]:
    for number in range(chunks):
        time.sleep(seconds)
        yield b"%20.9f\n" % time.monotonic()


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    _, route, *rest = environ["PATH_INFO"].split("/")
    if route == "see":
        return resume_response(context, f"clock-{rest[0]}", wait=60)(environ, start_response)
    if route == "start":
        for number in range(int(rest[0])):
            context.start(f"clock-{number}", functools.partial(clock, int(rest[1]), float(rest[2])))
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
