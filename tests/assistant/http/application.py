"""The application that gunicorn serves for these tests. Its settings come from the environment.

/api/FORMAT               the endpoints, for the format's front end
/golden/FORMAT/CASE       the worked examples
/resume/ID                any stream
/                         a page with the real useChat; what it needs lies in TEST_PAGES
/viewers                  how many follow in this process, and its id

An answer streams half of its words and then waits until the test has made a file with the chat's name in
TEST_GATES, in whichever process it runs. A client of AG-UI can send what is to be done instead, as the `program`
of its `forwardedProps`, in which `wait` waits so; a file with the chat's name and `.pid` says then which process
it is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resumable_sync import ResumableStreamContext, current_producer, open_store
from resumable_sync.assistant import (
    AssistantEndpoints,
    AssistantStreamController,
    ChatRequest,
    create_resumable_assistant_stream_response,
    create_resume_assistant_stream_response,
)
from resumable_sync.assistant.formats.registry import FORMATS
from resumable_sync.wsgi import ViewerCap

from ..formats.programs import CASES, ENCODERS, Program, callback_of, perform

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

PROTOCOLS = [name for name, format in FORMATS.items() if format.front_end is not None]
WORDS = [f"{number} \u00fcnïcödé \U0001f600 \u2028 words. " for number in range(40)]
HALF = len(WORDS) // 2
TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8"}


class Application:
    def __init__(self, store: str, viewers: int, heartbeat: float, gates: Path, pages: Path) -> None:
        self.context = ResumableStreamContext(open_store(store), heartbeat=0.5)
        self.cap = ViewerCap(viewers)
        self.heartbeat = heartbeat
        self.gates = gates
        self.pages = pages
        self.endpoints = {
            protocol: AssistantEndpoints(
                self.context,
                self.answer,
                authorize=self.authorize,
                protocol=protocol,
                prefix=f"/api/{protocol}",
                cors_origins="*",
                heartbeat=heartbeat,
                viewers=self.cap,
                scope=protocol,
            )
            for protocol in PROTOCOLS
        }

    def authorize(self, environ: Any, chat_id: str, action: str) -> bool:
        return not chat_id.startswith("forbidden")

    def answer(self, controller: AssistantStreamController, request: ChatRequest) -> None:
        program = (request.body.get("forwardedProps") or {}).get("program")
        if program is not None:
            self.perform(controller, request.chat_id, program)
            return
        with_state = isinstance(request.body.get("state"), dict)
        if with_state:
            controller.state["said"] = ""
        for word in WORDS[:HALF]:
            controller.append_text(word)
            if with_state:
                controller.state["said"] += word
        args = {"chat": request.chat_id}
        call = controller.add_tool_call_part(tool_call_id="call-1", tool_name="wait", args=args)
        if not self.wait(request.chat_id):
            return
        call.set_response({"waited": True})
        for word in WORDS[HALF:]:
            controller.append_text(word)
            if with_state:
                controller.state["said"] += word

    def wait(self, chat_id: str) -> bool:
        """Until the gate is open; False if the stream is stopped."""
        while not (self.gates / chat_id).exists():
            if current_producer().cancelled.wait(0.01):
                return False
        return True

    def perform(self, controller: AssistantStreamController, chat_id: str, program: Program) -> None:
        handles: dict[str, Any] = {}
        for name, *args in program:
            if name != "wait":
                perform(controller, handles, name, args)
                continue
            (self.gates / f"{chat_id}.pid").write_text(str(os.getpid()))
            if not self.wait(chat_id):
                return

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        _, route, *rest = path.split("/")
        options: Any = {"context": self.context, "heartbeat": self.heartbeat}
        if route == "api":
            return self.endpoints[rest[0]](environ, start_response)
        if route == "golden":
            return create_resumable_assistant_stream_response(
                stream_id=f"{rest[0]}.{rest[1]}",
                callback=callback_of(CASES[rest[1]]["ops"]),
                encoder=ENCODERS[rest[0]],
                format_error=lambda error: f"Error: {error}",
                **options,
            )(environ, start_response)
        if route == "resume":
            return create_resume_assistant_stream_response(stream_id=rest[0], **options)(environ, start_response)
        if route == "viewers":
            body = json.dumps({"pid": os.getpid(), "viewers": self.cap.viewers}).encode()
            kind = "application/json"
        else:
            page = self.pages / (route or "index.html")
            body, kind = (page.read_bytes(), TYPES[page.suffix]) if page.is_file() else (b"", "text/plain")
        start_response("200 OK", [("Content-Type", kind), ("Content-Length", str(len(body)))])
        return [body]


def from_environment() -> Application:
    """For gunicorn: made once in each worker."""
    names = ("TEST_GATES", "TEST_PAGES")
    return Application(
        os.environ["TEST_STORE"],
        int(os.environ["TEST_VIEWERS"]),
        float(os.environ["TEST_HEARTBEAT"]),
        *(Path(os.environ[name]) for name in names),
    )
