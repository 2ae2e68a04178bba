"""What is closed at the interpreter's exit, and what is not kept until then."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

from resumable_sync import MemoryStore, ResumableStreamContext
from resumable_sync import process as fork
from resumable_sync.stores.sqlite import SQLiteStore

from ..support import ROOT

PROGRAM = """
from resumable_sync.process import at_exit

class Holder:
    pass

def fail(_):
    print("failing")
    raise ValueError("its own trouble")

holders = [Holder() for _ in range(4)]
at_exit(holders[0], lambda _: print("first"))
at_exit(holders[1], fail)
at_exit(holders[2], lambda _: print("gone"))
at_exit(holders[3], lambda _: print("last"))
del holders[2]
"""


def test_contexts_and_stores_leave_nothing_behind(tmp_path: Path) -> None:
    before = set(fork._holders)
    for number in range(3):
        store = SQLiteStore(tmp_path / f"{number}.db")
        ResumableStreamContext(store)
        ResumableStreamContext(MemoryStore())
        store.close()
    del store
    gc.collect()
    assert set(fork._holders) <= before


def test_the_last_registered_is_closed_first_and_none_stops_the_others() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ended.stdout.split() == ["last", "failing", "first"]
    assert "its own trouble" in ended.stderr
