"""What the application of the operators' text leaves to its reader, and further routes for the drill.

A question is `NAME SECONDS`: its answer is rows, one each 50 ms. Those of a name that begins with "silent" are one
row, and silence.

    /answers/NAME   as the text has it: events; POST begins, GET resumes
    /files/NAME     the same, as raw bytes
    /exports/NAME   the same as events, of a source that can continue
    /worker         the process id
    /short          what has nothing to do with streams
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from flask import Flask, request

from resumable_sync import ResumableStreamContext, StreamInfo, current_producer
from resumable_sync.wsgi import StreamResponse, ViewerCap, resume_response, sse_response, stream_response

ROW_SECONDS = 0.05
HANDOVER = 600.0

Rows = Callable[[], Iterator[bytes]]


def row(name: str, number: int) -> bytes:
    return f"{name}:{number:06d};".encode()


def whole(name: str, seconds: float) -> bytes:
    """All of an answer."""
    return b"".join(row(name, number) for number in range(round(seconds / ROW_SECONDS)))


def model_tokens(question: str) -> Iterator[bytes]:
    return rows(question)()


def rows(question: str) -> Rows:
    """The source of an answer. Writes down in which process it runs."""
    name, seconds = question.split()

    def make() -> Iterator[bytes]:
        producer = current_producer()
        Path(os.environ["TEST_DIRECTORY"], f"producer-{name}").write_text(str(os.getpid()))
        if name.startswith("silent"):
            yield row(name, 0)
            producer.cancelled.wait(float(seconds))
            return
        for number in range(producer.offset // len(row(name, 0)), round(float(seconds) / ROW_SECONDS)):
            yield row(name, number)
            if producer.cancelled.wait(ROW_SECONDS):
                return

    return make


def recover(info: StreamInfo) -> Rows | None:
    return rows(info.metadata["export"]) if "export" in info.metadata else None


def add_routes(app: Flask, context: ResumableStreamContext, viewers: ViewerCap) -> None:
    """Those that the text does not have."""

    @app.post("/files/<name>")
    def begin_file(name: str) -> StreamResponse:
        return stream_response(context, name, rows(request.get_data(as_text=True)), viewers=viewers)

    @app.get("/files/<name>")
    def resume_file(name: str) -> StreamResponse:
        return resume_response(context, name, viewers=viewers)

    @app.post("/exports/<name>")
    def begin_export(name: str) -> StreamResponse:
        question = request.get_data(as_text=True)
        metadata = {"export": question}
        return sse_response(context, name, rows(question), handover=HANDOVER, metadata=metadata, viewers=viewers)

    @app.get("/worker")
    def worker() -> str:
        return str(os.getpid())

    @app.get("/short")
    def short() -> str:
        return "short"

    app.add_url_rule("/exports/<answer_id>", "resume_export", app.view_functions["resume"])
