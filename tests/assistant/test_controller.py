"""The controller and the stream that it writes: order, threads, bounds, endings."""

from __future__ import annotations

import contextvars
import gc
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from resumable_sync.assistant import (
    AssistantStreamController,
    AssistantTransportEncoder,
    DataStreamEncoder,
    ToolResponse,
    create_assistant_stream,
    create_assistant_stream_controller,
)
from resumable_sync.assistant.chunk_queue import MAX_QUEUED
from resumable_sync.assistant.message.chunks import UIFrame
from resumable_sync.errors import ProducerInterruptedError, StreamCancelledError, StreamFinalizedError

from .formats.programs import DECODERS, ENCODERS, accumulate, chunks_of

WAIT = 20.0  # seconds until a test gives up


def shapes(chunks: Any) -> list[Any]:
    """Chunks without what every chunk of their type has."""
    return [
        (chunk.type, *chunk.path, *([chunk.text_delta] if chunk.type == "text-delta" else [])) for chunk in chunks
    ]


def test_parts_left_open_are_closed_in_part_order() -> None:
    def callback(controller: AssistantStreamController) -> None:
        controller.add_tool_call_part("a")
        controller.add_text_part().append("x")
        controller.add_tool_call_part("b").args_text.append("{")
        controller.enqueue({"type": "part-start", "part": {"type": "reasoning"}})
        controller.append_text("y")

    assert shapes(create_assistant_stream(callback))[-8:] == [
        ("text-delta", 0, "{}"),
        ("tool-call-args-text-finish", 0),
        ("part-finish", 0),
        ("part-finish", 1),
        ("tool-call-args-text-finish", 2),
        ("part-finish", 2),
        ("part-finish", 3),
        ("part-finish", 4),
    ]


def test_operations_of_one_moment_keep_their_order() -> None:
    assert shapes(
        chunks_of(
            [
                ["append_text", "a"],
                ["enqueue", {"type": "data", "path": [], "data": [1]}],
                ["append_text", "b"],
                ["add_tool_call_part", "t", {"toolName": "t", "args": {"x": 1}, "response": {"result": 2}}],
            ]
        )
    ) == [
        ("part-start",),
        ("text-delta", 0, "a"),
        ("data",),
        ("text-delta", 0, "b"),
        ("part-finish", 0),
        ("part-start",),
        ("text-delta", 1, '{"x":1}'),
        ("result", 1),
        ("tool-call-args-text-finish", 1),
        ("part-finish", 1),
    ]


def test_an_exception_is_told_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    def callback(controller: AssistantStreamController) -> None:
        controller.append_text("x")
        raise OSError("secret")

    chunks = [chunk.to_json() for chunk in create_assistant_stream(callback)]
    assert chunks[-2:] == [
        {"type": "error", "path": [], "error": "An error occurred."},
        {"type": "part-finish", "path": [0]},
    ]
    assert "secret" in caplog.text


def test_an_exception_leaves_tool_calls_cut_off_and_closes_texts() -> None:
    def callback(controller: AssistantStreamController) -> None:
        controller.add_tool_call_part("begun").args_text.append('{"a":1}')
        controller.add_tool_call_part("complete").args_text.close()
        controller.add_text_part()
        controller.append_reasoning("x")
        raise OSError

    assert shapes(create_assistant_stream(callback))[-3:] == [("error",), ("part-finish", 2), ("part-finish", 3)]


def test_a_call_that_was_open_at_an_error_stays_cut_off() -> None:
    def cut(controller: AssistantStreamController) -> None:
        controller.add_tool_call_part("begun").args_text.append('{"a":1}')
        raise OSError

    def callback(controller: AssistantStreamController) -> None:
        controller.merge(create_assistant_stream(cut))
        complete = controller.add_tool_call_part("complete")
        complete.args_text.append("{}")

    assert shapes(create_assistant_stream(callback))[-6:] == [
        ("text-delta", 0, '{"a":1}'),
        ("error",),
        ("part-start",),
        ("text-delta", 1, "{}"),
        ("tool-call-args-text-finish", 1),
        ("part-finish", 1),
    ]


