"""Structured log records: what a formatter finds in them, and that no call has forgotten it."""

from __future__ import annotations

import ast
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

import resumable_sync
from resumable_sync import ResumableStreamContext, Store, current_producer
from resumable_sync.logs import CODES, about
from resumable_sync.wsgi import resume_response

ROOT = Path(resumable_sync.__file__).parent
LEVELS = {"debug", "info", "warning", "error", "exception", "log"}

# The messages of those that concern no stream of a store.
OF_NO_STREAM = {
    "%s: %s",
    "%s: %s; this worker counts as the only one",
    "%s: a round of sweeping failed",
    "%s answers one request at a time in this process: a viewer of a running stream keeps all others waiting. "
    "Give it threads, for example gunicorn --threads 50, uwsgi --threads 50 or flask run --with-threads",
    "%s: closing what runs here",
    "%s",
    "a part of an unknown type becomes an empty reasoning part, to keep the others' places",
    "a signal came at the interpreter's exit",
    "an assistant callback failed",
    "an assistant callback failed after its reader had gone",
    "closing %r at exit failed",
    "closing a context failed",
    "dropped an invalid %s (%.200s): %.200s",
    "format_error failed",
    "no wake-up socket in %s",
    "recovery asks again: %s",
    "recovery goes on after an unexpected error",
    "signal %d: the drain ends",
    "skipped a %s chunk: no part at path %s",
    "skipped a %s chunk: part %d is a %s",
    "skipped a state operation that cannot be applied",
    "the shared reader lost its connection",
    "the streams could not be counted",
    "the streams could not be counted: %s",
    "%s answers over HTTP/1.0 or without chunks, on a connection that cannot be reset: a raw response that is "
    "broken off looks complete. Let the proxy use HTTP/1.1 (nginx: proxy_http_version 1.1), or TCP instead of a Unix "
    "socket, or have clients check x-resumable-status and x-resumable-size with HEAD",
    "%s broke off at %s: %r",
    "a connection is not dissolved: errno %s",
    "a connection that has gone cannot be armed: %s",
    "a request of the Durable Streams protocol failed: %s",
    "closing what a model's client streamed failed",
    "left out a state operation that cannot be applied",
    "the body of a refusal broke off: %r",
    "the connection of a cancelled answer was gone already",
    "the connection was gone already: %r",
    "what was to be called when the reader of a message goes has failed",
    "worker %d has answered %d requests: it goes",
}


class JsonFormatter(logging.Formatter):
    """What an application has: every attribute that is not logging's own goes into the line."""

    _OWN = {*vars(logging.makeLogRecord({})), "message", "asctime"}

    def format(self, record: logging.LogRecord) -> str:
        extra = {name: value for name, value in vars(record).items() if name not in self._OWN}
        return json.dumps({"level": record.levelname, "message": record.getMessage(), **extra})


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("resumable_sync")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield written
    logger.removeHandler(handler)
    logger.setLevel(before)


def calls() -> Iterator[tuple[str, ast.Call]]:
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in LEVELS
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "logger"
            ):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def test_each_call_says_which_stream_or_concerns_none() -> None:
    bare = {}
    for place, call in calls():
        if not any(keyword.arg == "extra" for keyword in call.keywords):
            text = call.args[0]
            bare[place] = text.value if isinstance(text, ast.Constant) else ast.unparse(text)
    wrong = {place: text for place, text in bare.items() if text not in OF_NO_STREAM}
    assert len([*calls()]) > 50
    assert not wrong, "these need extra=about(code, stream_id, generation)"


def test_each_code_is_known_and_used() -> None:
    used = set()
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and path.name != "logs.py":
                used.add(node.value)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "about":
                code = node.args[0]
                assert not isinstance(code, ast.Constant) or code.value in CODES, ast.unparse(node)
    assert CODES.keys() <= used
    assert about("released", "x", 3) == {"stream_id": "x", "generation": 3, "code": "released"}


def test_a_json_formatter_sees_them(lines: io.StringIO, store: Store) -> None:
    def fail() -> Iterator[bytes]:
        yield b"x"
        raise ValueError("no")

    def hook(stream_id: str, size: int) -> None:
        raise KeyError(stream_id)

    with ResumableStreamContext(store, on_append=hook) as context:
        with pytest.raises(ValueError, match="no"):
            context.produce("a", fail)
        info = context.info("a")
        assert info is not None
        response = resume_response(context, "a", environ={})
        with pytest.raises(ConnectionResetError):
            list(response)
        response.close()

        def wait() -> Iterator[bytes]:
            current_producer().cancelled.wait(60)
            yield b"too late"

        context.start("b", wait, handover=60)
    found = [json.loads(line) for line in lines.getvalue().splitlines()]
    by_code = {each["code"]: each for each in found if "code" in each}
    assert by_code.keys() >= {"source-failed", "hook-failed", "response-cut", "released"}, by_code.keys()
    for code in ("source-failed", "response-cut"):
        assert (by_code[code]["stream_id"], by_code[code]["generation"]) == ("a", info.generation)
    assert by_code["hook-failed"]["stream_id"] == "a"
    assert by_code["released"]["stream_id"] == "b" and by_code["released"]["generation"] > 0
