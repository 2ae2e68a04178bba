"""The poll behind the SQLite store's wake-up hints: which awaited streams changed since the last look."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from typing import Any

from .sqlite_connection import Connections

_IDS_OF_A_QUERY = 500


class Poller:
    """Looks through a connection of its own. For one thread, the watch's. May be used again after `close`."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._version = -1
        self._seen: dict[str, Any] = {}

    def changes(self, stream_ids: Collection[str]) -> list[str]:
        """Those of these streams that changed since the last call, or that it did not name."""
        if self._connection is None or self._connections.identity() != self._identity:
            self.close()
            self._connection = self._connections.connect()
            self._identity = self._connections.identity()
        # SQLite raises data_version with every commit of another connection; reading it costs next to nothing.
        version = self._connections.run(self._connection, "PRAGMA data_version")[0][0]
        if version == self._version and self._seen.keys() >= set(stream_ids):
            return []
        self._version = version
        seen: dict[str, Any] = dict.fromkeys(stream_ids)
        ids = list(stream_ids)
        for begin in range(0, len(ids), _IDS_OF_A_QUERY):
            some = ids[begin : begin + _IDS_OF_A_QUERY]
            marks = ",".join("?" * len(some))
            sql = f"SELECT stream_id, generation, size, status FROM streams WHERE stream_id IN ({marks})"
            seen.update((row[0], row) for row in self._connections.run(self._connection, sql, some))
        changed = [stream_id for stream_id, row in seen.items() if row != self._seen.get(stream_id, "new")]
        self._seen = seen
        return changed

    def close(self) -> None:
        """Close the connection. Idempotent."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            self._seen = {}
