"""The WSGI application that the HTTP scenario serves; as a program, served by waitress."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterable
from typing import Any

from resumable_sync import ResumableStreamContext
from resumable_sync.stores import open_store
from resumable_sync.wsgi import resume_response, stream_response

from .support import Stamped, chunk

Environ = dict[str, Any]


class Application:
    """/short, /stored: replay; /live: follow; /begin: lets the live source go on after its first chunk."""

    def __init__(self, stored: int, count: int, rate: float, store: str = "memory://") -> None:
        self._context = ResumableStreamContext(open_store(store))
        self._source = Stamped(count, rate, greet=True)
        for name, length in (("short", 100), ("stored", stored)):
            for _ in self._context.run(name, functools.partial(map, chunk, range(length))):
                pass

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path in ("/short", "/stored"):
            return resume_response(self._context, path[1:], environ=environ)(environ, start_response)
        if path == "/live":
            return stream_response(self._context, "live", self._source)(environ, start_response)
        self._source.begin.set()
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
        return [b"begun"]


def main() -> None:
    """Serve with waitress; gunicorn loads `application` by itself."""
    import waitress

    options = json.loads(sys.argv[1])
    made = Application(options["stored"], options["chunks"], options["rate"])
    waitress.serve(made, unix_socket=options["socket"], threads=options["threads"], connection_limit=2000)


def application(options: str) -> Application:
    """For gunicorn: `benchmarks.programs.http_application:application('{…}')`."""
    found = json.loads(options)
    return Application(found["stored"], found["chunks"], found["rate"], found.get("store", "memory://"))


if __name__ == "__main__":
    main()