@pytest.mark.parametrize("severity", ["warning", "info"])
def test_a_warning_cuts_no_call_off(severity: str) -> None:
    def callback(controller: AssistantStreamController) -> None:
        controller.add_tool_call_part("t").args_text.append("{}")
        controller.enqueue({"type": "error", "error": "slow", "severity": severity})

    assert shapes(create_assistant_stream(callback))[-2:] == [
        ("tool-call-args-text-finish", 0),
        ("part-finish", 0),
    ]


def test_an_abort_ends_the_message_as_stopped() -> None:
    def callback(controller: AssistantStreamController) -> None:
        controller.append_text("x")
        controller.add_tool_call_part("begun").args_text.append("{")
        controller.add_text_part().append("y")
        controller.abort("enough")
        controller.abort()
        with pytest.raises(StreamFinalizedError):
            controller.append_text("z")

    chunks = list(create_assistant_stream(callback))
    assert [chunk.to_json() for chunk in chunks[-3:]] == [
        {"type": "ui-frame", "path": [], "frame": {"type": "abort", "reason": "enough"}},
        {"type": "part-finish", "path": [2]},
        {
            "type": "message-finish",
            "path": [],
            "finishReason": "other",
            "usage": {"inputTokens": 0, "outputTokens": 0},
        },
    ]
    message = accumulate(chunks)
    assert message["status"] == {"type": "incomplete", "reason": "other"}
    assert message["parts"][1]["state"] == "partial-call"


def test_an_interim_answer_is_replaced_and_none_comes_behind_the_final_one() -> None:
    def callback(controller: AssistantStreamController) -> None:
        tool = controller.add_tool_call_part("t", tool_call_id="t")
        tool.set_response(ToolResponse(1, artifact="a", is_preliminary=True))
        tool.set_approval(id="ap", approved=True, prompt="Really?")
        tool.set_response(2)
        tool.set_response(3, is_preliminary=True)
        tool.set_approval(id="late")

    [part] = accumulate(create_assistant_stream(callback))["parts"]
    assert (part["result"], part["state"], "artifact" in part) == (2, "result", False)
    assert part["approval"] == {"id": "ap", "approved": True, "prompt": "Really?"}


def test_a_call_of_an_earlier_response_is_answered() -> None:
    def callback(controller: AssistantStreamController) -> None:
        controller.append_tool_result("t1", {"paid": True})
        controller.append_tool_result("t2", ToolResponse("no", is_error=True))

    first, second = accumulate(create_assistant_stream(callback))["parts"]
    assert (first["toolCallId"], first["toolName"], first["result"]) == ("t1", "", {"paid": True})
    assert (second["result"], second["isError"]) == ("no", True)


@pytest.mark.parametrize("format_name", ["chunks", *(name for name in DECODERS if name != "plain-text")])
@pytest.mark.parametrize("written", ["open", "whole", "closed"])
def test_a_call_of_this_message_is_answered_by_its_id(written: str, format_name: str) -> None:
    def callback(controller: AssistantStreamController) -> None:
        tool = controller.add_tool_call_part("pay", tool_call_id="t1")
        tool.args_text.append('{"eur":5}')
        if written != "open":
            tool.args_text.close()
        if written == "closed":
            tool.close()
        controller.append_text("Wait. ")
        controller.append_tool_result("t1", ToolResponse("half", is_preliminary=True))
        controller.append_tool_result("t1", {"paid": True})
        controller.append_tool_result("t1", "too late")
        tool.set_response("too late")

    chunks: Any = create_assistant_stream(callback)
    if format_name != "chunks":
        chunks = DECODERS[format_name]().decode(ENCODERS[format_name]().encode(chunks))
    calls = [part for part in accumulate(chunks)["parts"] if part["type"] == "tool-call"]
    assert [(call["toolName"], call["args"], call["result"]) for call in calls] == [
        ("pay", {"eur": 5}, {"paid": True})
    ]


