"""The configuration of the takeovers: what README recommends, and each worker says when it is ready."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from resumable_sync.wsgi import close_with_worker


def post_worker_init(worker: Any) -> None:
    close_with_worker(worker, worker.wsgi.context, drain=60)
    Path(os.environ["TEST_DIRECTORY"], f"ready-{os.getpid()}").touch()
