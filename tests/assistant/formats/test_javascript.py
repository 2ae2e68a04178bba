"""The JavaScript implementations read what ours writes, and ours reads what they write."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

import pytest

from resumable_sync.assistant import AssistantMessageAccumulator, AssistantStreamChunk
from resumable_sync.assistant.message.chunks import Error
from resumable_sync.assistant.message.partial_json import PartialJson

from ...javascript import JavaScript
from .cases import PROGRAMS
from .programs import (
    CASES,
    DECODERS,
    ENCODERS,
    JAVASCRIPT_FORMATS,
    accumulate,
    chunks_of,
    normalized,
    written_steps,
)
from .test_golden import each_case, unescaped

JS_ENCODERS = ["assistant-transport", "data-stream", "plain-text"]

each_program = pytest.mark.parametrize("name", sorted(PROGRAMS))


def same(ours: Any, theirs: Any) -> bool:
    """Equal but for the ids that either side made up."""
    return bool(_without_made_up(json.loads(json.dumps(ours))) == _without_made_up(theirs))


def _without_made_up(message: Any) -> Any:
    steps = [
        {**step, "messageId": "m"} if not str(step.get("messageId")).startswith("step") else step
        for step in message["metadata"]["steps"]
    ]
    return {**message, "metadata": {**message["metadata"], "steps": steps}}


@each_case
@pytest.mark.parametrize("format_name", JAVASCRIPT_FORMATS)
@pytest.mark.parametrize("size", [0, 1])
def test_their_decoders_read_the_golden_messages(
    javascript: JavaScript, case: dict[str, Any], format_name: str, size: int
) -> None:
    body = b"".join(ENCODERS[format_name]().encode(chunks_of(case["ops"])))
    message = javascript.decode(format_name, body, size)
    assert same(written_steps(message, format_name), written_steps(case["messages"][format_name], format_name))


@pytest.mark.parametrize("format_name", JAVASCRIPT_FORMATS)
def test_heartbeats_change_nothing(javascript: JavaScript, format_name: str) -> None:
    encoder = ENCODERS[format_name]()
    for name in ("parallel tools", "explicit text parts"):
        pieces = list(encoder.encode(chunks_of(PROGRAMS[name])))
        plain = accumulate(DECODERS[format_name]().decode(pieces))
        body = b"".join(piece + 2 * encoder.heartbeat for piece in pieces)
        assert same(plain, javascript.decode(format_name, encoder.heartbeat + body, 1))
        assert _without_made_up(accumulate(DECODERS[format_name]().decode([body]))) == _without_made_up(plain)
        if format_name == "ui-message-stream":
            for version in (5, 6, 7):
                assert javascript.ai(version, body) == javascript.ai(version, b"".join(pieces))


@each_case
@pytest.mark.parametrize("version", [5, 6, 7])
@pytest.mark.parametrize("size", [0, 1])
def test_the_ai_sdk_reads_the_golden_messages(
    javascript: JavaScript, case: dict[str, Any], version: int, size: int
) -> None:
    body = b"".join(ENCODERS["ui-message-stream"]().encode(chunks_of(case["ops"])))
    answer = javascript.ai(version, body, size)
    # The examples have neither the encoder's own steps nor a last frame without usage alone.
    message = {**answer["message"], "parts": [p for p in answer["message"]["parts"] if p["type"] != "step-start"]}
    expected = case["messages"][f"ai-sdk-{version}"]
    assert message == {key: value for key, value in expected.items() if key != "metadata"}
    assert len(answer["errors"]) == (case["name"] == "14_error_midway")


@pytest.mark.parametrize("name", sorted(set(PROGRAMS) - {"state"}))  # the JavaScript controller has no state
def test_the_controllers_emit_the_same_chunks(javascript: JavaScript, name: str) -> None:
    program = PROGRAMS[name]
    if name == "a response at once":  # there the result overtakes the arguments that were given with it
        program = [operation for operation in program if "response" not in str(operation)]
    assert [chunk.to_json() for chunk in chunks_of(program)] == javascript.ask("program", program=program)


@each_program
def test_the_accumulators_build_the_same_message_after_every_chunk(javascript: JavaScript, name: str) -> None:
    chunks = chunks_of(PROGRAMS[name])
    accumulator = AssistantMessageAccumulator()
    ours: list[Any] = [accumulator.add(chunk) for chunk in chunks]
    if accumulator.message["status"]["type"] == "running":
        ours.append(accumulator.finish())
    theirs = javascript.ask("accumulate", chunks=[chunk.to_json() for chunk in chunks])
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs):
        assert same(mine, other)


@each_program
@pytest.mark.parametrize("format_name", JS_ENCODERS)
def test_the_encoders_write_the_same_bytes(javascript: JavaScript, name: str, format_name: str) -> None:
    chunks = chunks_of(PROGRAMS[name])
    ours = b"".join(ENCODERS[format_name]().encode(chunks))
    theirs = javascript.encode(format_name, [chunk.to_json() for chunk in chunks])
    assert unescaped(ours.decode("utf-8")) == unescaped(theirs.decode("utf-8"))


@each_program
@pytest.mark.parametrize("format_name", JAVASCRIPT_FORMATS)
def test_the_decoders_read_the_same_message(javascript: JavaScript, name: str, format_name: str) -> None:
    body = b"".join(ENCODERS[format_name]().encode(chunks_of(PROGRAMS[name])))
    ours = accumulate(DECODERS[format_name]().decode([body]))
    assert same(ours, javascript.decode(format_name, body))
    assert same(ours, javascript.decode(format_name, body, 1))


@each_program
@pytest.mark.parametrize("format_name", JS_ENCODERS)
def test_our_decoders_read_what_their_encoders_write(javascript: JavaScript, name: str, format_name: str) -> None:
    body = javascript.encode(format_name, [chunk.to_json() for chunk in chunks_of(PROGRAMS[name])])
    assert same(accumulate(DECODERS[format_name]().decode([body])), javascript.decode(format_name, body))


@each_program
def test_all_versions_of_the_ai_sdk_read_the_same_message(javascript: JavaScript, name: str) -> None:
    chunks = chunks_of(PROGRAMS[name])
    body = b"".join(ENCODERS["ui-message-stream"]().encode(chunks))
    answers = [javascript.ai(version, body) for version in (5, 6, 7)]
    errors = sum(isinstance(chunk, Error) and chunk.severity in (None, "critical") for chunk in chunks)
    assert [len(answer["errors"]) for answer in answers] == [errors] * 3
    parts, *others = [
        [] if answer["message"] is None else _inputs(answer["message"]["parts"]) for answer in answers
    ]
    assert others == [parts, parts]
    assert texts_of(parts) == texts_of(accumulate(chunks)["parts"])


def _inputs(parts: list[Any]) -> list[Any]:
    """The parts with broken input in one place: 5 and 6 call it raw."""
    return [
        (
            {**{key: value for key, value in part.items() if key != "rawInput"}, "input": part["rawInput"]}
            if part.get("state") == "output-error" and "rawInput" in part
            else part
        )
        for part in parts
    ]


def texts_of(parts: list[Any]) -> str:
    return "".join(part["text"] for part in parts if part["type"] == "text")


AI_CHUNKS: list[dict[str, Any]] = [
    {"type": "start", "messageId": "step-m", "messageMetadata": {"a": 1}},
    {"type": "start-step"},
    {"type": "reasoning-start", "id": "r"},
    {"type": "reasoning-delta", "id": "r", "delta": "hm"},
    {"type": "reasoning-end", "id": "r"},
    {"type": "text-start", "id": "1"},
    {"type": "text-delta", "id": "1", "delta": "a\u2028😀"},
    {"type": "text-end", "id": "1"},
    {"type": "text-start", "id": "2"},
    {"type": "text-delta", "id": "2", "delta": "b"},
    {"type": "text-end", "id": "2"},
    {"type": "tool-input-start", "toolCallId": "t", "toolName": "one"},
    {"type": "tool-input-start", "toolCallId": "u", "toolName": "two", "dynamic": True},
    {"type": "tool-input-delta", "toolCallId": "t", "inputTextDelta": '{ "x" : '},
    {"type": "tool-input-delta", "toolCallId": "u", "inputTextDelta": "{}"},
    {"type": "tool-input-available", "toolCallId": "u", "toolName": "two", "input": {"y": [1.5, "é\u2028"]}},
    {"type": "tool-output-available", "toolCallId": "u", "output": "soon", "preliminary": True},
    {"type": "tool-output-available", "toolCallId": "u", "output": {"done": None}},
    {"type": "tool-input-available", "toolCallId": "t", "toolName": "one", "input": {"x": 1}},
    {"type": "tool-output-error", "toolCallId": "t", "errorText": "failed"},
    {"type": "tool-input-error", "toolCallId": "v", "toolName": "three", "input": "{no", "errorText": "bad input"},
    {"type": "tool-input-start", "toolCallId": "w", "toolName": "never finished"},
    {"type": "tool-input-delta", "toolCallId": "w", "inputTextDelta": '{"a":1,"b'},
    {"type": "finish-step"},
    {"type": "start-step"},
    {"type": "source-url", "sourceId": "s", "url": "https://example.com", "title": "T"},
    {"type": "source-document", "sourceId": "d", "mediaType": "text/plain", "title": "D"},
    {"type": "file", "url": "data:text/plain;base64,aGk=", "mediaType": "text/plain"},
    {"type": "data-x", "id": "1", "data": [1]},
    {"type": "data-y", "data": 2, "transient": True},
    {"type": "message-metadata", "messageMetadata": {"b": 2}},
    {"type": "finish-step"},
]


@pytest.mark.parametrize("version", [5, 6, 7])
@pytest.mark.parametrize(
    "ending",
    [
        [],
        [{"type": "finish"}],
        [{"type": "finish", "finishReason": "length"}],
        [{"type": "abort"}],
        [{"type": "error", "errorText": "failed"}, {"type": "finish", "finishReason": "error"}],
    ],
)
def test_our_decoder_reads_what_the_ai_sdk_writes(
    javascript: JavaScript, version: int, ending: list[dict[str, Any]]
) -> None:
    body = base64.b64decode(javascript.ask("aiWrite", version=version, chunks=AI_CHUNKS + ending))
    message = accumulate(DECODERS["ui-message-stream"]().decode([body]))
    expected = 9 if {"type": "abort"} in ending else 10  # a call that was cut off by an abort is left out
    assert message["metadata"]["custom"] == {"a": 1, "b": 2}  # which JavaScript loses
    message = {**message, "metadata": {**message["metadata"], "custom": {}}}
    assert len(message["parts"]) == expected and same(message, javascript.decode("ui-message-stream", body))


def test_partial_json_reads_the_same(javascript: JavaScript) -> None:
    texts = [
        '{"a":1,"b":[true,false,null,-1.5e+3,"x\\n\\u00e9\\ud83d\\ude00"],"c":{"d":{}}, "e" : "\\\\\\"" } ',
        '[1,[2,{"a":[]}],"b"]',
        '{"a":tru',
        '{"a":-',
        '{"a":1.',
        '{"a":1e',
        '{"n":nope}',
        '{"a":1 x, "b":2}',
        "{a:1}",
        '{"a":1,}',
        "[1,]",
        "[1 2",
        '{"a":"\\u12',
        '{"a":"\\u12xy"}',
        '{"\\u0061":1',
        '{"a":1}}',
        '{"a":1} {',
        "12",
        '"text"',
        "null",
        "nope",
        '{"a":[tr]',
        '{"a":[1}',
        '{"a":{"b":1]',
        '  {  "a"  :  1  ',
        '{"__proto__":1}',
        '{"a":NaN}',
        '{"a":"\n"}',
        "[t}",
        "[true}",
        "[1}",
        "[1,}",
        '{"a":"b\\',
        '{"k\\"":1',
        '{"a":"\\x"}',
        "[-]",
        '{"constructor":{"prototype":1}}',
        '{"constructor":{"x":1}}',
        '{"a":01}',
        "[1.2.3]",
        '{"a":-x}',
        '{"a" 1}',
    ]
    chooser = random.Random(4)
    for _ in range(1500):
        chars = list(chooser.choice(texts[:2] + ['{"key":{"list":[1,2.5,"3",null],"k":-0.1e-2,"u":"\\u00e9"}}']))
        for _ in range(chooser.randrange(3)):
            chars[chooser.randrange(len(chars))] = chooser.choice('{}[]",:\\ut1-.e xn\n')
        texts.append("".join(chars)[: chooser.randrange(1, 90)])
    prefixes = [text[:end] for text in texts for end in range(1, len(text) + 1)]
    theirs = dict(zip(prefixes, javascript.ask("partial", texts=prefixes)))
    for text in texts:
        parser = PartialJson()
        expected: Any = {}
        for end, char in enumerate(text, 1):
            read = theirs[text[:end]]
            expected = expected if read is None else read
            assert parser.feed(char) == expected, text[:end]


def test_the_golden_programs_are_programs_of_javascript(javascript: JavaScript) -> None:
    for case in CASES.values():
        assert javascript.ask("program", program=case["ops"]) == case["chunks"]
        for format_name in JS_ENCODERS:
            body = javascript.encode(format_name, case["chunks"])
            chunks = [AssistantStreamChunk.from_json(chunk) for chunk in case["chunks"]]
            assert normalized(accumulate(DECODERS[format_name]().decode([body]))) == case["messages"][format_name]
            assert normalized(accumulate(chunks)) == case["messages"]["chunks"]
