"""A server whose answers the test writes, and the real chats of the AI SDK that talk to it."""

from __future__ import annotations

import importlib
import itertools
import threading
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resumable_sync import MemoryStore, ResumableStreamContext, SQLiteStore
from resumable_sync.assistant import AssistantEndpoints, AssistantStreamController, ChatRequest
from resumable_sync.contract import Store

from ...javascript import JavaScript

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

VERSIONS = (5, 6, 7)
TRANSPORTS = ("assistant-transport", "data-stream")
WITH_APPROVALS = (6, 7)
THREADS = 32  # each response holds one
TOOL_CALLS = "lastAssistantMessageIsCompleteWithToolCalls"
APPROVALS = "lastAssistantMessageIsCompleteWithApprovalResponses"

Answer = Callable[[AssistantStreamController, ChatRequest], object]

_numbers = itertools.count()


class Server:
    """Ready endpoints for every front end, and pages; each chat has an answer of its own.

    /api/chat       for the AI SDK
    /api/PROTOCOL   for useAssistantTransportRuntime
    /NAME           a page or script in `pages`
    """

    def __init__(self, context: ResumableStreamContext, **options: Any) -> None:
        self.context = context
        self.endpoints = AssistantEndpoints(context, self._answer, authorize=None, prefix="/api/chat", **options)
        self._transports = {
            protocol: AssistantEndpoints(
                context, self._answer, authorize=None, prefix=f"/api/{protocol}", protocol=protocol, scope=protocol
            )
            for protocol in TRANSPORTS
        }
        self.pages: dict[str, bytes] = {}
        self.requests: dict[str, list[ChatRequest]] = {}
        """What each chat was asked, by its id."""
        self._answers: dict[str, Answer] = {}
        # Of the servers that run within a process, the one that breaks off a response whose application fails.
        waitress: Any = importlib.import_module("waitress.server")  # it has no types
        self._waitress = waitress.create_server(self._serve, host="127.0.0.1", port=0, threads=THREADS)
        self.address = f"http://127.0.0.1:{self._waitress.effective_port}"
        self.url = f"{self.address}/api/chat"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()

    def _loop(self) -> None:
        while not self._over.is_set():
            self._waitress.asyncore.loop(timeout=0.05, map=self._waitress._map, count=1)

    def _serve(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        _, first, second, *_ = f"{environ['PATH_INFO']}//".split("/")
        if first == "api":
            application = self._transports.get(second, self.endpoints)
            return application(environ, start_response)
        body = self.pages.get(first)
        kind = "text/javascript" if first.endswith(".js") else "text/html"
        status = "404 Not Found" if body is None else "200 OK"
        start_response(
            status, [("Content-Type", f"{kind}; charset=utf-8"), ("Content-Length", str(len(body or b"")))]
        )
        return [body or b""]

    def _answer(self, controller: AssistantStreamController, request: ChatRequest) -> None:
        self.requests[request.chat_id].append(request)
        self._answers[request.chat_id](controller, request)

    def chat_for(self, answer: Answer, chat_id: str | None = None) -> str:
        """The id of a new chat, or of one that is given, which is answered by `answer`."""
        chat_id = chat_id or f"chat-{next(_numbers)}"
        self.requests[chat_id] = []
        self._answers[chat_id] = answer
        return chat_id

    def stop(self, chat_id: str) -> None:
        """As the page's stop button does."""
        request = urllib.request.Request(f"{self.url}/{chat_id}/stop", method="DELETE")
        with urllib.request.urlopen(request, timeout=20):
            pass

    def close(self) -> None:
        """Stop serving. Those that follow a stream must have ended: close the context before."""
        self._waitress.task_dispatcher.shutdown()
        self._over.set()
        self._thread.join(20)  # first: it would wait for sockets that are closed
        self._waitress.close()
        for dispatcher in list(self._waitress._map.values()):
            dispatcher.close()


@contextmanager
def serving(database: Path | None = None, **options: Any) -> Iterator[Server]:
    """A server on a memory store, or on a database, as one process after another has it."""
    store: Store = MemoryStore() if database is None else SQLiteStore(database)
    context = ResumableStreamContext(store, on_error=lambda stream_id, error: None)
    server = Server(context, **options)
    try:
        yield server
    finally:
        context.close()
        server.close()
        store.close()


class Chat:
    """A chat of the AI SDK `version` with the server."""

    def __init__(self, clients: JavaScript, server: Server, version: int, chat_id: str, **options: Any) -> None:
        self._clients = clients
        self._server = server
        self.chat_id = chat_id
        self._name = f"{chat_id}-{next(_numbers)}"
        clients.ask("open", name=self._name, version=version, api=server.url, id=chat_id, **options)

    def ask(self, ask: str, **request: Any) -> Any:
        return self._clients.ask(ask, name=self._name, **request)

    def send(self, text: str = "go") -> Any:
        """Send a message; what the chat is once nothing follows any more."""
        self.ask("send", text=text)
        return self.settled()

    def settled(self) -> Any:
        """What the chat is once nothing goes on, and nothing follows."""
        return self.ask("settled")

    def reached(self, **part: Any) -> Any:
        """Wait until the last message has a part with these values."""
        return self.ask("reached", part=part)

    def stop(self) -> None:
        self._server.stop(self.chat_id)


def last(report: Any) -> Any:
    """The last message of a chat, which is the assistant's."""
    message = report["messages"][-1]
    assert message["role"] == "assistant", report
    return message


def texts(message: Any) -> list[str]:
    return [part["text"] for part in message["parts"] if part["type"] == "text"]


def calls(message: Any) -> list[Any]:
    return [part for part in message["parts"] if "toolCallId" in part]


def comparable(parts: list[Any]) -> list[Any]:
    """The parts without the input that is no JSON: AI SDK 5 and 6 keep it under another name."""
    broken = {"input", "rawInput"}
    return [
        {key: value for key, value in part.items() if part.get("state") != "output-error" or key not in broken}
        for part in parts
    ]


def states(message: Any) -> list[str]:
    return [call["state"] for call in calls(message)]
