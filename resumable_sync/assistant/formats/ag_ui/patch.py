"""JSON Patch (RFC 6902) and the operations of a state: each as the other."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ...message.chunks import StateOperation
from ...message.jsontext import JsonValue
from ...message.state import apply_operation

_POINTER = re.compile(r"(/([^/~]|~[01])*)*")
_INDEX = re.compile(r"0|[1-9][0-9]*")
_MISSING = object()


def patch_of(state: JsonValue, operation: StateOperation) -> tuple[dict[str, Any], JsonValue]:
    """One patch operation that does what `operation` does to `state`, and the state after it.

    Text that is appended goes as a whole: JSON Patch cannot append. MalformedStreamError if it cannot be applied.
    """
    after = apply_operation(state, operation)
    old: Any = state
    new: Any = after
    for depth, key in enumerate(operation.path):
        at = _child(old, key)
        new = _child(new, key)
        if at is _MISSING or (at is None and depth + 1 < len(operation.path)):
            # Objects that the operation makes on its way come with it.
            place = "add" if at is _MISSING else "replace"
            return {"op": place, "path": _pointer(operation.path[: depth + 1]), "value": new}, after
        old = at
    return {"op": "replace", "path": _pointer(operation.path), "value": new}, after


def operations_of(state: JsonValue, patch: Sequence[Any]) -> tuple[list[StateOperation], JsonValue]:
    """The operations that do what `patch` does to `state`, and the state after. ValueError if it cannot be."""
    operations = []
    for entry in patch:
        if not isinstance(entry, Mapping):
            raise ValueError("not a patch operation")
        operation = _operation(state, entry)
        if operation is not None:
            state = apply_operation(state, operation)
            operations.append(operation)
    return operations, state


def _operation(state: JsonValue, entry: Mapping[str, Any]) -> StateOperation | None:
    """The operation that does what one of a patch does; None for a test that holds."""
    kind, path = entry.get("op"), _path(entry.get("path"))
    if kind == "test":
        if _found(state, path) != entry.get("value"):
            raise ValueError("a test of the patch fails")
        return None
    if kind in ("add", "replace"):
        if "value" not in entry:
            raise ValueError("a patch operation without a value")
        return _put(state, path, entry["value"], insert=kind == "add")
    if kind == "remove":
        return _removed(state, path)
    if kind in ("move", "copy"):
        source = _path(entry.get("from"))
        value = _found(state, source)
        if kind == "copy":
            return _put(state, path, value, insert=True)
        if path[: len(source)] == source:
            if path == source:
                return None
            raise ValueError("a value cannot be moved into itself")
        taken = apply_operation(state, _removed(state, source))
        return StateOperation("set", (), apply_operation(taken, _put(taken, path, value, insert=True)))
    raise ValueError(f"not a patch operation: {kind!r:.40}")


def _put(state: JsonValue, path: tuple[str, ...], value: JsonValue, *, insert: bool) -> StateOperation:
    holder = _found(state, path[:-1]) if path else None
    if path and isinstance(holder, list):
        at = len(holder) if path[-1] == "-" else _index(path[-1])
        if at > len(holder) - (not insert):
            raise ValueError("no such place in the array")
        if insert and at < len(holder):
            return StateOperation("set", path[:-1], [*holder[:at], value, *holder[at:]])
        return StateOperation("set", (*path[:-1], str(at)), value)
    return StateOperation("set", path, value)


def _removed(state: JsonValue, path: tuple[str, ...]) -> StateOperation:
    _found(state, path)
    if not path:
        return StateOperation("set", (), None)
    holder = _found(state, path[:-1])
    if isinstance(holder, list):
        at = _index(path[-1])
        return StateOperation("set", path[:-1], [*holder[:at], *holder[at + 1 :]])
    return StateOperation("set", path[:-1], {key: item for key, item in holder.items() if key != path[-1]})


def _found(state: Any, path: tuple[str, ...]) -> Any:
    """What is at `path`; ValueError if nothing. A state that was never told counts as empty."""
    current = {} if state is None and path else state
    for key in path:
        current = _child(current, key)
        if current is _MISSING:
            raise ValueError(f"nothing at {_pointer(path)!r:.80}")
    return {} if state is None and not path else current


def _child(holder: Any, key: str) -> Any:
    if isinstance(holder, Mapping):
        return holder.get(key, _MISSING)
    if isinstance(holder, list) and _INDEX.fullmatch(key) and int(key) < len(holder):
        return holder[int(key)]
    return _MISSING


def _index(key: str) -> int:
    if not _INDEX.fullmatch(key):
        raise ValueError(f"no place in an array: {key!r:.40}")
    return int(key)


def _path(pointer: object) -> tuple[str, ...]:
    if not isinstance(pointer, str) or not _POINTER.fullmatch(pointer):
        raise ValueError(f"not a JSON pointer: {pointer!r:.80}")
    return tuple(key.replace("~1", "/").replace("~0", "~") for key in pointer.split("/")[1:])


def _pointer(path: tuple[str, ...]) -> str:
    return "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in path)
