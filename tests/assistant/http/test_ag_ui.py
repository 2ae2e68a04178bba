"""AG-UI's HttpAgent against gunicorn: send, cut, connect, stop, tools, state, errors; and the doors it uses."""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from resumable_sync import ResumableStreamContext
from resumable_sync.assistant import AssistantEndpoints

from ...backends import BACKEND_PARAMS, BACKENDS
from ...javascript import AGUI, JavaScript, cannot, running
from ...wsgi.support import wait_until
from .application import HALF, WORDS
from .servers import ChatServer, wire
from .support import Script, call
from .test_transports import post

API = "/api/ag-ui"
USER = {"id": "u1", "role": "user", "content": "hi"}
numbers = itertools.count()


@pytest.fixture(scope="module", params=BACKEND_PARAMS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChatServer]:
    directory = tmp_path_factory.mktemp("agui")
    kind = BACKENDS[request.param]
    with ChatServer(directory, kind.url(directory), workers=2 if kind.shared else 1) as running:
        yield running


@pytest.fixture(scope="session")
def _agents() -> Iterator[JavaScript | str]:
    with running("agents.mjs", directory=AGUI) as found:
        yield found


@pytest.fixture
def agents(_agents: JavaScript | str) -> JavaScript:
    """AG-UI's clients, or a skip (in CI a failure) that says why they are missing."""
    if isinstance(_agents, str):
        cannot("THE CLIENTS OF AG-UI WERE", _agents)
    return _agents


class Agent:
    """An HttpAgent with the user's message, in a thread of its own unless one is given."""

    def __init__(
        self,
        agents: JavaScript,
        server: ChatServer,
        thread: str = "",
        port: int = 0,
        version: str = "1.0.0",
        state: Any = None,
    ) -> None:
        self._agents = agents
        self.name = f"agent-{next(numbers)}"
        self.thread = thread or f"thread-{self.name}"
        agents.ask(
            "open",
            name=self.name,
            version=version,
            url=server.url(API, port),
            threadId=self.thread,
            messages=[USER],
            state=state,
        )

    def ask(self, ask: str, **more: Any) -> Any:
        return self._agents.ask(ask, name=self.name, **more)

    def run(self, run: str = "run", *program: Any, **parameters: Any) -> None:
        """Send; with a program, that is what the answer does."""
        if program:
            parameters["forwardedProps"] = {"program": program}
        self.ask("run", run=self.name + run, parameters=parameters)

    def connect(self, run: str = "again", **parameters: Any) -> Any:
        self.ask("connect", run=self.name + run, parameters=parameters)

    def reached(self, kind: str, run: str = "run") -> None:
        self.ask("reached", run=self.name + run, type=kind, seconds=20)

    def finish(self, run: str = "run") -> Any:
        return self.ask("finish", run=self.name + run)


def over(server: ChatServer, agent: Agent) -> bool:
    """Whether the thread's run has ended well, which is stored a moment after its last event."""
    connection = server.get(f"{API}/{agent.thread}/stream", "HEAD")
    try:
        return connection.status == 204
    finally:
        connection.leave()


def text_of(report: Any) -> str:
    said = [message for message in report["messages"] if message["role"] == "assistant"]
    return "".join(message.get("content") or "" for message in said)


def same(one: Any, other: Any) -> bool:
    """Whether two clients hold the same."""
    return all(one[key] == other[key] for key in ("messages", "state", "interrupts"))


def ended_well(report: Any) -> bool:
    return (report["failed"], report["told"], report["outcome"]) == (None, None, "success")


def test_sent_and_followed(agents: JavaScript, server: ChatServer) -> None:
    """The one that sent, one that connects while it runs, and one that connects afterwards hold the same."""
    agent = Agent(agents, server, state={"mine": 1})
    agent.run(runId="one")
    agent.reached("TOOL_CALL_END")
    beside = Agent(agents, server, agent.thread)
    beside.connect()
    beside.reached("TOOL_CALL_END", "again")
    server.open_gate(agent.thread)
    live, followed = agent.finish(), beside.finish("again")
    assert ended_well(live) and ended_well(followed)
    assert text_of(live) == "".join(WORDS) and live["state"] == {"mine": 1, "said": "".join(WORDS)}
    assert [message["role"] for message in live["messages"]] == ["user", "assistant", "tool", "assistant"]
    (called,) = live["messages"][1]["toolCalls"]
    assert json.loads(called["function"]["arguments"]) == {"chat": agent.thread}
    assert same(live, followed)
    later = Agent(agents, server, agent.thread)
    later.connect("by-run", runId="one")
    assert same(later.finish("by-run"), live)
    wait_until(lambda: over(server, agent))
    later.connect("none")
    nothing = later.finish("none")
    assert (nothing["types"], nothing["failed"], nothing["messages"]) == ([], None, live["messages"])


