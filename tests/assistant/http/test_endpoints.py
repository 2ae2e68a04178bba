"""The endpoints without a server: routes, permissions, bodies, other origins, Flask."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Mapping
from typing import Any

import flask
import pytest

from resumable_sync import ResumableStreamContext
from resumable_sync.assistant import (
    AssistantEndpoints,
    AssistantStreamController,
    ChatRequest,
    UIMessageStreamDecoder,
    assistant_blueprint,
    read_assistant_message,
)
from resumable_sync.assistant.formats.registry import FORMATS
from resumable_sync.assistant.newest import ActiveStreams
from resumable_sync.contract import Status
from resumable_sync.wsgi import ViewerCap

from ...wsgi.support import wait_until
from ..formats.programs import accumulate
from .support import Script, call

SEND = {"id": "c", "messages": [{"role": "user", "parts": []}]}
PROTOCOLS = [name for name, format in FORMATS.items() if format.front_end is not None]
TRANSPORTS = [name for name in PROTOCOLS if FORMATS[name].front_end == "transport"]


def endpoints(context: ResumableStreamContext, answer: Any, **options: Any) -> AssistantEndpoints:
    options.setdefault("authorize", None)
    return AssistantEndpoints(context, answer, **options)


def test_a_chat(context: ResumableStreamContext) -> None:
    script = Script("Hel")
    app = endpoints(context, script)
    assert call(app, "GET", "/c/stream").status == 204
    sent = call(app, "POST", "/", SEND)
    stream_id = sent.headers["x-resumable-stream-id"]
    assert sent.headers["x-vercel-ai-ui-message-stream"] == "v1"
    sent.read_until(b"Hel")
    sent.close()
    resumed, by_id = call(app, "GET", "/c/stream"), call(app, "GET", f"/streams/{stream_id}")
    assert resumed.headers["x-resumable-stream-id"] == stream_id
    script.put("lo")
    script.put(None)
    body = resumed.read()
    assert body == by_id.read()
    assert accumulate(UIMessageStreamDecoder().decode([body]))["parts"][0]["text"] == "Hello"
    assert context.status(stream_id) is Status.DONE
    idle = call(app, "GET", "/c/stream")
    assert (idle.status, idle.read()) == (204, b"")
    assert call(app, "GET", f"/streams/{stream_id}").read() == body
    assert app.newest_stream("c") == stream_id and script.runs == 1


def test_a_finished_older_stream_does_not_hide_a_newer_one(context: ResumableStreamContext) -> None:
    scripts = [Script("one"), Script("two")]
    given = iter(scripts)
    app = endpoints(context, lambda controller, request: next(given)(controller))
    older = call(app, "POST", "/", SEND)
    older.read_until(b"one")
    newer = call(app, "POST", "/", SEND)
    newer.read_until(b"two")
    scripts[0].put(None)
    older.read()
    resumed = call(app, "GET", "/c/stream")
    assert resumed.headers["x-resumable-stream-id"] == newer.headers["x-resumable-stream-id"]
    assert b"two" in resumed.read_until(b"two")
    scripts[1].put(None)
    resumed.read()
    assert call(app, "GET", "/c/stream").status == 204


@pytest.mark.parametrize(("method", "path"), [("POST", "/c/stop"), ("DELETE", "/c/stop"), ("DELETE", "/c/stream")])
def test_stop(context: ResumableStreamContext, method: str, path: str) -> None:
    script = Script("Hel")
    app = endpoints(context, script)
    assert call(app, method, path).read() == b'{"stopped":false}'
    sent = call(app, "POST", "/", SEND)
    sent.read_until(b"Hel")
    assert call(app, method, path, query="stream=msg-another").read() == b'{"stopped":false}'
    stream_id = sent.headers["x-resumable-stream-id"]
    assert call(app, method, path, query=f"stream={stream_id}").read() == b'{"stopped":true}'
    assert sent.read().endswith(b'{"type":"finish","finishReason":"other"}\n\ndata: [DONE]\n\n')
    assert script.stopped.wait(20)
    assert call(app, method, path).read() == b'{"stopped":false}'
    assert call(app, "GET", "/c/stream").read() == call(app, "GET", f"/streams/{stream_id}").read()
    assert read_assistant_message(context, stream_id)["status"]["type"] == "incomplete"


def test_any_text_names_a_chat(context: ResumableStreamContext) -> None:
    for chat_id in ("ü/€ 😀", "a/b/stream", "streams", "stop", "x" * 1024):
        script = Script("x")
        app = endpoints(context, script)
        sent = call(app, "POST", "", {"id": chat_id, "messages": []})
        sent.read_until(b"x")
        resumed = call(app, "GET", f"/{chat_id}/stream")
        assert resumed.headers["x-resumable-stream-id"] == sent.headers["x-resumable-stream-id"]
        assert call(app, "POST", f"/{chat_id}/stop").read() == b'{"stopped":true}'


@pytest.mark.parametrize("malformed", ["-end", "x"])
def test_what_is_no_cursor_is_refused(context: ResumableStreamContext, malformed: str) -> None:
    script = Script("Hel")
    app = endpoints(context, script)
    sent = call(app, "POST", "/", SEND, query=f"after={malformed}", last_event_id=malformed)
    stream_id = sent.headers["x-resumable-stream-id"]  # a new message has no cursor, so it is not asked for one
    for path in ("/c/stream", f"/streams/{stream_id}"):
        assert call(app, "GET", path, query=f"after={malformed}").status == 400
        assert call(app, "GET", path, last_event_id=malformed).status == 400
    script.put(None)
    sent.read()
    assert script.runs == 1


def test_what_the_answer_is_given(context: ResumableStreamContext) -> None:
    seen: list[ChatRequest] = []
    app = endpoints(context, lambda controller, request: seen.append(request))
    sent = call(app, "POST", "/", {**SEND, "extra": 1}, user_agent="me")
    sent.read()
    (request,) = seen
    assert (request.chat_id, request.messages, request.commands) == ("c", SEND["messages"], [])
    assert request.body["extra"] == 1 and request.environ["HTTP_USER_AGENT"] == "me"
    assert request.stream_id == sent.headers["x-resumable-stream-id"]


def test_the_name_of_the_message(context: ResumableStreamContext) -> None:
    """Its own, unless it goes on with the last message: after a tool's result came from the client."""
    app = endpoints(context, lambda controller, request: controller.append_text("x"))
    names = []
    for last in ({"role": "user", "id": "u"}, {"role": "assistant", "id": "a"}, {"role": "user", "id": "u"}):
        body = call(app, "POST", "/", {"id": "c", "messages": [last]}).read()
        names.append(json.loads(body.split(b"\n")[0].removeprefix(b"data: "))["messageId"])
    assert names[1] == "a" and len(set(names)) == 3 and "u" not in names


