"""The worked examples: chunks, bytes and messages that the JavaScript implementation makes."""

from __future__ import annotations

import re
from typing import Any

import pytest

from resumable_sync.assistant import AssistantStreamChunk

from .programs import (
    CASES,
    DECODERS,
    ENCODERS,
    JAVASCRIPT_FORMATS,
    accumulate,
    chunks_of,
    cut,
    normalized,
    written_steps,
)

each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
each_format = pytest.mark.parametrize("format_name", JAVASCRIPT_FORMATS)
# Upstream has no encoder of the AI SDK's format: the bytes of the examples have none of the steps that it needs.
each_encoded_format = pytest.mark.parametrize(
    "format_name", [name for name in JAVASCRIPT_FORMATS if name != "ui-message-stream"]
)


def unescaped(body: str) -> str:
    """JSON may escape these characters or not."""
    return re.sub(r"\\u(0085|2028|2029)", lambda match: chr(int(match[1], 16)), body)


@each_case
def test_the_controller_emits_the_chunks(case: dict[str, Any]) -> None:
    assert [chunk.to_json() for chunk in chunks_of(case["ops"])] == case["chunks"]


@each_case
@each_encoded_format
def test_the_encoders_write_the_bytes(case: dict[str, Any], format_name: str) -> None:
    chunks = [AssistantStreamChunk.from_json(chunk) for chunk in case["chunks"]]
    body = b"".join(ENCODERS[format_name]().encode(chunks)).decode("utf-8")
    assert unescaped(body) == unescaped(case["encoders"][format_name]["body"])


@each_case
@each_format
def test_the_headers(case: dict[str, Any], format_name: str) -> None:
    expected = dict(case["encoders"][format_name]["headers"])
    expected.pop("connection", None)  # not for an application behind WSGI
    if expected["content-type"] == "text/event-stream":
        expected["content-type"] += "; charset=utf-8"  # some clients decode as Latin-1 otherwise
    assert {name.lower(): value for name, value in ENCODERS[format_name]().headers.items()} == expected


@each_case
def test_the_accumulator_builds_the_message(case: dict[str, Any]) -> None:
    chunks = [AssistantStreamChunk.from_json(chunk) for chunk in case["chunks"]]
    assert normalized(accumulate(chunks)) == case["messages"]["chunks"]


@each_case
@each_format
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_the_decoders_read_what_javascript_writes(case: dict[str, Any], format_name: str, size: int) -> None:
    body = case["encoders"][format_name]["body"].encode("utf-8")
    message = accumulate(DECODERS[format_name]().decode(cut(body, size)))
    assert normalized(message) == case["messages"][format_name]


@each_case
@each_format
def test_what_is_written_is_read_to_the_same_message(case: dict[str, Any], format_name: str) -> None:
    body = b"".join(ENCODERS[format_name]().encode(chunks_of(case["ops"])))
    message = normalized(accumulate(DECODERS[format_name]().decode([body])))
    assert written_steps(message, format_name) == written_steps(case["messages"][format_name], format_name)
