"""Random controller programs: whatever a program does, the formats carry its message."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from resumable_sync.assistant import (
    AssistantMessageAccumulator,
    AssistantStreamChunk,
    AssistantTransportDecoder,
    AssistantTransportEncoder,
    DataStreamDecoder,
    DataStreamEncoder,
    PlainTextDecoder,
    PlainTextEncoder,
    UIMessageStreamDecoder,
    UIMessageStreamEncoder,
)
from resumable_sync.assistant.formats.ui_message.writer import NO_JSON_TEXT
from resumable_sync.assistant.message.chunks import (
    Error,
    MessageFinish,
    PartStart,
    Result,
    StepFinish,
    ToolCallApproval,
)
from resumable_sync.assistant.message.parts import ToolCallPart

from ...javascript import JavaScript
from .programs import DECODERS, ENCODERS, Program, accumulate, chunks_of, normalized
from .test_javascript import same

quick = settings(deadline=None, max_examples=120)

text = st.text(st.characters(codec=None) | st.sampled_from('\ud83d\ude00\ud800\u2028\u2029\x85\r\n\0\ufeff"\\'))
words = st.text("abc-é😀", min_size=1, max_size=5)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
usage = st.fixed_dictionaries({"inputTokens": st.integers(0, 99), "outputTokens": st.integers(0, 99)})
reasons = st.sampled_from(["stop", "length", "content-filter", "tool-calls", "error", "other", "unknown"])
parents = st.sampled_from(["", "@p", "@q"])

metadata = st.none() | st.dictionaries(words, st.dictionaries(words, json_values, max_size=2), max_size=2)
decisions: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{}, {"approved": True}, {"approved": False, "reason": "no"}, {"prompt": "?", "x": [1]}]
)
_ENDINGS = ("error", "step-finish", "message-finish")


@st.composite
def programs(draw: st.DrawFn, *, lossy: bool = False) -> Program:
    """Programs that leave parts open, answer tools late or never, and may raise.

    With `lossy` nothing is done that the data stream cannot carry: text in a part while another one of text
    is open, arguments after an error, a step or the finish, provider metadata, and calls that are cut off.
    """
    program: Program = []
    tools: dict[str, bool] = {}  # whether arguments can still be written
    for step in range(draw(st.integers(0, 12))):
        kinds = ["text", "reasoning", "source", "file", "data", "tool", "chunk", "finish"]
        if tools:
            kinds += ["args", "args", "args_close", "approval", "preliminary", "response", "by_id", "close"]
        if not lossy:
            kinds += ["explicit", "state", "thinking"]
        kind = draw(st.sampled_from(kinds))
        parent = draw(parents)
        operation: list[Any]
        handle = draw(st.sampled_from(sorted(tools))) if tools else ""
        if kind == "text":
            operation = ["append_text", draw(text)]
        elif kind == "reasoning":
            operation = ["append_reasoning", draw(text), draw(st.none() | text)]
        elif kind == "source":
            document: dict[str, Any] = {
                "sourceType": "document",
                "title": draw(text),
                "mediaType": "a/b",
                "filename": draw(text),
            }
            page: dict[str, Any] = {"sourceType": "url", "url": draw(text)}
            operation = ["append_source", {"id": draw(words), **(page if draw(st.booleans()) else document)}]
        elif kind == "file":
            operation = ["append_file", {"data": draw(text), "mimeType": "text/plain"}]
        elif kind == "data":
            operation = ["append_data", {"name": draw(words), "data": draw(json_values)}]
        elif kind == "tool":
            handle = f"t{step}"
            tools[handle] = True
            operation = ["add_tool_call_part", handle, {"toolCallId": handle, "toolName": draw(words)}]
        elif kind == "args":
            if not tools[handle]:
                continue
            operation, parent = ["tool.args_append", handle, draw(text | st.sampled_from('{}[]",:'))], ""
        elif kind == "args_close":
            tools[handle] = False
            operation, parent = ["tool.args_close", handle], ""
        elif kind == "close":
            tools[handle] = False
            operation, parent = ["tool.close", handle], ""
        elif kind == "approval":
            approval = {"id": draw(words), **draw(decisions)}
            operation, parent = ["tool.set_approval", handle, approval], ""
        elif kind in ("response", "preliminary"):
            tools[handle] = False
            response = {"result": draw(json_values), "isError": draw(st.booleans())}
            for name in ("artifact", "messages", "modelContent"):
                if draw(st.booleans()):
                    response[name] = draw(
                        st.lists(json_values, max_size=2) if name == "modelContent" else json_values
                    )
            if kind == "preliminary":
                response["isPreliminary"] = True
            operation, parent = ["tool.set_response", handle, response], ""
        elif kind == "by_id":
            tools[handle] = False
            operation, parent = ["append_tool_result", handle, draw(json_values), draw(st.booleans())], ""
        elif kind == "explicit":
            program += [
                ["add_text_part", "part", {"providerMetadata": draw(metadata)}],
                ["part.append", "part", draw(text), draw(metadata)],
            ]
            if draw(st.booleans()):
                program.append(["part.close", "part", draw(metadata)])
            continue
        elif kind == "thinking":
            operation = ["append_reasoning", draw(text), {"providerMetadata": draw(metadata)}]
        elif kind == "state":
            operation, parent = ["state.set", [draw(words)], draw(json_values)], ""
        elif kind == "finish":
            chunk = {"type": "message-finish", "finishReason": draw(reasons), "usage": draw(usage)}
            operation, parent = ["enqueue", chunk], ""
        else:
            chunk = draw(
                st.sampled_from(
                    [
                        {"type": "annotations", "annotations": [1, {"a": "b"}]},
                        {"type": "data", "data": [{"name": "n", "data": None}, math.nan]},
                        {"type": "step-start", "messageId": "step"},
                        {"type": "step-start", "messageId": "step-2"},
                        {
                            "type": "step-finish",
                            "finishReason": "stop",
                            "usage": {"inputTokens": 1, "outputTokens": 2},
                            "isContinued": True,
                        },
                        {"type": "error", "error": "bad"},
                        {"type": "error", "error": "b", "code": "c", "severity": "critical"},
                    ]
                )
            )
            operation, parent = ["enqueue", chunk], ""
        if lossy and operation[0] == "enqueue" and operation[1]["type"] in _ENDINGS:
            if operation[1]["type"] == "error":  # what is open then is cut off
                program += [["tool.args_close", handle] for handle, writable in tools.items() if writable]
            tools = dict.fromkeys(tools, False)
        program.append([parent, *operation] if parent else operation)
    if draw(st.booleans()):
        program += [["tool.close", handle] for handle in tools if lossy]
        program.append(["throw", draw(text)])
    return program


def cut_anywhere(draw: st.DrawFn, data: bytes) -> list[bytes]:
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)])]


@st.composite
def encoded(draw: st.DrawFn, encoder: Any, *, lossy: bool = False) -> tuple[Any, list[bytes]]:
    """The chunks of a program, and their bytes in pieces."""
    chunks = chunks_of(draw(programs(lossy=lossy)))
    return chunks, cut_anywhere(draw, b"".join(encoder.encode(chunks)))


def comparable(message: Any) -> Any:
    """Without reasoning parts that hold no text: the data stream has no way to begin one.

    Nor does it say of a call which came first, its end or its answer; the status of the part is that of the last.
    """
    parts = [part for part in message["parts"] if part.get("text") != ""]
    ended = [{**part, "status": "complete"} if part.get("state") == "result" else part for part in parts]
    return {**normalized(message), "parts": ended}


@quick
@given(encoded(AssistantTransportEncoder()))
def test_the_transport_loses_nothing(sent: Any) -> None:
    chunks, pieces = sent
    received = list(AssistantTransportDecoder().decode(pieces))
    # A surrogate pair that a controller was given in two halves stays two, in JSON as in the chunks.
    assert received == chunks


@quick
@given(encoded(DataStreamEncoder(), lossy=True))
def test_the_data_stream_carries_the_message(sent: Any) -> None:
    chunks, pieces = sent
    assert comparable(accumulate(DataStreamDecoder().decode(pieces))) == comparable(accumulate(chunks))


@quick
@given(encoded(PlainTextEncoder()))
def test_plain_text_carries_the_text(sent: Any) -> None:
    chunks, pieces = sent
    texts = [part["text"] for part in accumulate(chunks)["parts"] if part["type"] == "text"]
    expected = "".join(texts).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    parts = accumulate(PlainTextDecoder().decode(pieces))["parts"]
    assert "".join(part["text"] for part in parts) == expected.removeprefix("\ufeff")


@quick
@given(encoded(UIMessageStreamEncoder()))
def test_the_ui_message_stream_carries_text_and_tools(sent: Any) -> None:
    chunks, pieces = sent
    # The AI SDK has no interim error: there an error is the answer.
    assume(not any(isinstance(chunk, Result) and chunk.is_error and chunk.is_preliminary for chunk in chunks))
    ours, theirs = accumulate(chunks), accumulate(UIMessageStreamDecoder().decode(pieces))
    for kind in ("text", "reasoning"):
        assert _joined(theirs, kind) == _joined(ours, kind)
    assert _calls(theirs) == _calls(ours)
    assert theirs["status"]["type"] == ours["status"]["type"]


endings = st.one_of(
    st.builds(MessageFinish, finish_reason=reasons, usage=st.none() | usage),
    st.builds(Error, error=text, severity=st.sampled_from([None, "critical", "warning", "info"])),
    st.builds(StepFinish, finish_reason=reasons),
)


@pytest.mark.parametrize("format_name", ["data-stream", "assistant-transport", "ui-message-stream"])
@pytest.mark.parametrize("answered", [True, False, None])
@quick
@given(chunks=st.lists(endings, max_size=5), at=st.integers(0, 5))
@example(chunks=[MessageFinish(finish_reason="error"), MessageFinish(finish_reason="stop")], at=0)
@example(chunks=[Error(error="e", severity="info"), MessageFinish(finish_reason="stop")], at=0)
def test_a_message_that_ends_more_than_once_ends_the_same_in_every_format(
    format_name: str, answered: bool | None, chunks: list[AssistantStreamChunk], at: int
) -> None:
    """`answered`: whether a tool call in it is; None if there is none."""
    tool: list[AssistantStreamChunk] = []
    if answered is not None:
        tool = [PartStart(part=ToolCallPart(tool_call_id="t", tool_name="n"))]
    if answered:
        tool.append(Result(path=(0,), result=1))
    program = [*chunks[:at], *tool, *chunks[at:]]
    if format_name == "ui-message-stream":  # there a note is no error: it would end the chat
        program = [chunk for chunk in program if getattr(chunk, "severity", None) not in ("warning", "info")]
    direct = accumulate(program)["status"]
    read = accumulate(DECODERS[format_name]().decode(ENCODERS[format_name]().encode(program)))["status"]
    assert (read["type"], read.get("reason")) == (direct["type"], direct.get("reason"))


def _calls(message: Any) -> dict[str, Any]:
    """Arguments and answers; a reader takes a call that was cut off for one that waits, and knows broken input."""
    waiting = {"partial-call": "call"}
    return {
        part["toolCallId"]: (
            part["args"],
            "call" if part.get("result") == NO_JSON_TEXT else waiting.get(part["state"], part["state"]),
        )
        for part in message["parts"]
        if part["type"] == "tool-call"
    }


def _joined(message: Any, kind: str) -> str:
    texts = [part["text"] for part in message["parts"] if part["type"] == kind]
    return "".join(texts).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


@quick
@given(programs())
def test_every_part_is_closed_once_and_in_order(program: Program) -> None:
    opened = 0
    closed: list[int] = []
    calls: list[int] = []
    chunks = chunks_of(program)
    for chunk in chunks:
        opened += chunk.type == "part-start"
        if chunk.path:
            answers = isinstance(chunk, Result)  # a call that was closed without an answer
            assert chunk.path[0] < opened and (answers or chunk.path[0] not in closed)
        if isinstance(chunk, PartStart):
            calls += [opened - 1] if isinstance(chunk.part, ToolCallPart) else []
        if chunk.type == "part-finish":
            closed.append(chunk.path[0])
    failed = any(isinstance(chunk, Error) and chunk.severity not in ("warning", "info") for chunk in chunks)
    assert set(range(opened)) - set(closed) <= set(calls if failed else [])


@quick
@given(programs())
def test_a_snapshot_never_changes(program: Program) -> None:
    accumulator = AssistantMessageAccumulator()
    before = accumulator.message
    for chunk in chunks_of(program):
        kept = repr(before)
        after = accumulator.add(chunk)
        assert repr(before) == kept
        before = after


def test_javascript_builds_the_same_from_random_programs(javascript: JavaScript) -> None:
    @settings(deadline=None, max_examples=40)
    @given(programs())
    def check(program: Program) -> None:
        chunks = chunks_of(program)
        raw = [chunk.to_json() for chunk in chunks]
        theirs = javascript.ask("accumulate", chunks=raw)
        assert not theirs or same(accumulate(chunks), theirs[-1])
        for name, encoder, decoder in (
            ("data-stream", DataStreamEncoder(), DataStreamDecoder()),
            ("assistant-transport", AssistantTransportEncoder(), AssistantTransportDecoder()),
            ("plain-text", PlainTextEncoder(), PlainTextDecoder()),
        ):
            body = b"".join(encoder.encode(chunks))
            assert same(accumulate(decoder.decode([body])), javascript.decode(name, body, 3))
            assert same(accumulate(decoder.decode([javascript.encode(name, raw)])), javascript.decode(name, body))
        body = b"".join(UIMessageStreamEncoder().encode(chunks))
        ours = accumulate(UIMessageStreamDecoder().decode([body]))
        theirs = javascript.decode("ui-message-stream", body)
        assert same(_none_are_empty(ours), _none_are_empty(theirs))

    check()


def _none_are_empty(message: Any) -> Any:
    """No arguments are `{}`, also where some of no length came, which JavaScript leaves as they are."""
    parts = [{**part, "argsText": "{}"} if part.get("argsText") == "" else part for part in message["parts"]]
    return {**message, "parts": parts}


def test_every_version_of_the_ai_sdk_takes_random_programs(javascript: JavaScript) -> None:
    @settings(deadline=None, max_examples=20)
    @given(programs())
    def check(program: Program) -> None:
        chunks = chunks_of(program)
        errors = sum(isinstance(chunk, Error) and chunk.severity in (None, "critical") for chunk in chunks)
        for version in (5, 6, 7):
            body = b"".join(UIMessageStreamEncoder().encode(_known_to(version, chunks)))
            assert len(javascript.ai(version, body, 5)["errors"]) == errors

    check()


def _known_to(version: int, chunks: list[AssistantStreamChunk]) -> list[AssistantStreamChunk]:
    """The chunks without approvals that a version refuses: 5 knows none, 6 none that a server has decided."""
    return [
        chunk
        for chunk in chunks
        if version == 7
        or not isinstance(chunk, ToolCallApproval)
        or (version == 6 and "approved" not in chunk.approval)
    ]


@pytest.mark.parametrize("value, expected", [(math.nan, None), ([math.inf, -math.inf, 1.0], [None, None, 1])])
def test_numbers_that_json_has_not_become_null(value: object, expected: object) -> None:
    [start, *_] = chunks_of([["append_data", {"name": "n", "data": value}]])
    assert start.to_json()["part"] == {"type": "data", "name": "n", "data": expected}
