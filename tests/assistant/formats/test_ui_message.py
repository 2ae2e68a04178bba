"""The AI SDK's UI message stream: what the encoder writes of steps, calls and endings, and what is read of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resumable_sync.assistant import (
    AssistantStreamChunk,
    AssistantStreamController,
    UIMessageStreamDecoder,
    UIMessageStreamEncoder,
    create_assistant_stream,
)
from resumable_sync.assistant.formats.ui_message.writer import NO_JSON_TEXT, file_url
from resumable_sync.assistant.message.builder import ChunkBuilder
from resumable_sync.assistant.message.chunks import MessageFinish, Result, ToolCallApproval, UIFrame
from resumable_sync.assistant.message.finish_reasons import finish_reason
from resumable_sync.assistant.message.parts import FilePart, ReasoningPart, SourcePart, TextPart, ToolCallPart
from resumable_sync.assistant.message.ui_message import UIMessageAccumulator
from resumable_sync.errors import MalformedStreamError

from ...javascript import JavaScript
from .programs import accumulate, cut, normalized
from .remade import kept

USAGE = {"inputTokens": 1, "outputTokens": 2}

Answer = Callable[[AssistantStreamController], object]


def frames_of(body: bytes) -> list[Any]:
    """The frames in a body, without the last event."""
    events = [event for event in body.decode("utf-8").split("\n\n") if event]
    return [json.loads(event.removeprefix("data: ")) for event in events if event != "data: [DONE]"]


def written(answer: Answer, message_id: str | None = None) -> list[Any]:
    return frames_of(b"".join(UIMessageStreamEncoder(message_id).encode(create_assistant_stream(answer))))


def encoded(chunks: Iterable[Any], message_id: str | None = None) -> bytes:
    made = [chunk if isinstance(chunk, AssistantStreamChunk) else _chunk(chunk) for chunk in chunks]
    return b"".join(UIMessageStreamEncoder(message_id).encode(made))


def _chunk(data: dict[str, Any]) -> AssistantStreamChunk:
    return AssistantStreamChunk.from_json(data)


def kinds(frames: Iterable[Any]) -> list[str]:
    return [frame["type"] for frame in frames]


def shown(body: bytes) -> Any:
    """The message that `useChat` holds of a body, as JSON has it."""
    accumulator = UIMessageAccumulator()
    for frame in frames_of(body):
        accumulator.add(frame)
    return json.loads(json.dumps(accumulator.message))


def without_steps(message: Any) -> Any:
    """The encoder's own steps are not in the worked examples, nor is usage alone in its last frame."""
    parts = [part for part in message["parts"] if part["type"] != "step-start"]
    return {"id": message["id"], "role": message["role"], "parts": parts}


each_controller_case = pytest.mark.parametrize("case", kept("controller").values(), ids=kept("controller").keys())
each_server_case = pytest.mark.parametrize("case", kept("ai").values(), ids=kept("ai").keys())
_DECODED = {name: case for name, case in kept("decode").items() if name.startswith("ui_")}
each_decoder_case = pytest.mark.parametrize("case", _DECODED.values(), ids=_DECODED.keys())


@each_controller_case
def test_the_examples_show_the_same_message(case: Any) -> None:
    expected = without_steps(case["messages"]["ai-sdk-7"])
    assert without_steps(shown(encoded(case["chunks"]))) == expected
    assert without_steps(shown(case["encoders"]["ui-message-stream"]["body"].encode())) == expected


@each_controller_case
@pytest.mark.parametrize("version", [5, 6, 7])
def test_the_ai_sdk_shows_the_same_message(javascript: JavaScript, case: Any, version: int) -> None:
    answer = javascript.ai(version, encoded(case["chunks"]), 3)
    assert without_steps(answer["message"]) == without_steps(case["messages"][f"ai-sdk-{version}"])


@each_controller_case
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_the_examples_are_read(case: Any, size: int) -> None:
    body = case["encoders"]["ui-message-stream"]["body"].encode("utf-8")
    message = normalized(accumulate(UIMessageStreamDecoder().decode(cut(body, size))))
    assert message == case["messages"]["ui-message-stream"]
    again = accumulate(UIMessageStreamDecoder().decode([encoded(case["chunks"])]))
    assert again["parts"] == message["parts"] and again["status"] == message["status"]


