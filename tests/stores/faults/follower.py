"""A viewer in a thread of its own that keeps what it got and how it ended."""

from __future__ import annotations

import threading
import time

from resumable_sync import ResumableStreamContext, ResumableStreamError, Store

from ...support import PATIENCE


class Follower:
    """Follows from `after` to the end. `error` is None for `done`; `ended_at` is monotonic."""

    def __init__(self, store: Store, stream_id: str, after: str = "") -> None:
        self._context = ResumableStreamContext(store)
        self.data = bytearray()
        self.error: ResumableStreamError | None = None
        self.ended_at = 0.0
        pieces = self._context.require_resume(stream_id, after)

        def follow() -> None:
            try:
                for piece in pieces:
                    self.data += piece
            except ResumableStreamError as error:
                self.error = error
            self.ended_at = time.monotonic()

        self._thread = threading.Thread(target=follow, daemon=True)
        self._thread.start()

    def join(self, timeout: float = PATIENCE) -> None:
        """Wait for the ending."""
        self._thread.join(timeout)
        assert not self._thread.is_alive(), "the follower has not ended"

    @property
    def ended(self) -> bool:
        return not self._thread.is_alive()
