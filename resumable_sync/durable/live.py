"""GET with `live`: long-polls and server-sent events.

Each holds a thread while it waits. One that waits renews the stream's life, and looks whether its reader is still
there, every few seconds.
"""

from __future__ import annotations

import base64
import codecs
import json
import re
import secrets
import time
from collections.abc import Iterator
from datetime import datetime, timezone

from ..context import ResumableStreamContext
from ..contract import Batch, Position, SharedStore, Status
from ..errors import ResumableStreamError, StoreUnavailableError
from ..wsgi import ViewerCap
from ..wsgi.bodies import Body
from ..wsgi.cap import Place
from ..wsgi.headers import streaming_headers
from ..wsgi.probe import Probe, find_probe
from .answers import CLOSED, CURSOR, NEXT_OFFSET, SSE_ENCODING, UP_TO_DATE, Answer, Refusal, gone
from .incoming import Request
from .reads import Asked, Reading, Reads
from .streams import Stream

_EPOCH = datetime(2024, 10, 9, tzinfo=timezone.utc).timestamp()
_INTERVAL = 20  # seconds that a cursor lasts
_JITTER = 3600
_NUMBER = re.compile(r"[0-9]{1,16}")
_LINE_END = re.compile(r"\r\n|\r|\n")
_LOOK_SECONDS = 5.0  # between looks at the reader
_SILENCE_SECONDS = 15.0  # after which a comment is sent
_LEAST_SLICE = 0.05
_COMMENT = b": hb\n"  # no blank line follows: some clients would take that for an event
_RENEWALS = 3  # in the life of a stream, while somebody waits


