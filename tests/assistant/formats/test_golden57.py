"""The worked examples of assistant-stream 0.3.57: what newer clients write and read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from resumable_sync.assistant import AssistantMessageAccumulator, AssistantStreamChunk
from resumable_sync.errors import MalformedStreamError

from .programs import DECODERS, ENCODERS, accumulate, chunks_of, cut, normalized

GOLDEN = Path(__file__).with_name("golden57")
FORMATS = ["data-stream", "assistant-transport", "plain-text"]  # the AI SDK's format has tests of its own
PREFIXES = {"at": "assistant-transport", "ds": "data-stream"}


def cases(folder: str) -> pytest.MarkDecorator:
    kept = (json.loads(path.read_text("utf-8")) for path in sorted((GOLDEN / folder).glob("*.json")))
    found = {case["name"]: case for case in kept if case.get("format", FORMATS[0]) in FORMATS}
    assert found
    return pytest.mark.parametrize("case", found.values(), ids=found.keys())


each_program = cases("controller")
each_format = pytest.mark.parametrize("format_name", FORMATS)


def message_of(chunks: Any) -> dict[str, Any]:
    return normalized(accumulate(chunks))


def parsed(format_name: str, body: str) -> Any:
    """A body's frames with their JSON read, for two spellings of a value are the same value."""
    if format_name == "data-stream":
        frames = [line.partition(":") for line in body.split("\n") if line]
        return [(prefix, json.loads(value)) for prefix, _, value in frames]
    if format_name == "assistant-transport":
        data = [frame.removeprefix("data: ") for frame in body.split("\n\n") if frame]
        return [value if value == "[DONE]" else json.loads(value) for value in data]
    return body


@each_program
def test_the_controller_emits_the_chunks(case: dict[str, Any]) -> None:
    assert [chunk.to_json() for chunk in chunks_of(case["ops"])] == case["chunks"]


@each_program
@each_format
def test_the_encoders_write_the_frames(case: dict[str, Any], format_name: str) -> None:
    for chunks in (map(AssistantStreamChunk.from_json, case["chunks"]), chunks_of(case["ops"])):
        body = b"".join(ENCODERS[format_name]().encode(chunks)).decode("utf-8")
        assert parsed(format_name, body) == parsed(format_name, case["encoders"][format_name]["body"])


@each_program
def test_the_accumulator_builds_the_message(case: dict[str, Any]) -> None:
    assert message_of(map(AssistantStreamChunk.from_json, case["chunks"])) == case["messages"]["chunks"]


@each_program
@each_format
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_the_decoders_read_what_javascript_writes(case: dict[str, Any], format_name: str, size: int) -> None:
    body = case["encoders"][format_name]["body"].encode("utf-8")
    assert message_of(DECODERS[format_name]().decode(cut(body, size))) == case["messages"][format_name]


@cases("decode")
@pytest.mark.parametrize("mode", ["strict", "lenient"])
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_the_decoders_read_the_streams_of_others(case: dict[str, Any], mode: str, size: int) -> None:
    decoder = DECODERS[PREFIXES[case["name"][:2]]](strict=mode == "strict")
    pieces = cut(case["body"].encode("utf-8"), size)
    if case[mode]["error"]:
        with pytest.raises(MalformedStreamError):
            list(decoder.decode(pieces))
        return
    expected = case[mode]["message"] or AssistantMessageAccumulator().finish()
    assert message_of(decoder.decode(pieces)) == normalized(expected)
