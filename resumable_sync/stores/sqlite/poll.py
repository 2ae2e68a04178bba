"""The poll behind the SQLite store's wake-up hints: which awaited streams changed since the last look."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ...contract import Position
from ...errors import StreamLostError
from . import pages as sqlite_pages
from . import rows as sqlite_rows
from .connection import Connections
from .recent import RECENT_BYTES, News, State


class Poller:
    """Remembers how the awaited streams stood. For one thread, the watch's."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._seen: dict[str, State | None] = {}

    def changes(self, stream_ids: Collection[str]) -> dict[str, State | None]:
        """Those of these streams that changed since the last call, or that it did not name; None: not there."""
        with self._connections.read() as connection:
            # SQLite raises data_version with every commit of another connection; reading it costs next to nothing.
            # As this connection saw it last, all that was committed up to then has been looked at.
            version = connection.execute("PRAGMA data_version").fetchone()[0]
            if version == connection.seen_version and self._seen.keys() >= set(stream_ids):
                return {}
            found = sqlite_rows.select_many(connection, stream_ids)
            connection.seen_version = version
        seen: dict[str, State | None] = dict.fromkeys(stream_ids)
        seen.update((stream_id, State(row.generation, row.size, row.status)) for stream_id, row in found)
        unseen = object()
        before = self._seen
        changed = {name: state for name, state in seen.items() if state != before.get(name, unseen)}
        self._seen = seen
        return changed

    def news(self, known: Mapping[str, Position]) -> dict[str, News]:
        """What was committed behind these positions, of one moment. Streams that are gone, and those that went on
        by more than a tail holds, are left out."""
        news = {}
        with self._connections.read() as connection:
            for stream_id, row in sqlite_rows.select_many(connection, known):
                generation, offset = known[stream_id]
                if row.expired or row.generation != generation or row.size - offset > RECENT_BYTES:
                    continue
                try:
                    rows = list(sqlite_pages.select(connection, generation, offset)) if row.size > offset else []
                except StreamLostError:
                    continue  # each reader finds the damage, and tells its caller
                state = State(generation, row.size, row.status)
                news[stream_id] = News(state, row.error, row.life, rows)
        return news
