"""The application that the servers of these tests serve. Its settings come from the environment.

Run as a program it is served by waitress, on the listening socket whose number it is given.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Mapping
from typing import Any

import waitress

from resumable_sync import ResumableStreamContext, open_store
from resumable_sync.durable import DurableStreamsApp

PREFIX = "/v1/stream"
"""Where the conformance suite looks for streams."""


def allow(environ: Mapping[str, Any], stream_id: str, action: str) -> bool:
    """Everybody may do everything."""
    return True


class Application(DurableStreamsApp):
    """Everybody may do everything, at the suite's address."""

    def __init__(self, context: ResumableStreamContext, **options: Any) -> None:
        super().__init__(context, authorize=allow, prefix=PREFIX, cors_origins="*", **options)
        self.context = context  # for whoever closes it: tests/wsgi/gunicorn_conf.py


def from_environment() -> Application:
    """For gunicorn, also with --preload: made once, used in each worker."""
    context = ResumableStreamContext(open_store(os.environ["TEST_STORE"], max_streams=1_000_000), heartbeat=0.5)
    return Application(context, **json.loads(os.environ["TEST_OPTIONS"]))


def main() -> None:
    """Serve with waitress."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    waitress.serve(
        from_environment(), sockets=[listener], threads=int(sys.argv[2]), connection_limit=1000, channel_timeout=75
    )


if __name__ == "__main__":
    main()
