"""Uses a store as it is told: `python -m tests.stores.sqlite.sets PATH STREAM`. Answers each line of its input."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from resumable_sync import SQLiteStore, StoreUnavailableError


def main() -> None:
    path, stream_id = Path(sys.argv[1]), sys.argv[2]
    try:
        store = SQLiteStore(path)
        lease = store.acquire(stream_id)
        assert lease is not None
        store.append(lease, b"before")
    except StoreUnavailableError as error:
        assert not error.transient and "was removed or replaced" in str(error), error
        print("refused", flush=True)
        return
    print("stored", flush=True)
    calls: dict[str, Callable[[], object]] = {
        "read": lambda: store.read(stream_id),
        "append": lambda: store.append(lease, b" after"),
        "open": lambda: SQLiteStore(path),
        "close": store.close,
    }
    done = {"read": "was read", "append": "appended", "open": "opened", "close": "closed"}
    for line in sys.stdin:
        try:
            calls[line.strip()]()
        except StoreUnavailableError as error:
            assert not error.transient and "was removed or replaced" in str(error), error
            print("refused", flush=True)
        else:
            print(done[line.strip()], flush=True)


if __name__ == "__main__":
    main()
