"""Ready endpoints for the two front ends that people use, as one WSGI application per chat interface.

`protocol="ui-message-stream"`, for the AI SDK's `useChat({resume: true})` and for assistant-ui's
`AssistantChatTransport`; paths below where the application is mounted (`api` in the front end):

    POST    /                   a message: JSON with `id` (the chat) and `messages`; answers the stream
    GET     /{chat}/stream      the chat's newest stream while it runs, else 204
    GET     /streams/{stream}   a stream by its id, else 404 (assistant-ui's `resumeApi`)
    POST    /{chat}/stop        stops the chat's newest stream: {"stopped": true or false}; also DELETE, and DELETE
                                of /{chat}/stream

    new AssistantChatTransport({ api: "/api/chat", resumable: {
      storage: createResumableSessionStorage(), resumeApi: (id) => `/api/chat/streams/${id}` } })

`protocol="data-stream"` or `"assistant-transport"`, for assistant-ui's `useAssistantTransportRuntime`:

    POST    /                   JSON with `commands`, `state` and `threadId`; answers the stream
    POST    /resume-state       {threadId}: {state, runId} while the thread's newest stream runs, else 204
    POST    /resume             {commands: [], threadId, runId}: that stream from its start
    POST    /stop               {threadId}: {"stopped": true or false}

`stop` takes a query parameter or a JSON member `stream` to stop that stream only, should it still be the newest.
A new message does not stop the one before it; it only becomes the newest.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from ...context import ResumableStreamContext
from ...contract import Status, validate_stream_id
from ...errors import ProducerFailedError, ResumableStreamError, StreamCancelledError, StreamLostError
from ...wsgi import StreamResponse, ViewerCap
from ..controller import AssistantStreamController
from ..error_text import ErrorFormatter
from ..formats.base import Format
from ..formats.registry import FORMATS
from ..formats.ui_message import MESSAGE_KEY
from ..message.chunks import StateOperation, UpdateState
from ..newest import ActiveStreams, ClaimedSource
from .incoming import CrossOrigin, Refusal, Request, json_answer
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
MAX_CHAT_ID = 1024
"""Characters of a chat's id."""

_STATE_SECONDS = 5.0  # that a resuming client waits for the first bytes of a stream that has just begun
_METHODS = ("GET", "POST", "DELETE", "OPTIONS")


@dataclass(frozen=True)
class ChatRequest:
    """One message sent to a chat, as the application's callback sees it."""

    chat_id: str
    """The chat or thread; empty where the client has not named one, and then nothing can be resumed by it."""
    stream_id: str
    """The stream that the answer is stored in."""
    body: Mapping[str, Any]
    """The request's JSON. Whatever a client sends: check what you use."""
    environ: Mapping[str, Any]
    """The WSGI environment; its body is read already."""

    @property
    def messages(self) -> list[Any]:
        """The AI SDK's messages, [] where there are none."""
        messages = self.body.get("messages")
        return messages if isinstance(messages, list) else []

    @property
    def commands(self) -> list[Any]:
        """The assistant transport's commands, [] where there are none."""
        commands = self.body.get("commands")
        return commands if isinstance(commands, list) else []


Answer = Callable[[AssistantStreamController, ChatRequest], object]
Authorize = Callable[[Mapping[str, Any], str, str], bool]