def test_authorize(context: ResumableStreamContext) -> None:
    asked: list[tuple[str, str, str]] = []

    def authorize(environ: Mapping[str, Any], chat_id: str, action: str) -> bool:
        asked.append((environ.get("HTTP_AUTHORIZATION", ""), chat_id, action))
        return environ.get("HTTP_AUTHORIZATION") == "me"

    script = Script("x")
    app = endpoints(context, script, authorize=authorize)
    sent = call(app, "POST", "/", SEND, authorization="me")
    sent.read_until(b"x")
    stream_id = sent.headers["x-resumable-stream-id"]
    for method, path, body, action in (
        ("POST", "/", SEND, "send"),
        ("GET", "/c/stream", None, "resume"),
        ("POST", "/c/stop", None, "stop"),
        ("DELETE", "/c/stream", None, "stop"),
        ("GET", f"/streams/{stream_id}", None, "resume"),
    ):
        reply = call(app, method, path, body)
        assert (reply.status, reply.read()) == (403, b'{"error":"forbidden"}')
        assert asked[-1] == ("", "c", action)
        if action != "send":
            assert call(app, method, path, body, authorization="me").status == 200
            assert asked[-1] == ("me", "c", action)
    assert script.runs == 1 and len(list(context.store.streams())) == 1


