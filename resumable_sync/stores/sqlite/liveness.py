"""Whether the producers of a SQLite store's streams live, and the ending of those whose producers do not."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from ...contract import Status
from . import clock as bootclock
from . import rows as sqlite_rows
from .connection import Connections
from .process_lock import is_dead
from .rows import Row

_LOOK_SECONDS = 0.25  # that a look at a lock file is good for
_LOOKS_KEPT = 1000


class Liveness:
    """Ends orphans as `interrupted`. Thread-safe; `own_token()` names this process's lock file."""

    def __init__(
        self,
        connections: Connections,
        run_directory: Path,
        own_token: Callable[[], str],
        finished_ttl: float | None,
    ) -> None:
        self._connections = connections
        self._run_directory = run_directory
        self._own_token = own_token
        self._finished_ttl = finished_ttl
        # Token -> (when, whether dead): a thousand viewers of one process's streams share a look at its lock
        # file. Single dict operations are atomic, and a double look does no harm: no lock needed.
        self._looks: dict[str, tuple[float, bool]] = {}

    def end_dead(self, stream_ids: Collection[str], patience: float | None = None) -> list[str]:
        """End those of these streams whose producers died; returns which. `patience`: see `Connections.write`.

        What was seen outside the transaction is looked at again within it: of many that try one wins, and
        a lease renewed in between saves its stream.
        """
        with self._connections.read() as connection:
            found = sqlite_rows.select_many(connection, stream_ids)
        dead = [stream_id for stream_id, row in found if self.is_orphan(row)]
        if dead:
            with self._connections.write(patience) as connection:
                for stream_id in dead:
                    row = sqlite_rows.select_living(connection, stream_id)
                    if row is not None and self.is_orphan(row):
                        sqlite_rows.end(connection, stream_id, row, Status.INTERRUPTED, None, self._finished_ttl)
        return dead

    def end_owned(self, token: str, patience: float) -> list[str]:
        """End all that the process of `token` produces; returns the stream ids."""
        mine = "SELECT stream_id FROM streams WHERE owner = ? AND status = 'streaming'"
        with self._connections.read() as connection:  # who only reads need not wait for its turn
            if connection.execute(f"{mine} LIMIT 1", (token,)).fetchone() is None:
                return []
        with self._connections.write(patience) as connection:
            owned = connection.execute(mine, (token,)).fetchall()
            for (stream_id,) in owned:
                row = sqlite_rows.select(connection, stream_id)
                if row is not None:
                    sqlite_rows.end(connection, stream_id, row, Status.INTERRUPTED, None, self._finished_ttl)
        return [stream_id for (stream_id,) in owned]

    def is_orphan(self, row: Row | None) -> bool:
        """Whether a running stream's producer is dead: rebooted, silent beyond its lease, or killed."""
        if row is None or row.expired or row.status is not Status.STREAMING:
            return False
        if row.boot_id != bootclock.boot_id() or bootclock.now() >= row.lease_until:
            return True
        return row.owner != self._own_token() and self._is_dead(row.owner)

    def _is_dead(self, token: str) -> bool:
        now = bootclock.now()
        looked_at, dead = self._looks.get(token, (0.0, False))
        if now - looked_at > _LOOK_SECONDS:
            dead = is_dead(self._run_directory, token)
            if len(self._looks) > _LOOKS_KEPT:
                self._looks.clear()
            self._looks[token] = now, dead
        return dead