class AssistantEndpoints:
    """A WSGI application that answers chat messages with streams that survive their connection.

    `answer(controller, request)` writes a message; it runs in the background, once per request to POST, and
    goes on when its viewers leave. With a state (assistant transport), `controller.state` is the one that the
    client sent.

    `authorize(environ, chat_id, action)`, with the actions "send", "resume" and "stop", says whether the request
    may; False is answered with 403. Streams belong to their chat, also where they are asked for by their own id.
    None lets everybody do everything. Where cookies tell who asks, it should look at the request's origin too.

    `cors_origins`: the origins whose pages may use this, a collection or "*"; `cors_credentials` lets them
    send cookies. `prefix`: the path this is reached at where nothing has moved it to SCRIPT_NAME. `scope` keeps
    chats apart where several applications share a store. `max_body_bytes`: 413 for more. `ttl`: seconds that
    the streams live after their last byte. `heartbeat`, `max_seconds` and `viewers` as in `resumable_sync.wsgi`,
    `format_error` as in `create_resumable_assistant_stream_response`.

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
    ) -> None:
        formats = {name: format for name, format in FORMATS.items() if format.front_end is not None}
        if protocol not in formats:
            raise ValueError(f"protocol must be one of {', '.join(formats)}, not {protocol!r}")
        self.context = context
        self._format = formats[protocol]
        self._with_state = self._format.front_end == "transport"
        self._route = self._route_transport if self._with_state else self._route_ui
        self._answer = answer
        self._authorize = authorize
        self._scope = scope
        self._active = ActiveStreams(context.store, scope)
        self._cross_origin = CrossOrigin(cors_origins, cors_credentials)
        self._prefix = prefix.rstrip("/")
        self._max_body_bytes = max_body_bytes
        self._ttl = ttl
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
                answer = json_answer(204, None, self._cross_origin.preflight(environ, _METHODS))
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
            return self._send(request, _chat_id(body.get("id")), body, _naming_encoder(self._format, body))
        if before and last == "stream":
            request.allow("GET", "HEAD", "DELETE")
            if request.method == "DELETE":
                return self._stop(request, _chat_id(before))
            self._check(request, _chat_id(before), "resume")
            stream_id = self._running(before)
            return _nothing(request) if stream_id is None else self._resume(request, stream_id, 204)
        if before and last == "stop":
            request.allow("POST", "DELETE")
            return self._stop(request, _chat_id(before))
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
        chat_id = "" if thread is None else _chat_id(thread)
        if request.path == "":
            return self._send(request, chat_id, body, self._format.encoder)
        if request.path == "stop":
            return self._stop(request, chat_id, body.get("stream"))
        if request.path == "resume" and body.get("runId") is not None:
            return self._resume(request, self._known(request, body["runId"], chat_id), 404)
        self._check(request, chat_id, "resume")
        stream_id = self._running(chat_id)
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

    def _check(self, request: Request, chat_id: str, action: str) -> None:
        if self._authorize is not None and not self._authorize(request.environ, chat_id, action):
            raise Refusal(403, "forbidden")

    def _running(self, chat_id: str) -> str | None:
        stream_id = self._active.newest(chat_id) if chat_id else None
        if stream_id is None or self.context.status(stream_id) is not Status.STREAMING:
            return None
        return stream_id

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
        self, request: Request, chat_id: str, body: dict[str, Any], encoder: EncoderFactory
    ) -> StreamResponse:
        self._check(request, chat_id, "send")
        stream_id = f"msg-{secrets.token_hex(16)}"
        chat = ChatRequest(chat_id, stream_id, body, request.environ)

        def callback(controller: AssistantStreamController) -> None:
            if self._with_state:
                # First of all the state as the client knows it: those who resume begin with the same.
                operation = StateOperation("set", (), body.get("state"))
                controller.enqueue(UpdateState(operations=(operation,)))
            self._answer(controller, chat)

        def start(make_stream: Callable[[], Iterable[bytes]], metadata: dict[str, str]) -> bool:
            if not chat_id:
                return self.context.start(stream_id, make_stream, ttl=self._ttl, metadata=metadata)
            claim = self._active.begin(chat_id, stream_id, self._ttl)
            try:
                source = partial(ClaimedSource, make_stream, claim)
                return self.context.start(stream_id, source, ttl=self._ttl, metadata=metadata)
            except BaseException:
                claim.end()
                raise

        return create_resumable_assistant_stream_response(
            context=self.context,
            stream_id=stream_id,
            callback=callback,
            encoder=encoder,
            headers=request.headers,
            ttl=self._ttl,
            metadata={CHAT_KEY: chat_id, SCOPE_KEY: self._scope},
            start=start,
            **self._following,
        )

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


def _chat_id(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_CHAT_ID:
        raise Refusal(400, "the chat's id is missing or too long")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Refusal(400, "the chat's id is not text") from error
    return value


def _nothing(request: Request) -> WSGIApplication:
    return json_answer(204, None, request.headers)


def _naming_encoder(format: Format, body: Mapping[str, Any]) -> EncoderFactory:
    """Names the message afresh; one that goes on with the last message of the chat keeps that one's name."""
    messages = body.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    name = last.get("id") if isinstance(last, dict) and last.get("role") == "assistant" else None
    if not isinstance(name, str) or len(name) > MAX_CHAT_ID:
        name = f"msg-{secrets.token_hex(8)}"
    return partial(format.encoder_for, {MESSAGE_KEY: name})


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
