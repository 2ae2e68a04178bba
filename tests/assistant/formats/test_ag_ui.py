"""AG-UI: what is written is what the protocol's own models accept, and what is read is what was written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resumable_sync.assistant import AGUIDecoder, AGUIEncoder, AssistantStreamChunk
from resumable_sync.assistant.formats.ag_ui.patch import operations_of, patch_of
from resumable_sync.assistant.message.chunks import (
    Data,
    Error,
    MessageFinish,
    PartFinish,
    PartStart,
    Result,
    StateOperation,
    TextDelta,
    ToolCallArgsTextFinish,
)
from resumable_sync.assistant.message.parts import TextPart, ToolCallPart
from resumable_sync.assistant.message.state import apply_operation
from resumable_sync.errors import MalformedStreamError
from resumable_sync.sse import parse_events

from ...javascript import cannot
from .cases import PROGRAMS
from .programs import Program, accumulate, chunks_of, normalized
from .test_random_programs import cut_anywhere, json_values, programs, quick

ENCODER = AGUIEncoder("thread", "run")


def written(chunks: Any, encoder: AGUIEncoder = ENCODER) -> list[dict[str, Any]]:
    """The events that are made of chunks."""
    return events_in(b"".join(encoder.encode(chunks)))


def events_in(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(event.data) for event in parse_events([body])]


def types(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


def read(*events: dict[str, Any]) -> Any:
    """The message in the events of a run."""
    body = b"".join(b"data: %s\n\n" % json.dumps(event).encode() for event in events)
    return accumulate(AGUIDecoder(strict=False).decode([body]))


@pytest.fixture(scope="module")
def protocol() -> Any:
    """The protocol's own models and its encoder, or a skip (in CI a failure) that says that they are missing."""
    try:
        import ag_ui.core
        import ag_ui.encoder
        from pydantic import TypeAdapter
    except ImportError as missing:
        cannot("THE EVENTS OF AG-UI WERE", str(missing))
    return TypeAdapter(ag_ui.core.Event), ag_ui.core, ag_ui.encoder.EventEncoder()


