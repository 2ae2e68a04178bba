"""No descriptor is free, at any moment: the call fails by a typed error, and all is well once there are some."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from resumable_sync import SQLiteStore

pytest.importorskip("resource", reason="needs POSIX")

FREE = """
import contextlib, os, resource

def limit():
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

@contextlib.contextmanager
def free(number):
    held = []
    with contextlib.suppress(OSError):
        while True:
            held.append(os.open(os.devnull, os.O_RDONLY))
    for _ in range(number):
        os.close(held.pop())
    try:
        yield
    finally:
        for each in held:
            os.close(each)
"""

PROGRAM = f"""{FREE}
import sys, threading
from resumable_sync import ResumableStreamError, open_store

died = []
threading.excepthook = died.append

def again():
    with open_store(url) as second:
        second.status("s")

def wait():
    store.read("s", lease.cursor, timeout=0.3)

url = sys.argv[1]
store = open_store(url)
lease = store.acquire("s")
acknowledged = store.append(lease, b"acknowledged ") and b"acknowledged "
limit()
calls = {{
    "read": lambda: store.read("s"),
    "wait": wait,
    "append": lambda: store.append(lease, b"more "),
    "acquire": lambda: store.acquire("t"),
    "info": lambda: store.info("s"),
    "streams": lambda: list(store.streams()),
    "renew": lambda: store.renew([lease]),
    "cancel": lambda: store.cancel("none"),
    "create": lambda: store.create("shared"),
    "commit": lambda: store.commit("shared", b"x"),
    "orphans": lambda: list(store.orphans()),
    "sweep": store.sweep,
    "check": store.check,
    "second": again,
}}
for name, call in calls.items():
    for number in range(6):
        getattr(getattr(store, "_connections", None), "close_idle", int)()  # as a fork does
        with free(number):
            try:
                call()
            except ResumableStreamError:
                pass
            else:
                acknowledged += b"more " * (name == "append")
        store.status("s")
        store.append(lease, b".")
        acknowledged += b"."
whole, cursor = b"", ""
while len(whole) < store.info("s").size:
    batch = store.read("s", cursor)
    whole, cursor = whole + batch.data, batch.cursor
assert whole == acknowledged, (whole, acknowledged)
assert not died, died[0]
store.finalize(lease, "done")
print("all is well")
"""


def test_no_descriptor_is_free(url: str) -> None:
    result = subprocess.run([sys.executable, "-c", PROGRAM, url], capture_output=True, text=True, timeout=100)
    assert result.stdout == "all is well\n", result.stderr


# A log that nobody else has open goes with the last connection: then there is nothing to be mistaken.
OTHER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("SELECT count(*) FROM streams").fetchall()
print("open", flush=True)
sys.stdin.read()
"""


def test_no_descriptor_is_free_to_look_at_the_log(path: Path) -> None:
    SQLiteStore(path).close()
    with subprocess.Popen(
        [sys.executable, "-c", OTHER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "open\n"
        test_no_descriptor_is_free(f"sqlite:///{path}")
        other.communicate("")


DOMAIN = f"""{FREE}
from resumable_sync import StoreUnavailableError
from resumable_sync.stores.sqlite import clock
limit()
with free(0):
    try:
        print(clock.domain())
    except StoreUnavailableError:
        print("not now")
print(clock.domain())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_no_descriptor_is_free_to_ask_for_the_boot_id() -> None:
    """An empty one would be kept, and a producer that is frozen never be noticed."""
    result = subprocess.run([sys.executable, "-c", DOMAIN], capture_output=True, text=True, timeout=60)
    assert result.stdout.split("\n")[0] == "not now" and len(result.stdout.split("\n")[1]) >= 36, result.stderr