@pytest.mark.parametrize("version", ["1.0.0", "0.0.59"])
def test_cut_in_the_middle_and_connected_again(agents: JavaScript, server: ChatServer, version: str) -> None:
    """By the thread while it runs; by the run also where it has ended, and the agent holds half of the answer."""
    with wire(server, b'"TOOL_CALL_END"') as cable:
        agent = Agent(agents, server, port=cable.port, version=version)
        agent.run(runId=f"cut-{agent.name}")
        cut = agent.finish()
        assert cable.cuts == 1 and cut["failed"] is not None and text_of(cut) == "".join(WORDS[:HALF])
    fresh = Agent(agents, server, agent.thread, version=version)
    fresh.connect()
    fresh.reached("TOOL_CALL_END", "again")
    half = Agent(agents, server, agent.thread, version=version)
    for message in cut["messages"][1:]:
        half.ask("say", message=message)
    half.connect(runId=f"cut-{agent.name}")
    server.open_gate(agent.thread)
    for resumed in (fresh.finish("again"), half.finish("again")):
        assert (resumed["failed"], resumed["told"]) == (None, None)
        assert text_of(resumed) == "".join(WORDS) and resumed["state"] == {"said": "".join(WORDS)}
        assert [message["role"] for message in resumed["messages"]] == ["user", "assistant", "tool", "assistant"]


def test_left_and_sent_again_is_one_run(agents: JavaScript, server: ChatServer) -> None:
    agent = Agent(agents, server)
    agent.run("first", runId="mine")
    agent.reached("TOOL_CALL_END", "first")
    agent.ask("abort")
    agent.finish("first")
    server.open_gate(agent.thread)
    again = Agent(agents, server, agent.thread)
    again.run("second", runId="mine")
    assert text_of(again.finish("second")) == "".join(WORDS)
    wait_until(lambda: over(server, agent))
    assert post(server, "POST", f"{API}/stop", {"threadId": agent.thread}) == (200, {"stopped": False})


REASONING: list[Any] = [
    ["append_reasoning", "Let me think."],
    ["append_text", "The half"],
    ["wait"],
    ["append_reasoning", "More."],
    ["append_text", " and the rest."],
]


def test_stopped(agents: JavaScript, server: ChatServer) -> None:
    agent = Agent(agents, server)
    agent.run("run", *REASONING)
    agent.reached("TEXT_MESSAGE_CONTENT")
    assert post(server, "POST", f"{API}/stop", {"threadId": agent.thread}) == (200, {"stopped": True})
    live = agent.finish()
    assert (live["outcome"], live["failed"], text_of(live)) == ("cancelled", None, "The half")
    later = Agent(agents, server, agent.thread)
    later.connect()
    told = later.finish("again")
    assert told["outcome"] == "cancelled" and same(told, live)


CUT_CALL: list[Any] = [
    ["append_text", "I pay. "],
    ["add_tool_call_part", "t", {"toolCallId": "pay", "toolName": "pay"}],
    ["tool.args_append", "t", "{}"],  # which is JSON, but not all of it
    ["wait"],
]


@pytest.mark.parametrize("version", ["1.0.0", "0.0.59"])
def test_a_call_that_is_cut_off_is_run_by_no_client(agents: JavaScript, server: ChatServer, version: str) -> None:
    """Stopped, or failed, in the middle of the arguments: live and for who connects later."""
    for ending in ("stopped", "failed"):
        agent = Agent(agents, server, version=version)
        agent.run("run", *CUT_CALL, *([["throw", "secret"]] if ending == "failed" else []))
        agent.reached("TOOL_CALL_ARGS")
        if ending == "failed":
            server.open_gate(agent.thread)
        else:
            post(server, "POST", f"{API}/stop", {"threadId": agent.thread})
        later = Agent(agents, server, agent.thread, version=version)
        live = agent.finish()
        later.connect()
        for report in (live, later.finish("again")):
            assert (report["ended"], report["pending"], report["outcome"]) == ([], None, None)
            assert report["told"] == {
                "message": "The run was stopped." if ending == "stopped" else "An error occurred.",
                "code": "cancelled" if ending == "stopped" else None,
            }


