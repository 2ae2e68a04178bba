"""A worked example of a store on BaseStore: each stream in a directory of plain files, for one process.

`<directory>/<hash of id>/chunks` holds the chunks, each after its length; `state.json` holds the rest. It is as
simple as a correct store can be: one lock, every call reads the files, waiting readers share one condition. It
has neither takeover nor shared streams: the arguments that belong to these (`*_`) never come.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from resumable_sync import Batch, Lease, Status, StreamInfo, StreamLostError, StreamNotFoundError
from resumable_sync.contract import Position, new_generation
from resumable_sync.errors import ResumableStreamError
from resumable_sync.stores import base


@dataclass
class State:
    """What state.json holds. It has the fields that the functions of `base` decide on."""

    stream_id: str
    generation: int
    ttl: float
    metadata: dict[str, str]
    lease_until: float
    expires_at: float
    created_at: float = field(default_factory=time.time)
    updated_at: float = field(default_factory=time.time)
    finished_at: float | None = None
    status: Status = Status.STREAMING
    error: str | None = None
    size: int = 0
    entries: int = 0


class FileStore(base.BaseStore):
    """Thread-safe: `_changed`, and the lock in it, guards the files and `_wakes`."""

    def __init__(self, directory: Path, **options: Any) -> None:
        super().__init__(**options)
        self._directory = directory
        self._changed = threading.Condition(threading.RLock())
        self._wakes = 0
        self._last_generation = 0

    def _acquire(
        self, stream_id: str, ttl: float, metadata: dict[str, str], restart: frozenset[Status], *_: Any
    ) -> Lease | None:
        with self._changed:
            current = self._load(stream_id)
            if current is not None:
                if current.status not in restart:
                    return None
                self._delete(stream_id)
            self._limits.check_streams(len(self._living()))
            self._last_generation = new_generation(self._last_generation)
            now = time.monotonic()
            state = State(stream_id, self._last_generation, ttl, metadata, now + self._grace, now + ttl)
            folder = self._folder(stream_id)
            folder.mkdir(parents=True)
            (folder / "chunks").touch()
            self._save(stream_id, state)
        return Lease(stream_id, state.generation, ttl)

    def _append_many(
        self, batches: Sequence[tuple[Lease, base.Chunks]], *_: Any
    ) -> list[str | ResumableStreamError]:
        return base.outcomes(self._append, batches)

    def _append(self, batch: tuple[Lease, base.Chunks]) -> str:
        lease, chunks = batch
        self._limits.check_chunks(chunks)
        length = sum(map(len, chunks))
        with self._changed:
            state = self._load(lease.stream_id, judge=False)
            error = base.append_error(lease, state, length)
            if error is not None or state is None:
                raise error or StreamLostError(lease.stream_id)
            if state.size == lease.offset:
                self._limits.check_room(lease.stream_id, state.size + length, state.entries + len(chunks))
                with open(self._folder(lease.stream_id) / "chunks", "ab") as file:
                    file.writelines(part for chunk in chunks for part in (len(chunk).to_bytes(8, "big"), chunk))
                state.size, state.entries = state.size + length, state.entries + len(chunks)
            elif b"".join(self._chunks(lease.stream_id))[lease.offset :] != b"".join(chunks):
                raise base.conflict_error(lease)
            self._renew_life(lease.stream_id, state)
        lease.offset = state.size
        return lease.cursor

    def _renew(self, leases: Sequence[Lease]) -> list[ResumableStreamError | None]:
        return base.outcomes(self._renew_one, leases)

    def _renew_one(self, lease: Lease) -> None:
        with self._changed:
            state = self._load(lease.stream_id, judge=False)
            error = base.ownership_error(lease, state)
            if error is not None or state is None:
                raise error or StreamLostError(lease.stream_id)
            self._renew_life(lease.stream_id, state)

    def _finalize(self, lease: Lease, ending: Status, error: str | None, *_: Any) -> None:
        with self._changed:
            state = self._load(lease.stream_id, judge=False)
            refused = base.finalize_error(lease, state, ending)
            if refused is not None or state is None:
                raise refused or StreamLostError(lease.stream_id)
            if state.status is Status.STREAMING:
                self._end(lease.stream_id, state, ending, error)

    def _cancel(self, stream_id: str) -> bool:
        with self._changed:
            state = self._load(stream_id)
            if state is None or state.status is not Status.STREAMING:
                return False
            self._end(stream_id, state, Status.CANCELLED, None)
            return True

    def _read(self, stream_id: str, position: Position | None, max_bytes: int, timeout: float) -> Batch:
        deadline, waited = time.monotonic() + timeout, False
        with self._changed:
            wakes = self._wakes
            while True:
                self._check_open()
                state = self._load(stream_id)
                if state is None:
                    raise (StreamLostError if waited else StreamNotFoundError)(f"there is no stream {stream_id}")
                start = base.start_position(stream_id, state, position)
                found = self._after(stream_id, start.offset, max_bytes)
                left = deadline - time.monotonic()
                if found or state.status.ended or left <= 0 or wakes != self._wakes:
                    break
                waited = True
                self._changed.wait(min(left, state.lease_until - time.monotonic(), 0.05))
        data, lengths = b"".join(found), list(map(len, found))
        return Batch(start, data, lengths, size=state.size, status=state.status, error=state.error)

    def _wake(self) -> None:
        with self._changed:
            self._wakes += 1
            self._changed.notify_all()

    def _info(self, stream_id: str) -> StreamInfo | None:
        with self._changed:
            state = self._load(stream_id)
        if state is None:
            return None
        public = {name: value for name, value in asdict(state).items() if name in StreamInfo.__annotations__}
        return StreamInfo(producer_alive=state.status is Status.STREAMING, **public)

    def _streams(self) -> Iterator[StreamInfo]:
        return (info for info in map(self._info, self._living()) if info is not None)

    def _delete(self, stream_id: str) -> bool:
        with self._changed:
            found = self._load(stream_id) is not None
            shutil.rmtree(self._folder(stream_id), ignore_errors=True)
            self._changed.notify_all()
        return found

    def _sweep(self) -> int:
        with self._changed:
            return len(self._stored()) - len(self._living())

    def _close(self) -> None:
        self._wake()

    # Called with the lock held, but for _living, which takes it.

    def _folder(self, stream_id: str) -> Path:
        return self._directory / hashlib.sha256(stream_id.encode()).hexdigest()  # an id may be longer than a name

    def _stored(self) -> list[str]:
        return sorted(
            json.loads(path.read_text("utf-8"))["stream_id"] for path in self._directory.glob("*/*.json")
        )

    def _living(self) -> list[str]:
        with self._changed:
            return [stream_id for stream_id in self._stored() if self._load(stream_id) is not None]

    def _load(self, stream_id: str, *, judge: bool = True) -> State | None:
        """The stream's state; None if there is none. Removes an expired stream; `judge`: ends one without a
        producer."""
        try:
            text = (self._folder(stream_id) / "state.json").read_text("utf-8")
        except FileNotFoundError:
            return None
        state = State(**json.loads(text))
        state.status = Status(state.status)
        if time.monotonic() >= state.expires_at:
            shutil.rmtree(self._folder(stream_id))
            return None
        if judge and state.status is Status.STREAMING and time.monotonic() >= state.lease_until:
            self._end(stream_id, state, Status.INTERRUPTED, None)
        return state

    def _save(self, stream_id: str, state: State) -> None:
        (self._folder(stream_id) / "state.json").write_text(json.dumps(asdict(state)), "utf-8")
        self._changed.notify_all()

    def _renew_life(self, stream_id: str, state: State) -> None:
        now = time.monotonic()
        state.lease_until, state.expires_at, state.updated_at = now + self._grace, now + state.ttl, time.time()
        self._save(stream_id, state)

    def _end(self, stream_id: str, state: State, ending: Status, error: str | None) -> None:
        state.status, state.error, state.finished_at = ending, error, time.time()
        state.updated_at = state.finished_at
        state.expires_at = time.monotonic() + (self._finished_ttl or state.ttl)
        self._save(stream_id, state)

    def _chunks(self, stream_id: str) -> list[bytes]:
        chunks = []
        with open(self._folder(stream_id) / "chunks", "rb") as file:
            while length := file.read(8):
                chunks.append(file.read(int.from_bytes(length, "big")))
        return chunks

    def _after(self, stream_id: str, offset: int, max_bytes: int) -> list[bytes]:
        """The chunks from `offset` on, the first one cut, until `max_bytes` are reached."""
        found: list[bytes] = []
        begin = 0
        for chunk in self._chunks(stream_id):
            begin, rest = begin + len(chunk), chunk[max(0, offset - begin) :]
            if rest and sum(map(len, found)) < max_bytes:
                found.append(rest)
        return found