def test_streams_that_are_no_chats_of_these_endpoints_are_not_shown(context: ResumableStreamContext) -> None:
    app = endpoints(context, Script())
    assert list(context.run("private", lambda: [b"secret"])) == [b"secret"]
    others = call(endpoints(context, Script(None), scope="other"), "POST", "/", SEND)
    others.read()
    for path in ("/streams/private", "/streams/none", f"/streams/{others.headers['x-resumable-stream-id']}"):
        reply = call(app, "GET", path)
        assert (reply.status, reply.read()) == (404, b'{"error":"stream not found"}')
        assert "x-resumable-stream-id" not in reply.headers


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_bad_requests(context: ResumableStreamContext, protocol: str) -> None:
    app = endpoints(context, Script(), protocol=protocol, max_body_bytes=200, cors_origins="*")
    cases: list[tuple[int, Any, dict[str, str]]] = [
        (400, b"", {}),
        (400, b"{", {}),
        (400, b"[]", {}),
        (400, b"\xff", {}),
        (400, b"[" * 200, {}),
        (413, b'{"a":"' + b"x" * 200 + b'"}', {}),
        (415, b"{}", {"content_type": "text/plain"}),
        (415, b"{}", {"content_type": ""}),
    ]
    if protocol == "ui-message-stream":
        cases += [(400, {}, {}), (400, {"id": ""}, {}), (400, {"id": 5}, {}), (400, {"id": "\ud800"}, {})]
    else:
        cases += [(400, {"threadId": ""}, {}), (400, {"threadId": 5}, {})]
    for status, body, headers in cases:
        reply = call(app, "POST", "/", body, **headers)
        assert reply.status == status and set(json.loads(reply.read())) == {"error"}
        assert reply.headers["access-control-allow-origin"] == "*"
    for method, path, status in (("PUT", "/", 405), ("GET", "/", 405), ("POST", "/a/b", 404)):
        assert call(app, method, path).status == status
    assert list(context.store.streams()) == []


def test_a_body_without_a_length(context: ResumableStreamContext) -> None:
    app = endpoints(context, lambda controller, request: None, max_body_bytes=100)

    def send(body: bytes, **more: Any) -> int:
        statuses: list[str] = []
        environ = {
            "REQUEST_METHOD": "POST",
            "PATH_INFO": "/",
            "CONTENT_TYPE": "application/json",
            "wsgi.input": io.BytesIO(body),
            **more,
        }
        answer: Any = app(environ, lambda status, headers, exc_info=None: statuses.append(status))  # type: ignore
        b"".join(answer)
        return int(statuses[0][:3])

    assert send(b'{"id":"c"}') == 400
    assert send(b'{"id":"c"}', **{"wsgi.input_terminated": True}) == 200
    assert send(b'{"id":"' + b"c" * 100 + b'"}', **{"wsgi.input_terminated": True}) == 413
    assert send(b'{"id":"c"}', CONTENT_LENGTH="9" * 30) == 413
    assert send(b'{"id":"c"', CONTENT_LENGTH="10") == 400


