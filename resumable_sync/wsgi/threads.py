"""One word of warning under a server with a single thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from functools import cache
from typing import Any

from ..process import runs_greenlets

logger = logging.getLogger("resumable_sync")


def warn_of_single_thread(environ: Mapping[str, Any]) -> None:
    """Log one warning for each process if the server that calls answers one request at a time.

    A request that a test client made up says so too, but names no server. Neither does wsgiref know better where
    `socketserver.ThreadingMixIn` gives each request a thread, but that shows in the thread's name. Nor does
    gevent's own server, which gives each a greenlet.
    """
    if environ.get("wsgi.multithread", True) or not ("SERVER_SOFTWARE" in environ or "uwsgi.version" in environ):
        return
    if threading.current_thread().name.endswith("(process_request_thread)") or runs_greenlets():
        return
    _warn(str(environ.get("SERVER_SOFTWARE") or "uWSGI"))


@cache
def _warn(server: str) -> None:
    logger.warning(
        "%s answers one request at a time in this process: a viewer of a running stream keeps all others waiting. "
        "Give it threads, for example gunicorn --threads 50, uwsgi --threads 50 or flask run --with-threads",
        server,
    )