@each_decoder_case
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_frames_are_read(case: Any, size: int) -> None:
    message = accumulate(UIMessageStreamDecoder().decode(cut(case["body"].encode("utf-8"), size)))
    assert normalized(message) == case["strict"]["message"]


@each_server_case
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_what_a_server_of_the_ai_sdk_sends_is_read(case: Any, size: int) -> None:
    message = accumulate(UIMessageStreamDecoder().decode(cut(case["body"].encode("utf-8"), size)))
    expected = case["assistant-stream"]["message"]
    assert normalized(message) == {**expected, "metadata": {**expected["metadata"], **_custom(message)}}


def _custom(message: Any) -> dict[str, Any]:
    """Where a message keeps the metadata of the AI SDK, JavaScript loses it."""
    return {"custom": message["metadata"]["custom"]}


# Steps


def _tool(controller: AssistantStreamController, call_id: str, answered: bool = True) -> None:
    with controller.add_tool_call_part("f", tool_call_id=call_id, args={}) as tool:
        if answered:
            tool.set_response(1)


def _steps(frames: list[Any]) -> str:
    """`[` and `]` for the ends of a step, `t` for a text, `c` for a call, `o` for an output, `s` for a start."""
    signs = {
        "start": "s",
        "start-step": "[",
        "finish-step": "]",
        "text-start": "t",
        "tool-input-start": "c",
        "tool-output-available": "o",
        "data-x": "d",
        "error": "!",
    }
    return "".join(signs.get(frame["type"], "") for frame in frames)


def _two_at_once(c: AssistantStreamController) -> None:
    calls = [c.add_tool_call_part("f", tool_call_id=name, args={}) for name in "ab"]
    for call in calls:
        call.set_response(1)
    c.append_text("x")


def _one_is_left(c: AssistantStreamController) -> None:
    _tool(c, "a", answered=False)
    _tool(c, "b")
    c.append_text("x")


def _text_around(c: AssistantStreamController) -> None:
    with c.add_text_part() as part:
        part.append("a")
        _tool(c, "a")
        part.append("b")


def _several(c: AssistantStreamController) -> None:
    c.append_text("x")
    _tool(c, "a")
    c.append_text("y")
    _tool(c, "b")
    c.append_text("z")


def _own_steps(c: AssistantStreamController) -> None:
    c.enqueue({"type": "step-start"})
    _tool(c, "a")
    c.append_text("x")
    c.enqueue({"type": "step-finish", "finishReason": "stop"})


def _own_step_later(c: AssistantStreamController) -> None:
    _tool(c, "a")
    c.enqueue({"type": "step-start"})
    c.append_text("x")
    c.enqueue({"type": "step-finish", "finishReason": "stop"})


def _own_ends_alone(c: AssistantStreamController) -> None:
    _tool(c, "a")
    c.enqueue({"type": "step-finish", "finishReason": "tool-calls"})
    c.append_text("x")
    c.enqueue({"type": "step-finish", "finishReason": "stop"})


def _beside(c: AssistantStreamController) -> None:
    _tool(c, "a")
    c.append_data(name="x", data=1)
    c.append_text("x")


STEPS: list[tuple[Answer, str]] = [
    (lambda c: c.append_text("x"), "s[t]"),
    (lambda c: _tool(c, "a", answered=False), "s[c]"),
    (lambda c: _tool(c, "a"), "s[co][s]"),
    (_two_at_once, "s[ccoo][t]"),
    (_one_is_left, "s[ccot]"),
    (_text_around, "s[tco][s]"),
    (_several, "s[tco][tco][t]"),
    (_own_steps, "s[cot]"),
    (_own_step_later, "s[co][t]"),
    (_own_ends_alone, "s[co][t]"),
    (_beside, "s[cod][t]"),
    (lambda c: None, "s[s]"),
]


@pytest.mark.parametrize("answer, expected", STEPS)
def test_steps(answer: Answer, expected: str) -> None:
    frames = written(answer, "m")
    assert _steps(frames) == expected
    assert kinds(frames)[-1] == "finish" and kinds(frames).count("finish") == 1


def test_without_an_id_no_second_start_is_written() -> None:
    assert _steps(written(lambda c: _tool(c, "a"))) == "s[co][]"


# Arguments


