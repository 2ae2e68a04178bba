"""The two response helpers: what is replayed, what the headers say, how endings that are not `done` look."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import flask
import pytest

from resumable_sync import MemoryStore, ResumableStreamContext
from resumable_sync.assistant import (
    RESUMABLE_STREAM_ID_HEADER,
    AssistantStreamChunk,
    AssistantStreamController,
    AssistantTransportEncoder,
    DataStreamEncoder,
    PlainTextEncoder,
    UIMessageStreamEncoder,
    create_resumable_assistant_stream_response,
    create_resume_assistant_stream_response,
    read_assistant_message,
)
from resumable_sync.assistant.formats.registry import FORMATS
from resumable_sync.contract import Status
from resumable_sync.wsgi import ResponseAbortedError

from ..formats.programs import (
    CASES,
    DECODERS,
    ENCODERS,
    JAVASCRIPT_FORMATS,
    accumulate,
    body_of,
    callback_of,
    normalized,
    written_steps,
)
from .support import Hooks, Script, call, unescaped

ENDING = [format_name for format_name in FORMATS if FORMATS[format_name].closes]

each_format = pytest.mark.parametrize("format_name", FORMATS)


def create(context: ResumableStreamContext, callback: Any, **options: Any) -> Any:
    options.setdefault("stream_id", "s")
    return create_resumable_assistant_stream_response(context=context, callback=callback, **options)


def resume(context: ResumableStreamContext, **options: Any) -> Any:
    options.setdefault("stream_id", "s")
    return create_resume_assistant_stream_response(context=context, **options)


@pytest.mark.parametrize("format_name", JAVASCRIPT_FORMATS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_golden_cases(context: ResumableStreamContext, hooks: Hooks, case: Any, format_name: str) -> None:
    """Live, joined, resumed: always the bytes and headers of the example. The store says `done`."""
    options: Any = {"encoder": ENCODERS[format_name], "format_error": lambda error: f"Error: {error}"}
    expected = {**case["encoders"][format_name], "body": body_of(case, format_name)}
    callback = callback_of(case["ops"])
    live = call(create(context, callback, **options))
    replies = [(live, live.read())]
    for response in (create(context, callback, **options), resume(context)):
        reply = call(response)
        replies.append((reply, reply.read()))
    names = set(expected["headers"]) - {"connection", "content-type"}
    for reply, body in replies:
        assert reply.status == 200 and unescaped(body) == unescaped(expected["body"].encode())
        assert body == replies[0][1]
        assert {name: reply.headers[name] for name in names} == {name: expected["headers"][name] for name in names}
        assert reply.headers["content-type"].startswith(expected["headers"]["content-type"])
        assert "connection" not in reply.headers and reply.headers[RESUMABLE_STREAM_ID_HEADER] == "s"
    assert replies[-1][0].headers["content-length"] == str(len(replies[0][1]))
    assert hooks.ended() == ("s", Status.DONE, None)
    message = normalized(read_assistant_message(context, "s"))
    assert written_steps(message, format_name) == written_steps(case["messages"][format_name], format_name)
    thrown = [operation[1] for operation in case["ops"] if operation[0] == "throw"]
    assert [str(error) for _, error in hooks.errors] == thrown


def test_one_callback_for_all_and_live_viewers(context: ResumableStreamContext) -> None:
    script = Script("Hel")
    first = call(create(context, script))
    begun = first.read_until(b"Hel")
    second, third = call(create(context, script)), call(resume(context))
    assert second.read_until(b"Hel") == third.read_until(b"Hel") == begun
    assert third.headers["aui-replay-content-length"] == str(len(begun))
    first.close()
    script.put("lo")
    script.put(None)
    assert second.read() == third.read() == b'0:"lo"\n'
    assert script.runs == 1


def test_the_users_headers_override_the_encoders(context: ResumableStreamContext) -> None:
    headers = {
        "X-Resumable-Stream-Id": "forged",
        "Cache-Control": "private",
        "content-type": "text/x-mine",
        "X-Own": "1",
    }
    encoder = AssistantTransportEncoder
    reply = call(create(context, Script("x", None), headers=headers, encoder=encoder))
    reply.read()
    again = call(resume(context))
    for answer in (reply, again):
        assert [value for name, value in answer.pairs if name.lower() == RESUMABLE_STREAM_ID_HEADER] == ["s"]
        assert [value for name, value in answer.pairs if name.lower() == "content-type"] == ["text/x-mine"]
        assert [value for name, value in answer.pairs if name.lower() == "cache-control"] == ["private"]
    assert reply.headers["x-own"] == "1" and "x-own" not in again.headers
    other = call(resume(context, headers={"Content-Type": "text/y"}))
    assert [value for name, value in other.pairs if name.lower() == "content-type"] == ["text/y"]
    with pytest.raises(ValueError):
        create(context, Script(), headers={"Connection": "keep-alive"})
    with pytest.raises(ValueError):
        create(context, Script(), headers={"X": "a\r\nSet-Cookie: b"})


def test_who_joins_gets_the_headers_of_what_is_stored(context: ResumableStreamContext) -> None:
    call(create(context, Script("x", None), encoder=AssistantTransportEncoder)).read()
    joined = call(create(context, Script(), encoder=PlainTextEncoder))
    resumed = call(resume(context, encoder=PlainTextEncoder))
    for reply in (joined, resumed):
        assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert reply.read().endswith(b"data: [DONE]\n\n")


def test_a_missing_stream(context: ResumableStreamContext) -> None:
    cors = {"Access-Control-Allow-Origin": "*"}
    reply = call(resume(context, headers=cors))
    assert (reply.status, reply.read()) == (404, b'{"error":"stream not found"}')
    assert reply.headers["content-type"] == "application/json"
    none = call(resume(context, missing_response=204, headers=cors))
    assert (none.status, none.read()) == (204, b"")
    own = call(resume(context, missing_response=flask.Response("gone", 410)))
    assert (own.status, own.read()) == (410, b"gone")
    for answer in (reply, none):
        # assistant-ui notes the id in any response, and would ask for this stream again and again.
        assert RESUMABLE_STREAM_ID_HEADER not in answer.headers
        assert answer.headers["access-control-allow-origin"] == "*"
    assert call(resume(context, stream_id="not an id")).status == 400
    with pytest.raises(ValueError):
        resume(context, missing_response=302)


@pytest.mark.parametrize(
    "kept",
    [
        '{"content-type":"a\\r\\nSet-Cookie: x"}',
        '{"content-type":5}',
        '{"a b":"c"}',
        '{"content-length":"3"}',
        '[["content-type"]]',
        "null",
        "no json",
    ],
)
def test_kept_headers_that_no_response_can_have(context: ResumableStreamContext, kept: str) -> None:
    assert b"".join(context.run("s", lambda: [b'0:"a"\n'], metadata={"assistant-headers": kept})) == b'0:"a"\n'
    for method in ("GET", "HEAD"):
        reply = call(resume(context), method)
        assert reply.status == 200 and reply.headers["content-type"] == DataStreamEncoder().headers["Content-Type"]


@pytest.mark.parametrize("malformed", ["-end", "-end-end", "x", "-1-end"])
def test_what_is_no_cursor_is_refused(context: ResumableStreamContext, malformed: str) -> None:
    call(create(context, Script("a", None))).read()
    for method in ("GET", "HEAD"):
        assert call(resume(context, after=malformed), method).status == 400
        assert call(resume(context), method, query=f"after={malformed}").status == 400
        assert call(resume(context), method, last_event_id=malformed).status == 400
        assert call(resume(context, missing_response=204, stream_id="t"), last_event_id=malformed).status == 400


def test_head_starts_nothing(context: ResumableStreamContext) -> None:
    script = Script()
    reply = call(create(context, script, encoder=UIMessageStreamEncoder), "HEAD")
    assert (reply.status, reply.read(), context.status("s")) == (200, b"", Status.MISSING)
    assert reply.headers["x-vercel-ai-ui-message-stream"] == "v1"


@each_format
def test_an_exception_is_masked_for_viewers_and_told_to_the_hook(
    context: ResumableStreamContext, hooks: Hooks, format_name: str
) -> None:
    failure = ValueError("secret")
    body = call(create(context, Script("text", failure), encoder=ENCODERS[format_name])).read()
    assert b"secret" not in body and (b"An error occurred." in body) == (format_name != "plain-text")
    assert hooks.ended() == ("s", Status.DONE, None)
    assert hooks.errors == [("s", failure)]
    message = read_assistant_message(context, "s")
    if format_name != "plain-text":
        error = {"code": "unknown", "message": "An error occurred."}
        assert message["status"] == {"type": "incomplete", "reason": "error", "error": error}
    told = call(
        create(
            context,
            Script(failure),
            stream_id="t",
            encoder=ENCODERS[format_name],
            format_error=lambda error: f"told: {error}",
        )
    ).read()
    assert (b"told: secret" in told) == (format_name != "plain-text")


def test_an_encoder_that_fails_is_an_error_of_the_stream(context: ResumableStreamContext, hooks: Hooks) -> None:
    class Failing(AssistantTransportEncoder):
        def encode(self, chunks: Iterable[AssistantStreamChunk]) -> Any:
            for chunk, piece in zip(chunks, super().encode(iter(chunks))):
                yield piece
                raise ZeroDivisionError("secret")

    reply = call(create(context, Script("x", None), encoder=Failing))
    body = reply.read()
    assert hooks.ended()[1] is Status.ERROR and isinstance(hooks.errors[0][1], ZeroDivisionError)
    assert b"An error occurred." in body and b"secret" not in body and body.endswith(b"data: [DONE]\n\n")


def interrupt(context: ResumableStreamContext, script: Script) -> None:
    """End the stream as another process does that finds its producer dead: with what it had stored."""
    info = context.info("s")
    assert info is not None and script.lease is not None
    context.store.finalize(replace(script.lease, offset=info.size), Status.INTERRUPTED)


@pytest.mark.parametrize("format_name", ENDING)
@pytest.mark.parametrize("how", ["cancelled", "interrupted"])
def test_a_stream_that_was_ended_from_outside_closes_its_message(
    context: ResumableStreamContext, hooks: Hooks, format_name: str, how: str
) -> None:
    """Open text, an open tool call: every viewer gets what is stored and then the same closing frames."""

    def begin(controller: AssistantStreamController) -> None:
        controller.append_text("part")
        controller.add_tool_call_part(tool_call_id="t", tool_name="look").args_text.append('{"a":')

    script = Script(begin)
    live = call(create(context, script, encoder=ENCODERS[format_name]))
    begun = live.read_until(b'{\\"a\\":')
    context.cancel("s") if how == "cancelled" else interrupt(context, script)
    rest = live.read()
    info = context.info("s")
    assert info is not None and info.status == how and info.size == len(begun)
    assert rest and rest.endswith(b"\n")
    replayed = call(resume(context))
    assert replayed.read() == begun + rest and "content-length" not in replayed.headers
    later = call(resume(context, after=f"{info.generation}-{info.size - 3}"))
    assert later.read() == begun[-3:] + rest
    message = accumulate(DECODERS[format_name]().decode([begun, rest]))
    assert message["status"]["type"] == "incomplete" and message["parts"][0]["text"] == "part"
    assert message["status"]["reason"] == ("error" if how == "interrupted" else "other")
    stored = normalized(read_assistant_message(context, "s"))
    assert stored == normalized(message)
    if how == "cancelled":
        assert script.stopped.wait(20) and hooks.ended()[1] is Status.CANCELLED
        assert hooks.errors == []


def test_all_viewers_are_told_the_same_name_of_a_message_that_never_began(context: ResumableStreamContext) -> None:
    call(create(context, Script(None), encoder=lambda: UIMessageStreamEncoder("m"))).read()
    info = context.info("s")
    assert info is not None
    # What a producer leaves that dies at once:
    assert context.store.acquire("t", metadata=info.metadata) is not None
    assert context.cancel("t")
    bodies = {
        call(response).read()
        for response in (
            create(context, Script(), stream_id="t", encoder=lambda: UIMessageStreamEncoder("other")),
            resume(context, stream_id="t"),
        )
    }
    (body,) = bodies
    assert body.startswith(b'data: {"type":"start","messageId":"m"}\n\n')


def test_plain_text_ends_where_it_was_cancelled_and_is_broken_off_where_it_was_lost(
    context: ResumableStreamContext,
) -> None:
    for how in ("cancelled", "interrupted"):
        script = Script("part")
        live = call(create(context, script, encoder=PlainTextEncoder))
        live.read_until(b"part")
        context.cancel("s") if how == "cancelled" else interrupt(context, script)
        if how == "cancelled":
            assert live.read() == b""
        else:
            with pytest.raises(ResponseAbortedError):
                live.read()
        context.delete("s")


def test_a_context_that_closes_sends_its_viewers_elsewhere(context: ResumableStreamContext) -> None:
    """No closing frames: the client must not take the message for ended before the store says so."""
    live = call(create(context, Script("part"), encoder=UIMessageStreamEncoder))
    live.read_until(b"part")
    closing = threading.Thread(target=context.close)
    closing.start()
    try:
        rest = live.read()
    except ResponseAbortedError:
        rest = b""
    closing.join()
    assert context.status("s") is Status.INTERRUPTED
    assert rest == b"" or rest.endswith(b"[DONE]\n\n")  # or it was quick enough to see the ending


@pytest.mark.parametrize("format_name", FORMATS)
def test_heartbeats_are_not_stored_and_change_nothing(context: ResumableStreamContext, format_name: str) -> None:
    script = Script("before")
    live = call(create(context, script, encoder=ENCODERS[format_name], heartbeat=0.05))
    body = live.read_until(b"before")
    heartbeat = ENCODERS[format_name]().heartbeat
    if heartbeat:
        body += live.read_until(heartbeat) + live.read_until(heartbeat)
    script.put("after")
    script.put(None)
    body += live.read()
    stored = call(resume(context)).read()
    assert body.replace(heartbeat, b"") == stored if heartbeat else body == stored
    read = [normalized(accumulate(DECODERS[format_name]().decode([data]))) for data in (body, stored)]
    assert read[0] == read[1] and "before" in read[0]["parts"][0]["text"]


def test_a_heartbeat_never_goes_into_a_frame() -> None:
    """A frame is larger than the store's chunks, and its rest comes late."""
    store = MemoryStore(max_chunk_bytes=16)
    with ResumableStreamContext(store) as context:
        lease = store.acquire("s", metadata={})
        assert lease is not None
        store.append(lease, b'0:"half of')
        live = call(resume(context, encoder=DataStreamEncoder, heartbeat=0.05))
        assert live.read_until(b"of") == b'0:"half of'
        pieces = iter(live.body)
        assert [next(pieces), next(pieces)] == [b"", b""]
        store.append(lease, b' it"\n')
        assert live.read_until(b"\n") == b' it"\n'
        assert next(pieces) == b"2:[]\n"
        store.finalize(lease, "done")
    store.close()


