"""The state that accompanies a message: how operations change it, and a proxy whose mutations become them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from ...errors import MalformedStreamError
from .chunks import StateOperation
from .jsontext import JsonValue, concat, jsonable

_FORBIDDEN_KEYS = frozenset({"__proto__", "constructor", "prototype"})
_MISSING = object()


def apply_operation(state: JsonValue, operation: StateOperation) -> JsonValue:
    """Return `state` with one operation applied; everything on the way is copied, nothing is changed.

    Objects are made where the path leads through null. MalformedStreamError if it leads through another
    value, beyond the end of an array, to a key that JavaScript clients refuse, or if `append-text` finds no
    string. Pure; thread-safe.
    """
    return _changed(state, operation, 0)


def _changed(current: Any, operation: StateOperation, depth: int) -> JsonValue:
    path = operation.path
    if depth == len(path):
        if operation.type == "set":
            return operation.value
        if not isinstance(current, str) or not isinstance(operation.value, str):
            raise MalformedStreamError(f"no string to append to at {list(path)}")
        return concat(current, operation.value)
    key = path[depth]
    if key in _FORBIDDEN_KEYS:
        raise MalformedStreamError(f"a path that clients refuse: {list(path)}")
    if isinstance(current, list):
        if not key.isdecimal() or str(int(key)) != key or int(key) > len(current):
            raise MalformedStreamError(f"no place for {key!r:.40} in the array at {list(path[:depth])}")
        index = int(key)
        item = current[index] if index < len(current) else None
        return [*current[:index], _changed(item, operation, depth + 1), *current[index + 1 :]]
    if current is None:
        current = {}
    if not isinstance(current, dict):
        raise MalformedStreamError(f"neither object nor array at {list(path[:depth])}")
    return {**current, key: _changed(current.get(key), operation, depth + 1)}


class StateHolder(Protocol):
    """Where a proxy reads the state and leaves its operations."""

    def read_state(self) -> JsonValue:
        """The state as it is now."""

    def update_state(self, change: Callable[[JsonValue], list[StateOperation]]) -> None:
        """Apply and publish, atomically, the operations that `change`, a pure function, makes of the state."""


class StateProxy:
    """The state at one path, used like a dict or list; every mutation is sent as an operation.

    `proxy[key]` is a plain value where the state holds a string, number, bool or None, and another proxy
    where it holds an object, an array, or nothing yet: assigning below a path that does not exist makes it,
    while reading from such a proxy raises KeyError (`in` and `get` do not). Assigning a string that only
    grew appends the new text; assigning an equal string sends nothing.

    Thread-safe: each operation is atomic, but `+=` is a reading and a writing. What mutates blocks and raises
    as the controller's methods do; TypeError for what JSON cannot hold.
    """

    def __init__(self, holder: StateHolder, path: tuple[str, ...] = ()) -> None:
        self._holder = holder
        self._path = path

    def _lookup(self) -> Any:
        return _find(self._holder.read_state(), self._path)

    def _require(self) -> Any:
        return _present(self._lookup(), self._path)

    def _child_path(self, key: str | int) -> tuple[str, ...]:
        current = self._lookup()
        if isinstance(current, list):
            index = key if isinstance(key, int) else int(key) if key.isdecimal() else len(current)
            index += len(current) if index < 0 else 0
            if not 0 <= index < len(current):
                raise IndexError(f"no item {key!r} in an array of {len(current)}")
            return (*self._path, str(index))
        if not isinstance(key, str):
            raise TypeError(f"an object's keys are strings, not {type(key).__name__}")
        if key in _FORBIDDEN_KEYS:
            raise ValueError(f"clients refuse the key {key!r}")
        return (*self._path, key)

    def is_root_of(self, holder: object) -> bool:
        """Whether this is the whole state of `holder`."""
        return self._holder is holder and not self._path

    def replace(self, value: object) -> None:
        """Put `value` here, in place of whatever there is."""
        self._assign(_plain(value))

    def _publish(self, change: Callable[[Any], list[StateOperation]]) -> None:
        """Send the operations that `change` makes of the value at this path, all in one atomic step."""
        self._holder.update_state(lambda state: change(_find(state, self._path)))

    def __getitem__(self, key: str | int) -> Any:
        child = StateProxy(self._holder, self._child_path(key))
        value = child._lookup()
        return child if value is _MISSING or isinstance(value, (dict, list)) else value

    def __setitem__(self, key: str | int, value: object) -> None:
        path = self._child_path(key)
        if isinstance(value, StateProxy) and value._holder is self._holder and value._path == path:
            return  # the end of `state[key] += [...]`, which has been sent already
        StateProxy(self._holder, path).replace(value)

    def _assign(self, value: JsonValue) -> None:
        def change(before: Any) -> list[StateOperation]:
            if not isinstance(value, str) or not isinstance(before, str) or not value.startswith(before):
                return [StateOperation("set", self._path, value)]
            if value == before:
                return []
            return [StateOperation("append-text", self._path, value[len(before) :])]

        self._publish(change)

    def __delitem__(self, key: str | int) -> None:
        self.pop(key)

    def value(self) -> Any:
        """A copy of what is here as plain dicts and lists. KeyError if there is nothing."""
        return jsonable(self._require())

    def get(self, key: str, default: Any = None) -> Any:
        """`self[key]`, or `default` where there is nothing."""
        return self[key] if key in self else default

    def __contains__(self, key: object) -> bool:
        current = self._lookup()
        return current is not _MISSING and key in current

    def __iter__(self) -> Iterator[Any]:
        current = self._require()
        return iter(list(current)) if isinstance(current, dict) else (self[at] for at in range(len(current)))

    def __len__(self) -> int:
        return len(self._require())

    def keys(self) -> list[str]:
        """The keys of an object."""
        return list(self._require().keys())

    def items(self) -> list[tuple[str, Any]]:
        """The keys of an object with `self[key]`."""
        return [(key, self[key]) for key in self.keys()]

    def values(self) -> list[Any]:
        """`self[key]` for every key."""
        return [self[key] for key in self.keys()]

    def setdefault(self, key: str, default: object = None) -> Any:
        """`self[key]`, which is set to `default` first if there is nothing."""
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, other: Mapping[str, object] | None = None, /, **values: object) -> None:
        """Set several keys, one operation each."""
        for key, value in {**(other or {}), **values}.items():
            self[key] = value

    def pop(self, key: str | int) -> Any:
        """Remove and return an item as a plain value. KeyError or IndexError if there is none."""
        removed: list[Any] = []

        def change(before: Any) -> list[StateOperation]:
            if isinstance(before, dict):
                removed.append(before[str(key)])
                kept: JsonValue = {name: item for name, item in before.items() if name != key}
            else:
                items = list(_present(before, self._path))
                removed.append(items.pop(int(key)))
                kept = items
            return [StateOperation("set", self._path, kept)]

        self._publish(change)
        return jsonable(removed[0])

    def clear(self) -> None:
        """Empty the object or array."""
        self._publish(lambda before: [StateOperation("set", self._path, [] if isinstance(before, list) else {})])

    def append(self, value: object) -> None:
        """Add one item to an array."""
        self.extend([value])

    def extend(self, values: Iterable[object]) -> None:
        """Add items to an array, all in one chunk. TypeError if there is none."""
        plain = [_plain(value) for value in values]

        def change(before: Any) -> list[StateOperation]:
            if not isinstance(before, list):
                raise TypeError("only an array can be extended")
            return [
                StateOperation("set", (*self._path, str(at)), value) for at, value in enumerate(plain, len(before))
            ]

        self._publish(change)

    def __iadd__(self, values: Iterable[object]) -> StateProxy:
        self.extend(values)
        return self

    def __eq__(self, other: object) -> bool:
        mine = self._lookup()
        return bool(mine == (other._lookup() if isinstance(other, StateProxy) else other))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        current = self._lookup()
        return f"<state at {list(self._path)}: {'nothing' if current is _MISSING else repr(current)}>"


def _find(state: JsonValue, path: tuple[str, ...]) -> Any:
    """What is at `path`, _MISSING if nothing. A state that was never set counts as empty."""
    current: Any = {} if state is None else state
    for key in path:
        if isinstance(current, dict):
            current = current.get(key, _MISSING)
        elif isinstance(current, list) and key.isdecimal() and int(key) < len(current):
            current = current[int(key)]
        else:
            return _MISSING
    return current


def _present(found: Any, path: tuple[str, ...]) -> Any:
    if found is _MISSING:
        raise KeyError(path[-1])
    return found


def _plain(value: object) -> JsonValue:
    return value.value() if isinstance(value, StateProxy) else jsonable(_without_proxies(value))


def _without_proxies(value: object) -> object:
    if isinstance(value, StateProxy):
        return value.value()
    if isinstance(value, Mapping):
        return {key: _without_proxies(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_proxies(item) for item in value]
    return value