def test_a_call_of_an_earlier_response_that_was_reopened_is_answered_once() -> None:
    def callback(controller: AssistantStreamController) -> None:
        controller.reopen_tool_call("t1").set_approval(id="ap", approved=True)
        controller.append_tool_result("t1", {"paid": True})

    [part] = accumulate(create_assistant_stream(callback))["parts"]
    assert (part["approval"]["approved"], part["result"]) == (True, {"paid": True})


def test_what_only_the_ai_sdk_has_reaches_its_format_alone() -> None:
    def callback(controller: AssistantStreamController) -> None:
        controller.append_text("a")
        controller.set_message_metadata({"a": {"b": 1}})
        controller.append_text("b")
        controller.set_message_metadata({"a": {"c": 2}})
        controller.append_custom("p.x", {"p": {"y": 1}})
        controller.append_file(data="https://e.org/f.png", mime_type="image/png", reasoning=True)

    chunks = list(create_assistant_stream(callback))
    frames = [chunk.frame["type"] for chunk in chunks if isinstance(chunk, UIFrame)]
    assert frames == ["message-metadata", "message-metadata", "custom", "reasoning-file"]
    message = accumulate(chunks)
    assert [part["text"] for part in message["parts"]] == ["ab"]
    assert message["metadata"]["custom"] == {"a": {"b": 1, "c": 2}}
    for encoder in (DataStreamEncoder(), AssistantTransportEncoder()):
        assert b"custom" not in b"".join(encoder.encode(chunks))


def test_a_formatter_that_fails_tells_nothing() -> None:
    def fail(*_: object) -> str:
        raise KeyError("secret")

    [chunk] = create_assistant_stream(fail, format_error=fail)
    assert chunk.to_json()["error"] == "An error occurred."


def test_leaving_the_interpreter_from_the_callback_is_an_error_too() -> None:
    def callback(_: AssistantStreamController) -> None:
        raise SystemExit(1)

    assert shapes(create_assistant_stream(callback)) == [("error",)]


def test_nothing_is_accepted_after_the_end() -> None:
    kept: list[Any] = []

    def callback(controller: AssistantStreamController) -> None:
        part, tool = controller.add_text_part(), controller.add_tool_call_part("t")
        part.close()
        with pytest.raises(StreamFinalizedError):
            part.append("x")
        tool.args_text.close()
        with pytest.raises(StreamFinalizedError):
            tool.args_text.append("x")
        kept.extend([controller, part, tool])
        controller.close()
        controller.close()
        with pytest.raises(StreamFinalizedError):
            controller.append_text("x")

    assert shapes(create_assistant_stream(callback))[-1] == ("part-finish", 1)
    controller, part, tool = kept
    refusals: list[Callable[[], object]] = [
        lambda: controller.append_text("x"),
        lambda: controller.add_tool_call_part("x"),
        lambda: part.append("x"),
        lambda: tool.args_text.append("x"),
        lambda: controller.enqueue({"type": "data", "data": []}),
        lambda: controller.state.update(a=1),
    ]
    for refused in refusals:
        with pytest.raises(StreamFinalizedError):
            refused()
    part.close()
    tool.close()
    tool.set_response(1)


def test_a_failure_after_close_is_logged_alone(caplog: pytest.LogCaptureFixture) -> None:
    def callback(controller: AssistantStreamController) -> None:
        controller.append_text("x")
        controller.close()
        raise OSError("late")

    stream = create_assistant_stream(callback)
    assert shapes(stream) == [("part-start",), ("text-delta", 0, "x"), ("part-finish", 0)]
    assert stream._thread is not None
    stream._thread.join(WAIT)
    assert "late" in caplog.text


