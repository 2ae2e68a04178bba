"""The Lua scripts of the Redis store, read from the package's `lua` directory."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple

Argument = str | bytes | int


class Call(NamedTuple):
    """One command. `key` tells a cluster where it belongs; `source` is the script's text if it is one."""

    key: str
    arguments: tuple[Argument, ...]
    source: str | None = None

    def in_full(self) -> Call:
        """The script with its text instead of its digest, for a server that does not know it yet."""
        return Call(self.key, ("EVAL", self.source or "", *self.arguments[2:]))


def script(name: str, keys: Sequence[str], *arguments: Argument) -> Call:
    """A call of `lua/<name>.lua`, or of what `_BODIES` names."""
    text, digest = _load(name)
    return Call(keys[0], ("EVALSHA", digest, str(len(keys)), *keys, *arguments), text)


_PARTS = {
    "acquire": ("ending", "numbers", "begin"),
    "append": ("rows",),
    "append_noted": ("rows", "notes"),
    "cancel": ("ending",),
    "commit": ("ending", "rows", "notes"),
    "create": ("ending", "numbers", "begin", "rows", "notes", "describe"),
    "delete": ("numbers",),
    "finalize": ("ending", "notes"),
    "info": ("ending", "numbers", "describe"),
    "orphan": ("ending",),
    "release": ("ending",),
    "state": ("ending",),
    "take_over": ("ending",),
    "touch": ("ending",),
}
"""What scripts need beyond what all share."""

_BODIES = {"append_noted": "append"}
"""The file of a script that is not called after it."""


# Read now: later, at the first call, there may be no descriptor left.
_FILES = {
    file.name: file.read_text("utf-8")
    for file in (resources.files(__package__) / "lua").iterdir()
    if file.name.endswith(".lua")
}


@functools.cache
def _load(name: str) -> tuple[str, str]:
    """The script's text, after what it shares with others, and its digest."""
    shared = ["index_shared"] if name.startswith("index_") else ["shared", "shared_write", *_PARTS.get(name, ())]
    text = "".join(_FILES[f"{each}.lua"] for each in (*shared, _BODIES.get(name, name)))
    return text, hashlib.sha1(text.encode("utf-8")).hexdigest()
