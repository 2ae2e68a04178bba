"""The configuration of the deploys: what README recommends, and each worker writes down when it has closed all."""

from __future__ import annotations

import atexit
import os
import time
from pathlib import Path
from typing import Any

from resumable_sync.wsgi import close_with_worker

DRAIN = float(os.environ["TEST_DRAIN"])


def post_fork(server: Any, worker: Any) -> None:
    # Before the library registers its own: so it is called after that.
    atexit.register(_write_down)


def _write_down() -> None:
    path = Path(os.environ["TEST_DIRECTORY"], f"exit-{os.getpid()}")
    unfinished = path.with_name(f"new-{path.name}")
    unfinished.write_text(str(time.monotonic()))
    unfinished.rename(path)


def post_worker_init(worker: Any) -> None:
    close_with_worker(worker, worker.wsgi.context, drain=DRAIN)


def worker_exit(server: Any, worker: Any) -> None:
    if "TEST_WORKER_EXIT" in os.environ:
        worker.wsgi.context.close(DRAIN, drain=True)