@each_format
def test_a_running_message_is_read_so_far(context: ResumableStreamContext, format_name: str) -> None:
    live = call(create(context, Script("so far"), encoder=ENCODERS[format_name]))
    live.read_until(b"so far")
    message = read_assistant_message(context, "s")
    assert message["parts"][0]["text"] == "so far" and message["status"]["type"] == "running"
    context.cancel("s")
    live.close()


class Upper:
    """An application's own format."""

    heartbeat = b"\n"
    made = 0

    def __init__(self) -> None:
        Upper.made += 1

    @property
    def headers(self) -> dict[str, str]:
        return {"Content-Type": "text/x-upper", "X-Upper": "yes"}

    def encode(self, chunks: Iterable[AssistantStreamChunk]) -> Iterator[bytes]:
        for chunk in chunks:
            text = chunk.to_json().get("textDelta")
            if isinstance(text, str):
                yield text.upper().encode() + b"\n"

    def closing_frames(self, stored: Iterable[bytes], status: str, text: str = "") -> bytes:
        return f"{status} after {len(b''.join(stored))}\n".encode()


def test_a_format_of_the_applications_own(context: ResumableStreamContext) -> None:
    Upper.made = 0
    live = call(create(context, Script("a"), encoder=Upper))
    assert live.read_until(b"A\n") and live.headers["content-type"] == "text/x-upper"
    context.cancel("s")
    assert live.read() == b"cancelled after 2\n"
    again = call(resume(context, encoder=Upper))
    assert again.headers["x-upper"] == "yes" and again.read() == b"A\ncancelled after 2\n"
    unknown = call(resume(context))
    with pytest.raises(ResponseAbortedError):
        unknown.read()
    call(create(context, Script("b", None), encoder=Upper, stream_id="t")).read()
    assert Upper.made == 5  # afresh for each: two responses (and two streams), one resumed
    for wrong in (Upper(), "data-stream"):
        with pytest.raises(TypeError):
            create(context, Script(), encoder=wrong)


