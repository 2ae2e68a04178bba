"""Ready endpoints for the front ends that people use, as one WSGI application per chat interface.

`protocol="ui-message-stream"`, for the AI SDK's `useChat({resume: true})` and for assistant-ui's
`AssistantChatTransport`; paths below where the application is mounted (`api` in the front end):

    POST    /                   a message: JSON with `id` (the chat) and `messages`; answers the stream
    GET     /{chat}/stream      the chat's newest stream while it runs, and after it as told below, else 204
    GET     /streams/{stream}   a stream by its id, else 404 (assistant-ui's `resumeApi`)
    POST    /{chat}/stop        stops the chat's newest stream: {"stopped": true or false}; also DELETE, and DELETE
                                of /{chat}/stream

    new AssistantChatTransport({ api: "/api/chat", resumable: {
      storage: createResumableSessionStorage(), resumeApi: (id) => `/api/chat/streams/${id}` } })

`protocol="data-stream"` or `"assistant-transport"`, for assistant-ui's `useAssistantTransportRuntime`:

    POST    /                   JSON with `commands`, `state` and `threadId`; answers the stream
    POST    /resume-state       {threadId}: {state, runId} of the thread's newest stream, likewise; else 204
    POST    /resume             {commands: [], threadId, runId}: that stream from its start
    POST    /stop               {threadId}: {"stopped": true or false}

`/resume-state` answers 204, too, where the newest stream ended before its first byte: it has no state to begin
with, and the runtime goes on with its own, without an error.

`protocol="ag-ui"`, for AG-UI's `HttpAgent`:

    POST    /                   a run: the protocol's `RunAgentInput`; answers the stream
    POST    /connect            {threadId, runId}: that run from its start, as long as it is stored; where there is
                                none of that id, the thread's newest stream as told below, else an empty stream
    GET     /{thread}/stream    the thread's newest stream likewise, else 204
    POST    /stop               {threadId}: {"stopped": true or false}

A `runId` is an idempotency key: a run that is sent again is not run again. A client that was cut off in the middle
connects by it: by the thread alone it is told nothing of a run that has ended well meanwhile. `HttpAgent` leaves
`connect` to its subclasses, and `abortRun` does not stop the run: `/stop` does. The agent's messages and state are
told first, so that all viewers begin with the same.

    class Agent extends HttpAgent {
      connect(input) {
        const ask = () => this.fetch(`${this.url}/connect`, this.requestInit(input));
        return transformHttpEventStream(runHttpRequest(ask));
      }
    }

`stop` takes a query parameter or a JSON member `stream` to stop that stream only, should it still be the newest.
A new message does not stop the one before it; it only becomes the newest.

**Which message is answered with** (AI SDK): `regenerate-message` gets one of its own, with a fresh id, and so
does a message of the user. Where the last message is the assistant's (a tool of the client has answered, an
approval was given), the answer goes on with it under its id, and who resumes gets it as a whole, as the client
had sent it.

**Endings** are told to those who load the chat later. A message that is interrupted, failed or cancelled is
replayed with its closing frames for `ending_seconds`, so that useChat is in `error` (cancelled: as after the AI
SDK's own abort) at each load, until a newer message is sent. With `on_finish` a complete one is replayed, too,
until that has returned: a page that is loaded meanwhile has it from here, later from the application. Where it
raised, or its process died, the message is replayed for `ending_seconds`, as the application may not have it. An
`on_finish` that takes longer than that, and than the store's grace time, counts as one that died.
Clients replace by the replay what they have under the same id (AI SDK from 5.0.277, 6.0.326 and 7.0.173; what
older ones have saved is doubled, and by 5 still a saved message with a call whose input was cut off).

**Repeated requests**: two POSTs with one `Idempotency-Key` (a header, or the body's member `idempotency_member`)
are one run in the chat: the second gets the same stream from its start, also when it has ended, however it ended,
as long as it is stored. A key counts within the scope, the chat, and the user where `authorize` gives text or a
number. Where there is neither chat nor user, it is left unread.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from ...context import ResumableStreamContext
from ...contract import Status, validate_stream_id
from ...errors import ProducerFailedError, ResumableStreamError, StreamCancelledError, StreamLostError
from ...wsgi import StreamResponse, ViewerCap
from ..continued import CONTINUES_KEY
from ..controller import AssistantStreamController
from ..error_text import ErrorFormatter
from ..formats.ag_ui import AGUIEncoder
from ..formats.base import Format
from ..formats.registry import FORMATS
from ..formats.ui_message import UIMessageStreamEncoder
from ..message.chunks import StateOperation, UpdateState
from ..newest import ActiveStreams
from .chat import (
    ChatRequest,
    call_ids,
    chat_id_of,
    check_commands,
    check_run_input,
    continued_message,
    name_of,
)
from .ending import Accompanied, OnFinish
from .incoming import Refusal, Request, cross_origin, json_answer, preflight
from .responses import (
    EncoderFactory,
    create_resumable_assistant_stream_response,
    create_resume_assistant_stream_response,
)

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

CHAT_KEY = "assistant-chat"
SCOPE_KEY = "assistant-scope"
"""Where a stream's metadata keeps the chat that it belongs to, and the `scope` of that."""
ENDING_SECONDS = 24 * 60 * 60.0
"""How long the ending of a message that is not complete is told to those who load the chat, unless set."""