def new_cursor(sent: str) -> str:
    """The number of the present 20-second interval; above `sent` where the client has sent that or a later one.

    It keys what is cached between here and the clients: of those that ask at one time, all get the same.
    """
    present = max(0, int((time.time() - _EPOCH) // _INTERVAL))
    if _NUMBER.fullmatch(sent) is None or int(sent) < present:
        return str(present)
    return str(int(sent) + max(1, secrets.randbelow(_JITTER) // _INTERVAL))


class Live:
    """Answers live reads. Thread-safe; blocks for the store, and a long-poll for the stream."""

    def __init__(
        self,
        context: ResumableStreamContext,
        shared: SharedStore,
        reads: Reads,
        *,
        long_poll_seconds: float,
        sse_seconds: float,
        viewers: ViewerCap | None,
        cache_control: str,
    ) -> None:
        self._context = context
        self._shared = shared
        self._reads = reads
        self._long_poll_seconds = long_poll_seconds
        self._sse_seconds = sse_seconds
        self._viewers = viewers
        self._cache_control = cache_control

    def get(self, request: Request, asked: Asked) -> Answer:
        """What the reader gets. Refusal 503 where there are too many."""
        place = None
        if self._viewers is not None:
            place = self._viewers.enter()
            if place is None:
                raise Refusal(503, "too many readers", retry_after=self._viewers.retry_after)
        probe = None
        try:
            reading = self._reads.open(request.stream_id, asked)
            reading.refuse_incomplete()
            if self._context.closed:
                raise StoreUnavailableError("the context is closed", transient=False)
            probe = find_probe(request.environ)
            if asked.live == "sse":
                answer = self._events(reading, new_cursor(asked.cursor), place, probe)
                place = probe = None  # the body has them
                return answer
            return self._poll(request.stream_id, asked, reading, probe)
        finally:
            if place is not None:
                place.release()
            if probe is not None:
                probe.close()

    def _poll(self, stream_id: str, asked: Asked, reading: Reading, probe: Probe | None) -> Answer:
        if not (reading.batch.data or reading.closed):
            reading = self._wait(stream_id, asked, reading, probe)
            reading.refuse_incomplete()
        cursor = (CURSOR, new_cursor(asked.cursor))
        if reading.batch.data:
            body = reading.body()
            length = ("Content-Length", str(len(body)))
            headers = [*reading.headers(), length, ("Cache-Control", self._cache_control), cursor]
            return Answer(200, headers, [body])
        headers = [(NEXT_OFFSET, reading.next_offset), (UP_TO_DATE, "true"), ("Cache-Control", "no-store")]
        return Answer(204, [*headers, (CLOSED, "true") if reading.closed else cursor])

    def _wait(self, stream_id: str, asked: Asked, reading: Reading, probe: Probe | None) -> Reading:
        """What comes first: data, an ending, or the end of patience."""
        stream, batch = reading.stream, reading.batch
        deadline = time.monotonic() + self._long_poll_seconds
        heartbeat = self._slice(stream, self._long_poll_seconds)
        try:
            for batch in self._context._loop(stream_id).batches(reading.batch, heartbeat):
                if batch.data or time.monotonic() >= deadline or (probe is not None and probe.gone()):
                    return Reading(stream, batch)
                stream.renew(self._shared)
        except StoreUnavailableError:
            raise
        except ResumableStreamError as error:  # an ending, or it is gone: the first look says which
            reading = self._reads.open(stream_id, asked)
            if reading.stream is not stream or not reading.ending:
                raise gone() from error
            return reading
        ended = Batch(Position(batch.generation, batch.offset), b"", (), size=batch.offset, status=Status.DONE)
        return Reading(stream, ended)

    def _slice(self, stream: Stream, seconds: float) -> float:
        """How long a wait lasts at most before something else is done."""
        if stream.renewable:
            seconds = min(seconds, stream.ttl / _RENEWALS)
        return max(_LEAST_SLICE, min(seconds, _LOOK_SECONDS))

    def _events(self, reading: Reading, cursor: str, place: Place | None, probe: Probe | None) -> Answer:
        events = _Events(reading.stream, reading.batch.offset - len(reading.batch.data), cursor)
        headers = [("Content-Type", "text/event-stream"), ("Cache-Control", "no-cache, no-transform")]
        if events.encoding == "base64":
            headers.append((SSE_ENCODING, "base64"))
        pieces = self._pieces(reading, events, probe)
        return Answer(200, streaming_headers(headers), Body(pieces, place, probe))

    def _pieces(self, reading: Reading, events: _Events, probe: Probe | None) -> Iterator[bytes]:
        """The body: until the stream's ending, or for `sse_seconds`; then the reader comes back."""
        stream, first = reading.stream, reading.batch
        deadline = time.monotonic() + self._sse_seconds
        heartbeat = self._slice(stream, self._sse_seconds)
        sent = time.monotonic()
        yield b""  # lets the server send the headers
        if not first.data:
            yield events.control(closed=reading.closed, up_to_date=reading.at_tail)
            if reading.closed:
                return
        batches = self._context._loop(stream.stream_id).batches(first, heartbeat)
        del reading, first
        try:
            for batch in batches:
                now = time.monotonic()
                if probe is not None and probe.gone():
                    return
                if batch.data:
                    found = Reading(stream, batch)
                    piece, closed = events.data(found), found.closed
                    del found, batch
                    sent = now
                    yield piece
                    if closed:
                        return
                else:
                    del batch
                    stream.renew(self._shared)
                    if now - sent >= _SILENCE_SECONDS:
                        sent = now
                        yield _COMMENT
                if now >= deadline:
                    return
            yield events.last()
        except ResumableStreamError:
            # Another ending than `done`, or the store is away: it ends without `streamClosed`, and whoever comes
            # back is told.
            return


class _Events:
    """Frames what is read as events. One thread at a time."""

    def __init__(self, stream: Stream, offset: int, cursor: str) -> None:
        self._stream = stream
        self._offset = offset  # after what was sent
        self._cursor = cursor  # one for the whole response: drawn anew it could go backwards
        self._held = b""  # a character that is not complete, or a CR whose LF may come
        self.encoding = "text" if stream.media_type.startswith("text/") else "base64"
        if stream.is_json:
            self.encoding = "json"

    def data(self, reading: Reading) -> bytes:
        """A data event and its control event; nothing while no character is complete."""
        closed = reading.closed
        if self.encoding == "json":
            text, used = reading.body().decode("utf-8", "replace"), len(reading.batch.data)
        elif self.encoding == "base64":
            text, used = base64.b64encode(reading.batch.data).decode("ascii"), len(reading.batch.data)
        else:
            text, used = self._text(reading.batch.data, closed)
        self._offset += used
        if not text:
            return b""
        up_to_date = reading.at_tail and not reading.ending
        return _frame("data", text) + self.control(closed=closed, up_to_date=up_to_date)

    def last(self) -> bytes:
        """What was held back, and the control event of a stream that is closed now."""
        text, used = self._text(b"", True) if self._held else ("", 0)
        self._offset += used
        return (_frame("data", text) if text else b"") + self.control(closed=True, up_to_date=True)

    def control(self, *, closed: bool, up_to_date: bool) -> bytes:
        """Where the reader is."""
        members: dict[str, object] = {"streamNextOffset": self._stream.lineage.token(self._offset)}
        if closed:
            members["streamClosed"] = True
        else:
            members["streamCursor"] = self._cursor
        if up_to_date:
            members["upToDate"] = True
        return _frame("control", json.dumps(members, separators=(",", ":")))

    def _text(self, data: bytes, final: bool) -> tuple[str, int]:
        """The text, and how many bytes more than before it stands for."""
        data = self._held + data
        text, used = codecs.utf_8_decode(data, "replace", final)
        if text.endswith("\r") and not final:
            text, used = text[:-1], used - 1
        self._held = data[used:]
        return text, used


def _frame(event: str, data: str) -> bytes:
    """An event. A line that begins with a space gets one more, as clients take one away."""
    lines = [f"event: {event}"]
    lines += [f"data: {line}" if line.startswith(" ") else f"data:{line}" for line in _LINE_END.split(data)]
    return ("\n".join(lines) + "\n\n").encode()
