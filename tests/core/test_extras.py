"""Without the packages of the extras: what needs none works, what needs one says what to install."""

from __future__ import annotations

import subprocess
import sys

import pytest

EXTRAS = ("redis", "flask", "httpx", "prometheus_client", "pytest", "hypothesis")
REDIS = 'RedisStore needs the Redis client: pip install "resumable_sync[redis]"'


def without(packages: tuple[str, ...], code: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a Python that does not find these packages."""
    hidden = f"import sys\nsys.modules.update(dict.fromkeys({packages!r}))\n"
    return subprocess.run([sys.executable, "-c", hidden + code], capture_output=True, text=True, timeout=60)


def test_every_public_name_is_there_without_extras() -> None:
    code = """
from resumable_sync import *
from resumable_sync.assistant import *
from resumable_sync.durable import *
from resumable_sync.inspector import *
from resumable_sync.sources import *
from resumable_sync.sse import *
from resumable_sync.stores.base import *
from resumable_sync.wsgi import *
import inspect, resumable_sync
inspect.getmembers(resumable_sync)
with MemoryStore() as store, ResumableStreamContext(store) as context:
    print(b"".join(context.run("s", lambda: [b"works"])).decode())
"""
    result = without(EXTRAS, code)
    assert (result.stdout, result.returncode) == ("works\n", 0), result.stderr


@pytest.mark.parametrize(
    "package, code, hint",
    [
        ("redis", "from resumable_sync import RedisStore", REDIS),
        ("redis", "import resumable_sync; resumable_sync.RedisStore", REDIS),
        ("redis", "import resumable_sync.stores.redis", REDIS),
        ("redis", "from resumable_sync import open_store; open_store('redis://127.0.0.1:1')", REDIS),
        ("redis", "from resumable_sync import open_store; open_store('redis+cluster://127.0.0.1:1')", REDIS),
        (
            "httpx",
            "import resumable_sync.client",
            'resumable_sync.client needs httpx: pip install "resumable_sync[client]"',
        ),
        (
            "prometheus_client",
            "import resumable_sync.metrics",
            'resumable_sync.metrics needs the Prometheus client: pip install "resumable_sync[metrics]"',
        ),
        (
            "hypothesis",
            "import resumable_sync.testing",
            "resumable_sync.testing needs pytest and hypothesis: pip install pytest hypothesis",
        ),
        (
            "flask",
            "from resumable_sync.assistant import assistant_blueprint; assistant_blueprint(None)",
            "assistant_blueprint needs Flask: pip install flask",
        ),
    ],
)
def test_what_needs_a_package_says_what_to_install(package: str, code: str, hint: str) -> None:
    result = without((package,), code)
    assert result.stderr.splitlines()[-1:] == [f"ImportError: {hint}"]


@pytest.mark.parametrize("command", ["ls", "status s", "cancel s", "follow s", "publish s", "check"])
def test_a_command_says_what_to_install_in_one_line(command: str) -> None:
    arguments = ["--store", "redis://127.0.0.1:1", *command.split()]
    result = without(("redis",), f"from resumable_sync.cli import main; sys.exit(main({arguments!r}))")
    assert (result.stdout, result.returncode) == ("", 9)
    assert [line.partition(": ")[2] for line in result.stderr.splitlines()] == [
        f"redis://127.0.0.1:1 needs a package that is not installed: {REDIS}"
    ]
