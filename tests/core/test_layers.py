"""Who may import whom: the rooms stay apart, arrows run one way, and optional packages stay optional."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import resumable_sync

ROOT = Path(resumable_sync.__file__).parent

CORE = {
    "errors",
    "process",
    "contract",
    "logs",
    "stats",
    "health",
    "heartbeat",
    "committer",
    "producer",
    "production",
    "pump",
    "writer",
    "shared_writer",
    "arrivals",
    "viewer",
    "interrupts",
    "several",
    "recovery",
    "context",
}
OUTSIDE = {"durable", "client", "metrics", "inspector", "async_source"}  # for the command line and the demo alone

# What all stores share. Whatever else lies in stores/ is a store, with a room of its own.
SHARED = {"base", "notes", "pages", "tail", "wakeup", "sweeper", "turns", "combining"}
STORES = {
    f"stores.{path.stem}"
    for path in (ROOT / "stores").iterdir()
    if (path.suffix == ".py" or (path / "__init__.py").exists()) and path.stem not in {"__init__", *SHARED}
}

# Room -> the rooms that it may import besides itself. A room is a module or a folder; the longest name counts.
ALLOWED: dict[str, set[str]] = {
    "_version": set(),
    "errors": set(),
    "process": {"errors"},
    "sse": set(),
    "contract": {"errors"},
    "logs": set(),
    "stats": set(),
    "interrupts": set(),
    "health": {"errors", "process", "contract", "logs", "interrupts"},
    "types": {"contract"},
    "sources": {"producer", "interrupts"},
    "heartbeat": {"errors", "process", "contract", "logs", "stats"},
    "committer": {"errors", "process", "contract", "logs", "stats", "interrupts", "heartbeat"},
    "producer": {"errors", "contract", "logs", "interrupts"},
    "production": {"errors", "process", "contract", "logs", "stats", "committer", "producer"},
    "pump": {"errors", "contract", "logs", "producer", "production"},
    "writer": {"errors", "contract", "production", "pump"},
    "shared_writer": {"errors", "contract", "stats", "production", "pump"},
    "recovery": {"errors", "process", "contract", "logs", "producer"},
    "arrivals": {"interrupts"},
    "viewer": {"errors", "contract", "stats", "interrupts", "production"},
    "several": {"errors", "process", "contract", "logs", "interrupts", "arrivals", "viewer"},
    "context": CORE - {"context", "heartbeat"},
    "stores": {"errors", "process", "contract", "interrupts"},
    **{store: {"errors", "process", "contract", "logs", "interrupts", "stores"} for store in STORES},
    "wsgi": {"sse", *CORE},
    "assistant": {"assistant.message", "assistant.formats", *CORE},
    "assistant.message": {"errors"},
    "assistant.formats": {"errors", "sse", "assistant.message"},
    "assistant.adapters": {"errors", "assistant", "assistant.message"},
    "assistant.http": {"assistant", "assistant.message", "assistant.formats", "wsgi", *CORE},
    "testing": {"errors", "contract", "stores"},
    "durable": {"wsgi", "stores", *CORE},
    "client": {"errors", "sse", "interrupts"},
    "metrics": {*CORE},
    "inspector": {"wsgi", *CORE},
    "async_source": {"producer", "logs", "interrupts"},
    "demo": {
        "assistant",
        "assistant.adapters",
        "assistant.http",
        "stores",
        "wsgi",
        "sse",
        "sources",
        "_version",
        *CORE,
        *OUTSIDE,
    },
    "cli": {"demo", "stores", "sources", "_version", *CORE, *OUTSIDE},
    "__init__": {"stores", "_version", *STORES, *CORE},
    "__main__": {"cli"},
}
# `stores/__init__` opens every kind by URL, `assistant/__init__` gives what users import; what they stand on must
# know neither.
FACADES = {"stores/__init__.py": STORES, "assistant/__init__.py": {"assistant.http"}}


def modules() -> Iterator[tuple[str, Path]]:
    """Dotted name below resumable_sync, and file; a package goes by its own name."""
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts), path


NAMES = dict(modules())


@cache
def imports(name: str, *, at_import: bool = False) -> frozenset[str]:
    """The modules that a module imports, also within functions unless `at_import`."""
    path = NAMES[name]
    package = path.relative_to(ROOT).parts[:-1]
    tree = ast.parse(path.read_text("utf-8"))
    found = set()
    for node in _statements(tree) if at_import else ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            targets = [parts[1:] for parts in names if parts[0] == "resumable_sync"]
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
            targets = [[*filter(None, base), alias.name] for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "resumable_sync":
            targets = [[*(node.module or "").split(".")[1:], alias.name] for alias in node.names]
        else:
            continue
        for target in targets:
            while target and ".".join(target) not in NAMES:
                target = target[:-1]
            found.add(".".join(target) or "__init__")
    return frozenset(found - {name})


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """What runs when the module is imported: no function bodies, nothing for type checkers alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _statements(child)


def room_of(name: str) -> str:
    while name not in ALLOWED:
        assert name, "a module without a room: say in ALLOWED what it may import"
        name = name.rpartition(".")[0]
    return name


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_module_imports_only_what_its_room_may(name: str) -> None:
    room = room_of(name)
    facade = FACADES.get(str(NAMES[name].relative_to(ROOT)), set())
    allowed = {room, *ALLOWED[room], *facade}
    wrong = {other for other in imports(name) if room_of(other) not in allowed}
    assert not wrong, f"{name} ({room}) imports {sorted(wrong)}"


def test_what_is_no_store_is_known() -> None:
    """Else a shared module that went, or was renamed, would leave its name to a store."""
    assert {f"stores.{name}" for name in SHARED} <= NAMES.keys()
    assert STORES >= {"stores.memory", "stores.sqlite", "stores.redis"}


def test_no_module_imports_itself_on_a_way_round() -> None:
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " > ".join((*way[way.index(name) :], name))
        if name in done:
            return
        for other in imports(name):
            visit(other, (*way, name))
        done.add(name)

    for name in NAMES:
        visit(name, ())


def test_the_core_needs_no_optional_package() -> None:
    code = (
        "import sys\n"
        "import resumable_sync, resumable_sync.wsgi, resumable_sync.cli, resumable_sync.inspector\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "optional = {'redis', 'flask', 'httpx', 'asyncio', 'pytest', 'hypothesis', 'prometheus_client'}\n"
        "print(sorted(loaded & optional))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    assert out.stdout.strip() == "[]"
