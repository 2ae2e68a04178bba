"""The files that `resumable_sync.wsgi.operations` shows, taken from its text."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping

from resumable_sync.wsgi import operations

NAMES = ("app.py", "gunicorn.conf.py", "nginx.conf", "redis.conf")


def shown(name: str, changes: Mapping[str, str] | None = None) -> str:
    """The file of this name; each key of `changes` must stand in it, and its value takes its place."""
    found = re.findall(r"^    # (\S+)\n((?:    .*\n|\n)+)", operations.__doc__ or "", re.MULTILINE)
    (text,) = (textwrap.dedent(text) for first, text in found if first == name)
    for old, new in (changes or {}).items():
        assert old in text, f"{name} has no {old!r} any more"
        text = text.replace(old, new)
    return text.strip() + "\n"
