"""The stores, and `open_store`, which picks one by URL. Each is imported only when it is asked for."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

from .base import BaseStore

__all__ = ["open_store"]


def open_store(url: str, **options: Any) -> BaseStore:
    """Open the store that `url` names; `options` go to its constructor.

    `memory://` is private to the process. `sqlite:///relative/or` `sqlite:////absolute/path.db` (or any path
    that ends in .db, .sqlite or .sqlite3) serves all processes of one machine. `redis://host:port/db`,
    `rediss://…` (TLS) and `unix:///path` as redis-py takes them, `redis+sentinel://host:port/service/db` and
    `redis+cluster://host:port[,host:port]` serve many machines; they need `pip install "resumable_sync[redis]"`
    (ImportError). ValueError for any other URL, StoreUnavailableError if the store cannot be opened; Redis is
    connected to at the first use.
    """
    parts = urlsplit(url)
    if parts.scheme == "memory":
        from .memory import MemoryStore

        return MemoryStore(**options)
    if parts.scheme == "sqlite" or (not parts.scheme and url.endswith((".db", ".sqlite", ".sqlite3"))):
        from .sqlite import SQLiteStore

        path = unquote(parts.path.removeprefix("/")) if parts.scheme else url
        if not path or parts.netloc:
            raise ValueError(f"{url!r} names no file; write sqlite:///relative.db or sqlite:////absolute/path.db")
        return SQLiteStore(path, **options)
    if parts.scheme in ("redis", "rediss", "unix", "redis+sentinel", "redis+cluster"):
        from .redis import RedisStore

        return RedisStore.from_url(url, **options)
    raise ValueError(f"{url!r} is no store; use memory://, sqlite:///path/to/file.db or redis://host:port/0")
