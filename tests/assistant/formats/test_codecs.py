"""Encoders and decoders beyond the worked examples: strictness, broken input, closing frames."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from resumable_sync.assistant import (
    AssistantMessageAccumulator,
    AssistantStreamChunk,
    AssistantStreamEncoder,
    AssistantTransportDecoder,
    DataStreamDecoder,
    PlainTextEncoder,
    UIMessageStreamDecoder,
    UIMessageStreamEncoder,
)
from resumable_sync.assistant.formats.registry import FORMATS
from resumable_sync.assistant.message.chunks import PartStart, TextDelta
from resumable_sync.assistant.message.jsontext import join_surrogates, jsonable, parse_json, stringify, wire_json
from resumable_sync.assistant.message.parts import TextPart
from resumable_sync.errors import MalformedStreamError

from ...javascript import JavaScript
from .cases import PROGRAMS
from .programs import DECODERS, ENCODERS, JAVASCRIPT_FORMATS, accumulate, chunks_of
from .test_javascript import same, texts_of

STRICT: list[tuple[Any, bytes, str]] = [
    (DataStreamDecoder, b'0:"a"\nz:1\n', "prefix"),
    (DataStreamDecoder, b'0:"a"\nc:{"toolCallId":"t","argsTextDelta":""}\n', "unknown id"),
    (DataStreamDecoder, b'0:"a"\na:{"toolCallId":"t","result":1}\n', "unknown id"),
    (DataStreamDecoder, b'0:"a"\n' + 2 * b'b:{"toolCallId":"t","toolName":"n"}\n', "used"),
    (DataStreamDecoder, b'0:"a"\n0:"b', "within a line"),
    (DataStreamDecoder, b'0:"a"\n\xf0\x9f', "within a line"),
    (AssistantTransportDecoder, b'data: {"type":"data","data":[]}\n\n', r"\[DONE\]"),
    (AssistantTransportDecoder, b"event: x\ndata: 1\n\ndata: [DONE]\n\n", "event"),
    (UIMessageStreamDecoder, b'data: {"type":"text-delta","id":"1","delta":"a"}\n\n', r"\[DONE\]"),
    (UIMessageStreamDecoder, b"event: x\ndata: 1\n\ndata: [DONE]\n\n", "event"),
]


@pytest.mark.parametrize("decoder, body, problem", STRICT)
def test_strict_decoding_raises_where_lenient_decoding_goes_on(decoder: Any, body: bytes, problem: str) -> None:
    with pytest.raises(MalformedStreamError, match=problem):
        list(decoder().decode([body]))
    message = accumulate(decoder(strict=False).decode([body]))
    assert message["status"]["type"] != "running"
    if b'"a"' in body:
        assert texts_of(message["parts"]) == "a"


WRONG_CHUNKS: list[dict[str, Any]] = [
    {"type": "nonsense"},
    {"type": 1},
    {"path": []},
    {"type": "text-delta", "textDelta": "x"},
    {"type": "text-delta", "path": [-1], "textDelta": "x"},
    {"type": "part-start", "part": []},
    {"type": "text-delta", "path": [0]},
    {"type": "result", "path": [0], "isError": 1},
    {"type": "part-start", "part": {"type": "text"}},
    {"type": "text-delta", "path": [0], "textDelta": "ok"},
    {"type": "update-state", "operations": [1]},
]

WRONG_KINDS = b'0:1\n2:{}\nb:{}\nc:[]\nh:{"id":1}\nd:{}\n'

BROKEN: list[tuple[Any, bytes]] = [
    (DataStreamDecoder, b"0:{not json\n0:not json\n" + WRONG_KINDS + b'garbage\n\n \n0:"ok"\n'),
    (DataStreamDecoder, b'2:[{"__proto__":1}]\n2:[{"constructor":{"prototype":1}}]\n8:[NaN]\n0:"ok"\n'),
    (DataStreamDecoder, b'\xef\xbb\xbf0:"o"\r\n\r\ni:{"data":"x"}\rj:{}\n0:"k"\n2:' + b"[" * 100_000 + b"\n"),
    (
        AssistantTransportDecoder,
        b": hb\ndata: nope\n\ndata: [1]\n\n"
        + b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in WRONG_CHUNKS)
        + b"data: [DONE]\n\ndata: after\n\n",
    ),
    (
        UIMessageStreamDecoder,
        b'data: nope\n\ndata: {"type":"text-delta","id":"1","delta":1}\n\n'
        b'data: {"type":"tool-output-available","toolCallId":"x","output":1}\n\n'
        b'data: {"type":"source-url"}\n\ndata: {"type":"abort"}\n\n'
        b'data: {"type":"text-delta","id":"1","delta":"ok"}\n\ndata: [DONE]\n\n',
    ),
]


@pytest.mark.parametrize("decoder, body", BROKEN)
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_broken_frames_are_dropped(decoder: Any, body: bytes, size: int) -> None:
    if len(body) > 10_000 and size == 1:
        size = 997
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    assert texts_of(accumulate(decoder().decode(pieces))["parts"]) == "ok"


def test_javascript_drops_the_same_frames(javascript: JavaScript) -> None:
    names = {DataStreamDecoder: "data-stream", AssistantTransportDecoder: "assistant-transport"}
    for decoder, body in BROKEN[:2] + BROKEN[3:4]:
        body = body.replace(WRONG_KINDS, b"")  # there the wrong kinds pass
        body = body.replace(b'data: {"type": "update-state", "operations": [1]}\n\n', b"")
        assert same(accumulate(decoder().decode([body])), javascript.decode(names[decoder], body))


def test_a_whole_tool_call_of_an_older_producer() -> None:
    body = (
        b'9:{"toolCallId":"t","toolName":"n","args":{"a":1}}\na:{"toolCallId":"t","result":2}\n'
        b'b:{"toolCallId":"u","toolName":"n"}\nc:{"toolCallId":"u","argsTextDelta":"{}"}\n9:{"toolCallId":"u"}\n'
    )
    first, second = accumulate(DataStreamDecoder().decode([body]))["parts"]
    assert (first["args"], first["result"]) == ({"a": 1}, 2)
    assert (second["state"], second["argsText"]) == ("call", "{}")


@pytest.mark.parametrize("name", ["data-stream", "plain-text", "ui-message-stream"])
def test_a_chunk_for_no_part_cannot_be_encoded(name: str) -> None:
    for chunk in (TextDelta(path=(0,), text_delta="x"), PartStart(path=(0,), part=TextPart())):
        with pytest.raises(MalformedStreamError):
            list(ENCODERS[name]().encode([chunk]))


def test_an_encoder_serves_several_streams() -> None:
    encoders: list[AssistantStreamEncoder] = [kind() for kind in ENCODERS.values()]
    for encoder in encoders:
        chunks = chunks_of(PROGRAMS["parallel tools"])
        assert list(encoder.encode(chunks)) == list(encoder.encode(chunks))
        assert all(list(encoder.encode(chunks)))


def test_unknown_fields_and_parts_are_passed_on() -> None:
    raw = {"part": {"new": [1], "type": "hologram"}, "type": "part-start", "path": [], "extra": 1}
    chunk = AssistantStreamChunk.from_json(raw)
    assert list(chunk.to_json().items()) == list(raw.items())
    [placeholder] = accumulate([chunk])["parts"]
    assert (placeholder["type"], placeholder["text"]) == ("reasoning", "")


def test_frozen() -> None:
    chunk = TextDelta(path=(0,), text_delta="x")
    with pytest.raises(AttributeError):
        chunk.text_delta = "y"  # type: ignore[misc]
    assert chunk == AssistantStreamChunk.from_json(chunk.to_json())


def test_the_message_id_of_a_ui_message() -> None:
    [start, *_] = UIMessageStreamEncoder(message_id="m1").encode([])
    assert start == b'data: {"type":"start","messageId":"m1"}\n\n'


@pytest.mark.parametrize(
    "texts, expected",
    [
        (["\ud83d", "\ude00"], "😀"),
        (["a\ud83d", "b"], "a\ufffdb"),
        (["\ude00\ud83d"], "\ufffd\ufffd"),
        (["\ud83d", "", "\ude00"], "😀"),
        (["\ud83d\ud83d", "\ude00"], "\ufffd😀"),
    ],
)
def test_plain_text_joins_what_was_cut(texts: list[str], expected: str) -> None:
    chunks = [PartStart(part=TextPart()), *(TextDelta(path=(0,), text_delta=text) for text in texts)]
    assert b"".join(PlainTextEncoder().encode(chunks)).decode() == expected


def test_json_text() -> None:
    assert stringify("\ud800 \ud83d\ude00 \u2028") == '"\\ud800 😀 \u2028"'
    assert wire_json({"\u2028": "\x85\u2029\ud800"}) == '{"\\u2028":"\\u0085\\u2029\\ud800"}'
    assert wire_json([float("nan"), float("inf"), 1.5, (1,)]) == "[null,null,1.5,[1]]"
    assert wire_json({"type": "finish"}) == '{"type":"finish"}'
    assert jsonable([1e20, 1e22, 4e16 + 8, True, -0.0]) == [10**20, 1e22, 40000000000000010, True, 0]
    assert join_surrogates("\ud83d\ude00\ud83d") == "😀\ud83d"
    for text in ("NaN", "[Infinity]", "{", '"\n"', "[" * 100_000, '{"__proto__":1}', '{"\\u005f_proto__":1}'):
        with pytest.raises(ValueError):
            parse_json(text)


CLOSED = [
    "parallel tools",
    "explicit parts that overlap",
    "steps",
    "a tool without arguments or result",
    "nothing",
]


LAST = {"ag-ui": b'"RUN_FINISHED"'}
"""What the last frame has where that is not [DONE]."""


def stopped(name: str, formats: Iterable[str] = FORMATS) -> list[tuple[str, bytes]]:
    """Every state in which a producer of a program can be lost, in each of the formats."""
    return [
        (format_name, b"".join(pieces[:count]))
        for format_name in formats
        for pieces in [list(ENCODERS[format_name]().encode(chunks_of(PROGRAMS[name])))]
        for count in range(len(pieces) + 1)
    ]


@pytest.mark.parametrize("name", CLOSED)
@pytest.mark.parametrize("status", ["interrupted", "cancelled", "error", "done"])
def test_closing_frames_end_the_message(name: str, status: str) -> None:
    for format_name, stored in stopped(name):
        frames = ENCODERS[format_name]().closing_frames([stored[:5], stored[5:]], status, "lost")
        if status == "done" or not FORMATS[format_name].closes:
            assert frames == b""
            continue
        before = AssistantMessageAccumulator()
        for chunk in FORMATS[format_name].decoder().decode([stored]):
            before.add(chunk)
        message = accumulate(DECODERS[format_name]().decode([stored, frames]))
        if before.message["status"]["type"] != "running" or LAST.get(format_name, b"[DONE]") in stored:
            assert message["status"] == before.finish()["status"]  # what had its ending keeps it
        elif status == "cancelled":
            assert message["status"] == {"type": "incomplete", "reason": "other"}
        else:
            assert message["status"]["error"] == {"code": "unknown", "message": "lost"}
        assert not _running(message["parts"])
        assert ENCODERS[format_name]().closing_frames([stored, frames], status) == b""


@pytest.mark.parametrize("name", CLOSED)
def test_javascript_takes_the_closing_frames(javascript: JavaScript, name: str) -> None:
    for status in ("interrupted", "cancelled"):
        for format_name, stored in stopped(name, JAVASCRIPT_FORMATS):
            body = stored + ENCODERS[format_name]().closing_frames([stored], status, "lost")
            message = javascript.decode(format_name, body)
            assert same(accumulate(DECODERS[format_name]().decode([body])), message)
            assert not FORMATS[format_name].closes or not _running(message["parts"])


@pytest.mark.parametrize("version", [5, 6, 7])
def test_the_ai_sdk_takes_the_closing_frames(javascript: JavaScript, version: int) -> None:
    encoder = UIMessageStreamEncoder()
    for name in CLOSED[:3]:
        pieces = list(encoder.encode(chunks_of(PROGRAMS[name])))
        for count in range(len(pieces)):
            for status in ("interrupted", "cancelled"):
                stored = b"".join(pieces[:count])
                answer = javascript.ai(version, stored + encoder.closing_frames([stored], status, "lost"))
                assert answer["errors"] == (["Error: lost"] if status == "interrupted" else [])
                parts = [] if answer["message"] is None else answer["message"]["parts"]
                assert all(part.get("state") != "streaming" for part in parts)


def _running(parts: list[Any]) -> list[Any]:
    return [part for part in parts if part.get("status", {}).get("type") == "running"]


def test_closing_frames_behind_a_line_that_was_cut() -> None:
    encoder = ENCODERS["data-stream"]()
    stored = b'0:"a"\n0:"lo'
    frames = encoder.closing_frames([stored], "interrupted", "lost")
    message = accumulate(DataStreamDecoder().decode([stored, frames]))
    assert texts_of(message["parts"]) == "a" and message["status"]["error"]["message"] == "lost"
