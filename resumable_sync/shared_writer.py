"""A writer of a shared stream: one of several, each of whose chunks is stored once."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Mapping
from types import TracebackType
from typing import NamedTuple, NoReturn

from .contract import Status, Store, StreamInfo, new_token, shared_store
from .errors import (
    ConflictError,
    ResumableStreamError,
    StoreUnavailableError,
    StreamNotFoundError,
    StreamTakenError,
    UnsupportedError,
)
from .production import retry_while_away
from .pump import as_bytes
from .stats import Tally

_NAME = re.compile(r"[\x21-\x7e]{1,200}")
_PREFIX = "writer."  # of the names of notes


class _Attempt(NamedTuple):
    """One commit. Its value of the note is nobody else's: where that is found, it was stored."""

    chunks: tuple[bytes, ...]
    ending: Status | None
    error: str | None
    total: int
    """The writer's chunks, with these."""
    value: str


class SharedWriter:
    """Writes to a shared stream, as one of several. Made by `ResumableStreamContext.shared_writer`.

    What it has stored is counted in a note of the stream, `writer.<name>`, which is compared and set in the same
    step as the chunks. So a chunk is stored once, whatever happened to the reply (G12), and a worker that is
    started again reads from `count` where to go on. Of two with one name the later one counts: the earlier one
    gets ConflictError at its next write. The generation is pinned: StreamLostError once the stream was replaced.

    Each write is one call of the store, which waits for it; while the store is away it is repeated for the
    store's grace time. One thread at a time may use a writer. Leaving its block ends nothing: `end` does.
    """

    def __init__(
        self,
        store: Store,
        stream_id: str,
        name: str,
        *,
        create: bool = False,
        ttl: float | None = None,
        metadata: Mapping[str, str] | None = None,
        tally: Tally | None = None,
    ) -> None:
        shared = shared_store(store)
        if shared is None:
            raise UnsupportedError(f"{type(store).__name__} has no shared streams")
        if not isinstance(name, str) or _NAME.fullmatch(name) is None:
            raise ValueError(
                f"not a writer's name: {name!r:.80}; use 1 to 200 printable ASCII characters, no spaces"
            )
        self.stream_id = stream_id
        self._store = shared
        self._grace = store.grace
        self._tally = tally
        self._note = _PREFIX + name
        info = self._find(store, create, ttl, metadata)
        self.generation = info.generation
        self.count = 0
        """Chunks that writers of this name have stored."""
        self._value: str | None = None  # of the note, as far as it is known
        self._unknown: _Attempt | None = None  # the last one, where it may have been stored
        self._given_up: dict[str, int] = {}  # those before it, of which one may have been: totals by values
        self._take_name(info.notes.get(self._note))

    def __getstate__(self) -> NoReturn:
        raise TypeError(
            "a SharedWriter cannot be pickled: in the other process open the store with open_store(url), and a "
            "context and a writer there; the same name goes on with the same count"
        )

    def write(self, *chunks: bytes | str) -> int:
        """Store the chunks (text as UTF-8), in one step, and return `count`. An empty one is counted, too.

        Raises StreamFinalizedError once the stream has ended, ConflictError once another writer of this name has
        begun, StreamLostError, StreamNotFoundError, LimitExceededError: nothing was stored then. After a
        StoreUnavailableError write the same chunks again: they are stored once.
        """
        self._commit(tuple(map(as_bytes, chunks)))
        return self.count

    def end(self, status: Status | str = Status.DONE, error: str | None = None) -> None:
        """End the stream, for all its writers. Raises as `write`; StreamFinalizedError also if it has ended."""
        self._commit((), Status(status), error)

    def __enter__(self) -> SharedWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is left to do: what was written is stored."""

    def _find(
        self, store: Store, create: bool, ttl: float | None, metadata: Mapping[str, str] | None
    ) -> StreamInfo:
        info = store.info(self.stream_id)
        if info is None and create:
            made = self._store.create(self.stream_id, ttl=ttl, metadata=metadata)
            info = made or store.info(self.stream_id)
        if info is None:
            raise StreamNotFoundError(f"there is no stream {self.stream_id}: begin it with create=True")
        if not info.shared:
            raise StreamTakenError(
                f"the stream {self.stream_id} has a producer of its own; it is not a shared one"
            )
        return info

    def _take_name(self, value: str | None) -> None:
        """From now on an earlier writer of this name is refused."""
        while True:
            self._value = value
            self.count = _count(value)
            try:
                return self._commit(())
            except ConflictError as conflict:  # that one has just written
                value = conflict.notes.get(self._note)

    def _commit(self, chunks: tuple[bytes, ...], ending: Status | None = None, error: str | None = None) -> None:
        attempt = self._unknown
        if attempt is None or (attempt.chunks, attempt.ending) != (chunks, ending):
            if attempt is not None:
                self._given_up[attempt.value] = attempt.total
            attempt = self._attempt(chunks, ending, error)
        self._unknown = attempt
        began = time.monotonic()
        deadline = began + self._grace
        while True:
            try:
                retry_while_away(functools.partial(self._send, attempt), deadline)
            except ConflictError as conflict:
                found = conflict.notes.get(self._note)
                if found is not None and found in self._given_up:
                    # What was given up was stored after all: these come after it.
                    self._value, self.count = found, self._given_up[found]
                    self._given_up = {}  # the others expected what was there before
                    self._unknown = attempt = self._attempt(chunks, ending, error)
                    continue
                if found != attempt.value:
                    self._unknown = None
                    raise
            except StoreUnavailableError:
                raise  # it may have been stored: `_unknown` stays
            except (ResumableStreamError, ValueError):
                self._unknown = None
                raise
            self._value, self.count, self._unknown = attempt.value, attempt.total, None
            self._given_up = {}
            if chunks and self._tally is not None:
                self._tally.shared_commit(len(chunks), sum(map(len, chunks)), time.monotonic() - began)
            return

    def _attempt(self, chunks: tuple[bytes, ...], ending: Status | None, error: str | None) -> _Attempt:
        total = self.count + len(chunks)
        return _Attempt(chunks, ending, error, total, f"{total}.{new_token()}")

    def _send(self, attempt: _Attempt) -> None:
        self._store.commit(
            self.stream_id,
            *attempt.chunks,
            expect={self._note: self._value},
            notes={self._note: attempt.value},
            ending=attempt.ending,
            error=attempt.error,
            generation=self.generation,
        )


def _count(value: str | None) -> int:
    count = (value or "").partition(".")[0]
    return int(count) if count.isdecimal() else 0
