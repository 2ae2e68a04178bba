"""Several streams on one connection, as server-sent events."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

from .. import sse
from ..context import ResumableStreamContext
from ..contract import Position, validate_stream_id
from ..errors import ResumableStreamError, StoreUnavailableError, StreamNotFoundError
from ..logs import about
from ..producer import check_callback
from ..several import Several, Turn
from .bodies import Body, EventWriter, FormatError, check_encoding, ending_fields
from .cap import Place, ViewerCap
from .combined import MAX_STREAMS, CombinedCursor
from .headers import EVENT_STREAM, HeaderInput, Headers, error_headers, streaming_headers
from .probe import Probe, find_probe
from .response import REASONS, RETRY_AFTER, Answer, Options, StreamResponse, come_back

logger = logging.getLogger("resumable_sync")


def several_sse_response(
    context: ResumableStreamContext,
    stream_ids: Collection[str],
    *,
    environ: Mapping[str, Any] | None = None,
    after: str | None = None,
    headers: HeaderInput = None,
    heartbeat: float | None = None,
    encode: str = "text",
    errors: str = "strict",
    retry: float | None = 2.0,
    format_error: FormatError | None = None,
    max_seconds: float | None = None,
    viewers: ViewerCap | None = None,
    wait: float = 0.0,
) -> StreamResponse:
    """Answer several existing streams as one response of server-sent events, which follows all of them.

    Which streams somebody may follow is for the application to decide, for each id, before it calls this. To
    follow others make a new EventSource. At most 100 streams (else 400); an id that is named twice counts once.
    A browser allows a host six connections under HTTP/1.1: this takes one of them, one thread of the server, and
    one place under a cap, however many streams there are. Beside it a process has one waiting thread for each
    distinct stream that runs, however many follow that.

    Events, each named after what it is and its stream. Their data is that of `sse_response`, as are `encode` and
    `errors`:
    - `chunk:ID`, one per chunk.
    - `live:ID`, once, where the stream's replay ends.
    - `end:ID`, last of this stream: `{"status": "done" | "error" | "cancelled" | "interrupted" | "lost" |
      "missing", "cursor", "error"?}`; `cursor` is the stream's own, "" if nothing of it was there. A stream that
      is missing, after `wait` seconds, or whose position is gone, ends so without troubling the others.
    - `end`, last of all, when all have ended: data `{"streams": how many}`. A response that ends without it was
      cut, or lasted `max_seconds`.

    The `id` of every event is one **combined cursor**: opaque, at most 3,070 characters. It says of each stream
    up to where the client has it, or that it was told its ending, so that whoever comes back with it (as
    Last-Event-ID, in the query as `after`, or as the argument `after`) gets exactly the rest of every stream, and
    each ending once. The ids that a client names may differ from those of its cursor: what is new begins at its
    start, what is named no more is forgotten. A viewer that has been told the endings of all it names gets 204, at
    which EventSource stops. A cursor takes some 25 characters for each stream that runs: name those that you
    show, and raise `buffer-size` of uWSGI, which by default takes 4 KiB of headers in all.

    Streams that have something take turns, of 64 KiB each, so that a busy one holds up none of the others.
    What is sent meanwhile waits in the store, not in memory.
    """
    check_encoding(encode, errors)
    if retry is not None and not (math.isfinite(retry) and retry >= 0):
        raise ValueError(f"retry must be a number of seconds, not {retry!r}")
    if isinstance(stream_ids, str):
        raise ValueError(f"stream_ids must be a collection of ids, not {stream_ids!r:.80}")
    options = Options(
        headers=headers, heartbeat=heartbeat, max_seconds=max_seconds, viewers=viewers, after=after, wait=wait
    )
    format_ = _Format(encode, errors, retry, format_error)
    return StreamResponse(SeveralEndpoint(context, list(dict.fromkeys(stream_ids)), options, format_), environ)


@dataclass
class _Format:
    encoding: str
    errors: str
    retry: float | None
    format_error: FormatError | None

    def __post_init__(self) -> None:
        check_callback("format_error", self.format_error)


@dataclass
class SeveralEndpoint:
    """What `several_sse_response` was asked for. Called with `environ`, it gives the answer."""

    context: ResumableStreamContext
    stream_ids: list[str]
    options: Options
    format: _Format

    def __call__(self, environ: dict[str, Any]) -> Answer:
        place: Place | None = None
        try:
            if not 1 <= len(self.stream_ids) <= MAX_STREAMS:
                return self._refuse(400, f"name 1 to {MAX_STREAMS} streams")
            for stream_id in self.stream_ids:
                validate_stream_id(stream_id)
            cursor = CombinedCursor(self.stream_ids, self._asked(environ))
            own = [pair for pair in self.options.headers if pair[0].lower() != "content-type"]
            if not cursor.left():
                return Answer(_line(204), [pair for pair in own if not pair[0].lower().startswith("content-")])
            headers = streaming_headers([("Content-Type", EVENT_STREAM), *own])
            if environ.get("REQUEST_METHOD") == "HEAD":
                return Answer(_line(200), headers)
            if self.options.viewers is not None:
                viewers = self.options.viewers
                place = viewers.enter()
                if place is None and viewers.event_source:
                    return come_back(own, viewers.retry_after)
                if place is None:
                    return self._refuse(503, "too many viewers", viewers.retry_after)
            return Answer(_line(200), headers, self._body(environ, cursor, place))
        except ResumableStreamError as error:
            if place is not None:
                place.release()
            if error.http_status >= 500:
                extra = about("not-served")
                logger.warning("%d streams cannot be served: %s", len(self.stream_ids), error, extra=extra)
            retry_after = RETRY_AFTER if error.http_status == 503 else None
            return self._refuse(error.http_status, REASONS.get(error.code, error.code), retry_after)
        except BaseException:
            if place is not None:
                place.release()
            raise

    def _asked(self, environ: dict[str, Any]) -> str:
        """The cursor asked for; see `Endpoint`."""
        if self.options.after is not None:
            return self.options.after
        query = parse_qs(environ.get("QUERY_STRING", ""))
        return str(environ.get("HTTP_LAST_EVENT_ID", "").strip() or query.get("after", [""])[-1])

    def _body(self, environ: dict[str, Any], cursor: CombinedCursor, place: Place | None) -> Body:
        """StoreUnavailableError if nothing can be followed here."""
        left = cursor.left()
        self.context.status(left[0])  # whether the store answers is known before the headers are sent
        if self.context.closed:
            raise StoreUnavailableError("the context is closed", transient=False)
        positions = {stream_id: cursor.position(stream_id) for stream_id in left}
        starts = {stream_id: str(position or "") for stream_id, position in positions.items()}
        several = self.context._several(starts, self.options.wait, self.options.heartbeat)
        probe = find_probe(environ)
        events = _Events(several, cursor, len(self.stream_ids), self.format)
        return Body(_pieces(events, probe, self.options.max_seconds), place, probe)

    def _refuse(self, status: int, reason: str, retry_after: int | None = None) -> Answer:
        body = json.dumps({"error": reason}, separators=(",", ":")).encode()
        headers: Headers = error_headers(self.options.headers, len(body))
        if retry_after is not None:
            headers.append(("Retry-After", str(retry_after)))
        return Answer(_line(status), headers, [body])


@dataclass
class _Events:
    """Frames what the streams give in their turns. One thread at a time."""

    several: Several
    cursor: CombinedCursor
    count: int
    format: _Format
    writers: dict[str, _Writer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._retry = self.format.retry  # until it was sent, inside the first event

    def of_turn(self, turn: Turn) -> bytes:
        """The events of one turn."""
        stream_id, batch = turn.stream_id, turn.batch
        if batch is None:
            assert turn.ending is not None
            position = self.cursor.position(stream_id)
            if position is None:
                return self._end(stream_id, "", turn.ending)
            writer = self._writer(stream_id, position)
            return writer.held_back() + self._end(stream_id, writer.cursor, turn.ending)
        writer = self._writer(stream_id, Position(batch.generation, batch.offset - batch.length))
        frames: list[bytes] = []
        try:
            frames.extend(writer.chunk(entry.chunk) for entry in batch.entries)
            if turn.over and turn.ending is None:
                frames.append(writer.chunk(b"", True))
        except UnicodeDecodeError as error:  # list.extend has kept what came before
            extra = about("not-text", stream_id, batch.generation)
            logger.error(
                "stream %s is not UTF-8 text, use encode='base64' or errors='replace': %s",
                stream_id,
                error,
                extra=extra,
            )
            self.several.drop(stream_id)
            frames.append(self._end(stream_id, writer.cursor, None, "The stream is not UTF-8 text."))
            return b"".join(frames)
        if turn.over:
            if turn.ending is not None:
                frames.append(writer.held_back())
            frames.append(self._end(stream_id, writer.cursor, turn.ending))
        elif batch.offset == batch.size and not writer.is_live:
            writer.is_live = True
            frames.append(writer.live(batch.size))
        return b"".join(frames)

    def end(self) -> bytes:
        """The last event."""
        return self.frame(json.dumps({"streams": self.count}), "end")

    def frame(self, data: str, name: str) -> bytes:
        """An event, with the cursor that holds after it."""
        retry, self._retry = self._retry, None
        return sse.format_event(data, event=name, event_id=str(self.cursor), retry=retry)

    def _writer(self, stream_id: str, start: Position) -> _Writer:
        writer = self.writers.get(stream_id)
        if writer is None:
            writer = self.writers[stream_id] = _Writer(self, stream_id, start)
        return writer

    def _end(
        self, stream_id: str, cursor: str, ending: ResumableStreamError | None, failed: str | None = None
    ) -> bytes:
        if failed is not None:
            status, error = "error", failed
        elif ending is None:
            status, error = "done", None
        elif isinstance(ending, StreamNotFoundError):
            status, error = ending.code, None
        else:
            generation = int(cursor.partition("-")[0] or 0)
            status, error = ending_fields(stream_id, generation, ending, self.format.format_error)
        self.writers.pop(stream_id, None)
        self.cursor.end(stream_id)
        fields = {"status": status, "cursor": cursor, **({} if error is None else {"error": error})}
        return self.frame(json.dumps(fields), f"end:{stream_id}")


class _Writer(EventWriter):
    """Frames the chunks of one of several streams."""

    def __init__(self, events: _Events, stream_id: str, start: Position) -> None:
        super().__init__(start, events.format.encoding, None, events.format.errors)
        self._events = events
        self._stream_id = stream_id
        self.is_live = False

    def _frame(self, data: str, event: str | None = None, suffix: str = "") -> bytes:
        self._events.cursor.reach(self._stream_id, self.position)
        return self._events.frame(data, f"{event or 'chunk'}:{self._stream_id}")


def _pieces(events: _Events, probe: Probe | None, max_seconds: float | None) -> Iterator[bytes]:
    """Returns without the last `end` when the viewer should come back, see `sse_body`."""
    deadline = math.inf if max_seconds is None else time.monotonic() + max_seconds
    yield b""
    try:
        for turn in events.several.turns():
            if probe is not None and probe.gone():
                return
            piece = b"" if turn is None else events.of_turn(turn)
            del turn
            yield piece or sse.HEARTBEAT
            del piece
            if time.monotonic() >= deadline:
                return
        yield events.end()
    except StoreUnavailableError as unavailable:
        extra = about("response-cut")
        logger.info("a response of %d streams ends early: %s", events.count, unavailable, extra=extra)


def _line(code: int) -> str:
    return f"{code} {HTTPStatus(code).phrase}"
