"""What the Redis store asks of its scripts for one stream, and what their refusals mean."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from ...contract import Lease, Status
from ...errors import LimitExceededError, ResumableStreamError
from .. import base as rules
from .. import pages
from .index import Keys, milliseconds
from .scripts import Argument, Call, script
from .state import Found, as_message, parse_found

_RANDOM_BITS = 20  # of a generation; see types.new_generation


class Append:
    """One stream's part of a group commit. `call` is None if it was refused before: then `error` tells why."""

    def __init__(
        self, keys: Keys, limits: rules.Limits, grace: int, lease: Lease, chunks: Sequence[bytes]
    ) -> None:
        frozen = rules.freeze_chunks(chunks)
        self.lease = lease
        self.rows: list[pages.Page] = []
        self.error: ResumableStreamError | None = None
        self.call: Call | None = None
        self._limits = limits
        self._length = sum(map(len, frozen))
        self._count = len(frozen)
        try:
            limits.check_chunks(frozen)
        except LimitExceededError as error:
            self.error = error
            return
        self.rows = pages.pack(frozen, lease.offset)
        arguments: list[Argument] = [
            lease.generation,
            lease.offset,
            self._length,
            self._count,
            limits.max_stream_bytes,
            limits.max_entries,
            grace,
            milliseconds(lease.ttl),
        ]
        for _, payload, lengths in self.rows:
            arguments += (payload, lengths or b"")
        self.call = script("append", keys.of(lease.stream_id), *arguments)

    def settle(self, reply: Any) -> ResumableStreamError | None:
        """Book what the script answered: the lease advances, or the error is returned."""
        if isinstance(reply, int):
            self.lease.offset += self._length
            return None
        found = parse_found(reply)
        if isinstance(found, ResumableStreamError):
            return found
        state = found if isinstance(found, Found) else None
        error = rules.append_error(self.lease, state, self._length)
        if error is None and state is not None and state.size == self.lease.offset:
            try:
                size, entries = state.size + self._length, state.entries + self._count
                self._limits.check_room(self.lease.stream_id, size, entries)
            except LimitExceededError as limit:
                return limit
        return error or rules.conflict(self.lease)


class Calls:
    """Makes the calls of a store with these settings. Immutable; thread-safe. `grace`: ms."""

    def __init__(self, keys: Keys, limits: rules.Limits, grace: int) -> None:
        self.keys = keys
        self._limits = limits
        self._grace = grace

    def acquire(self, stream_id: str, ttl: float, metadata: str) -> Call:
        token, random = secrets.token_hex(16), secrets.randbits(_RANDOM_BITS)
        keys, life, finished = self.keys.of(stream_id), milliseconds(ttl), self.keys.finished_ttl
        return script("acquire", keys, token, random, self._grace, life, finished, metadata)

    def append(self, lease: Lease, chunks: Sequence[bytes]) -> Append:
        return Append(self.keys, self._limits, self._grace, lease, chunks)

    def renew(self, lease: Lease) -> Call:
        life = milliseconds(lease.ttl)
        return script("renew", self.keys.of(lease.stream_id), lease.generation, lease.offset, self._grace, life)

    def finalize(self, lease: Lease, ending: Status, message: str | None) -> Call:
        keys = self.keys.of(lease.stream_id)
        text = as_message(message)
        finished_ttl = self.keys.finished_ttl
        return script("finalize", keys, lease.generation, lease.offset, ending.value, text, finished_ttl)

    def cancel(self, stream_id: str) -> Call:
        return script("cancel", self.keys.of(stream_id), secrets.token_hex(16), self.keys.finished_ttl)

    def delete(self, stream_id: str) -> Call:
        return script("delete", self.keys.of(stream_id), secrets.token_hex(16), 0)


def renewal_error(lease: Lease, reply: Any) -> ResumableStreamError | None:
    """Why a renewal was refused; None if it was not."""
    if isinstance(reply, int):
        return None
    found = parse_found(reply)
    if isinstance(found, ResumableStreamError):
        return found
    return rules.ownership_error(lease, found if isinstance(found, Found) else None) or rules.conflict(lease)


def finalize_error(lease: Lease, reply: Any, ending: Status) -> ResumableStreamError | None:
    """Why an ending was refused; None if it was not."""
    if isinstance(reply, int):
        return None
    found = parse_found(reply)
    if isinstance(found, ResumableStreamError):
        return found
    state = found if isinstance(found, Found) else None
    return rules.finalize_error(lease, state, ending) or rules.conflict(lease)