def _args(text: str, **ending: Any) -> list[Any]:
    """The frames of a call whose arguments are `text`, closed by the answer."""

    def answer(c: AssistantStreamController) -> None:
        tool = c.add_tool_call_part("f", tool_call_id="c")
        tool.args_text.append(text)
        if ending:
            tool.set_response(**ending)

    return [
        frame for frame in written(answer) if frame["type"].startswith("tool-") and "inputTextDelta" not in frame
    ]


@pytest.mark.parametrize("text", ['{"a": [1]}', "{}", "5", '"x"', "null", "[1]", " {} "])
def test_whole_arguments_are_available(text: str) -> None:
    frames = _args(text)
    assert kinds(frames) == ["tool-input-start", "tool-input-available"]
    assert frames[-1]["input"] == json.loads(text)


@pytest.mark.parametrize("text", ['{"a": 1', '{"a":1}}', "{} x", "{}{}", "oops", '{"__proto__":1}', "NaN"])
def test_arguments_that_are_not_whole_are_an_error(text: str) -> None:
    frames = _args(text)
    assert kinds(frames) == ["tool-input-start", "tool-input-error"]
    assert (frames[-1]["input"], frames[-1]["errorText"]) == (text, NO_JSON_TEXT)


def test_an_answered_call_with_broken_arguments_has_its_output() -> None:
    assert kinds(_args('{"a', result=1)) == ["tool-input-start", "tool-output-available"]


def test_arguments_and_response_at_once_are_one_piece() -> None:
    def answer(c: AssistantStreamController) -> None:
        c.add_tool_call_part("f", tool_call_id="c", args={"a": 1}, response={"result": 2})

    pieces = [
        kinds(frames_of(piece)) for piece in UIMessageStreamEncoder().encode(create_assistant_stream(answer))
    ]
    assert ["tool-input-available", "tool-output-available"] in pieces


def test_no_call_is_completed_after_an_exception() -> None:
    def answer(c: AssistantStreamController) -> None:
        c.append_text("x")
        c.add_tool_call_part("f", tool_call_id="c").args_text.append('{"path": "/home"}')
        raise ConnectionError("gone")

    frames = written(answer)
    assert "error" in kinds(frames) and "tool-input-available" not in kinds(frames)
    assert frames[-1] == {"type": "finish", "finishReason": "error"}


def test_the_input_of_encoding_text_is_a_text() -> None:
    chunks: list[Any] = []
    builder = ChunkBuilder(chunks.append)
    index = builder.start(ToolCallPart(tool_name="f", tool_call_id="c", input_encoding="text", title="T"))
    builder.append_args(index, "print(1)")
    builder.close_args(index)
    start, delta, whole = [frame for frame in frames_of(encoded(chunks)) if frame["type"].startswith("tool-")]
    assert start["inputEncoding"] == "text" and whole["input"] == "print(1)" and whole["title"] == "T"
    assert shown(encoded(chunks))["parts"][-1]["input"] == "print(1)"


# The message as a whole


@pytest.mark.parametrize(
    "given, sent",
    [
        ("stop", "stop"),
        ("end_turn", "stop"),
        ("STOP", "stop"),
        ("max_tokens", "length"),
        ("MAX_TOKENS", "length"),
        ("length", "length"),
        ("tool_calls", "tool-calls"),
        ("tool_use", "tool-calls"),
        ("content_filter", "content-filter"),
        ("SAFETY", "content-filter"),
        ("", "other"),
        ("interrupted", "other"),
        ("eos_something", "other"),
        ("unknown", None),
    ],
)
def test_finish_reasons(given: str, sent: str | None) -> None:
    assert finish_reason(given) == sent
    assert frames_of(encoded([MessageFinish(finish_reason=given)]))[-1].get("finishReason") == sent


def test_usage_alone_is_no_metadata() -> None:
    finish = MessageFinish(finish_reason="stop", usage=USAGE)
    metadata = UIFrame(frame={"type": "message-metadata", "messageMetadata": {"model": "m"}})
    assert "messageMetadata" not in frames_of(encoded([finish]))[-1]
    body = encoded([metadata, finish])
    assert frames_of(body)[-1]["messageMetadata"] == {"usage": USAGE}
    assert shown(body)["metadata"] == {"model": "m", "usage": USAGE}


