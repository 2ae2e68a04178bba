"""The UIMessage that frames build is the one that the AI SDK's own reader builds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resumable_sync.assistant.message.ui_message import UIMessageAccumulator
from resumable_sync.errors import MalformedStreamError

from ...javascript import JavaScript

SERVERS = Path(__file__).parents[1] / "formats" / "golden57"
EXAMPLES = sorted([*SERVERS.glob("ai/*.json"), *SERVERS.glob("decode/ui_*.json")])


def frames_of(body: str) -> list[Any]:
    events = [event.removeprefix("data: ") for event in body.split("\n\n")]
    return [json.loads(event) for event in events if event.startswith("{")]


def shown(frames: list[Any], message: Any = None) -> Any:
    """The message as JSON has it, read as far as `useChat` reads."""
    accumulator = UIMessageAccumulator(message)
    for frame in frames:
        try:
            accumulator.add(frame)
        except MalformedStreamError:
            break
    return json.loads(json.dumps(accumulator.message))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_message_that_the_ai_sdk_builds(path: Path) -> None:
    example = json.loads(path.read_text("utf-8"))
    assert shown(frames_of(example["body"])) == example["ai-sdk-7"]["message"]


ids = st.sampled_from("ab")
metadata = {"providerMetadata": st.fixed_dictionaries({"p": st.fixed_dictionaries({"k": st.integers(0, 2)})})}
tool_metadata = {"toolMetadata": st.just({"t": 1})}
yes_or_no = st.booleans()
call_fields = {
    **metadata,
    **tool_metadata,
    "providerExecuted": yes_or_no,
    "dynamic": yes_or_no,
    "title": st.just("T"),
}
values = st.sampled_from([None, 1, "x", {"a": [1]}])


def frame(kind: str, /, optional: Any = None, **required: Any) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries({"type": st.just(kind), **required}, optional=optional or {})


frames = st.one_of(
    *(frame(f"{kind}-start", metadata, id=ids) for kind in ("text", "reasoning")),
    *(frame(f"{kind}-delta", metadata, id=ids, delta=st.text("a😀")) for kind in ("text", "reasoning")),
    *(frame(f"{kind}-end", metadata, id=ids) for kind in ("text", "reasoning")),
    frame(
        "tool-input-start",
        {**call_fields, "inputEncoding": st.sampled_from(["json", "text"])},
        toolCallId=ids,
        toolName=st.sampled_from("mn"),
    ),
    frame(
        "tool-input-delta",
        toolCallId=ids,
        inputTextDelta=st.sampled_from(["{", '"a"', ":1", "}", "[", "tru", "oops", '"x', ",", "-5", "\\", ""]),
    ),
    frame("tool-input-available", call_fields, toolCallId=ids, toolName=st.just("m"), input=values),
    frame(
        "tool-input-error",
        call_fields,
        toolCallId=ids,
        toolName=st.just("m"),
        input=values,
        errorText=st.just("bad"),
    ),
    frame(
        "tool-output-available",
        {**metadata, **tool_metadata, "providerExecuted": yes_or_no, "preliminary": yes_or_no},
        toolCallId=ids,
        output=values,
    ),
    frame("tool-output-error", {**metadata, **tool_metadata}, toolCallId=ids, errorText=st.just("failed")),
    frame(
        "tool-approval-request",
        {
            "approvalDescriptor": values,
            "inputSchemaInput": values,
            "reason": st.just("why"),
            "isAutomatic": yes_or_no,
            "signature": st.just("s"),
        },
        toolCallId=ids,
        approvalId=st.sampled_from("pq"),
    ),
    frame(
        "tool-approval-response",
        {**metadata, "reason": st.just("so"), "providerExecuted": yes_or_no},
        approvalId=st.sampled_from("pq"),
        approved=yes_or_no,
    ),
    frame("tool-output-denied", toolCallId=ids),
    frame("source-url", {**metadata, "title": st.just("T")}, sourceId=st.just("s"), url=st.just("u")),
    frame(
        "source-document",
        {**metadata, "filename": st.just("f")},
        sourceId=st.just("s"),
        mediaType=st.just("m"),
        title=st.just("T"),
    ),
    *(frame(kind, metadata, url=st.just("u"), mediaType=st.just("m")) for kind in ("file", "reasoning-file")),
    frame("custom", metadata, kind=st.just("a.b")),
    frame("steering-message", id=st.just("q"), parts=st.just([{"type": "text", "text": "go on"}])),
    frame("data-x", {"id": ids, "transient": yes_or_no}, data=values),
    frame("data-y", {"id": ids}, data=values),
    *(frame(kind) for kind in ("start-step", "finish-step", "reset-step", "abort")),
    frame("start", {"messageId": st.sampled_from(["m", "n"]), "messageMetadata": st.just({"a": {"b": 1}})}),
    frame("message-metadata", messageMetadata=st.sampled_from([{"a": {"c": [2]}}, {"a": 1, "d": None}])),
    frame("finish", {"messageMetadata": st.just({"e": 1}), "finishReason": st.just("stop")}),
)


def test_random_frames_build_what_the_ai_sdk_builds(javascript: JavaScript) -> None:
    # The last frame makes the reader tell the message, which it does not for every frame.
    last = {"type": "message-metadata", "messageMetadata": {"last": 1}}

    @settings(deadline=None, max_examples=300)
    @given(st.lists(frames, max_size=20), st.integers(1, 4))
    def check(given_frames: list[Any], every: int) -> None:
        accumulator = UIMessageAccumulator()
        taken = []
        for number, given_frame in enumerate([*given_frames, last]):
            before = json.dumps(accumulator.message) if number % every == 0 else None
            try:
                accumulator.add(given_frame)
            except MalformedStreamError:
                assert before in (None, json.dumps(accumulator.message))
                continue
            taken.append(given_frame)
        body = b"".join(f"data: {json.dumps(item)}\n\n".encode() for item in taken) + b"data: [DONE]\n\n"
        answer = javascript.ai(7, body)
        assert answer["errors"] == []
        assert answer["message"] == json.loads(json.dumps(accumulator.message))

    check()


@pytest.mark.parametrize("deltas", [1, 2])
def test_a_dynamic_call_that_is_streamed_on_in_the_next_step(javascript: JavaScript, deltas: int) -> None:
    taken: list[Any] = [
        {"type": "start-step"},
        {"type": "tool-input-start", "toolCallId": "a", "toolName": "m", "dynamic": True},
        {"type": "start-step"},
        *deltas * [{"type": "tool-input-delta", "toolCallId": "a", "inputTextDelta": "1"}],
    ]
    body = b"".join(f"data: {json.dumps(item)}\n\n".encode() for item in taken)
    assert javascript.ai(7, body)["message"] == shown(taken)


CALL = {"type": "tool-pay", "toolCallId": "t", "state": "approval-responded", "input": {"eur": 5}}
EARLIER = {
    "id": "A",
    "role": "assistant",
    "metadata": {"model": "m"},
    "parts": [
        {"type": "step-start"},
        {"type": "text", "text": "May I?", "state": "done"},
        {**CALL, "approval": {"id": "p", "approved": True}},
    ],
}


def test_a_second_response_goes_on_with_the_message() -> None:
    kept = json.dumps(EARLIER)
    message = shown(
        [
            {"type": "start", "messageId": "A", "messageMetadata": {"turn": 2}},
            {"type": "tool-output-available", "toolCallId": "t", "output": {"paid": True}},
            {"type": "start-step"},
            {"type": "text-start", "id": "text-0"},
            {"type": "text-delta", "id": "text-0", "delta": "Paid."},
            {"type": "text-end", "id": "text-0"},
        ],
        EARLIER,
    )
    assert json.dumps(EARLIER) == kept
    assert (message["id"], message["metadata"]) == ("A", {"model": "m", "turn": 2})
    call, *rest = message["parts"][2:]
    assert (call["state"], call["output"]) == ("output-available", {"paid": True})
    assert call["approval"] == {"id": "p", "approved": True}
    assert [part["type"] for part in rest] == ["step-start", "text"]


def test_input_that_was_being_streamed_goes_on() -> None:
    cut_off = {"type": "tool-f", "toolCallId": "c", "state": "input-streaming", "rawInput": '{"a":', "input": {}}
    earlier = {"id": "A", "role": "assistant", "parts": [{"type": "step-start"}, cut_off]}
    message = shown([{"type": "tool-input-delta", "toolCallId": "c", "inputTextDelta": "1}"}], earlier)
    assert (message["parts"][1]["rawInput"], message["parts"][1]["input"]) == ('{"a":1}', {"a": 1})


def test_another_id_or_role_begins_anew() -> None:
    assert shown([{"type": "start", "messageId": "B"}], EARLIER) == {"id": "B", "role": "assistant", "parts": []}
    user = {"id": "U", "role": "user", "parts": [{"type": "text", "text": "hi"}]}
    assert shown([{"type": "start", "messageId": "B"}], user)["parts"] == []


def test_what_the_end_was() -> None:
    accumulator = UIMessageAccumulator()
    for given_frame in (
        {"type": "error", "errorText": "slow"},
        {"type": "abort"},
        {"type": "finish", "finishReason": "error"},
        {"type": "of a newer version"},
    ):
        accumulator.add(given_frame)
    assert (accumulator.error, accumulator.aborted, accumulator.finish_reason) == ("slow", True, "error")


def test_a_broken_frame_leaves_the_message_as_it_was() -> None:
    accumulator = UIMessageAccumulator(EARLIER)
    for broken in (
        {},
        {"type": "file", "url": "u"},
        {"type": "data-x"},
        {"type": "text-delta", "id": "x", "delta": "a"},
        {"type": "tool-input-delta", "toolCallId": "x", "inputTextDelta": "a"},
        {"type": "tool-output-available", "toolCallId": "x", "output": 1},
        {"type": "tool-output-available", "toolCallId": "t"},
        {"type": "tool-output-error", "toolCallId": "t"},
        {"type": "tool-approval-response", "approvalId": "p"},
        {"type": "tool-approval-response", "approvalId": "x", "approved": True},
    ):
        with pytest.raises(MalformedStreamError):
            accumulator.add(broken)
        assert accumulator.message == EARLIER
