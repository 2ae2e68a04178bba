"""The configuration of the gunicorn tests: SIGTERM closes the context before it waits for the responses."""

from __future__ import annotations

from typing import Any

from resumable_sync.wsgi import close_on_sigterm


def post_worker_init(worker: Any) -> None:
    close_on_sigterm(worker.wsgi.context)
