"""The message that chunks build, beyond the worked examples."""

from __future__ import annotations

from typing import Any

from resumable_sync.assistant import AssistantMessageAccumulator, AssistantStreamChunk
from resumable_sync.assistant.message.chunks import (
    MessageFinish,
    PartFinish,
    PartStart,
    Result,
    TextDelta,
    ToolCallApproval,
    ToolCallArgsTextFinish,
    UIFrame,
)
from resumable_sync.assistant.message.parts import ReasoningPart, TextPart, ToolCallPart

CALL = PartStart(part=ToolCallPart(tool_name="n", tool_call_id="t"))


def build(*chunks: AssistantStreamChunk, **options: Any) -> dict[str, Any]:
    accumulator = AssistantMessageAccumulator(**options)
    for chunk in chunks:
        accumulator.add(chunk)
    return accumulator.finish()


def test_times_are_measured_with_a_clock_alone() -> None:
    ticks = iter([1.0, 2.0, 3.5, 4.0])
    chunks = [
        PartStart(part=TextPart()),
        PartStart(part=ReasoningPart()),
        CALL,
        PartFinish(path=(1,)),
        Result(path=(2,), result=1, is_preliminary=True),
        Result(path=(2,), result=2),
        PartFinish(path=(2,)),
    ]
    text, reasoning, call = build(*chunks, clock=lambda: next(ticks))["parts"]
    assert "timing" not in text
    assert reasoning["timing"] == {"startedAt": 1000, "completedAt": 3500}
    assert call["timing"] == {"startedAt": 2000, "completedAt": 4000}
    assert all("timing" not in part for part in build(*chunks)["parts"])


def test_arguments_go_on_after_an_approval_and_an_interim_answer() -> None:
    [part] = build(
        CALL,
        TextDelta(path=(0,), text_delta='{"a":'),
        ToolCallApproval(path=(0,), approval={"id": "1"}),
        TextDelta(path=(0,), text_delta="1"),
        Result(path=(0,), result="half", is_preliminary=True),
        TextDelta(path=(0,), text_delta="2}"),
        ToolCallArgsTextFinish(path=(0,)),
        PartFinish(path=(0,)),
    )["parts"]
    assert part == {
        "type": "tool-call",
        "state": "call",
        "status": {"type": "running", "isArgsComplete": True},
        "toolCallId": "t",
        "toolName": "n",
        "argsText": '{"a":12}',
        "args": {"a": 12},
        "approval": {"id": "1"},
        "result": "half",
        "isError": False,
        "isPreliminary": True,
    }


def test_a_part_can_grow_after_its_end() -> None:
    first, second = build(
        PartStart(part=TextPart()),
        CALL,
        TextDelta(path=(0,), text_delta="\ud83d"),
        TextDelta(path=(1,), text_delta='{"a":"\ud83d'),
        PartFinish(path=(0,)),
        Result(path=(1,), result=1),
        TextDelta(path=(0,), text_delta="\ude00"),
        TextDelta(path=(1,), text_delta='\ude00"}'),
    )["parts"]
    assert first["text"] == "😀" and second["args"] == {"a": "😀"} and second["state"] == "result"


def test_an_abort_ends_the_message_as_stopped() -> None:
    status = {"type": "incomplete", "reason": "other"}
    assert build(UIFrame(frame={"type": "abort"}))["status"] == status
    assert build(UIFrame(frame={"type": "custom", "kind": "k"}))["status"]["type"] == "complete"


def test_an_earlier_message_is_continued() -> None:
    earlier = build(PartStart(part=TextPart()), TextDelta(path=(0,), text_delta="a"))
    kept = repr(earlier)
    message = build(
        TextDelta(path=(0,), text_delta="b"),
        PartStart(part=TextPart()),
        MessageFinish(finish_reason="stop"),
        initial_message={**earlier, "id": "m", "status": {"type": "running"}},
    )
    assert [part["text"] for part in message["parts"]] == ["ab", ""]
    assert message["id"] == "m" and message["status"]["reason"] == "stop" and repr(earlier) == kept


def test_every_snapshot_shows_the_arguments_of_its_time() -> None:
    accumulator = AssistantMessageAccumulator()
    accumulator.add(CALL)
    held = [accumulator.add(TextDelta(path=(0,), text_delta=piece)) for piece in ('{"a":[', "1,", "2,", "3]}")]
    assert [message["parts"][0]["args"] for message in held] == [
        {"a": []},
        {"a": [1]},
        {"a": [1, 2]},
        {"a": [1, 2, 3]},
    ]