_STATE_SECONDS = 5.0  # that a resuming client waits for the first bytes of a stream that has just begun
_METHODS = ("GET", "POST", "DELETE", "OPTIONS")


Answer = Callable[[AssistantStreamController, ChatRequest], object]
Authorize = Callable[[Mapping[str, Any], str, str], object]


class AssistantEndpoints:
    """A WSGI application that answers chat messages with streams that survive their connection.

    `answer(controller, request)` writes a message; it runs in the background, once per request to POST, and
    goes on when its viewers leave. With a state (assistant transport), `controller.state` is the one that the
    client sent.

    `authorize(environ, chat_id, action)`, with the actions "send", "resume" and "stop", says whether the request
    may; what is false is answered with 403, and anything else, such as the user, is the request's `user`. Streams
    belong to their chat, also where they are asked for by their own id. None lets everybody do everything. Where
    cookies tell who asks, it should look at the request's origin too.

    `cors_origins`: the origins whose pages may use this, a collection or "*"; `cors_credentials` lets them send
    cookies. `prefix`: the path this is reached at where nothing has moved it to SCRIPT_NAME. `scope` keeps chats
    apart where several applications share a store. `max_body_bytes`: 413 for more. `ttl`: seconds that the
    streams live after their last byte. `heartbeat` and `viewers` as in `resumable_sync.wsgi`, and `max_seconds`,
    but a response that it ends is an error in useChat, which does not resume by itself: better leave it out.
    `format_error` as in `create_resumable_assistant_stream_response`. `ending_seconds` (24 hours, at most the
    stream's life) and `idempotency_member`: see this module.

    `on_finish(chat, message, status)` is where the application keeps the message. It is called once, in the
    producing process, when the stream has ended and the context's hooks have run. `chat` is the ChatRequest, with
    the `user` that `authorize` gave; `message` is the UIMessage that useChat holds (`read_ui_message`), in the
    other protocols assistant-ui's (`read_assistant_message`). `status`: `done`; `error`, also where the callback
    raised; `cancelled`; or `interrupted`, where the context was closed in the middle. It is not called where the
    process was killed or the stream is gone: then the chat's viewers are told that it was interrupted, and
    `read_ui_message` gives what there is. What it raises is logged with the stream's id and ends nothing.

    UnsupportedError for a context whose store has no shared streams: the chat's newest stream is kept in one.

    Errors are JSON `{"error": …}`: 400 bad JSON or ids, 403, 404, 405, 413, 415 not application/json, and those of
    `resumable_sync.wsgi`. Thread-safe; calls block for the store and for the request's body.
    """

    def __init__(
        self,
        context: ResumableStreamContext,
        answer: Answer,
        *,
        authorize: Authorize | None,
        protocol: str = "ui-message-stream",
        cors_origins: Collection[str] | str | None = None,
        cors_credentials: bool = False,
        prefix: str = "",
        scope: str = "",
        max_body_bytes: int = 4 * 1024 * 1024,
        ttl: float | None = None,
        heartbeat: float | None = None,
        max_seconds: float | None = None,
        viewers: ViewerCap | None = None,
        format_error: ErrorFormatter | None = None,
        on_finish: OnFinish | None = None,
        ending_seconds: float = ENDING_SECONDS,
        idempotency_member: str | None = None,
    ) -> None:
        formats = {name: format for name, format in FORMATS.items() if format.front_end is not None}
        if protocol not in formats:
            raise ValueError(f"protocol must be one of {', '.join(formats)}, not {protocol!r}")
        if not ending_seconds >= 0:
            raise ValueError(f"ending_seconds must be a number of seconds, not {ending_seconds!r}")
        self.context = context
        self._format = formats[protocol]
        self._ui = self._format.front_end == "chat"
        self._ag_ui = self._format.front_end == "ag-ui"
        routes = {"chat": self._route_ui, "transport": self._route_transport, "ag-ui": self._route_ag_ui}
        self._route = routes[str(self._format.front_end)]
        self._answer = answer
        self._authorize = authorize
        self._scope = scope
        self._active = ActiveStreams(context.store, scope)
        self._cross_origin = cross_origin(cors_origins, cors_credentials)
        self._prefix = prefix.rstrip("/")
        self._max_body_bytes = max_body_bytes
        self._ttl = ttl
        self._on_finish = on_finish
        self._ending_seconds = ending_seconds
        self._idempotency_member = idempotency_member
        self._following: dict[str, Any] = {
            "heartbeat": heartbeat,
            "max_seconds": max_seconds,
            "viewers": viewers,
            "format_error": format_error,
        }

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        request = Request(environ, self._prefix, self._max_body_bytes, self._cross_origin.headers(environ))
        try:
            if request.method == "OPTIONS":
                answer = json_answer(204, None, preflight(self._cross_origin, environ, _METHODS))
            else:
                answer = self._route(request)
        except Refusal as refusal:
            headers = [*request.headers, *refusal.headers]
            answer = json_answer(refusal.status, {"error": refusal.reason}, headers)
        except ResumableStreamError as error:  # its text is for the server's eyes
            reason = {400: "invalid id"}.get(error.http_status, error.code)
            headers = [*request.headers, *([("Retry-After", "5")] if error.http_status == 503 else [])]
            answer = json_answer(error.http_status, {"error": reason}, headers)
        return answer(environ, start_response)

    def newest_stream(self, chat_id: str) -> str | None:
        """The id of the chat's newest stream, running or not; None if there is none. See `ActiveStreams`."""
        return self._active.newest(chat_id)

    def stop(self, chat_id: str) -> bool:
        """Stop the chat's newest stream, whichever process produces it; True if it was running."""
        stream_id = self._active.newest(chat_id)
        return stream_id is not None and self.context.cancel(stream_id)

    def _route_ui(self, request: Request) -> WSGIApplication:
        before, _, last = request.path.rpartition("/")
        if request.path == "":
            request.allow("POST")
            body = request.json()
            chat_id, continued = chat_id_of(body.get("id")), continued_message(body)
            return self._send(request, chat_id, body, continued)
        if before and last == "stream":
            request.allow("GET", "HEAD", "DELETE")
            if request.method == "DELETE":
                return self._stop(request, chat_id_of(before))
            self._check(request, chat_id_of(before), "resume")
            stream_id = self._resumable(before)
            return _nothing(request) if stream_id is None else self._resume(request, stream_id, 204)
        if before and last == "stop":
            request.allow("POST", "DELETE")
            return self._stop(request, chat_id_of(before))
        if before == "streams":
            request.allow("GET", "HEAD")
            return self._resume(request, self._known(request, last, None), 404)
        raise Refusal(404, "not found")

    def _route_transport(self, request: Request) -> WSGIApplication:
        if request.path not in ("", "resume-state", "resume", "stop"):
            raise Refusal(404, "not found")
        request.allow("POST")
        body = request.json()
        thread = body.get("threadId")
        chat_id = "" if thread is None else chat_id_of(thread)
        if request.path == "":
            check_commands(body)
            return self._send(request, chat_id, body, None)
        if request.path == "stop":
            return self._stop(request, chat_id, body.get("stream"))
        if request.path == "resume" and body.get("runId") is not None:
            return self._resume(request, self._known(request, body["runId"], chat_id), 404)
        self._check(request, chat_id, "resume")
        stream_id = self._resumable(chat_id)
        if request.path == "resume":
            if stream_id is None:
                raise Refusal(404, "stream not found")
            return self._resume(request, stream_id, 404)
        if stream_id is None:
            return _nothing(request)
        try:
            state = _initial_state(self.context, stream_id, self._format)
        except (ProducerFailedError, StreamCancelledError, StreamLostError):
            return _nothing(request)  # it ended before it had begun
        return json_answer(200, {"state": state, "runId": stream_id}, request.headers)

    def _route_ag_ui(self, request: Request) -> WSGIApplication:
        before, _, last = request.path.rpartition("/")
        if before and last == "stream":
            request.allow("GET", "HEAD")
            self._check(request, chat_id_of(before), "resume")
            stream_id = self._resumable(before)
            return _nothing(request) if stream_id is None else self._resume(request, stream_id, 204)
        if request.path not in ("", "connect", "stop"):
            raise Refusal(404, "not found")
        request.allow("POST")
        body = request.json()
        thread_id = chat_id_of(body.get("threadId"))
        if request.path == "stop":
            return self._stop(request, thread_id, body.get("stream"))
        if request.path == "":
            check_run_input(body)
            return self._send(request, thread_id, body, None)
        user = self._check(request, thread_id, "resume")
        run_id = body.get("runId")
        run = None if run_id is None else self.context.info(self._id_of(name_of(run_id, "runId"), thread_id, user))
        stream_id = self._resumable(thread_id) if run is None else run.stream_id
        if stream_id is None:  # HttpAgent takes no 204, but an empty stream for what it is
            return _empty_stream([*AGUIEncoder().headers.items(), *request.headers])
        return self._resume(request, stream_id, 404)

    def _check(self, request: Request, chat_id: str, action: str) -> object:
        """What `authorize` says. Refusal if the request may not."""
        user = None if self._authorize is None else self._authorize(request.environ, chat_id, action)
        if self._authorize is not None and not user:
            raise Refusal(403, "forbidden")
        return user

    def _resumable(self, chat_id: str) -> str | None:
        """The chat's newest stream if who loads the chat is to be told of it: it runs; its message is not with the
        application yet; or the message did not end well, and that is not too long ago."""
        record = self._active.record(chat_id) if chat_id else None
        info = None if record is None else self.context.info(record.stream_id)
        if record is None or info is None:
            return None
        if info.status.ended:
            well = info.status is Status.DONE and record.ending is None
            if well and (not record.awaited or record.status is Status.DONE):
                return None
            seconds = self._ending_seconds
            if record.awaited and record.status is Status.STREAMING:  # on_finish runs, or its process has died
                seconds = max(seconds, self.context.store.grace)
            # By the clocks of the machines: it matters to nobody whether a day is a little longer.
            # Without any, clocks have no say: two that differ by a tick would.
            if not seconds or (info.finished_at is not None and time.time() - info.finished_at > seconds):
                return None
        return info.stream_id

    def _known(self, request: Request, stream_id: object, chat_id: str | None) -> str:
        """`stream_id` if there is such a stream, it belongs to the chat, and the request may see it."""
        info = self.context.info(validate_stream_id(stream_id if isinstance(stream_id, str) else ""))
        kept = {} if info is None else info.metadata
        owner = kept.get(CHAT_KEY)
        if info is None or owner is None or kept.get(SCOPE_KEY) != self._scope or chat_id not in (None, owner):
            raise Refusal(404, "stream not found")
        self._check(request, owner, "resume")
        return info.stream_id

    def _send(
        self, request: Request, chat_id: str, body: dict[str, Any], continued: Mapping[str, Any] | None
    ) -> StreamResponse:
        user = self._check(request, chat_id, "send")
        stream_id = self._stream_id(request, chat_id, body, user)
        message_id = None
        encoder: EncoderFactory = self._format.encoder
        if self._ui:
            message_id = f"msg-{secrets.token_hex(8)}" if continued is None else str(continued["id"])
            encoder = partial(UIMessageStreamEncoder, message_id, earlier_calls=call_ids(continued))
        elif self._ag_ui:
            before_1 = body.get("protocolVersion") is None
            encoder = partial(
                AGUIEncoder, chat_id, body["runId"], messages=body.get("messages"), before_1=before_1
            )
        with_state = self._format.front_end == "transport" or (not self._ui and "state" in body)
        chat = ChatRequest(chat_id, stream_id, body, request.environ, user, message_id)
        accompanied = Accompanied(
            self.context, self._active, chat, continued, self._ttl, self._on_finish, ui=self._ui
        )

        def callback(controller: AssistantStreamController) -> None:
            try:
                if with_state:
                    # First of all the state as the client knows it: those who resume begin with the same.
                    operation = StateOperation("set", (), body.get("state"))
                    controller.enqueue(UpdateState(operations=(operation,)))
                self._answer(controller, chat)
            except StreamCancelledError:  # nobody reads any more; the stream's own ending says why
                raise
            except BaseException:
                accompanied.failed()  # before the stream can end: nobody may find it complete
                raise

        def start(make_stream: Callable[[], Iterable[bytes]], metadata: dict[str, str]) -> bool:
            def source() -> Iterable[bytes]:
                accompanied.keep()
                return make_stream()

            if not self.context.start(stream_id, source, ttl=self._ttl, metadata=metadata):
                return False
            accompanied.begin()
            return True

        return create_resumable_assistant_stream_response(
            context=self.context,
            stream_id=stream_id,
            callback=callback,
            encoder=encoder,
            headers=request.headers,
            ttl=self._ttl,
            metadata={
                CHAT_KEY: chat_id,
                SCOPE_KEY: self._scope,
                **({} if continued is None else {CONTINUES_KEY: "1"}),
            },
            start=start,
            **self._following,
        )

    def _stream_id(self, request: Request, chat_id: str, body: dict[str, Any], user: object) -> str:
        """A fresh id, or the one that belongs to the request's idempotency key."""
        if self._ag_ui:
            return self._id_of(body["runId"], chat_id, user)
        key = request.environ.get("HTTP_IDEMPOTENCY_KEY") or None
        if key is None and self._idempotency_member is not None:
            key = body.get(self._idempotency_member)
        if key is None:
            return f"msg-{secrets.token_hex(16)}"
        return self._id_of(name_of(key, "the idempotency key"), chat_id, user)

    def _id_of(self, key: str, chat_id: str, user: object) -> str:
        """The id of the stream that belongs to a key."""
        whose = user if isinstance(user, (str, int)) and not isinstance(user, bool) else None
        if not chat_id and whose is None:  # anybody's key: two strangers must not read one answer
            return f"msg-{secrets.token_hex(16)}"
        text = json.dumps([self._scope, chat_id, whose, key])
        return f"msg-{hashlib.sha256(text.encode()).hexdigest()[:32]}"

    def _resume(self, request: Request, stream_id: str, missing: int) -> StreamResponse:
        return create_resume_assistant_stream_response(
            context=self.context,
            stream_id=stream_id,
            headers=request.headers,
            missing_response=None if missing == 404 else missing,
            **self._following,
        )

    def _stop(self, request: Request, chat_id: str, wanted: object = None) -> WSGIApplication:
        self._check(request, chat_id, "stop")
        wanted = wanted or parse_qs(request.environ.get("QUERY_STRING", "")).get("stream", [None])[-1]
        newest = self._active.newest(chat_id) if chat_id else None
        stopped = newest is not None and wanted in (None, newest) and self.context.cancel(newest)
        return json_answer(200, {"stopped": stopped}, request.headers)


def _nothing(request: Request) -> WSGIApplication:
    return json_answer(204, None, request.headers)


def _empty_stream(headers: list[tuple[str, str]]) -> WSGIApplication:
    def empty(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [*headers, ("Content-Length", "0")])
        return []

    return empty


def _initial_state(context: ResumableStreamContext, stream_id: str, format: Format) -> Any:
    """The state that a running stream begins with, which is in its first chunk.

    Refusal 503 if that does not come; StreamLostError and the like if the stream goes meanwhile.
    """

    def pieces() -> Iterator[bytes]:
        for batch in context.batches(stream_id, heartbeat=_STATE_SECONDS):
            if not batch.data:
                return
            yield batch.data

    for chunk in format.decoder().decode(pieces()):
        if isinstance(chunk, UpdateState):
            return chunk.operations[0].value
    raise Refusal(503, "the stream has not begun", [("Retry-After", "1")])
