"""The front ends' real transports against gunicorn: send, cut, resume, idle, stop."""

from __future__ import annotations

import http.client
import itertools
import json
from functools import partial
from typing import Any

import pytest

from resumable_sync import ResumableStreamContext, open_store
from resumable_sync.assistant import AssistantEndpoints

from ...javascript import JavaScript
from ...wsgi.support import wait_until
from .application import HALF, WORDS
from .servers import ChatServer, wire

CLIENTS = ["ai-5", "ai-6", "ai-7", "assistant-ui"]
MARK = b'"toolName":"wait","input"'  # behind the first half of an answer
numbers = itertools.count()


def post(server: ChatServer, method: str, path: str, body: object = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
        response = connection.getresponse()
        text = response.read()
        return response.status, json.loads(text) if text else None
    finally:
        connection.close()


class FrontEnd:
    """A transport of its own for one test: it talks to `port`."""

    def __init__(self, clients: JavaScript, server: ChatServer, kind: str, port: int = 0) -> None:
        self._clients = clients
        self._server = server
        self._kind = kind
        self.name = f"{kind}-{next(numbers)}"
        self.chat_id = f"chat-{self.name}"
        self.resumes_by_stream_id = kind == "assistant-ui"
        self.load(port)

    def load(self, port: int = 0) -> None:
        """As when the page is loaded: all that stays is the session's storage."""
        options: dict[str, Any] = {"key": self.name}
        if self.resumes_by_stream_id:
            options["resumeApi"] = self._server.url("/api/ui-message-stream/streams", port)
        else:
            options["version"] = int(self._kind[-1])
        api = self._server.url("/api/ui-message-stream", port)
        self._clients.ask("open", name=self.name, api=api, **options)

    def until_half(self, run: str) -> None:
        self._clients.ask("reached", run=self.name + run, seconds=20)

    def send(self, run: str) -> None:
        self._clients.ask("send", name=self.name, run=self.name + run, chatId=self.chat_id, text="hi")

    def resume(self, run: str) -> bool:
        return bool(self._clients.ask("resume", name=self.name, run=self.name + run, chatId=self.chat_id))

    def finish(self, run: str) -> Any:
        return self._clients.ask("finish", run=self.name + run)

    def pending(self) -> Any:
        return self._clients.ask("pending", name=self.name, chatId=self.chat_id)


def text_of(message: Any) -> str:
    return "".join(part["text"] for part in message["parts"] if part["type"] == "text")


def tool_of(message: Any) -> Any:
    (tool,) = (part for part in message["parts"] if part["type"] == "tool-wait")
    return tool


@pytest.mark.parametrize("kind", CLIENTS)
def test_cut_in_the_middle_and_resumed(clients: JavaScript, server: ChatServer, kind: str) -> None:
    with wire(server, MARK) as cable:
        front_end = FrontEnd(clients, server, kind, cable.port)
        front_end.send("first")
        cut = front_end.finish("first")
        assert cable.cuts == 1 and cut["errors"] != [] and text_of(cut["message"]) == "".join(WORDS[:HALF])
    if front_end.resumes_by_stream_id:
        assert front_end.pending() is not None
    front_end.load()
    assert front_end.resume("second")
    server.open_gate(front_end.chat_id)
    resumed = front_end.finish("second")
    assert (resumed["ending"], resumed["errors"]) == ("end", [])
    message = resumed["message"]
    assert message["id"] == cut["message"]["id"] and text_of(message) == "".join(WORDS)
    assert tool_of(message)["output"] == {"waited": True}
    assert tool_of(message)["input"] == {"chat": front_end.chat_id}
    if front_end.resumes_by_stream_id:
        assert front_end.pending() is None
    else:
        assert not front_end.resume("third")  # 204: nothing is active


@pytest.mark.parametrize("kind", CLIENTS)
def test_uncut(clients: JavaScript, server: ChatServer, kind: str) -> None:
    """Sent and read to its end while another front end follows: both have the same message."""
    front_end = FrontEnd(clients, server, kind)
    front_end.send("first")
    assert front_end.resume("beside")
    server.open_gate(front_end.chat_id)
    first, beside = front_end.finish("first"), front_end.finish("beside")
    assert first == beside and first["errors"] == [] and text_of(first["message"]) == "".join(WORDS)


@pytest.mark.parametrize("kind", CLIENTS)
def test_stopped_from_another_process(clients: JavaScript, server: ChatServer, kind: str) -> None:
    front_end = FrontEnd(clients, server, kind)
    front_end.send("first")
    front_end.until_half("first")
    if server.store.startswith("memory"):
        path = f"/api/ui-message-stream/{front_end.chat_id}/stop"
        assert post(server, "DELETE", path) == (200, {"stopped": True})
    else:
        store = open_store(server.store)  # here, in a process that serves nothing
        with ResumableStreamContext(store) as context:
            elsewhere = AssistantEndpoints(
                context, lambda controller, request: None, authorize=None, scope="ui-message-stream"
            )
            assert elsewhere.stop(front_end.chat_id)
            assert not elsewhere.stop(front_end.chat_id)
        store.close()
    stopped = front_end.finish("first")
    assert (stopped["ending"], stopped["errors"]) == ("end", [])
    assert text_of(stopped["message"]) == "".join(WORDS[:HALF]) and "output" not in tool_of(stopped["message"])
    if not front_end.resumes_by_stream_id:
        front_end.load()
        assert front_end.resume("second")  # a page that is loaded later is told the same
        assert front_end.finish("second") == stopped
    else:
        assert front_end.pending() is None
    assert post(server, "POST", f"/api/ui-message-stream/{front_end.chat_id}/stop") == (200, {"stopped": False})


@pytest.mark.parametrize("protocol", ["data-stream", "assistant-transport"])
def test_the_assistant_transports_runtime(clients: JavaScript, server: ChatServer, protocol: str) -> None:
    """What useAssistantTransportRuntime sends and reads, with the decoders it uses."""
    api, thread = f"/api/{protocol}", f"thread-{next(numbers)}"
    assert clients.ask("resumeTransport", api=server.url(api), protocol=protocol, threadId=thread) is None
    before = {"messages": ["old"], "said": "old"}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    body = json.dumps({"commands": [{"type": "add-message"}], "state": before, "threadId": thread})
    connection.request("POST", api, body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    run_id = response.getheader("x-resumable-stream-id")
    connection.close()  # the page is reloaded
    begun = clients.ask("resumeTransport", api=server.url(api), protocol=protocol, threadId=thread)
    assert begun["state"] == before and begun["runId"] == run_id
    server.open_gate(thread)
    run = clients.ask("finish", run=run_id)
    assert run["ending"] == "end"
    assert run["message"]["metadata"]["unstable_state"] == {"messages": ["old"], "said": "".join(WORDS)}
    # The decoder ends with the last frame, which is stored a moment before the ending.
    again = partial(clients.ask, "resumeTransport", api=server.url(api), protocol=protocol, threadId=thread)
    wait_until(lambda: again() is None)
    wrong: dict[str, Any] = {"commands": [], "threadId": "another", "runId": run_id}
    assert post(server, "POST", f"{api}/resume", wrong) == (404, {"error": "stream not found"})


def test_viewers_leave_and_their_threads_come_free(clients: JavaScript, server: ChatServer) -> None:
    free: set[int] = set()

    def all_free() -> bool:
        answer = server.ask("/viewers")
        (free.add if answer["viewers"] == 0 else free.discard)(answer["pid"])
        return len(free) == (1 if server.store.startswith("memory") else 2)

    wait_until(all_free, 20)
