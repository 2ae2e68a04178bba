"""What writes to a file writes to a stream."""

from __future__ import annotations

import csv
import io
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from resumable_sync import ResumableStreamContext, Status, StreamFinalizedError, open_store

from ..support import PATIENCE, wait_until
from .apps.files_app import export_csv, log_to, run_command
from .support import Background, Place


@pytest.fixture
def context(place: Place) -> Iterator[ResumableStreamContext]:
    with open_store(place.streams) as store, ResumableStreamContext(store) as made:
        yield made


def test_a_log(context: ResumableStreamContext) -> None:
    seen, goes_on = threading.Event(), threading.Event()

    def work(logger: logging.Logger) -> None:
        logger.warning("half of it")
        seen.set()
        assert goes_on.wait(PATIENCE)
        logger.error("all of %s", "it")

    worker = Background(lambda: log_to(context, "log", work))
    assert seen.wait(PATIENCE)
    assert context.store.read("log").data == b"half of it\n"  # a handler flushes each record
    goes_on.set()
    worker.result()
    assert b"".join(context.require_resume("log")) == b"half of it\nall of it\n"
    logging.getLogger("work").warning("after the end")  # goes elsewhere
    assert context.status("log") is Status.DONE


def test_a_csv_export(context: ResumableStreamContext) -> None:
    rows = [[str(number), f"name, {number}", 'a "quote"', "ü"] for number in range(1000)]
    export_csv(context, "export", rows)
    text = b"".join(context.require_resume("export")).decode()
    assert list(csv.reader(io.StringIO(text, newline=""))) == rows


def test_a_csv_export_that_fails(context: ResumableStreamContext) -> None:
    def rows() -> Iterator[list[str]]:
        yield ["one"]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        export_csv(context, "export", rows())
    assert context.status("export") is Status.ERROR and context.store.read("export").data == b"one\r\n"


def test_a_command(context: ResumableStreamContext) -> None:
    run_command(context, "run", [sys.executable, "-c", "print('one'); print('two')"])
    assert b"".join(context.require_resume("run")) == b"one\ntwo\n"
    with pytest.raises(subprocess.CalledProcessError):
        run_command(context, "failed", [sys.executable, "-c", "print('one'); raise SystemExit(3)"])
    assert context.status("failed") is Status.ERROR


def test_a_command_that_is_cancelled(context: ResumableStreamContext) -> None:
    code = "import time; print('one', flush=True); time.sleep(1000)"
    running = Background(lambda: run_command(context, "run", [sys.executable, "-c", code]))
    wait_until(lambda: (info := context.info("run")) is not None and info.size)
    context.cancel("run")
    with pytest.raises((StreamFinalizedError, subprocess.CalledProcessError)):
        running.result()
    assert context.status("run") is Status.CANCELLED
