"""Celery with a prefork worker and Redis as its broker; viewers in Flask."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from resumable_sync import ProducerInterruptedError, Status, StreamLostError

from ..stores.redis.server import RedisServer
from ..support import PATIENCE, Process, wait_until
from .support import APPS, Background, Place, Site, need, waits_for

pytestmark = pytest.mark.redis


class Queue(NamedTuple):
    place: Place
    app: Any
    site: Site
    worker: Process


@pytest.fixture(params=["sqlite"])
def queue(request: pytest.FixtureRequest, tmp_path: Path, broker: RedisServer) -> Iterator[Queue]:
    """A worker, and an application that gives it tasks."""
    need("celery")
    with broker.client() as client:
        client.flushall()
    streams = f"{broker.url}?grace=2" if request.param == "redis" else ""
    place = Place(tmp_path, streams, broker.url)
    options = ["--pool=prefork", "--concurrency=1", "--without-gossip", "--without-mingle", "--loglevel=warning"]
    with place.process("celery", "-A", f"{APPS}.celery_app:tasks", "worker", *options) as worker:
        with place.application("celery_app") as app, Site(app.web) as site:
            yield Queue(place, app, site, worker)
            app.tasks.close()


@pytest.mark.parametrize("queue", ["sqlite", "redis"], indirect=True)
def test_who_asks_before_the_task_gets_everything(queue: Queue) -> None:
    viewer = Background(lambda: queue.site.events("/answers/a"))
    waits_for(queue.app.context, "a")
    assert queue.site.ask("POST", "/answers/a", "the whole answer")[0] == 202
    assert viewer.result() == ("the whole answer ", "done")
    assert queue.site.events("/answers/a") == ("the whole answer ", "done")


def test_a_worker_that_is_killed(queue: Queue) -> None:
    """Its task is not delivered again: viewers learn that it was interrupted, after what it had made."""
    queue.app.answer_once.delay("a", "so far PAUSE never")
    viewer = Background(lambda: queue.site.events("/answers/a"))
    producing = queue.place.held()
    wait_until(lambda: queue.app.context.store.read("a").size == len("so far "))  # what is not stored dies with it
    os.kill(producing, signal.SIGKILL)
    assert viewer.result() == ("so far ", "interrupted")


@pytest.mark.parametrize("queue", ["sqlite", "redis"], indirect=True)
def test_a_task_that_is_delivered_again_begins_anew(queue: Queue) -> None:
    """On Redis it may come before the first one's death is known: then it finds `streaming`, and retries."""
    queue.app.answer.delay("a", "so far PAUSE and on")
    killed = queue.place.held()
    viewer = queue.app.context.require_resume("a")
    os.kill(killed, signal.SIGKILL)
    with pytest.raises((ProducerInterruptedError, StreamLostError)):  # whichever it sees first
        list(viewer)
    assert queue.place.held() != killed
    queue.place.release()
    assert queue.site.events("/answers/a") == ("so far and on ", "done")


@pytest.mark.parametrize("queue", ["sqlite", "redis"], indirect=True)
def test_a_task_that_is_delivered_again_goes_on(queue: Queue) -> None:
    """Its source can continue: whoever viewed it before the kill gets every byte once, and `done`."""
    result = queue.app.answer_on.delay("a", "so far PAUSE and on")
    viewer = Background(lambda: queue.site.events("/answers/a"))
    killed = queue.place.held()
    wait_until(lambda: queue.app.context.store.read("a").size == len("so far "))
    os.kill(killed, signal.SIGKILL)
    assert queue.place.held() != killed
    queue.place.release()
    assert viewer.result() == ("so far and on ", "done")
    assert result.get(timeout=PATIENCE) == "done"
    assert queue.site.events("/answers/a") == ("so far and on ", "done")
    assert queue.app.context.info("a").term > 1


@pytest.mark.parametrize("queue", ["sqlite", "redis"], indirect=True)
def test_a_task_that_is_delivered_again_after_its_end_ends_at_once(queue: Queue) -> None:
    result = queue.app.answer_on.delay("a", "the whole answer", "PAUSE")
    killed = queue.place.held()
    assert queue.app.context.status("a") is Status.DONE
    os.kill(killed, signal.SIGKILL)
    assert queue.place.held() != killed
    queue.place.release()
    assert result.get(timeout=PATIENCE) == "done"
    assert queue.site.events("/answers/a") == ("the whole answer ", "done")
    assert queue.app.context.info("a").term == 1


def test_a_warm_shutdown_lets_the_task_finish(queue: Queue) -> None:
    queue.app.answer.delay("a", "so far PAUSE and on")
    viewer = Background(lambda: queue.site.events("/answers/a"))
    queue.place.held()
    queue.worker.signal(signal.SIGTERM)
    queue.worker.until("worker: Warm shutdown")
    assert queue.app.context.status("a") is Status.STREAMING
    queue.place.release()
    assert viewer.result() == ("so far and on ", "done")
    assert queue.worker.wait() == 0


def test_a_soft_time_limit_ends_the_stream_as_an_error(queue: Queue) -> None:
    from celery.exceptions import SoftTimeLimitExceeded

    result = queue.app.answer.apply_async(("a", "so far PAUSE never"), soft_time_limit=1)
    assert queue.site.events("/answers/a") == ("so far ", "error")
    with pytest.raises(SoftTimeLimitExceeded):
        result.get(timeout=PATIENCE)
    assert "SoftTimeLimitExceeded" in queue.app.context.info("a").error