def test_what_cannot_be_a_callback_is_refused_at_once(context: ResumableStreamContext) -> None:
    async def coroutine(controller: AssistantStreamController) -> None:
        """Never runs."""

    for wrong in (None, coroutine):
        with pytest.raises(TypeError):
            create(context, wrong)
    assert context.status("s") is Status.MISSING


@each_format
def test_tool_calls_that_run_beside_each_other_appear_in_call_order(
    context: ResumableStreamContext, format_name: str
) -> None:
    """Tools run in threads while the stream is open and answer in any order; the calls keep theirs."""

    def answer(controller: AssistantStreamController) -> None:
        controller.append_text("begin")
        finish = [threading.Event() for _ in range(6)]
        threads = []
        for number in range(6):
            part = controller.add_tool_call_part(tool_call_id=f"t{number}", tool_name="work", args={"n": number})

            def work(part: Any = part, number: int = number) -> None:
                assert finish[number].wait(20)
                part.set_response({"n": number})
                if number:
                    finish[number - 1].set()

            threads.append(threading.Thread(target=work))
            threads[-1].start()
        controller.append_text("meanwhile")
        finish[-1].set()
        for thread in threads:
            thread.join(20)
        controller.append_text("end")

    body = call(create(context, answer, encoder=ENCODERS[format_name])).read()
    if format_name == "plain-text":
        assert body == b"beginmeanwhileend"
        return
    parts = accumulate(DECODERS[format_name]().decode([body]))["parts"]
    assert [part.get("toolCallId", part.get("text")) for part in parts] == [
        "begin",
        *(f"t{number}" for number in range(6)),
        "meanwhileend",
    ]
    assert [part["result"] for part in parts if part["type"] == "tool-call"] == [{"n": n} for n in range(6)]
    told = body.replace(b'\\"', b'"').replace(b':"{', b":{")  # where a result is a text of JSON
    answers = [told.index(b':{"n":%d}' % number, told.index(b"meanwhile")) for number in range(6)]
    assert answers == sorted(answers, reverse=True)
