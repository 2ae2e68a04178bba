"""Keeps the feeds of one process true: has them read, and asks Redis now and then whether their streams live."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from ..base import Snapshot as Found
from .commands import parse_snapshot as parse_found
from .connection import Link
from .feed import CHECK_SECONDS, Feed, Feeds
from .reader import Reader
from .scripts import Call

logger = logging.getLogger("resumable_sync")

_EARLY_SECONDS = 0.5  # by which a feed may be checked too early, together with one that is due
_IDLE_SECONDS = 1.0  # between looks whether any feed is left, while there is nothing else to do


class Watch:
    """The checks of all feeds, by one thread, a command for each watched stream in CHECK_SECONDS; the readers.

    `check_call` makes the call that tells a stream's state, ending it if its producer died. `_lock` guards
    `_thread`, `_closed`, `_next` and `_readers`.
    """

    def __init__(
        self,
        link: Link,
        feeds: Feeds,
        log_key: Callable[[str], str],
        check_call: Callable[[str], Call],
        control: str,
        per_stream: bool,
    ) -> None:
        self._link = link
        self._feeds = feeds
        self._log_key = log_key
        self._check_call = check_call
        self._control = control
        self._per_stream = per_stream
        self._lock = threading.Lock()
        self._kick = threading.Condition(self._lock)
        self._next = 0.0  # monotonic: when the thread looks next
        self._thread: threading.Thread | None = None
        self._readers: dict[str, Reader] = {}
        self._closed = False

    def follow(self, feed: Feed) -> None:
        """Keep this feed up to date from here on."""
        checked = feed.to_check()
        if checked is None:
            return
        with self._lock:
            if self._closed:
                return
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="resumable-sync-redis-watch", daemon=True)
                thread.start()  # may fail, then the next viewer tries it
                self._thread = thread
            elif checked[0] < self._next:
                self._next = checked[0]
                self._kick.notify()
            reader = self._reader(feed) if not feed.local else None
        if reader is not None:
            reader.follow(feed)

    def close(self) -> None:
        """End the threads; they do not outlive their present wait."""
        with self._lock:
            self._closed = True
            self._kick.notify()
            readers = list(self._readers.values())
        for reader in readers:
            reader.close()
        self._feeds.stop_reads()

    def _reader(self, feed: Feed) -> Reader:
        """The reader of this feed. Called with the lock held."""
        only = feed.stream_id if self._per_stream else None
        reader = self._readers.get(only or "")
        if reader is None:
            reader = Reader(self._link, self._feeds, self._log_key, self._control, only)
            self._readers[only or ""] = reader
        return reader

    def _run(self) -> None:
        try:
            while True:
                feeds = self._feeds.watched()
                with self._lock:
                    if self._closed or not (feeds or self._feeds.watched()):
                        self._thread = None
                        return
                    kept = {feed.stream_id for feed in feeds}
                    for name in [name for name in self._readers if name and name not in kept]:
                        self._readers.pop(name).close()
                now = time.monotonic()
                soonest = now + _IDLE_SECONDS
                soon = []
                for feed in feeds:
                    checked = feed.to_check()
                    if checked is not None:
                        soonest = min(soonest, checked[0])
                        if checked[0] <= now + _EARLY_SECONDS:
                            soon.append((feed, checked[2]))
                if soonest <= now:
                    self._check(soon)
                    continue
                with self._lock:
                    self._next = min(self._next, soonest) if self._next > now else soonest
                    wait = self._next - time.monotonic()
                    if wait > 0 and not self._closed:
                        self._kick.wait(wait)
                    self._next = 0.0
        except BaseException:
            with self._lock:
                self._thread = None  # the next viewer starts another; feeds grow stale and say so meanwhile
            raise

    def _check(self, due: list[tuple[Feed, int]]) -> None:
        for begin in range(0, len(due), 100):
            part = due[begin : begin + 100]
            replies = self._link.run([self._check_call(feed.stream_id) for feed, _ in part])
            for (feed, known), reply in zip(part, replies):
                self._judge(feed, known, reply)

    def _judge(self, feed: Feed, known: int, reply: Any) -> None:
        found = parse_found(reply)
        if not isinstance(found, Found):
            feed.distrust()  # gone, or out of reach: each viewer finds out and tells its caller
        elif found.status.ended:
            feed.finish(found.generation, found.size, found.status, found.error)
        else:
            was_local = feed.local
            feed.confirm(found.generation, found.size, min(found.due, CHECK_SECONDS), known)
            if was_local or found.size > known:
                self.follow(feed)
