"""The names of the Redis store's keys."""

from __future__ import annotations


class Keys:
    """Names of keys, all below `prefix`. Immutable."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        # A tag that no stream has, so that both lie in one slot of a cluster.
        self.index = (f"{prefix}:{{~}}:index", f"{prefix}:{{~}}:fresh")

    def of(self, stream_id: str) -> tuple[str, str, str]:
        """meta, log and fence, as all scripts of a stream take them."""
        base = f"{self.prefix}:{{{stream_id}}}"
        return f"{base}:meta", f"{base}:log", f"{base}:fence"

    def log(self, stream_id: str) -> str:
        """The stream's log alone."""
        return self.of(stream_id)[1]