def test_other_origins(context: ResumableStreamContext) -> None:
    app = endpoints(context, Script("x"), cors_origins=["https://a.example"], cors_credentials=True)
    asked = {"access_control_request_headers": "content-type,x-mine"}
    allowed = call(app, "OPTIONS", "/c/stream", origin="https://a.example", **asked)
    assert allowed.status == 204 and allowed.headers["access-control-allow-origin"] == "https://a.example"
    assert allowed.headers["access-control-allow-headers"] == "content-type,x-mine"
    assert "DELETE" in allowed.headers["access-control-allow-methods"]
    assert allowed.headers["access-control-allow-credentials"] == "true" and allowed.headers["vary"] == "Origin"
    refused = call(app, "OPTIONS", "/c/stream", origin="https://b.example", **asked)
    assert not any(name.startswith("access-control") for name in refused.headers)
    forged = call(app, "OPTIONS", "/", origin="https://a.example", access_control_request_headers="a\r\nb: c")
    assert forged.headers["access-control-allow-headers"] == "content-type"
    for reply in (
        call(app, "POST", "/", SEND, origin="https://a.example"),
        call(app, "GET", "/c/stream", origin="https://a.example"),
        call(app, "GET", "/d/stream", origin="https://a.example"),
        call(app, "GET", "/streams/x", origin="https://a.example"),
    ):
        assert reply.headers["access-control-allow-origin"] == "https://a.example"
        assert {name.strip().lower() for name in reply.headers["access-control-expose-headers"].split(",")} >= {
            "x-resumable-stream-id",
            "x-vercel-ai-data-stream",
            "x-vercel-ai-ui-message-stream",
            "aui-replay-content-length",
        }
    none = call(endpoints(context, Script("x")), "GET", "/d/stream", origin="https://a.example")
    assert not any(name.startswith("access-control") for name in none.headers)
    with pytest.raises(ValueError):
        endpoints(context, Script(), cors_origins="*", cors_credentials=True)
    with pytest.raises(ValueError):
        endpoints(context, Script(), protocol="smoke signals")


@pytest.mark.parametrize("protocol", TRANSPORTS)
def test_the_assistant_transport(context: ResumableStreamContext, protocol: str) -> None:
    def begin(controller: AssistantStreamController) -> None:
        controller.state["list"].append(2)

    script = Script(begin, "Hel")
    app = endpoints(context, script, protocol=protocol)
    assert call(app, "POST", "/resume-state", {"threadId": "t"}).status == 204
    assert call(app, "POST", "/resume-state", {}).status == 204
    assert call(app, "POST", "/resume", {"threadId": "t", "commands": []}).status == 404
    sent = call(app, "POST", "/", {"threadId": "t", "state": {"list": [1]}, "commands": []})
    begun = sent.read_until(b"Hel")
    state = call(app, "POST", "/resume-state", {"threadId": "t"})
    stream_id = sent.headers["x-resumable-stream-id"]
    assert json.loads(state.read()) == {"state": {"list": [1]}, "runId": stream_id}
    resumed = [
        call(app, "POST", "/resume", {"threadId": "t", "commands": [], "runId": stream_id}),
        call(app, "POST", "/resume", {"threadId": "t", "commands": []}),
    ]
    assert [reply.headers["aui-replay-content-length"] for reply in resumed] == [str(len(begun))] * 2
    assert call(app, "POST", "/resume", {"threadId": "u", "runId": stream_id}).status == 404
    assert call(app, "POST", "/resume", {"threadId": "t", "runId": 5}).status == 400
    assert call(app, "POST", "/stop", {"threadId": "t", "stream": "msg-x"}).read() == b'{"stopped":false}'
    assert call(app, "POST", "/stop", {"threadId": "t"}).read() == b'{"stopped":true}'
    whole = begun + sent.read()
    assert [reply.read() for reply in resumed] == [whole, whole]
    assert read_assistant_message(context, stream_id)["metadata"]["unstable_state"] == {"list": [1, 2]}
    again = call(app, "POST", "/resume-state", {"threadId": "t"})  # it was stopped, and is not told as complete
    assert json.loads(again.read()) == {"state": {"list": [1]}, "runId": stream_id}
    assert call(app, "POST", "/resume", {"threadId": "t", "runId": stream_id}).read() == whole


def test_a_stream_that_ends_before_it_has_begun_has_no_state(context: ResumableStreamContext) -> None:
    """Its producer died at once: there is nothing to resume."""
    app = endpoints(context, Script(), protocol="data-stream")
    ActiveStreams(context.store).begin("t", "s").end()
    lease = context.store.acquire("s")
    assert lease is not None
    canceller = threading.Timer(0.1, lambda: context.cancel("s"))
    canceller.start()
    assert call(app, "POST", "/resume-state", {"threadId": "t"}).status == 204
    canceller.join()


