"""The worked examples, made anew by the JavaScript implementations, and where they differ from what is kept."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...javascript import JavaScript

GOLDEN57 = Path(__file__).with_name("golden57")
_MADE_UP = re.compile(r"<generated>|[0-9A-Za-z]{7}|[0-9A-Za-z]{16}|(aitxt|aiobj|msg)-[0-9A-Za-z]{16,}")


def kept(kind: str) -> dict[str, Any]:
    """The examples of a kind, by name."""
    found = sorted((GOLDEN57 / kind).glob("*.json"))
    return {path.stem: json.loads(path.read_text("utf-8")) for path in found}


def differences(javascript: JavaScript, kind: str, example: Any) -> list[str]:
    """Where what JavaScript makes now is not what is kept: paths in the example, and both values."""
    made = javascript.ask("golden", kind=kind, example=example)
    old = {name: example[name] for name in made}
    if "encoders" in old:  # the UI format has no encoder upstream: its bytes there are written by hand
        old["encoders"] = {name: old["encoders"][name] for name in made["encoders"]}
    return list(_different(made, old, ""))


def _different(made: Any, kept: Any, path: str) -> Iterator[str]:
    if isinstance(made, dict) and isinstance(kept, dict):
        for name in sorted({*made, *kept}):
            yield from _different(made.get(name, "<absent>"), kept.get(name, "<absent>"), f"{path}/{name}")
    elif isinstance(made, list) and isinstance(kept, list) and len(made) == len(kept):
        for number, (new, old) in enumerate(zip(made, kept)):
            yield from _different(new, old, f"{path}/{number}")
    elif made != kept and not (_is_made_up(made) and _is_made_up(kept)):
        yield f"{path}: {_short(kept)} is now {_short(made)}"


def _is_made_up(value: object) -> bool:
    return isinstance(value, str) and _MADE_UP.fullmatch(value) is not None


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:199]}…"