def test_a_writer_waits_for_a_reader_that_is_behind() -> None:
    written: list[int] = []
    behind = threading.Event()

    def callback(controller: AssistantStreamController) -> None:
        for number in range(10 * MAX_QUEUED):
            controller.enqueue({"type": "data", "data": [number]})
            written.append(number)
            if number == MAX_QUEUED - 1:
                behind.set()

    stream = create_assistant_stream(callback)
    read = [next(stream).to_json()["data"]]
    assert behind.wait(WAIT)
    for chunk in stream:
        # Never further ahead than one full queue, one that was taken, and the call that is blocked.
        assert len(written) <= len(read) + 2 * MAX_QUEUED + 1
        read.append(chunk.to_json()["data"])
    assert read == [[number] for number in range(10 * MAX_QUEUED)]


def stopped_by(leave: Callable[[Any], None]) -> BaseException | None:
    """What the callback meets when its reader, who took one chunk, leaves."""
    met: list[BaseException] = []
    ended = threading.Event()

    def callback(controller: AssistantStreamController) -> None:
        try:
            while True:
                controller.append_text("x")
        except BaseException as error:
            met.append(error)
            raise
        finally:
            ended.set()

    stream = create_assistant_stream(callback)
    next(stream)
    leave(stream)
    del stream
    gc.collect()
    assert ended.wait(WAIT)
    return met[0]


@pytest.mark.parametrize("leave", [lambda stream: stream.close(), lambda stream: None], ids=["close", "forgotten"])
def test_the_callback_stops_when_its_reader_has_gone(leave: Callable[[Any], None]) -> None:
    assert isinstance(stopped_by(leave), StreamCancelledError)


def test_closing_the_encoded_pieces_stops_the_callback() -> None:
    assert isinstance(stopped_by(lambda stream: DataStreamEncoder().encode(stream).close()), StreamCancelledError)


def test_close_wakes_a_reader_that_is_blocked() -> None:
    goes_on = threading.Event()
    waiting = threading.Event()
    read: list[Any] = []

    def callback(controller: AssistantStreamController) -> None:
        waiting.set()
        goes_on.wait(WAIT)

    stream = create_assistant_stream(callback)
    reader = threading.Thread(target=lambda: read.extend(stream))
    reader.start()
    assert waiting.wait(WAIT)
    stream.close()
    reader.join(WAIT)
    assert not reader.is_alive() and read == []
    goes_on.set()


def test_a_controller_and_its_stream_as_a_pair() -> None:
    stream, controller = create_assistant_stream_controller()

    def write() -> None:
        with controller:
            for number in range(3 * MAX_QUEUED):
                controller.enqueue({"type": "data", "data": [number]})
            controller.append_text("x")

    writer = threading.Thread(target=write)
    writer.start()
    chunks = list(stream)
    writer.join(WAIT)
    assert len(chunks) == 3 * MAX_QUEUED + 3 and chunks[-1].type == "part-finish"
    with pytest.raises(StreamFinalizedError):
        controller.append_text("y")


def test_an_exception_ends_a_pair_as_it_ends_a_callback() -> None:
    stream, controller = create_assistant_stream_controller(format_error=lambda error: f"told: {error}")
    with pytest.raises(OSError, match="lost"), controller.with_parent_id("p"):
        controller.append_text("x")
        controller.add_tool_call_part("t").args_text.append("{")
        raise OSError("lost")
    chunks = list(stream)
    assert chunks[-1].to_json() == {"type": "error", "path": [], "error": "told: lost"}
    assert list(stream) == []


def test_a_pair_whose_writers_are_gone_is_interrupted() -> None:
    stream, controller = create_assistant_stream_controller()
    part = controller.add_text_part()
    del controller
    gc.collect()
    part.append("x")
    assert [next(stream).type, next(stream).type] == ["part-start", "text-delta"]
    del part
    gc.collect()
    with pytest.raises(ProducerInterruptedError):
        next(stream)


def test_closing_the_stream_of_a_pair_stops_its_writer() -> None:
    stream, controller = create_assistant_stream_controller()
    stream.close()
    with pytest.raises(StreamCancelledError):
        controller.append_text("x")
    assert list(stream) == []


def test_a_stream_that_nobody_reads_starts_nothing() -> None:
    started: list[object] = []
    stream = create_assistant_stream(started.append)
    stream.close()
    assert list(stream) == [] and started == []


