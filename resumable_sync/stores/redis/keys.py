"""The names of the Redis store's keys."""

from __future__ import annotations

import secrets


class Keys:
    """The names of the keys below `prefix`. Immutable; thread-safe."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        # A tag that no stream has, so that all lie in one slot of a cluster.
        self.index = (f"{prefix}:{{~}}:index", f"{prefix}:{{~}}:fresh", f"{prefix}:{{~}}:orphans")

    def of(self, stream_id: str) -> tuple[str, str, str]:
        """meta, log and fence, as all scripts of a stream take them."""
        base = f"{self._prefix}:{{{stream_id}}}"
        return f"{base}:meta", f"{base}:log", f"{base}:fence"

    def log(self, stream_id: str) -> str:
        """The stream's log alone."""
        return self.of(stream_id)[1]

    def wake(self) -> str:
        """A key of the caller's own, by which a process wakes its shared reader. Another one at each call."""
        return f"{self._prefix}:wake:{secrets.token_hex(8)}"