@pytest.mark.parametrize("severity", ["warning", "info"])
def test_a_note_is_no_error(severity: str) -> None:
    def answer(c: AssistantStreamController) -> None:
        c.append_text("one ")
        c.enqueue({"type": "error", "error": "slow", "code": "E", "severity": severity})
        c.append_text("two")

    frames = written(answer)
    [note] = [frame for frame in frames if frame.get("transient")]
    assert note == {"type": f"data-{severity}", "data": {"message": "slow", "code": "E"}, "transient": True}
    assert "error" not in kinds(frames) and kinds(frames).count("text-start") == 1


@pytest.mark.parametrize(
    "data, url",
    [
        ("aGk=", "data:text/plain;base64,aGk="),
        ("aGkg\naGkg\n", "data:text/plain;base64,aGkgaGkg"),
        ("/9j/4AAQ", "data:text/plain;base64,/9j/4AAQ"),
        ("https://example.org/a", "https://example.org/a"),
        ("data:text/plain;base64,aGk=", "data:text/plain;base64,aGk="),
        ("/files/a", "/files/a"),
        ("/files/a.png", "/files/a.png"),
        ("blob:x", "blob:x"),
        ("", ""),
    ],
)
def test_plain_base64_becomes_a_data_url(data: str, url: str) -> None:
    assert file_url(data, "text/plain") == url


def test_a_denied_call() -> None:
    case = kept("decode")["ui_approval_denied"]
    chunks = list(UIMessageStreamDecoder().decode([case["body"].encode()]))
    assert without_steps(shown(encoded(chunks))) == without_steps(case["ai-sdk-7"]["message"])


def test_an_approval_waits_for_the_whole_input() -> None:
    chunks: list[Any] = []
    builder = ChunkBuilder(chunks.append)
    index = builder.start(ToolCallPart(tool_name="f", tool_call_id="c"))
    builder.append_args(index, '{"a":')
    builder.enqueue(ToolCallApproval(path=(index,), approval={"id": "p", "prompt": "why?"}))
    builder.append_args(index, "1}")
    builder.close_args(index)
    frames = [frame for frame in frames_of(encoded(chunks)) if "delta" not in frame["type"]]
    at = kinds(frames).index("tool-input-available")
    asks = {"type": "tool-approval-request", "approvalId": "p", "toolCallId": "c", "reason": "why?"}
    assert frames[at + 1] == asks


def test_a_call_of_an_earlier_response_is_answered_without_a_new_card() -> None:
    chunks: list[Any] = []
    builder = ChunkBuilder(chunks.append)
    builder.respond(builder.start(ToolCallPart(tool_name="", tool_call_id="t")), Result(result={"paid": True}))
    builder.append_text("Paid.")
    builder.finish()
    frames = frames_of(encoded(chunks, "A"))
    assert frames[:3] == [
        {"type": "start", "messageId": "A"},
        {"type": "tool-output-available", "toolCallId": "t", "output": {"paid": True}},
        {"type": "start-step"},
    ]
    assert frames[-1] == {"type": "finish"}
    call, text = accumulate(UIMessageStreamDecoder().decode([encoded(chunks)]))["parts"]
    assert (call["toolCallId"], call["toolName"], call["result"]) == ("t", "", {"paid": True})
    nothing_more = [chunk for chunk in chunks if chunk.path == (0,) or chunk is chunks[0]]
    assert _steps(frames_of(encoded(nothing_more, "A"))) == "so[s]"


FRAMES: list[dict[str, Any]] = [
    {"type": "custom", "kind": "a.b", "providerMetadata": {"p": {"k": 1}}},
    {"type": "reasoning-file", "url": "data:text/plain;base64,aGk=", "mediaType": "text/plain"},
    {"type": "steering-message", "id": "q", "parts": [{"type": "text", "text": "go on"}]},
]


@pytest.mark.parametrize("frame", FRAMES)
def test_what_the_ai_sdk_alone_has_is_kept(frame: Any) -> None:
    chunks = [UIFrame(frame=frame)]
    assert frames_of(encoded(chunks))[2] == frame
    again = encoded(list(UIMessageStreamDecoder().decode([encoded(chunks)])))
    assert frame in frames_of(again)


def test_citations_end_their_block() -> None:
    body = _body(
        {"type": "text-start", "id": "1"},
        {"type": "text-start", "id": "2"},
        {"type": "text-delta", "id": "1", "delta": "a"},
        {"type": "text-end", "id": "1", "citations": [{"n": 1}], "providerMetadata": {"p": {}}},
        {"type": "text-end", "id": "2"},
    )
    parts = shown(encoded(list(UIMessageStreamDecoder().decode([body]))))["parts"]
    first, second = [part for part in parts if part["type"] == "text"]
    assert first["citations"] == [{"n": 1}] and first["providerMetadata"] == {"p": {}}
    assert "citations" not in second