def _sound(value: Any) -> Any:
    """Without halves of surrogate pairs, which Python's models refuse; JavaScript's do not."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [_sound(item) for item in value]
    return {_sound(key): _sound(item) for key, item in value.items()} if isinstance(value, dict) else value


def accepted(protocol: Any, events: list[dict[str, Any]]) -> None:
    """The models know every event, and every field of it."""
    for event in events:
        model = protocol[0].validate_python(_sound(event))
        assert not model.__pydantic_extra__, event
        assert type(model).__name__ != "BaseEvent"


def in_order(events: list[dict[str, Any]]) -> None:
    """What the protocol says of the order of events, as its clients check it."""
    assert events[0]["type"] == "RUN_STARTED" and events[-1]["type"] in ("RUN_FINISHED", "RUN_ERROR")
    open_ones: dict[str, set[str]] = {}
    keys = {"TEXT_MESSAGE": "messageId", "REASONING_MESSAGE": "messageId", "REASONING": "messageId"}
    keys.update({"TOOL_CALL": "toolCallId", "STEP": "stepName"})
    messages: set[str] = set()
    for event in events[1:-1]:
        of, _, edge = event["type"].rpartition("_")
        assert of != "RUN", event
        if of not in keys or edge == "RESULT":
            continue
        found, name = open_ones.setdefault(of, set()), event[keys[of]]
        if edge in ("START", "STARTED"):
            assert name not in found, event
            found.add(name)
            if of.endswith("_MESSAGE"):
                assert name not in messages, event
                messages.add(name)
        else:
            assert name in found, event
            found -= {name} if edge in ("END", "FINISHED") else set()
    still = {of for of, found in open_ones.items() if found}
    assert still <= ({"TOOL_CALL"} if events[-1]["type"] == "RUN_ERROR" else set())


def comparable(message: Any) -> Any:
    """Without what the format loses: whether a call that nobody answered was cut off, and how bad an error is."""
    parts = [
        {**part, "state": "call", "status": None} if part.get("state") in ("call", "partial-call") else part
        for part in message["parts"]
    ]
    status = message["status"]
    if "error" in status:
        kept = {key: value for key, value in status["error"].items() if key != "severity"}
        status = {**status, "error": kept}
    elif status.get("reason") == "error":
        status = {"type": "incomplete", "reason": "error"}
    return {**normalized(message), "parts": parts, "status": status}


@quick
@given(programs(), st.data())
def test_what_is_written_is_read(program: Program, data: st.DataObject) -> None:
    chunks = chunks_of(program)
    pieces = data.draw(st.composite(cut_anywhere)(b"".join(ENCODER.encode(chunks))))
    assert comparable(accumulate(AGUIDecoder().decode(pieces))) == comparable(accumulate(chunks))


def test_the_protocols_models_accept_random_programs(protocol: Any) -> None:
    @quick
    @given(programs())
    def check(program: Program) -> None:
        events = written(chunks_of(program))
        accepted(protocol, events)
        in_order(events)

    check()


@pytest.mark.parametrize("status", ["interrupted", "error", "cancelled"])
def test_a_run_that_was_lost_anywhere_ends_and_is_not_complete(protocol: Any, status: str) -> None:
    for name in ("parallel tools", "explicit parts that overlap", "steps", "state"):
        pieces = list(ENCODER.encode(chunks_of(PROGRAMS[name])))
        for count in range(len(pieces)):
            stored = b"".join(pieces[:count])
            events = events_in(stored + ENCODER.closing_frames([stored], status, "lost"))
            accepted(protocol, events)
            in_order(events)
            last = events[-1]
            assert last["type"] == "RUN_ERROR" or last["outcome"] == {"type": "cancelled"}
            assert last["type"] == "RUN_ERROR" or status == "cancelled"


@pytest.mark.parametrize("name", PROGRAMS)
def test_worked_programs(protocol: Any, name: str) -> None:
    chunks = chunks_of(PROGRAMS[name])
    body = b"".join(ENCODER.encode(chunks))
    accepted(protocol, events_in(body))
    in_order(events_in(body))
    assert comparable(accumulate(AGUIDecoder().decode([body]))) == comparable(accumulate(chunks))


def test_what_the_protocols_own_encoder_writes_is_read(protocol: Any) -> None:
    _, core, encoder = protocol
    events = [
        core.RunStartedEvent(thread_id="t", run_id="r"),
        core.ReasoningStartEvent(message_id="r1"),
        core.ReasoningMessageStartEvent(message_id="r1", role="reasoning"),
        core.ReasoningMessageContentEvent(message_id="r1", delta="hm"),
        core.ReasoningMessageEndEvent(message_id="r1"),
        core.ReasoningEncryptedValueEvent(subtype="message", entity_id="r1", encrypted_value="x"),
        core.ReasoningEndEvent(message_id="r1"),
        core.TextMessageChunkEvent(message_id="m", role="assistant", delta="Hel"),
        core.TextMessageChunkEvent(delta="lo"),
        core.ToolCallChunkEvent(tool_call_id="c", tool_call_name="look", delta='{"a"'),
        core.ToolCallChunkEvent(delta=":1}"),
        core.ToolCallResultEvent(message_id="x", tool_call_id="c", content="found"),
        core.StateSnapshotEvent(snapshot={"list": [1, 3]}),
        core.StateDeltaEvent(delta=[{"op": "add", "path": "/list/1", "value": 2}]),
        core.ActivitySnapshotEvent(message_id="p", activity_type="PLAN", content={"steps": []}),
        core.ActivityDeltaEvent(
            message_id="p", activity_type="PLAN", patch=[{"op": "add", "path": "/steps/-", "value": "go"}]
        ),
        core.CustomEvent(name="mine", value=[1]),
        core.RunFinishedEvent(thread_id="t", run_id="r"),
    ]
    body = "".join(encoder.encode(event) for event in events).encode()
    message = accumulate(AGUIDecoder().decode([body]))
    thought, said, call, first, second, mine = message["parts"]
    assert (thought["text"], thought["providerMetadata"]) == ("hm", {"ag-ui": {"encryptedValue": "x"}})
    assert (said["text"], call["toolName"], call["args"], call["result"]) == ("Hello", "look", {"a": 1}, "found")
    assert (first["data"], second["data"], second["name"]) == ({"steps": []}, {"steps": ["go"]}, "PLAN")
    assert (mine["name"], mine["data"]) == ("mine", [1])
    assert message["metadata"]["unstable_state"] == {"list": [1, 2, 3]}
    assert message["status"] == {"type": "complete", "reason": "unknown"}


# What is written


def test_the_bytes_of_a_run() -> None:
    def tools() -> Iterator[AssistantStreamChunk]:
        yield PartStart(part=TextPart())
        yield TextDelta(path=(0,), text_delta="Hi \u2028")
        yield PartFinish(path=(0,))
        yield PartStart(part=ToolCallPart(tool_name="look", tool_call_id="c"))
        yield TextDelta(path=(1,), text_delta='{"a":1}')
        yield ToolCallArgsTextFinish(path=(1,))
        yield Result(path=(1,), result={"b": 2})
        yield PartFinish(path=(1,))
        yield MessageFinish(finish_reason="stop", usage={"inputTokens": 3, "outputTokens": 4})

    encoder = AGUIEncoder("t", "r", messages=[{"id": "1", "role": "user", "content": "?"}])
    assert b"".join(encoder.encode(tools())) == (
        b'data: {"type":"RUN_STARTED","threadId":"t","runId":"r"}\n\n'
        b'data: {"type":"MESSAGES_SNAPSHOT","messages":[{"id":"1","role":"user","content":"?"}]}\n\n'
        b'data: {"type":"TEXT_MESSAGE_START","messageId":"r-1","role":"assistant"}\n\n'
        b'data: {"type":"TEXT_MESSAGE_CONTENT","messageId":"r-1","delta":"Hi \\u2028"}\n\n'
        b'data: {"type":"TEXT_MESSAGE_END","messageId":"r-1"}\n\n'
        b'data: {"type":"TOOL_CALL_START","toolCallId":"c","toolCallName":"look","parentMessageId":"r-1"}\n\n'
        b'data: {"type":"TOOL_CALL_ARGS","toolCallId":"c","delta":"{\\"a\\":1}"}\n\n'
        b'data: {"type":"TOOL_CALL_END","toolCallId":"c"}\n\n'
        b'data: {"type":"TOOL_CALL_RESULT","messageId":"r-2","toolCallId":"c","content":"{\\"b\\":2}",'
        b'"metadata":{"contentType":"application/json"},"role":"tool"}\n\n'
        b'data: {"type":"RUN_FINISHED","threadId":"t","runId":"r","usage":[{"inputTokens":3,"outputTokens":4}],'
        b'"metadata":{"finishReason":"stop"}}\n\n'
    )


def call(
    name: str = "c", args: str = "{}", *more: AssistantStreamChunk, at: int = 0
) -> list[AssistantStreamChunk]:
    start = PartStart(part=ToolCallPart(tool_name="look", tool_call_id=name))
    return [start, TextDelta(path=(at,), text_delta=args), *more]


ENDED = ToolCallArgsTextFinish(path=(0,))


def test_a_call_that_waits_is_named_at_the_end() -> None:
    assert written(call("c", "{}", ENDED))[-1]["outcome"] == {"type": "success", "pendingToolCallIds": ["c"]}


def test_arguments_that_are_no_json_are_answered_before_they_end() -> None:
    events = written(call("c", '{"a":', ENDED))
    assert types(events)[-3:] == ["TOOL_CALL_RESULT", "TOOL_CALL_END", "RUN_FINISHED"]
    assert "outcome" not in events[-1]
    answered = written(call("c", '{"a":', ENDED, Result(path=(0,), result="no", is_error=True)))
    assert types(answered)[-3:] == ["TOOL_CALL_RESULT", "TOOL_CALL_END", "RUN_FINISHED"]
    assert types(answered).count("TOOL_CALL_RESULT") == 1


@pytest.mark.parametrize("args", ["", "{}", '{"a":'])
def test_a_call_that_was_never_closed_never_ends(args: str) -> None:
    for program in (call("c", args), [*call("c", args), Error(error="bad"), ENDED, PartFinish(path=(0,))]):
        events = written(program)
        assert "TOOL_CALL_END" not in types(events) and events[-1]["type"] == "RUN_ERROR"


def test_a_stopped_run_is_told_as_such_where_no_call_is_cut() -> None:
    text: Program = [["append_text", "a"], ["abort"]]
    assert written(chunks_of(text))[-1]["outcome"] == {"type": "cancelled"}
    cut: Program = [
        ["add_tool_call_part", "t", {"toolCallId": "c", "toolName": "n"}],
        ["tool.args_append", "t", "{}"],
    ]
    events = written(chunks_of([*cut, ["abort"]]))
    assert (events[-1]["type"], events[-1]["code"]) == ("RUN_ERROR", "cancelled")
    for program in (text, [*cut, ["abort"]]):
        message = accumulate(AGUIDecoder().decode(ENCODER.encode(chunks_of(program))))
        assert message["status"] == {"type": "incomplete", "reason": "other"}


def test_an_approval_interrupts_the_run(protocol: Any) -> None:
    program: Program = [
        ["add_tool_call_part", "t", {"toolCallId": "c", "toolName": "pay", "args": {}}],
        ["tool.set_approval", "t", {"id": "ap", "prompt": "Pay?"}],
    ]
    events = written(chunks_of(program))
    accepted(protocol, events)
    asked = {"id": "ap", "reason": "tool_call", "toolCallId": "c", "message": "Pay?"}
    assert events[-1]["outcome"] == {"type": "interrupt", "interrupts": [asked]}
    given_now = written(chunks_of([*program, ["tool.set_approval", "t", {"id": "ap", "approved": True}]]))
    assert given_now[-1]["outcome"] == {"type": "success", "pendingToolCallIds": ["c"]}


def test_a_call_of_an_earlier_run_is_only_answered() -> None:
    events = written(chunks_of([["append_tool_result", "old", {"paid": True}], ["append_text", "Thanks"]]))
    assert types(events)[1] == "TOOL_CALL_RESULT" and "TOOL_CALL_START" not in types(events)
    assert "outcome" not in events[-1]
    part = accumulate(AGUIDecoder().decode(ENCODER.encode(chunks_of([["append_tool_result", "old", 1]]))))[
        "parts"
    ][0]
    assert (part["toolName"], part["toolCallId"], part["result"]) == ("", "old", 1)


def test_calls_belong_to_the_message_of_their_turn() -> None:
    def tool(name: str) -> list[Any]:
        return ["add_tool_call_part", name, {"toolCallId": name, "toolName": "n", "args": {}}]

    answer = [["tool.set_response", name, {"result": 1}] for name in ("a", "b")]
    program = [["append_text", "x"], tool("a"), tool("b"), *answer, tool("c"), ["append_text", "y"], tool("d")]
    starts = [event for event in written(chunks_of(program)) if event["type"] == "TOOL_CALL_START"]
    assert [start["parentMessageId"] for start in starts] == ["run-1", "run-1", "run-4", "run-5"]


def test_a_data_part_with_an_id_is_an_activity(protocol: Any) -> None:
    program: Program = [["append_data", {"name": "plan", "data": {"n": number}, "id": "x"}] for number in (1, 2)]
    program += [
        ["append_data", {"name": "plan", "data": 1, "id": "x"}],
        ["append_data", {"name": "n", "data": {}}],
    ]
    events = written(chunks_of(program))[1:-1]
    accepted(protocol, events)
    assert types(events) == ["ACTIVITY_SNAPSHOT"] * 2 + ["CUSTOM"] * 2
    assert {event["messageId"] for event in events[:2]} == {"run-plan-x"}
    chunks = AGUIDecoder().decode(ENCODER.encode(chunks_of(program)))
    parts: list[Any] = [chunk.part for chunk in chunks if isinstance(chunk, PartStart)]
    assert [part.id for part in parts] == ["x", "x", "x", None]


def test_two_runs_of_one_encoder_have_its_ids_and_two_encoders_differ() -> None:
    encoder = AGUIEncoder()
    first, second = (written([], encoder) for _ in range(2))
    assert first == second and written([], AGUIEncoder()) != first


@pytest.mark.parametrize("char", ["x", "\0", "\U0001f600"])
def test_long_texts_are_divided(char: str) -> None:
    text = char * 3_000_000
    chunks = [PartStart(part=TextPart()), TextDelta(path=(0,), text_delta=text), PartFinish(path=(0,))]
    pieces = list(ENCODER.encode(chunks))
    longest = max(len(event) for event in b"".join(pieces).decode().split("\n\n"))
    assert longest < 10 * 1024 * 1024
    [part] = accumulate(AGUIDecoder().decode(pieces))["parts"]
    assert part["text"] == text


def test_what_cannot_be_divided_is_refused_and_long_messages_are_left_out() -> None:
    long = "x" * (10 * 1024 * 1024)
    with pytest.raises(MalformedStreamError, match="larger"):
        list(ENCODER.encode([Data(data=[long])]))
    encoder = AGUIEncoder("t", "r", messages=[{"id": "1", "role": "user", "content": long}])
    assert types(written([], encoder)) == ["RUN_STARTED", "RUN_FINISHED"]


# The state


pointers = st.lists(st.sampled_from(["a", "b", "0", "1", "~", "/", ""]), max_size=3)
states = st.recursive(
    st.none() | st.integers(0, 9) | st.sampled_from(["", "text"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab01~/"), inner, max_size=3),
    max_leaves=8,
)


@quick
@given(states, pointers, json_values, st.sampled_from(["set", "append-text"]))
def test_a_patch_does_what_its_operation_does(state: Any, path: list[str], value: Any, kind: Any) -> None:
    operation = StateOperation(kind, tuple(path), value)
    try:
        expected = apply_operation(state, operation)
    except MalformedStreamError:
        with pytest.raises(MalformedStreamError):
            patch_of(state, operation)
        return
    entry, after = patch_of(state, operation)
    assert json.dumps(after) == json.dumps(expected)
    if entry["path"]:
        operations, read_back = operations_of(state, [entry])
        assert json.dumps(read_back) == json.dumps(expected)


PATCHES: list[tuple[Any, list[Any], Any]] = [
    ({"a": [1, 2]}, [{"op": "remove", "path": "/a/0"}], {"a": [2]}),
    ({"a": [1, 2]}, [{"op": "add", "path": "/a/-", "value": 3}], {"a": [1, 2, 3]}),
    ({"a": [1, 2]}, [{"op": "add", "path": "/a/0", "value": 3}], {"a": [3, 1, 2]}),
    ({"a": 1}, [{"op": "move", "from": "/a", "path": "/b"}], {"b": 1}),
    ({"a": {"x": 1}}, [{"op": "copy", "from": "/a", "path": "/b"}], {"a": {"x": 1}, "b": {"x": 1}}),
    ({"a": 1}, [{"op": "remove", "path": "/a"}], {}),
    ({"a": 1}, [{"op": "test", "path": "/a", "value": 1}, {"op": "replace", "path": "/a", "value": 2}], {"a": 2}),
    ({"~/": 1}, [{"op": "replace", "path": "/~0~1", "value": 2}], {"~/": 2}),
    ({"a": 1}, [{"op": "replace", "path": "", "value": [1]}], [1]),
    (None, [{"op": "add", "path": "/a", "value": 1}], {"a": 1}),
]


@pytest.mark.parametrize("state, patch, expected", PATCHES)
def test_patches_of_others(state: Any, patch: list[Any], expected: Any) -> None:
    assert operations_of(state, patch)[1] == expected


@pytest.mark.parametrize(
    "entry",
    [
        1,
        {"op": "nonsense", "path": "/a"},
        {"op": "add", "path": "a", "value": 1},
        {"op": "add", "path": "/a"},
        {"op": "add", "path": "/l/5", "value": 1},
        {"op": "add", "path": "/l/x", "value": 1},
        {"op": "remove", "path": "/none"},
        {"op": "move", "from": "/o", "path": "/o/in"},
        {"op": "test", "path": "/a", "value": 2},
        {"op": "add", "path": "/__proto__", "value": 1},
    ],
)
def test_patches_that_cannot_be_applied_change_nothing(entry: Any) -> None:
    first: Any = {"op": "replace", "path": "/a", "value": 9}
    state = {"a": 1, "l": [], "o": {}}
    message = read({"type": "STATE_SNAPSHOT", "snapshot": state}, {"type": "STATE_DELTA", "delta": [first, entry]})
    assert message["metadata"]["unstable_state"] == state


# What is read


def test_broken_events_are_dropped_and_the_rest_is_read() -> None:
    start = {"type": "TEXT_MESSAGE_START", "messageId": "m"}
    message = read(
        {"type": 1},
        {"type": "NEW_EVENT"},
        start,
        start,
        {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": 1},
        {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": "ok"},
        {"type": "TEXT_MESSAGE_CONTENT", "messageId": "u", "delta": "!"},
        {"type": "TEXT_MESSAGE_START", "messageId": "v", "role": "user"},
        {"type": "TEXT_MESSAGE_CONTENT", "messageId": "v", "delta": "not mine"},
        {"type": "TOOL_CALL_ARGS", "toolCallId": "none", "delta": "x"},
        {"type": "CUSTOM", "name": "source", "value": 5},
        {"type": "RUN_ERROR", "message": "bad", "code": "c"},
        {"type": "TEXT_MESSAGE_START", "messageId": "after"},
    )
    assert [part.get("text", part.get("data")) for part in message["parts"]] == ["ok", "!", 5]
    assert message["status"]["error"] == {"code": "c", "message": "bad"}


@pytest.mark.parametrize("body", [b'data: {"type":"RUN_STARTED"}\n\n', b"event: x\ndata: 1\n\n"])
def test_strict_decoding_wants_the_end_of_the_run(body: bytes) -> None:
    with pytest.raises(MalformedStreamError):
        list(AGUIDecoder().decode([body]))
    assert list(AGUIDecoder(strict=False).decode([body])) == []


def test_what_an_interrupt_asks_is_kept_with_its_call() -> None:
    message = read(
        {"type": "TOOL_CALL_START", "toolCallId": "c", "toolCallName": "pay"},
        {"type": "TOOL_CALL_END", "toolCallId": "c"},
        {
            "type": "RUN_FINISHED",
            "outcome": {
                "type": "interrupt",
                "interrupts": [{"id": "i", "reason": "r", "toolCallId": "c", "message": "?"}],
            },
            "usage": [{"inputTokens": 1}, {"inputTokens": 2, "model": "m"}],
        },
    )
    assert message["parts"][0]["approval"] == {"id": "i", "prompt": "?"}
    assert message["status"] == {"type": "requires-action", "reason": "tool-calls"}