def test_a_thread_without_a_name(context: ResumableStreamContext) -> None:
    app = endpoints(context, lambda controller, request: controller.append_text("x"), protocol="data-stream")
    assert b'"x"' in call(app, "POST", "/", {"commands": [], "state": None}).read()
    assert len(list(context.store.streams())) == 1


def test_a_refused_message_leaves_the_running_one(context: ResumableStreamContext) -> None:
    """No place for another viewer: the chat's newest stream stays what it was."""
    app = endpoints(context, Script("x"), viewers=ViewerCap(1))
    sent = call(app, "POST", "/", SEND)
    sent.read_until(b"x")
    assert call(app, "POST", "/", SEND).status == 503
    assert app.newest_stream("c") == sent.headers["x-resumable-stream-id"]
    sent.close()
    assert call(app, "GET", "/c/stream").status == 200


def test_under_a_prefix(context: ResumableStreamContext) -> None:
    app = endpoints(context, Script("x"), prefix="/api/chat/")
    assert call(app, "POST", "/api/chat", SEND).status == 200
    assert call(app, "GET", "/api/chat/c/stream").status == 200
    assert call(app, "GET", "/api/chatc/stream").status == 404
    assert call(app, "POST", "/", SEND).status == 404


def test_as_a_flask_blueprint(context: ResumableStreamContext) -> None:
    script = Script("Hel")
    app = flask.Flask(__name__)
    blueprint = assistant_blueprint(endpoints(context, script, cors_origins="*"))
    app.register_blueprint(blueprint, url_prefix="/api/chat")

    @app.before_request
    def login() -> Any:
        return None if flask.request.headers.get("X-User") else ("who?", 401)

    client = app.test_client()
    client.environ_base["HTTP_X_USER"] = "me"
    sent = client.post("/api/chat", json={**SEND, "id": "a/ü"})
    assert sent.status_code == 200 and sent.headers["x-vercel-ai-ui-message-stream"] == "v1"
    resumed = client.get("/api/chat/a/%C3%BC/stream")
    assert resumed.headers["x-resumable-stream-id"] == sent.headers["x-resumable-stream-id"]
    assert client.options("/api/chat/c/stream").headers["access-control-allow-origin"] == "*"
    assert client.post("/api/chat/a/%C3%BC/stop").json == {"stopped": True}
    assert resumed.data == sent.data and resumed.data.endswith(b"[DONE]\n\n")
    assert client.post("/api/chat/", json=[]).status_code == 400
    assert client.get("/api/chat/a/%C3%BC/stream", headers={"X-User": ""}).status_code == 401
    for response in (sent, resumed):
        response.close()


def test_what_is_being_saved_is_replayed_also_where_endings_are_not(context: ResumableStreamContext) -> None:
    saving, saved = threading.Event(), threading.Event()

    def on_finish(*_: object) -> None:
        saving.set()
        assert saved.wait(30)

    app = endpoints(context, Script("x", None), on_finish=on_finish, ending_seconds=0)
    sent = call(app, "POST", "/", SEND).read()
    assert saving.wait(30)
    assert call(app, "GET", "/c/stream").read() == sent
    saved.set()
    wait_until(lambda: call(app, "GET", "/c/stream").status == 204)


@pytest.mark.parametrize("protocol", TRANSPORTS)
def test_a_key_without_chat_and_user_is_nobodys(context: ResumableStreamContext, protocol: str) -> None:
    users: list[str | bool] = [True, True, "ann", "bob", "ann"]
    given = iter(users)
    answers = Script("one", None, "two", None, "of ann", None, "of bob", None)
    app = endpoints(context, answers, protocol=protocol, authorize=lambda *_: next(given))
    ids = []
    for _ in users:
        reply = call(app, "POST", "/", {"commands": []}, idempotency_key="1")
        reply.read()
        ids.append(reply.headers["x-resumable-stream-id"])
    assert answers.runs == 4 and len(set(ids)) == 4
    assert ids[2] == ids[4]
