"""The state proxy: every mutation becomes the operation that a reader applies to the same effect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from resumable_sync.assistant import AssistantMessageAccumulator, create_assistant_stream
from resumable_sync.assistant.message.chunks import StateOperation, UpdateState
from resumable_sync.assistant.message.state import apply_operation
from resumable_sync.errors import MalformedStreamError

START = {"a": {"t": "x", "l": [1, {"k": 2}]}, "n": None, "s": "text"}


def operations_of(use: Callable[[Any], object]) -> tuple[list[Any], Any]:
    """The operations that `use` of the state START sends, and the state that readers end with."""
    failed: list[BaseException] = []

    def callback(controller: Any) -> None:
        controller.state = START
        try:
            use(controller)
        except BaseException as error:
            failed.append(error)
        mine.append(controller.read_state())

    mine: list[Any] = []
    accumulator = AssistantMessageAccumulator()
    sent = []
    for chunk in create_assistant_stream(callback):
        accumulator.add(chunk)
        assert isinstance(chunk, UpdateState)
        sent += [[operation.type, list(operation.path), operation.value] for operation in chunk.operations]
    if failed:
        raise failed[0]
    state = accumulator.finish()["metadata"]["unstable_state"]
    assert sent[0] == ["set", [], START] and mine == [state]
    return sent[1:], state


def assign(*path: Any, value: Any) -> Callable[[Any], None]:
    def use(controller: Any) -> None:
        target = controller.state
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = value

    return use


def grow(controller: Any) -> None:
    controller.state["a"]["t"] += "yz"


def extend(controller: Any) -> None:
    controller.state["a"]["l"] += [3, 4]


@pytest.mark.parametrize(
    "use, expected",
    [
        (assign("a", "b", value=1), [["set", ["a", "b"], 1]]),
        (assign("x", "y", "z", value=1), [["set", ["x", "y", "z"], 1]]),
        (assign("n", value={"k": (1.0, float("nan"))}), [["set", ["n"], {"k": [1, None]}]]),
        (grow, [["append-text", ["a", "t"], "yz"]]),
        (assign("s", value="text"), []),
        (assign("s", value="tex"), [["set", ["s"], "tex"]]),
        (assign("a", "l", -1, "k", value=3), [["set", ["a", "l", "1", "k"], 3]]),
        (extend, [["set", ["a", "l", "2"], 3], ["set", ["a", "l", "3"], 4]]),
        (lambda c: c.state["a"]["l"].append("e"), [["set", ["a", "l", "2"], "e"]]),
        (lambda c: c.state["a"]["l"].pop(0), [["set", ["a", "l"], [{"k": 2}]]]),
        (lambda c: c.state["a"].pop("l"), [["set", ["a"], {"t": "x"}]]),
        (lambda c: c.state.__delitem__("a"), [["set", [], {"n": None, "s": "text"}]]),
        (lambda c: c.state["a"].clear(), [["set", ["a"], {}]]),
        (lambda c: c.state.update({"p": 1}, q=2), [["set", ["p"], 1], ["set", ["q"], 2]]),
        (lambda c: c.state.setdefault("s", 1), []),
        (lambda c: c.state.setdefault("w", []).append(1), [["set", ["w"], []], ["set", ["w", "0"], 1]]),
        (assign("copy", value=None), [["set", ["copy"], None]]),
        (lambda c: c.state.update(copy=c.state["a"]["l"]), [["set", ["copy"], [1, {"k": 2}]]]),
        (lambda c: setattr(c, "state", [1]), [["set", [], [1]]]),
        (lambda c: setattr(c, "state", "text"), [["set", [], "text"]]),
    ],
)
def test_a_mutation_is_sent(use: Callable[[Any], object], expected: list[Any]) -> None:
    sent, _ = operations_of(use)
    assert sent == expected


def test_reading() -> None:
    def use(controller: Any) -> None:
        state = controller.state
        assert state == START and state["a"] == START["a"] and state["a"] != {} and len(state) == 3
        assert list(state) == list(START) == state.keys() and state["s"] == "text" and state["n"] is None
        assert [item for item in state["a"]["l"]] == [1, {"k": 2}] and 1 in state["a"]["l"] and "a" in state
        assert dict(state.items())["a"]["t"] == "x" and state.values()[2] == "text"
        assert state.get("missing") is None and state.get("missing", 1) == 1 and "missing" not in state
        copied = state["a"].value()
        copied["t"] = "changed"
        assert state["a"]["t"] == "x"
        for read in (len, list, lambda proxy: proxy.value(), lambda proxy: proxy.keys()):
            with pytest.raises(KeyError):
                read(state["missing"])
        assert "nothing" in repr(state["missing"]) and "x" in repr(state["a"])

    assert operations_of(use) == ([], START)


@pytest.mark.parametrize(
    "use, error",
    [
        (assign("a", value=object()), TypeError),
        (assign(1, value=1), TypeError),
        (assign("__proto__", value=1), ValueError),
        (assign("a", "l", 2, value=1), IndexError),
        (assign("a", "l", -3, value=1), IndexError),
        (lambda c: c.state["a"].append(1), TypeError),
        (lambda c: c.state["missing"].append(1), TypeError),
        (lambda c: c.state.pop("missing"), KeyError),
        (lambda c: c.state["a"]["l"].pop(7), IndexError),
    ],
)
def test_a_mutation_is_refused(use: Callable[[Any], object], error: type[Exception]) -> None:
    with pytest.raises(error):
        operations_of(use)


def test_the_state_follows_operations_that_others_made() -> None:
    def callback(controller: Any) -> None:
        controller.enqueue({"type": "update-state", "operations": [{"type": "set", "path": ["a"], "value": "x"}]})
        controller.merge(create_assistant_stream(lambda inner: inner.state.update(b=1)))
        controller.state["a"] += "y"

    accumulator = AssistantMessageAccumulator()
    chunks = list(create_assistant_stream(callback))
    for chunk in chunks:
        accumulator.add(chunk)
    assert accumulator.message["metadata"]["unstable_state"] == {"a": "xy", "b": 1}
    assert chunks[-1].to_json()["operations"] == [{"type": "append-text", "path": ["a"], "value": "y"}]


@pytest.mark.parametrize(
    "state, operation",
    [
        ("text", StateOperation("set", ("a",), 1)),
        ([], StateOperation("set", ("1",), 1)),
        ([1], StateOperation("set", ("01",), 1)),
        ([1], StateOperation("set", ("-1",), 1)),
        ([1], StateOperation("append-text", ("0",), "x")),
        ({}, StateOperation("append-text", ("a",), "x")),
        ({}, StateOperation("set", ("constructor",), 1)),
    ],
)
def test_an_operation_that_does_not_fit(state: Any, operation: StateOperation) -> None:
    with pytest.raises(MalformedStreamError):
        apply_operation(state, operation)
    chunk = UpdateState(operations=(StateOperation("set", (), state), operation, StateOperation("set", ("z",), 1)))
    strict, lenient = AssistantMessageAccumulator(), AssistantMessageAccumulator(strict=False)
    before = strict.message
    with pytest.raises(MalformedStreamError):
        strict.add(chunk)
    assert strict.message == before
    if isinstance(state, dict):
        assert lenient.add(chunk)["metadata"]["unstable_state"] == {"z": 1}