def test_a_client_tool_runs_once_and_its_answer_is_sent(agents: JavaScript, server: ChatServer) -> None:
    agent = Agent(agents, server)
    tool = {"toolCallId": "c1", "toolName": "place", "args": {"city": "Rome"}}
    tools = [{"name": "place", "description": "where", "parameters": {"type": "object"}}]
    agent.run(
        "run", ["append_text", "Where? "], ["add_tool_call_part", "t", tool], ["tool.close", "t"], tools=tools
    )
    asked = agent.finish()
    assert (asked["ended"], asked["pending"]) == ([["c1", {"city": "Rome"}]], ["c1"])
    agent.ask("say", message={"id": "a1", "role": "tool", "toolCallId": "c1", "content": "here"})
    agent.run("next", ["append_text", "Thanks."])
    answered = agent.finish("next")
    roles = [message["role"] for message in answered["messages"]]
    assert roles == ["user", "assistant", "tool", "assistant"] and answered["pending"] == []


def test_arguments_that_are_no_json_are_run_by_no_client(agents: JavaScript, server: ChatServer) -> None:
    agent = Agent(agents, server)
    start = ["add_tool_call_part", "t", {"toolCallId": "c1", "toolName": "place"}]
    agent.run("run", start, ["tool.args_append", "t", '{"city": "Ro'], ["tool.close", "t"], ["append_text", "So."])
    report = agent.finish()
    assert ended_well(report) and (report["ended"], report["pending"]) == ([], [])
    assert report["messages"][2]["role"] == "tool" and text_of(report) == "So."


def test_an_approval_is_asked_and_answered(agents: JavaScript, server: ChatServer) -> None:
    agent = Agent(agents, server)
    tool = {"toolCallId": "c1", "toolName": "pay", "args": {"eur": 5}}
    agent.run(
        "run", ["add_tool_call_part", "t", tool], ["tool.set_approval", "t", {"id": "ap", "prompt": "Pay 5?"}]
    )
    asked = agent.finish()
    (interrupt,) = asked["interrupts"]
    assert asked["outcome"] == "interrupt" and (interrupt["id"], interrupt["message"]) == ("ap", "Pay 5?")
    agent.run("none")  # the client wants the answer first
    assert "pending interrupt" in agent.finish("none")["failed"]
    resume = [{"interruptId": "ap", "status": "resolved", "payload": {"approved": True}}]
    agent.run("next", ["append_tool_result", "c1", {"paid": True}], ["append_text", "Paid."], resume=resume)
    done = agent.finish("next")
    assert ended_well(done) and done["interrupts"] == []
    assert [message["role"] for message in done["messages"]] == ["user", "assistant", "tool", "assistant"]


def test_all_that_a_program_can_say_is_taken_and_told_again(agents: JavaScript, server: ChatServer) -> None:
    program: list[Any] = [
        ["enqueue", {"type": "step-start", "messageId": "one"}],
        ["append_reasoning", "hm", {"providerMetadata": {"p": {"signature": "s"}}}],
        ["append_source", {"id": "s", "sourceType": "url", "url": "https://example.org"}],
        ["append_file", {"data": "aGk=", "mimeType": "text/plain"}],
        ["append_data", {"name": "plan", "data": {"n": 1}, "id": "x"}],
        ["append_data", {"name": "plan", "data": {"n": 2}, "id": "x"}],
        ["state.set", ["list"], [1, {"a/b": "~"}]],
        ["state.set", ["list", 1, "a/b"], None],
        ["enqueue", {"type": "step-finish", "finishReason": "stop"}],
        ["enqueue", {"type": "error", "error": "slow", "severity": "warning"}],
        ["append_text", "\ud83d"],
        ["append_text", "\ude00"],
        ["enqueue", {"type": "message-finish", "finishReason": "stop", "usage": {"inputTokens": 1, "x": 2.5}}],
    ]
    agent = Agent(agents, server)
    agent.run("run", *program, runId="all")
    live = agent.finish()
    assert ended_well(live) and text_of(live) == "\U0001f600"
    assert live["state"] == {"list": [1, {"a/b": None}]}
    assert [message["content"] for message in live["messages"] if message["role"] == "activity"] == [{"n": 2}]
    assert live["messages"][1]["metadata"] == {"providerMetadata": {"p": {"signature": "s"}}}
    agent.ask("clear")
    agent.connect(runId="all")
    assert same(agent.finish("again"), live)


