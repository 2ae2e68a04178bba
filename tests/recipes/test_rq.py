"""RQ: its worker forks a process for each job, which ends at once when the job returns."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from resumable_sync import ProducerFailedError, ProducerInterruptedError

from ..stores.redis.server import RedisServer
from ..support import PATIENCE
from .support import Background, Place, need

pytestmark = pytest.mark.redis


def whole(app: Any, answer_id: str, words: str) -> bytes:
    return b"".join(app.ask(answer_id, words))


def test_jobs_that_nobody_waits_for_lose_nothing(tmp_path: Path, broker: RedisServer) -> None:
    need("rq")
    place = Place(tmp_path, broker=broker.url)
    words = " ".join(f"word-{number}" for number in range(200))
    with place.application("rq_app") as app:
        viewers = [Background(partial(whole, app, f"a-{number}", words)) for number in range(3)]
        with place.process("rq.cli", "worker", "--url", broker.url):
            for viewer in viewers:
                assert viewer.result().decode().split() == words.split()
        app.queue.connection.close()


def test_a_job_that_is_killed_and_one_that_lasts_too_long(tmp_path: Path, broker: RedisServer) -> None:
    need("rq")
    place = Place(tmp_path, broker=broker.url)
    with place.application("rq_app") as app, place.process("rq.cli", "worker", "--url", broker.url):
        killed = Background(partial(whole, app, "killed", "so far PAUSE never"))
        os.kill(place.held(), signal.SIGKILL)
        with pytest.raises(ProducerInterruptedError):
            killed.result()
        app.queue.enqueue(app.answer, "late", "so far PAUSE never")
        late = app.context.require_resume("late", wait=PATIENCE)
        os.kill(place.held(), signal.SIGALRM)  # RQ's own alarm; rung by `job_timeout`, it might precede the stream
        with pytest.raises(ProducerFailedError):
            list(late)
        assert "JobTimeoutException" in app.context.info("late").error
        app.queue.connection.close()
