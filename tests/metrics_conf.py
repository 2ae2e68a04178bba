"""The configuration of the gunicorn that tests/test_metrics.py starts: each worker serves its own figures."""

from __future__ import annotations

import os
from typing import Any

from prometheus_client import CollectorRegistry

from resumable_sync.metrics import ResumableSyncCollector, serve_metrics
from resumable_sync.wsgi import close_on_sigterm


def post_worker_init(worker: Any) -> None:
    context = worker.wsgi.context
    close_on_sigterm(context)
    registry = CollectorRegistry()
    registry.register(ResumableSyncCollector(context, list_every=0.1))
    ports = map(int, os.environ["TEST_METRICS_PORTS"].split(","))
    serve_metrics(registry, ports)