def test_a_producer_that_was_killed(agents: JavaScript, tmp_path: Path) -> None:
    """Who connects later is told that the run was interrupted, and holds what there was."""
    with ChatServer(tmp_path, f"sqlite:///{tmp_path}/streams.db?grace=2", workers=2) as server:
        agent = Agent(agents, server)
        agent.run("run", ["append_text", "The half"], *CUT_CALL[1:])
        agent.reached("TOOL_CALL_ARGS")
        pid = server.gates / f"{agent.thread}.pid"
        wait_until(lambda: pid.exists() and pid.read_text() != "", 20)
        os.kill(int(pid.read_text()), signal.SIGKILL)
        live = agent.finish()
        assert live["failed"] is not None or live["told"] is not None  # whichever process it was read from
        later = Agent(agents, server, agent.thread)
        later.connect()
        told = later.finish("again")
        assert told["told"] == {"message": "The response was interrupted.", "code": None}
        assert (text_of(told), told["ended"], told["outcome"]) == ("The half", [], None)


# Without a server


def endpoints(context: ResumableStreamContext, answer: Any, **options: Any) -> AssistantEndpoints:
    options.setdefault("authorize", None)
    return AssistantEndpoints(context, answer, protocol="ag-ui", **options)


def run_input(run: str = "r", thread: str = "t", **more: Any) -> dict[str, Any]:
    return {"threadId": thread, "runId": run, "messages": [], "tools": [], "context": [], **more}


def test_what_the_callback_is_given(context: ResumableStreamContext) -> None:
    given: list[Any] = []
    app = endpoints(context, lambda controller, request: given.append((request, controller.state)))
    body = run_input(messages=[USER], state={"a": 1}, forwardedProps={"x": 1})
    reply = call(app, "POST", body=body).read()
    ((request, state),) = given
    assert (request.chat_id, request.messages, request.body) == ("t", [USER], body)
    assert state == {"a": 1} and b'"snapshot":{"a":1}' in reply


def test_each_run_is_run_once_and_belongs_to_its_thread_and_user(context: ResumableStreamContext) -> None:
    script = Script(*[None] * 4)

    def authorize(environ: Any, chat_id: str, action: str) -> Any:
        return environ.get("HTTP_AUTHORIZATION")

    app = endpoints(context, script, authorize=authorize)
    first = call(app, "POST", body=run_input(), authorization="ann")
    body = first.read()
    again = call(app, "POST", body=run_input(), authorization="ann")
    assert again.read() == body and script.runs == 1
    for other, user in ((run_input("r2"), "ann"), (run_input(thread="t2"), "ann"), (run_input(), "bob")):
        call(app, "POST", body=other, authorization=user).read()
    assert script.runs == 4
    connected = call(app, "POST", "/connect", {"threadId": "t", "runId": "r"}, authorization="ann")
    assert connected.read() == body
    unknown = call(app, "POST", "/connect", {"threadId": "t", "runId": "r"}, authorization="eve")
    assert (unknown.status, unknown.read()) == (200, b"")
    for path in ("/", "/connect", "/stop"):
        assert call(app, "POST", path, run_input()).status == 403


@pytest.mark.parametrize(
    "body",
    [
        {"runId": "r"},
        {"threadId": "t"},
        run_input(run=""),
        run_input(messages=5),
        run_input(messages=[1]),
        run_input(tools={}),
        run_input(resume=["x"]),
    ],
)
def test_what_is_no_run_input_is_refused(context: ResumableStreamContext, body: Any) -> None:
    app = endpoints(context, Script())
    assert call(app, "POST", body=body).status == 400
    assert list(context.store.streams()) == []


def test_an_ending_is_told_to_who_connects_later(context: ResumableStreamContext) -> None:
    kept: list[Any] = []
    app = endpoints(
        context, Script("half", ValueError("x")), on_finish=lambda *given: kept.append(given), cors_origins="*"
    )
    body = call(app, "POST", body=run_input()).read()
    wait_until(lambda: bool(kept))
    chat, message, status = kept[0]
    assert (status, message["status"]["reason"], message["parts"][0]["text"]) == ("error", "error", "half")
    connected = call(app, "POST", "/connect", {"threadId": "t"}, origin="https://example.org")
    assert connected.read() == body and body.endswith(b'"message":"An error occurred."}\n\n')
    assert connected.headers["access-control-allow-origin"] == "*"
    assert call(app, "GET", "/t/stream").read() == body
    assert call(app, "DELETE", "/t/stream").status == 405 and call(app, "GET", "/none/stream").status == 204
