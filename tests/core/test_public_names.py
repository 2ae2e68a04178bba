"""The public names and their signatures, pinned: a change of them shows as a change of
tests/data/public_names.txt.

To write that file anew: `python -m tests.core.test_public_names`.
"""

from __future__ import annotations

import enum
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

from resumable_sync import stores

PINNED = Path(__file__).parent.parent / "data" / "public_names.txt"

PACKAGES = [
    "resumable_sync",
    "resumable_sync.types",
    "resumable_sync.errors",
    "resumable_sync.stores",
    "resumable_sync.stores.base",
    *(found.name for found in pkgutil.iter_modules(stores.__path__, f"{stores.__name__}.") if found.ispkg),
    "resumable_sync.sources",
    "resumable_sync.async_source",
    "resumable_sync.wsgi",
    "resumable_sync.client",
    "resumable_sync.durable",
    "resumable_sync.assistant",
    "resumable_sync.assistant.adapters",
    "resumable_sync.health",
    "resumable_sync.inspector",
    "resumable_sync.logs",
    "resumable_sync.metrics",
    "resumable_sync.stats",
    "resumable_sync.testing",
]


def describe(name: str, value: object) -> Iterator[str]:
    """A line for the name, and one for each public member of a class."""
    if inspect.isclass(value):
        # What the standard library makes of these differs from one Python to the next.
        foreign = issubclass(value, (enum.Enum, tuple, BaseException))
        bases = ", ".join(base.__name__ for base in value.__bases__)
        yield f"class {name}({bases}){'' if foreign else _signature(value)}"
        for member in sorted(vars(value)):
            if not member.startswith("_") and not (foreign and inspect.isfunction(vars(value)[member])):
                found = inspect.getattr_static(value, member)
                function = getattr(found, "__func__", found)
                yield f"    {member}{_signature(function) if inspect.isfunction(function) else ''}"
    elif inspect.isfunction(value):
        yield f"def {name}{_signature(value)}"
    else:
        yield f"{name}: {type(value).__name__}"


def _signature(function: object) -> str:
    try:
        return re.sub(r" at 0x[0-9a-f]+", "", str(inspect.signature(function)))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return ""


def public_names() -> str:
    """All of them, as text."""
    lines = []
    for package in PACKAGES:
        module = importlib.import_module(package)
        lines.append(f"# {package}")
        for name in sorted(module.__all__):
            lines += describe(name, getattr(module, name))
        lines.append("")
    return "\n".join(lines)


def test_the_public_names_are_as_pinned() -> None:
    assert public_names() == PINNED.read_text("utf-8")


if __name__ == "__main__":
    PINNED.write_text(public_names(), "utf-8")
