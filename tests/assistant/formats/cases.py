"""Controller programs beyond the golden ones, every part closed, as the JavaScript controller needs it."""

from __future__ import annotations

from typing import Any

from .programs import Program

USAGE = {"inputTokens": 10, "outputTokens": 5}
DONE: list[Any] = ["enqueue", {"type": "message-finish", "path": [], "finishReason": "stop", "usage": USAGE}]


def _tool(handle: str, **more: Any) -> list[Any]:
    return ["add_tool_call_part", handle, {"toolCallId": f"call-{handle}", "toolName": f"tool_{handle}", **more}]


def _finish(reason: str) -> list[Any]:
    return ["enqueue", {"type": "message-finish", "path": [], "finishReason": reason, "usage": USAGE}]


PROGRAMS: dict[str, Program] = {
    "nothing": [],
    "explicit text parts": [
        ["append_text", "a"],
        ["add_text_part", "p"],
        ["part.append", "p", "b"],
        ["part.append", "p", ""],
        ["part.close", "p"],
        ["append_text", "c"],
        ["part.close", "p"],
        DONE,
    ],
    "explicit parts that overlap": [
        ["add_text_part", "p"],
        ["add_reasoning_part", "q", "Plan"],
        ["part.append", "q", "think"],
        ["part.append", "p", "say"],
        ["part.append", "q", " more"],
        ["part.close", "q"],
        ["part.close", "p"],
    ],
    "an empty text part": [["add_text_part", "p"], ["part.close", "p"], DONE],
    "reasoning with summaries": [
        ["append_reasoning", "one"],
        ["append_reasoning", "two", "Second"],
        ["append_reasoning", " goes on"],
        ["append_reasoning", "", "Third, without text"],
        ["append_text", "answer"],
        DONE,
    ],
    "parents": [
        ["append_text", "a"],
        ["@p1", "append_text", "b"],
        ["@p1", "append_text", "c"],
        ["@p2", "append_text", "d"],
        ["append_text", "e"],
        ["@p1", "append_reasoning", "f"],
        ["@p1", "append_reasoning", "g", "Sum"],
        ["@p1", "append_source", {"sourceType": "url", "id": "s", "url": "https://example.com", "title": "T"}],
        ["@p1", "append_file", {"data": "aGk=", "mimeType": "text/plain"}],
        ["@p2", "append_data", {"name": "d", "data": None}],
        ["@p2", *_tool("t")],
        ["tool.set_response", "t", {"result": 1}],
        DONE,
    ],
    "a tool fails": [
        _tool("t"),
        ["tool.args_append", "t", '{"q":'],
        ["tool.args_append", "t", '"x"}'],
        ["tool.args_close", "t"],
        ["tool.set_response", "t", {"result": "no such city", "isError": True}],
        ["append_text", "Sorry"],
        DONE,
    ],
    "a tool fails with an object": [
        _tool("t"),
        ["tool.set_response", "t", {"result": {"code": 404}, "isError": True, "artifact": [1]}],
    ],
    "parallel tools": [
        _tool("a"),
        _tool("b"),
        ["tool.args_append", "a", '{"x"'],
        ["tool.args_append", "b", '{"y":[1,'],
        ["tool.args_append", "a", ':"1"}'],
        ["tool.args_append", "b", "2]}"],
        ["tool.args_close", "b"],
        ["tool.args_close", "a"],
        ["tool.set_response", "b", {"result": [1, 2]}],
        ["append_text", "meanwhile"],
        ["tool.set_response", "a", {"result": None}],
        DONE,
    ],
    "a tool without arguments or result": [_tool("t"), ["tool.close", "t"]],
    "a response before the arguments are closed": [
        _tool("t"),
        ["tool.args_append", "t", '{"a":'],
        ["tool.set_response", "t", {"result": "r"}],
        ["tool.set_response", "t", {"result": "ignored"}],
        ["tool.close", "t"],
        DONE,
    ],
    "a response at once": [
        _tool("t", args={"a": [1, 2.5, None], "b": "é"}, response={"result": "r", "artifact": {"x": 1}}),
        _tool("u", argsText='{"c":1}'),
        ["tool.close", "u"],
    ],
    "no result": [_tool("t"), ["tool.set_response", "t", {}]],
    "model content and messages": [
        _tool("t"),
        [
            "tool.set_response",
            "t",
            {"result": 1, "modelContent": [{"type": "text", "text": "x"}], "messages": [{"role": "user"}]},
        ],
    ],
    "arguments that are no JSON": [
        _tool("t"),
        ["tool.args_append", "t", '{"a":1,"b":'],
        ["tool.args_append", "t", "oops}"],
        ["tool.args_close", "t"],
        ["tool.close", "t"],
        DONE,
    ],
    "a file and a source": [
        ["append_file", {"data": "data:text/plain;base64,aGk=", "mimeType": "text/plain"}],
        ["append_source", {"sourceType": "url", "id": "s", "url": "https://example.com"}],
        ["append_text", "x"],
        ["append_file", {"mimeType": "image/png", "data": "https://example.com/a.png"}],
        DONE,
    ],
    "annotations": [
        ["append_text", "x"],
        ["enqueue", {"type": "annotations", "path": [], "annotations": [{"a": 1}, "b"]}],
        ["enqueue", {"type": "annotations", "path": [], "annotations": [None, [2]]}],
        DONE,
    ],
    "steps": [
        ["enqueue", {"type": "step-start", "path": [], "messageId": "step-1"}],
        ["append_text", "one"],
        [
            "enqueue",
            {"type": "step-finish", "path": [], "finishReason": "tool-calls", "usage": USAGE, "isContinued": True},
        ],
        ["enqueue", {"type": "step-start", "path": [], "messageId": "step-2"}],
        ["append_text", "two"],
        [
            "enqueue",
            {"type": "step-finish", "path": [], "finishReason": "stop", "usage": USAGE, "isContinued": False},
        ],
        [
            "enqueue",
            {"type": "step-finish", "path": [], "finishReason": "stop", "usage": USAGE, "isContinued": False},
        ],
        DONE,
    ],
    "merge": [
        ["append_text", "a"],
        [
            "merge",
            [
                ["append_text", "b"],
                _tool("m"),
                ["tool.args_append", "m", "{}"],
                ["tool.set_response", "m", {"result": 2}],
                ["append_reasoning", "c"],
            ],
        ],
        ["append_text", "d"],
        ["append_source", {"sourceType": "url", "id": "s", "url": "u"}],
        DONE,
    ],
    "state": [
        ["state.set", ["a"], {"b": {"t": "x"}, "l": [1]}],
        ["state.set", ["a", "b", "t"], "xy"],
        ["append_text", "x"],
        ["state.set", ["a", "b", "t"], "z"],
        ["state.set", ["a", "l", 0], None],
        ["state.set", ["n", "m"], 1],
        DONE,
    ],
    "state operations as they are": [
        [
            "enqueue",
            {
                "type": "update-state",
                "path": [],
                "operations": [
                    {"type": "set", "path": ["a"], "value": {"l": []}},
                    {"type": "set", "path": ["a", "l", "0"], "value": "t"},
                    {"type": "append-text", "path": ["a", "l", "0"], "value": "ext"},
                ],
            },
        ],
        [
            "enqueue",
            {"type": "update-state", "path": [], "operations": [{"type": "set", "path": [], "value": [1]}]},
        ],
    ],
    "errors with a code": [
        ["append_text", "x"],
        ["enqueue", {"type": "error", "path": [], "error": "slow", "code": "rate_limit", "severity": "warning"}],
        ["append_text", "y"],
        DONE,
    ],
    "an error in the middle of arguments": [
        _tool("t"),
        ["tool.args_append", "t", '{"q":'],
        ["enqueue", {"type": "error", "path": [], "error": "bad"}],
        ["tool.args_append", "t", '"x"}'],
        ["tool.close", "t"],
        DONE,
    ],
    "a warning in the middle of arguments": [
        _tool("t"),
        ["tool.args_append", "t", '{"q":'],
        ["enqueue", {"type": "error", "path": [], "error": "hm", "severity": "info"}],
        ["tool.args_append", "t", '"x"}'],
        ["tool.args_close", "t"],
        ["tool.close", "t"],
    ],
    "finish in the middle of arguments": [
        _tool("t"),
        ["tool.args_append", "t", '{"q":1'],
        _finish("tool-calls"),
        ["tool.args_append", "t", "}"],
        ["tool.close", "t"],
    ],
    "raw parts": [
        ["append_text", "a"],
        ["enqueue", {"type": "part-start", "path": [], "part": {"type": "text", "parentId": "p"}}],
        ["enqueue", {"path": [1], "type": "text-delta", "textDelta": "b"}],
        ["enqueue", {"type": "part-finish", "path": [1]}],
        ["append_text", "c"],
        [
            "enqueue",
            {"type": "part-start", "path": [], "part": {"toolCallId": "i", "toolName": "n", "type": "tool-call"}},
        ],
        ["enqueue", {"type": "text-delta", "path": [2], "textDelta": "{}"}],
        ["enqueue", {"type": "result", "path": [2], "result": 1, "isError": False, "artifact": None}],
        ["enqueue", {"type": "part-finish", "path": [2]}],
        DONE,
    ],
    "data": [
        ["enqueue", {"type": "data", "path": [], "data": []}],
        ["append_data", {"name": "x y", "data": [1, {"k": None}]}],
        [
            "enqueue",
            {"type": "data", "path": [], "data": [{"name": "n"}, {"data": 1}, {"name": 1, "data": 2}, None]},
        ],
    ],
    "split surrogates": [
        ["append_text", "\ud83d"],
        ["append_text", "\ude00 \udc00"],
        ["append_text", "\ud800"],
        ["append_text", "x\ud83d"],
        ["append_reasoning", "\ud83d"],
        ["append_text", "\ude00"],
        _tool("t"),
        ["tool.args_append", "t", '{"a":"\ud83d'],
        ["tool.args_append", "t", '\ude00\ud800"}'],
        ["tool.set_response", "t", {"result": {"\udfff": ["\ud800x"]}}],
    ],
    **{
        f"finished as {reason}": [["append_text", "x"], _tool("t"), ["tool.close", "t"], _finish(reason)]
        for reason in ("stop", "length", "content-filter", "tool-calls", "error", "other", "unknown")
    },
    "thrown with a tool open": [
        ["append_text", "x"],
        _tool("t"),
        ["tool.args_append", "t", '{"a":1}'],
        ["tool.close", "t"],
        ["throw", "boom"],
    ],
    "thrown at once": [["throw", "boom"]],
}
