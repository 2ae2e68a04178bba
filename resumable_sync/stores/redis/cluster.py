"""Which node of a Redis Cluster holds a key."""

from __future__ import annotations

import threading
from typing import Any

from redis.crc import key_slot
from redis.exceptions import ClusterDownError, ConnectionError, RedisError

from .settings import Address, Endpoint, Target


class SlotMap:
    """The cluster's table of slots as last heard. Thread-safe; `_lock` guards all fields.

    Any node that was ever heard of may be asked for the table, so the first ones may leave the cluster.
    """

    def __init__(self, target: Target, timeout: float) -> None:
        self._template = target.endpoints[0]
        self._timeout = timeout
        self._lock = threading.Lock()
        self._known: dict[Address, Endpoint] = {endpoint.address: endpoint for endpoint in target.endpoints}
        self._owners: list[tuple[int, int, Endpoint]] = []
        self._answered: Endpoint | None = None

    @property
    def has_answered(self) -> bool:
        """Whether a node has ever told the table."""
        return self._answered is not None

    def find(self, key: str) -> Endpoint:
        """The node that holds `key`. Asks the cluster for its table at first use; may raise redis-py's errors."""
        slot = key_slot(key.encode("utf-8"))
        for attempt in range(2):
            with self._lock:
                owners = self._owners
            for first, last, endpoint in owners:
                if first <= slot <= last:
                    return endpoint
            if attempt == 0:
                self.refresh()
        raise ClusterDownError(f"no node of the cluster owns slot {slot}")

    def refresh(self) -> None:
        """Ask the nodes, one after the other, until one tells the table; the one that told it last is first."""
        with self._lock:
            known = sorted(self._known.values(), key=lambda endpoint: endpoint is not self._answered)
        trouble: Exception = ConnectionError("no node of the cluster is known")
        for endpoint in known:
            try:
                found = self._ask(endpoint)
            except (RedisError, OSError) as error:
                trouble = error
                continue
            with self._lock:
                owners = []
                for first, last, address in found:
                    owners.append((first, last, self._at(address)))
                self._owners, self._answered = owners, endpoint
            return
        raise trouble

    def at(self, address: Address) -> Endpoint:
        """The node of this address."""
        with self._lock:
            return self._at(address)

    def _at(self, address: Address) -> Endpoint:
        """As `at`, with the lock held."""
        return self._known.setdefault(address, self._template.at(address))

    def _ask(self, endpoint: Endpoint) -> list[tuple[int, int, Address]]:
        connection = endpoint.connection(self._timeout)
        try:
            connection.send_command("CLUSTER", "SLOTS", check_health=False)
            reply: Any = connection.read_response(disable_decoding=True)
        finally:
            connection.disconnect()
        if not reply:
            raise ClusterDownError(f"{endpoint.address} knows no slots")
        found = []
        for first, last, owner, *_ in reply:
            host = (owner[0] or b"").decode("utf-8") or endpoint.address[0]
            found.append((int(first), int(last), (host, int(owner[1]))))
        return found
