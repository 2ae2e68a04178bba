"""Who may import whom: the rooms stay apart, and optional packages stay optional."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import resumable_sync

ROOT = Path(resumable_sync.__file__).parent

# Room -> the rooms it may import. A room is a module or package right under resumable_sync.
ALLOWED = {
    "_version": set(),
    "errors": set(),
    "fork": set(),
    "sse": set(),
    "types": {"errors"},
    "stores": {"errors", "types", "fork"},
    "committer": {"errors", "types", "fork"},
    "producer": {"errors", "types", "committer"},
    "following": {"errors", "types"},
    "context": {"errors", "types", "fork", "committer", "producer", "following"},
    "wsgi": {"errors", "types", "fork", "context", "producer", "sse"},
    "assistant": {"errors", "types", "committer", "context", "producer", "sse", "wsgi"},
    "testing": {"errors", "types", "stores"},
}
FREE = {"__init__", "__main__", "cli", "demo"}  # these may import anything
PRIVATE = {"cli", "demo", "__main__"}  # and nobody but they themselves imports these


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """The rooms that a file imports, absolute or relative, also inside functions."""
    rooms = set()
    package = ("resumable_sync", *path.relative_to(ROOT).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            names = [".".join((*base, *filter(None, [node.module]))) + "." + alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "resumable_sync" and len(parts) > 1:
                rooms.add(parts[1])
    return rooms


def test_every_room_imports_only_what_lies_below_it() -> None:
    wrong = []
    for path in ROOT.rglob("*.py"):
        room = room_of(path)
        base = next((name for name in ALLOWED if room == name or room.startswith(f"{name}_")), room)
        for other in imported_rooms(path) - {room}:
            below = next((name for name in ALLOWED if other == name or other.startswith(f"{name}_")), other)
            if base in FREE or base.split("_")[0] in PRIVATE or below == base:
                continue
            if base not in ALLOWED or below not in ALLOWED[base]:
                wrong.append(f"{path.relative_to(ROOT)} imports {other}")
    assert wrong == []


def test_the_codecs_know_no_stores() -> None:
    """Their seam to the rest is an iterable of bytes."""
    http = {"__init__", "response", "stored", "active", "incoming", "endpoints"}
    rest = {"context", "following", "producer", "wsgi", "stores", "committer"}
    wrong = [
        path.name
        for path in (ROOT / "assistant").glob("*.py")
        if path.stem not in http and imported_rooms(path) & rest
    ]
    assert wrong == []


def test_the_core_needs_no_optional_package() -> None:
    code = (
        "import sys\n"
        "import resumable_sync, resumable_sync.wsgi, resumable_sync.cli\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "print(sorted(loaded & {'redis', 'flask', 'asyncio', 'pytest', 'hypothesis'}))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    assert out.stdout.strip() == "[]"