def test_the_callback_must_be_a_plain_function() -> None:
    async def coroutine(_: object) -> None:
        """Never runs."""

    def generator(_: object) -> Any:
        yield

    for callback in (coroutine, generator, None, "text"):
        with pytest.raises(TypeError):
            create_assistant_stream(callback)  # type: ignore[arg-type]


def test_the_callback_sees_the_callers_context() -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("set")
    [_, delta, _] = create_assistant_stream(lambda controller: controller.append_text(variable.get()))
    assert delta.to_json()["textDelta"] == "set"


def test_threads_write_in_the_order_of_their_calls() -> None:
    """The calls are made under a lock that records their order, which must be that of the chunks."""
    calls, per_thread = 4, 150
    lock = threading.Lock()
    order: list[tuple[int, int]] = []

    def callback(controller: AssistantStreamController) -> None:
        def write(thread: int) -> None:
            tool = controller.add_tool_call_part(f"tool{thread}")
            for number in range(per_thread):
                tool.args_text.append(f"{number} ")
                with lock:
                    order.append((thread, number))
                    controller.enqueue({"type": "data", "data": [thread, number]})
            tool.set_response(thread)

        threads = [threading.Thread(target=write, args=(thread,)) for thread in range(calls)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
        controller.append_text("done")

    chunks = [chunk.to_json() for chunk in create_assistant_stream(callback)]
    data = [chunk["data"] for chunk in chunks if chunk["type"] == "data"]
    assert data == [list(call) for call in order]
    for part in range(calls):
        own = [chunk for chunk in chunks if chunk["path"] == [part]]
        args = "".join(str(chunk.get("textDelta", "")) for chunk in own)
        assert args == "".join(f"{number} " for number in range(per_thread))
        assert [chunk["type"] for chunk in own[-3:]] == ["result", "tool-call-args-text-finish", "part-finish"]
    assert chunks[-2]["textDelta"] == "done"


def test_values_are_copied_when_they_are_given() -> None:
    def callback(controller: AssistantStreamController) -> None:
        data = {"list": [1]}
        controller.append_data(name="d", data=data)
        data["list"].append(2)

    [start, _] = create_assistant_stream(callback)
    assert start.to_json()["part"] == {"type": "data", "name": "d", "data": {"list": [1]}}


@pytest.mark.parametrize(
    "wrong",
    [
        lambda controller: controller.append_text(b"x"),
        lambda controller: controller.append_data(name="d", data={1}),
        lambda controller: controller.append_data(name="d", data={1: 2}),
        lambda controller: controller.append_source(url="u"),
        lambda controller: controller.append_file({"data": 1}),
        lambda controller: controller.add_tool_call_part(),
        lambda controller: controller.add_tool_call_part("t", args={}, args_text="{}"),
        lambda controller: controller.add_tool_call_part("t").set_response(object()),
        lambda controller: controller.add_tool_call_part("t").set_response(1, model_content="text"),
        lambda controller: controller.enqueue({"type": "text-delta", "path": [0], "textDelta": "x"}),
        lambda controller: controller.add_tool_call_part("t").set_approval({"approved": True}),
        lambda controller: controller.add_tool_call_part("t").set_approval(id="a", approved="yes"),
        lambda controller: controller.add_text_part(provider_metadata="p"),
        lambda controller: controller.enqueue({"type": "nonsense"}),
        lambda controller: controller.enqueue({"type": "part-finish", "path": [True]}),
    ],
)
def test_wrong_arguments_are_refused_where_they_are_given(wrong: Callable[[Any], None]) -> None:
    def callback(controller: AssistantStreamController) -> None:
        with pytest.raises((TypeError, ValueError)):
            wrong(controller)

    assert all(chunk.type != "error" for chunk in create_assistant_stream(callback))


def test_a_value_within_itself_is_refused() -> None:
    endless: list[object] = []
    endless.append(endless)
    logging.disable()
    try:
        [chunk] = create_assistant_stream(
            lambda controller: controller.append_data(name="d", data=endless),
            format_error=lambda error: type(error).__name__,
        )
    finally:
        logging.disable(logging.NOTSET)
    assert chunk.to_json()["error"] == "ValueError"


def test_what_a_merged_stream_raises_reaches_the_callback() -> None:
    closed: list[bool] = []

    def source() -> Any:
        try:
            yield from chunks_of([["append_text", "a"]])[:2]
            raise OSError("broken")
        finally:
            closed.append(True)

    def callback(controller: AssistantStreamController) -> None:
        with pytest.raises(OSError, match="broken"):
            controller.merge(source())
        controller.append_text("b")

    assert shapes(create_assistant_stream(callback)) == [
        ("part-start",),
        ("text-delta", 0, "a"),
        ("part-start",),
        ("text-delta", 1, "b"),
        ("part-finish", 0),
        ("part-finish", 1),
    ]
    assert closed == [True]


def test_with_blocks_close_parts_unless_an_error_passes() -> None:
    def callback(controller: AssistantStreamController) -> None:
        with controller.add_text_part() as part, controller.add_tool_call_part("t") as tool:
            part.append("x")
            tool.args_text.append("{}")
        with controller.add_text_part() as part:
            raise OSError

    assert shapes(create_assistant_stream(callback))[-3:] == [("part-start",), ("error",), ("part-finish", 2)]


def test_what_breaks_a_wait_is_called_when_the_reader_goes() -> None:
    waits, woken, after = threading.Event(), threading.Event(), threading.Event()
    raised: list[BaseException] = []

    def callback(controller: AssistantStreamController) -> None:
        with controller.on_cancel(after.set):  # over before the reader goes
            controller.append_text("a")
        try:
            with controller.on_cancel(woken.set):
                waits.set()
                assert woken.wait(WAIT)
                controller.append_text("b")
        except BaseException as error:
            raised.append(error)
            raise
        finally:
            waits.set()

    stream = create_assistant_stream(callback)
    next(stream)
    assert waits.wait(WAIT)
    thread = stream._thread
    stream.close()
    assert thread is not None
    thread.join(WAIT)
    assert isinstance(raised[0], StreamCancelledError) and not after.is_set()


def test_a_wait_is_broken_at_once_where_the_reader_has_gone() -> None:
    stream, controller = create_assistant_stream_controller()
    stream.close()
    woken = threading.Event()
    with controller.on_cancel(woken.set):
        assert woken.is_set()


def test_one_that_fails_keeps_none_of_the_others_from_being_called(caplog: pytest.LogCaptureFixture) -> None:
    stream, controller = create_assistant_stream_controller()
    woken = threading.Event()
    with controller.on_cancel(lambda: [][0]), controller.on_cancel(woken.set):
        stream.close()
    assert woken.is_set() and "IndexError" in caplog.text


@pytest.mark.parametrize("answered", [True, False])
def test_why_a_message_ends_is_told_at_its_end(answered: bool) -> None:
    def callback(controller: AssistantStreamController) -> None:
        controller.set_finish("length", {"inputTokens": 1, "outputTokens": 2})
        call = controller.add_tool_call_part("t", tool_call_id="x", args={})
        assert controller.has_tool_call("x") and not controller.has_tool_call("y")
        controller.set_finish("tool-calls", {"inputTokens": 10, "reasoningTokens": 3})
        if answered:
            call.set_response(1)

    *_, last = create_assistant_stream(callback)
    if answered:
        assert last.type == "part-finish"
    else:
        total = {"inputTokens": 11, "outputTokens": 2, "reasoningTokens": 3}
        told = {"type": "message-finish", "path": [], "finishReason": "tool-calls", "usage": total}
        assert last.to_json() == told


def test_a_message_that_fails_does_not_tell_why_it_would_have_ended() -> None:
    def callback(controller: AssistantStreamController) -> None:
        controller.set_finish("stop")
        raise OSError

    assert [chunk.type for chunk in create_assistant_stream(callback)] == ["error"]