def _body(*frames: Any) -> bytes:
    return b"".join(f"data: {json.dumps(frame)}\n\n".encode() for frame in frames) + b"data: [DONE]\n\n"


def test_an_abort_of_the_application() -> None:
    chunks: list[Any] = []
    builder = ChunkBuilder(chunks.append)
    builder.append_text("half")
    builder.enqueue(UIFrame(frame={"type": "abort", "reason": "enough"}))
    builder.finish()
    frames = frames_of(encoded(chunks))
    assert kinds(frames)[-4:] == ["text-end", "abort", "finish-step", "finish"]
    assert frames[-1]["finishReason"] == "other"
    assert accumulate(UIMessageStreamDecoder().decode([encoded(chunks)]))["status"]["type"] == "incomplete"


# Endings of streams that their producers did not end


def _lost(answer: Answer, status: str) -> list[list[Any]]:
    """The frames of a message that was lost after each of its pieces, with its closing frames."""
    encoder = UIMessageStreamEncoder("m")
    pieces = list(encoder.encode(create_assistant_stream(answer)))
    bodies = [b"".join(pieces[:count]) for count in range(len(pieces))]
    return [frames_of(body + encoder.closing_frames([body], status, "lost")) for body in bodies]


ANSWERS: list[Answer] = [_several, _two_at_once, _one_is_left, _text_around, _own_steps, _own_step_later, _beside]


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_stopped_message_asks_for_nothing(answer: Answer) -> None:
    for frames in _lost(answer, "cancelled"):
        assert "error" not in kinds(frames) and "abort" in kinds(frames)
        assert frames[-1] == {"type": "finish", "finishReason": "other"}
        assert not _would_send(frames)


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("status", ["interrupted", "error"])
def test_a_lost_message_ends_with_an_error(answer: Answer, status: str) -> None:
    for frames in _lost(answer, status):
        assert [frame["errorText"] for frame in frames if frame["type"] == "error"] == ["lost"]
        assert kinds(frames).count("start-step") == kinds(frames).count("finish-step")
        accumulator = UIMessageAccumulator()
        for frame in frames:
            accumulator.add(frame)
        states = {part["type"]: part.get("state") for part in accumulator.message["parts"]}
        assert states.get("text") in (None, "done")


@pytest.mark.parametrize("answer", [answer for answer in ANSWERS if answer is not _own_steps])
def test_a_message_that_is_over_asks_for_nothing(answer: Answer) -> None:
    assert not _would_send(written(answer, "m"))


def _would_send(frames: list[Any]) -> bool:
    """Whether `lastAssistantMessageIsCompleteWithToolCalls` is true of what the client has seen."""
    accumulator = UIMessageAccumulator()
    seen = 0
    for frame in frames:
        accumulator.add(frame)
        if frame["type"] not in ("start-step", "finish-step", "abort", "error", "finish"):
            seen = len(accumulator.message["parts"])  # such frames alone make the client look
    parts = accumulator.message["parts"][:seen]
    begun = max((at for at, part in enumerate(parts) if part["type"] == "step-start"), default=-1)
    calls = [part for part in parts[begun + 1 :] if "toolCallId" in part]
    return bool(calls) and all(part["state"].startswith("output-") for part in calls)


def test_closing_frames_of_a_stream_of_another_server() -> None:
    stored = _body({"type": "start", "messageId": "s"}, {"type": "start-step"}, {"type": "text-start", "id": "x"})
    stored = stored.removesuffix(b"data: [DONE]\n\n")
    frames = frames_of(UIMessageStreamEncoder().closing_frames([stored[:9], stored[9:]], "cancelled"))
    assert kinds(frames) == ["text-end", "finish-step", "abort", "finish"]


# There and back

_metadata = st.none() | st.fixed_dictionaries({"p": st.dictionaries(st.sampled_from("ab"), st.integers(0, 3))})
_values = st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | st.text("a😀é", max_size=3), st.lists)


