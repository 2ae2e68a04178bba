"""The table of what is written and read of AG-UI's events, `coverage_ag_ui.json`, is whole, and true.

It says of every event of the protocol, and of each field, what the encoder does with it and then what the decoder
does, as `coverage.json` does. `*`: the fields that all events have.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from resumable_sync.assistant import AGUIDecoder, AGUIEncoder

from .cases import PROGRAMS
from .programs import Program, accumulate, chunks_of, normalized
from .test_ag_ui import protocol, written

__all__ = ["protocol"]  # the fixture

EVENT = "(event)"
COVERAGE: dict[str, dict[str, list[str]]] = json.loads(
    Path(__file__).with_name("coverage_ag_ui.json").read_text("utf-8")
)
COMMON = COVERAGE.pop("*")
Event = dict[str, Any]

MORE: list[Program] = [
    [["append_data", {"name": "plan", "data": {}, "id": "x"}]],
    [["enqueue", {"type": "error", "error": "bad", "code": "c"}]],
    [["append_text", "x"], ["abort"]],
    [["enqueue", {"type": "message-finish", "finishReason": "error", "usage": {"inputTokens": 1}}]],
]


def test_the_table_knows_all_events(protocol: Any) -> None:
    found: dict[str, set[str]] = {}
    for model in get_args(get_args(protocol[1].Event)[0]):
        names = {field.alias or name for name, field in model.model_fields.items()} - {"type", *COMMON}
        found[model.model_fields["type"].default.value] = {EVENT, *names}
    assert {kind: set(fields) for kind, fields in COVERAGE.items()} == found


def test_what_is_called_encoded_is_what_is_written() -> None:
    encoder = AGUIEncoder("t", "r", messages=[])
    events = [event for program in (*PROGRAMS.values(), *MORE) for event in written(chunks_of(program), encoder)]
    seen = {(event["type"], field) for event in events for field in (EVENT, *event)} - {
        (kind, field) for kind in COVERAGE for field in ("type", *COMMON)
    }
    called = {
        (kind, field) for kind, fields in COVERAGE.items() for field in fields if fields[field][0] == "encoded"
    }
    assert (sorted(called - seen), sorted(seen - called)) == ([], [])
    assert {field for event in events for field in event} & COMMON.keys() == {"metadata"}


START = {"type": "RUN_STARTED", "threadId": "t", "runId": "r"}
END = {"type": "RUN_FINISHED", "threadId": "t", "runId": "r"}
TEXT = {"type": "TEXT_MESSAGE_START", "messageId": "m", "role": "assistant", "name": "n"}
MORE_TEXT = {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": "x"}
TEXT_END = {"type": "TEXT_MESSAGE_END", "messageId": "m"}
SPAN = {"type": "REASONING_START", "messageId": "m"}
THOUGHT = {"type": "REASONING_MESSAGE_START", "messageId": "m", "role": "reasoning"}
MORE_THOUGHT = {"type": "REASONING_MESSAGE_CONTENT", "messageId": "m", "delta": "x"}
THOUGHT_END = {"type": "REASONING_MESSAGE_END", "messageId": "m"}
SPAN_END = {"type": "REASONING_END", "messageId": "m"}
ENCRYPTED = {"type": "REASONING_ENCRYPTED_VALUE", "subtype": "message", "entityId": "m", "encryptedValue": "e"}
CALL = {"type": "TOOL_CALL_START", "toolCallId": "c", "toolCallName": "n", "parentMessageId": "p"}
ARGS = {"type": "TOOL_CALL_ARGS", "toolCallId": "c", "delta": "[1]"}
CALL_END = {"type": "TOOL_CALL_END", "toolCallId": "c"}
RESULT = {"type": "TOOL_CALL_RESULT", "messageId": "m", "toolCallId": "c", "content": "r", "role": "tool"}
ACTIVITY = {
    "type": "ACTIVITY_SNAPSHOT",
    "messageId": "r-plan-x",
    "activityType": "plan",
    "content": {"a": 1},
    "replace": False,
}
PATCH = [{"op": "add", "path": "/b", "value": 1}]
DELTA = {"type": "ACTIVITY_DELTA", "messageId": "r-plan-x", "activityType": "plan", "patch": PATCH}
STEP = {"type": "STEP_STARTED", "stepName": "s"}
STEP_END = {"type": "STEP_FINISHED", "stepName": "s"}
TEXT_CHUNK = {"type": "TEXT_MESSAGE_CHUNK", "messageId": "m", "role": "assistant", "delta": "x", "name": "n"}
CALL_CHUNK = {
    "type": "TOOL_CALL_CHUNK",
    "toolCallId": "c",
    "toolCallName": "n",
    "parentMessageId": "p",
    "delta": "{}",
}
USAGE = [{"inputTokens": 1}]
INTERRUPT = {"type": "interrupt", "interrupts": [{"id": "i", "reason": "r", "toolCallId": "c"}]}

SAMPLES: list[tuple[list[Event], Event, list[Event]]] = [
    ([], TEXT, [MORE_TEXT, TEXT_END, END]),
    ([], TEXT, [END]),
    ([TEXT], MORE_TEXT, [END]),
    ([TEXT, MORE_TEXT], TEXT_END, [{**MORE_TEXT, "delta": "y"}, END]),
    ([], TEXT_CHUNK, [END]),
    ([TEXT_CHUNK], TEXT_CHUNK, [END]),
    ([], CALL, [ARGS, CALL_END, END]),
    ([CALL], ARGS, [CALL_END, END]),
    ([CALL, ARGS], CALL_END, [{"type": "RUN_ERROR", "message": "x"}]),
    ([], CALL_CHUNK, [END]),
    ([CALL], RESULT, [END]),
    ([], {"type": "STATE_SNAPSHOT", "snapshot": {"a": 1}}, [END]),
    ([], {"type": "STATE_DELTA", "delta": PATCH}, [END]),
    ([], {"type": "MESSAGES_SNAPSHOT", "messages": [{"id": "m", "role": "user", "content": "x"}]}, [END]),
    ([], ACTIVITY, [END]),
    ([ACTIVITY], {**ACTIVITY, "content": {"a": 2}}, [END]),
    ([ACTIVITY], DELTA, [END]),
    ([], {"type": "RAW", "event": 1, "source": "x"}, [END]),
    ([], {"type": "CUSTOM", "name": "n", "value": 1}, [END]),
    ([], {**START, "protocolVersion": "1.0", "parentRunId": "p", "input": {"messages": []}}, [ACTIVITY, END]),
    ([CALL], {**END, "result": 1, "outcome": INTERRUPT, "usage": USAGE}, []),
    ([], {"type": "RUN_ERROR", "message": "x", "code": "c", "usage": USAGE}, []),
    ([], {"type": "RUN_ERROR", "message": "x", "code": "cancelled", "usage": USAGE}, []),
    ([], STEP, [STEP_END, END]),
    ([STEP], STEP_END, [END]),
    ([], SPAN, [THOUGHT, THOUGHT_END, ENCRYPTED, SPAN_END, END]),
    ([SPAN], THOUGHT, [MORE_THOUGHT, END]),
    ([], THOUGHT, [END]),
    ([THOUGHT], MORE_THOUGHT, [END]),
    ([THOUGHT, MORE_THOUGHT], THOUGHT_END, [{**MORE_THOUGHT, "delta": "y"}, END]),
    ([], {"type": "REASONING_MESSAGE_CHUNK", "messageId": "m", "delta": "x"}, [END]),
    (
        [{"type": "REASONING_MESSAGE_CHUNK", "messageId": "m", "delta": "x"}],
        {"type": "REASONING_MESSAGE_CHUNK", "messageId": "m", "delta": "x"},
        [END],
    ),
    ([SPAN, THOUGHT, THOUGHT_END], SPAN_END, [MORE_THOUGHT, END]),
    ([THOUGHT], ENCRYPTED, [END]),
    (
        [],
        {
            "type": "SUBAGENT_STARTED",
            "name": "n",
            "description": "d",
            "parentSubagentRunId": "p",
            "parentToolCallId": "c",
            "parentMessageId": "m",
        },
        [END],
    ),
    ([], {"type": "SUBAGENT_FINISHED", "result": 1, "outcome": {"type": "success"}}, [END]),
    ([], {"type": "SUBAGENT_ERROR", "message": "x", "code": "c"}, [END]),
]


def read(events: list[Event]) -> Any:
    body = b"".join(b"data: %s\n\n" % json.dumps(event).encode() for event in events)
    chunks = list(AGUIDecoder(strict=False).decode([body]))
    return [chunk.to_json() for chunk in chunks], normalized(accumulate(chunks))


def changed(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    return "tool-call" if isinstance(value, str) else {"other": 1} if isinstance(value, dict) else []


def test_the_samples_have_every_event_and_field() -> None:
    assert {(event["type"], field) for _, event, _ in SAMPLES for field in (EVENT, *event)} == {
        (kind, field) for kind, fields in COVERAGE.items() for field in ("type", *fields)
    }


@pytest.mark.parametrize("kind", COVERAGE)
def test_what_is_called_decoded_makes_a_difference(kind: str) -> None:
    noticed = set()
    for before, event, after in SAMPLES:
        if event["type"] != kind:
            continue
        first = [] if kind == "RUN_STARTED" else [START]
        whole = read([*first, *before, event, *after])
        if read([*first, *before, *after]) != whole:
            noticed.add(EVENT)
        for field in event.keys() - {"type"}:
            other = {**event, field: changed(event[field])}
            if read([*first, *before, other, *after]) != whole:
                noticed.add(field)
    assert noticed == {field for field, (_, decoder) in COVERAGE[kind].items() if decoder == "decoded"}


def test_the_table_says_why() -> None:
    for kind, fields in {**COVERAGE, "*": COMMON}.items():
        for field, (encoder, decoder) in fields.items():
            assert encoder == "encoded" or encoder.startswith("lost: "), (kind, field)
            assert decoder == "decoded" or decoder.startswith("lost: "), (kind, field)