@st.composite
def _messages(draw: st.DrawFn) -> list[AssistantStreamChunk]:
    """Chunks of which the format loses nothing."""
    chunks: list[AssistantStreamChunk] = []
    builder = ChunkBuilder(chunks.append)
    open_texts: list[int] = []
    for number in range(draw(st.integers(0, 8))):
        kind = draw(st.sampled_from(["text", "reasoning", "more", "close", "tool", "source", "document", "file"]))
        if kind in ("text", "reasoning"):
            part = TextPart if kind == "text" else ReasoningPart
            open_texts.append(builder.start(part(provider_metadata=draw(_metadata))))
        elif kind in ("more", "close") and open_texts:
            index = draw(st.sampled_from(open_texts))
            if kind == "more":
                builder.append(index, draw(st.text("ab 😀\u2028", max_size=3)), draw(_metadata))
            else:
                open_texts.remove(index)
                builder.close_part(index, draw(_metadata))
        elif kind == "tool":
            _draw_tool(draw, builder, f"c{number}")
        elif kind == "source":
            builder.close_part(builder.start(SourcePart(id="s", url="u", title="t")))
        elif kind == "document":
            document = SourcePart(id="s", source_type="document", title="t", media_type="a/b", filename="f")
            builder.close_part(builder.start(document))
        elif kind == "file":
            builder.close_part(builder.start(FilePart(data="https://example.org/x", mime_type="a/b")))
    builder.finish()
    if draw(st.booleans()):
        chunks.append(MessageFinish(finish_reason=draw(st.sampled_from(["stop", "length", "other", "error"]))))
    return chunks


def _draw_tool(draw: st.DrawFn, builder: ChunkBuilder, call_id: str) -> None:
    index = builder.start(ToolCallPart(tool_name="f", tool_call_id=call_id))
    text = json.dumps({"a": draw(_values)}, separators=(",", ":"), ensure_ascii=False)
    at = draw(st.integers(0, len(text)))
    builder.append_args(index, text[:at])
    builder.append_args(index, text[at:])
    builder.close_args(index)
    if draw(st.booleans()):
        approval = {"id": f"p-{call_id}"}
        builder.enqueue(ToolCallApproval(path=(index,), approval=approval))
        if draw(st.booleans()):
            builder.enqueue(
                ToolCallApproval(path=(index,), approval={**approval, "approved": True, "reason": "r"})
            )
    for _ in range(draw(st.integers(0, 2))):
        builder.respond(index, Result(result=draw(_values), is_preliminary=True))
    if draw(st.booleans()):
        failed = draw(st.booleans())
        builder.respond(index, Result(result="failed" if failed else draw(_values), is_error=failed))
    else:
        builder.close_part(index)


@settings(deadline=None, max_examples=150)
@given(_messages(), st.integers(1, 40))
def test_what_is_written_is_read(chunks: list[AssistantStreamChunk], size: int) -> None:
    message = accumulate(UIMessageStreamDecoder().decode(cut(encoded(chunks), size)))
    expected = accumulate(chunks)
    assert message["parts"] == expected["parts"]
    assert message["status"] == expected["status"]


def test_all_versions_of_the_ai_sdk_take_it(javascript: JavaScript) -> None:
    @settings(deadline=None, max_examples=30)
    @given(_messages())
    def check(chunks: list[AssistantStreamChunk]) -> None:
        body = encoded(chunks, "m")
        old = not any(chunk.type == "tool-call-approval" for chunk in chunks)
        for version in (5, 6, 7) if old else (7,):
            answer = javascript.ai(version, body, 7)
            assert answer["errors"] == []
            assert version != 7 or answer["message"] is None or answer["message"]["parts"] == shown(body)["parts"]

    check()


def test_long_texts_are_cut_into_events_that_clients_take() -> None:
    body = encoded([*_text("é" * (3 << 20)), {"type": "part-finish", "path": [0]}])
    assert max(map(len, body.split(b"\n\n"))) < 1 << 24
    assert shown(body)["parts"][-1]["text"] == "é" * (3 << 20)


def test_an_event_that_is_too_long_is_refused() -> None:
    body = _body({"type": "data-x", "data": "x" * (1 << 24)}, {"type": "data-x", "data": 1})
    for strict in (True, False):
        with pytest.raises(MalformedStreamError, match="UTF-16"):
            list(UIMessageStreamDecoder(strict=strict).decode([body]))


def _text(text: str) -> list[Any]:
    chunks: list[Any] = []
    builder = ChunkBuilder(chunks.append)
    builder.append_text(text)
    return chunks
