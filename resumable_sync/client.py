"""Follow a stream over HTTP: a client of the responses of `resumable_sync.wsgi`, over whatever happens on the way.

    from resumable_sync.client import follow

    with follow("https://example.com/answers/7", headers={"Authorization": f"Bearer {token}"}) as stream:
        for piece in stream:            # bytes; ends quietly only if the stream is `done`
            file.write(piece)
            save(stream.cursor)         # after=… of another call goes on there

Needs httpx: `pip install "resumable_sync[client]"`.

Why a download that was cut is never taken for a whole one: a raw response counts as complete only when the server
has said, in the headers of some response, that the stream is `done` and how many bytes it has, and all of them are
here. An end of the body proves nothing. Of events only an `end` event counts.
"""

from __future__ import annotations

import base64
import binascii
import email.utils
import json
import logging
import random
import re
import socket
import ssl
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from types import TracebackType
from typing import Any, NoReturn

from . import interrupts
from .errors import (
    InvalidCursorError,
    InvalidStreamIdError,
    MalformedStreamError,
    ProducerFailedError,
    ProducerInterruptedError,
    ResumableStreamError,
    StoreUnavailableError,
    StreamCancelledError,
    StreamLostError,
    StreamNotFoundError,
)
from .sse import Event, EventParser

try:
    import httpx
except ImportError as missing:
    raise ImportError('resumable_sync.client needs httpx: pip install "resumable_sync[client]"') from missing

__all__ = ["Following", "RefusedError", "UnreachableError", "follow"]

logger = logging.getLogger("resumable_sync")

_FIRST_PAUSE = 0.5  # seconds before the second try, at most; doubled by each further one
_LONGEST_PAUSE = 30.0
_MISSING_PAUSE = 1.0  # seconds between questions for a stream that has not begun, at most
_PASSING = frozenset({408, 425, 429, 502, 503, 504})  # statuses of a server, or a proxy, that may pass
_BODY_PIECE = 500  # bytes of a refusal that its error holds
_MAX_EVENT_UNITS = 64 * 1024 * 1024
_CURSOR = re.compile(r"(0|[1-9][0-9]{0,15})-(0|[1-9][0-9]{0,15})")
_EVENT_STREAM = "text/event-stream"


class RefusedError(ResumableStreamError):
    """The server refused the request, or answered what is no resumable stream; to ask again would not help.

    `status`: of the response, 0 if there is none. `body`: its first bytes, at most 500. Where a refusal has an
    error class of its own (StreamNotFoundError for 404, say), this is its `__cause__`.
    """

    code = "refused"
    http_status = 502

    def __init__(self, message: str, *, status: int = 0, body: bytes = b"") -> None:
        super().__init__(message)
        self.status = status
        self.body = body


class UnreachableError(StoreUnavailableError):
    """The server was not to be reached for `patience` seconds, or the stream was closed here.

    What came before is good; `follow(…, after=cursor)` goes on. `fate_unknown`: a POST may have been executed.
    """


def follow(
    url: str,
    *,
    after: str = "",
    wait: float = 0.0,
    patience: float = 120.0,
    format: str = "auto",
    method: str = "GET",
    content: bytes | str | None = None,
    resume_url: str | None = None,
    headers: Mapping[str, str] | None = None,
    auth: Any = None,
    connect_timeout: float = 10.0,
    read_timeout: float = 45.0,
    client: httpx.Client | None = None,
) -> Following:
    """Follow the stream at `url`, from cursor `after` ("": the start). Blocks until the server has answered.

    Iterating gives exactly the bytes after the cursor, and ends without an exception only when the stream is
    `done`. Otherwise it raises, after the last byte and once, what `ResumableStreamContext.resume` raises:
    ProducerFailedError, ProducerInterruptedError, StreamCancelledError, StreamLostError.

    A connection that cannot be made, that breaks or that says nothing for `read_timeout` seconds is made anew, at
    the cursor; so is one that is refused with 429, 502, 503 or 504, or by a full ViewerCap (not before its
    `Retry-After`). Pauses grow exponentially, with full jitter, to 30 seconds. After `patience` seconds without a
    good answer it raises UnreachableError. The servers' heartbeat is 15 s, so that 45 s without one mean a dead
    connection; a raw response has none, and is asked for again when it is silent, which loses nothing.

    `wait`: seconds for which 404 is asked again; then StreamNotFoundError (later on 404 is a StreamLostError).
    `format`: "events" or "raw"; "auto" takes responses of the type text/event-stream for events. Say "raw" for
    bytes that have this type themselves. Events give exact bytes if they are encoded as JSON or base64; of text
    whose line ends are not LF they cannot: MalformedStreamError. Raw responses with `heartbeat_bytes` cannot be
    counted, and so not followed. `method` and `content` begin the stream; they are sent until there is an answer,
    but any other method than GET is repeated only where the server has certainly not executed it, and not sent at
    all with `after`. What comes later is a GET of `resume_url` (default: `url`). `headers` and `auth` go with
    every request. `client`: an httpx.Client of yours, which stays open; its own timeouts are not used.

    Raises ValueError for bad arguments, RefusedError for other answers (401, say, a page of another type, or too
    many redirects), InvalidCursorError and InvalidStreamIdError.
    """
    return Following(
        url,
        after=after,
        wait=wait,
        patience=patience,
        format=format,
        method=method,
        content=content,
        resume_url=resume_url,
        headers=headers,
        auth=auth,
        connect_timeout=connect_timeout,
        read_timeout=read_timeout,
        client=client,
    )


class Following:
    """A stream that is followed; see `follow`, which makes it. An iterator of bytes, and a context manager.

    One thread at a time may iterate; `close` may be called from any.
    """

    def __init__(
        self,
        url: str,
        *,
        after: str,
        wait: float,
        patience: float,
        format: str,
        method: str,
        content: bytes | str | None,
        resume_url: str | None,
        headers: Mapping[str, str] | None,
        auth: Any,
        connect_timeout: float,
        read_timeout: float,
        client: httpx.Client | None,
    ) -> None:
        if format not in ("auto", "events", "raw"):
            raise ValueError(f"format must be auto, events or raw, not {format!r}")
        for name, seconds in (("wait", wait), ("patience", patience)):
            if not seconds >= 0:
                raise ValueError(f"{name} must be a number of seconds, not {seconds!r}")
        for name, seconds in (("connect_timeout", connect_timeout), ("read_timeout", read_timeout)):
            if not seconds > 0:
                raise ValueError(f"{name} must be a positive number of seconds, not {seconds!r}")
        self._position = _parse(after) if after else None
        for address in filter(None, (url, resume_url)):
            _check_url(address)
        self._url = url
        self._resume_url = resume_url or url
        self._method = method.upper()
        self._content = content
        self._headers = dict(headers or {})
        self._auth = auth
        self._format = format
        self._patience = patience
        self._timeout = httpx.Timeout(read_timeout, connect=connect_timeout)
        self._begins_by = time.monotonic() + wait
        self._begun = False  # the server has answered
        self._executed = False  # what begins the stream, although the server has turned this viewer away
        self._ended: tuple[str, int] | None = None  # status and size, as the server has said of an ended stream
        self._status = "streaming"
        self._retry: float | None = None  # seconds, as the server's events say
        self._failures = 0  # in a row
        self._heard_at = time.monotonic()  # until when the server was there
        self._closed = interrupts.Event()
        self._response: httpx.Response | None = None
        self._connection: Any = None  # httpcore's, of the present request
        self._iterating: int | None = threading.get_ident()  # the thread that is at work
        self._owns_client = client is None
        self._client = httpx.Client() if client is None else client
        self._pieces: Generator[bytes, None, None] | None = None
        try:
            self._pieces = self._follow(self._open())
        except BaseException:
            self.close()
            raise
        finally:
            self._iterating = None

    @property
    def cursor(self) -> str:
        """The cursor after the last piece; what `after=` was until the server has answered."""
        return "" if self._position is None else f"{self._position[0]}-{self._position[1]}"

    @property
    def status(self) -> str:
        """`streaming`, until iterating ends: `done`, `error`, `interrupted`, `cancelled` or `lost`."""
        return self._status

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        """The next piece, which is not empty."""
        if self._pieces is None:
            raise StopIteration
        self._iterating = threading.get_ident()
        try:
            if self._closed.is_set():
                raise self._unreachable("it was closed here")
            return next(self._pieces)
        except BaseException:  # StopIteration too; whoever has raised gives nothing more
            self.close()
            self._pieces = None
            raise
        finally:
            self._iterating = None

    def close(self) -> None:
        """Let go of the connection, at once. The producer goes on. Iterating on raises UnreachableError, unless it
        has come to its end; so does an iteration under way in another thread. Idempotent; thread-safe.
        """
        self._closed.set()
        if self._iterating not in (None, threading.get_ident()):
            self._break()  # that thread then closes what it works with
            return
        if self._response is not None:
            self._response.close()
        if self._owns_client:
            self._client.close()

    def __enter__(self) -> Following:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # What follows runs in the thread that iterates.

    def _follow(self, response: httpx.Response | None) -> Generator[bytes, None, None]:
        """The bytes, over as many responses as it takes. `response`: None if the stream is over already."""
        while response is not None:
            heard = False
            try:
                pieces = self._events(response) if self._is_events(response) else self._raw(response)
                for piece in pieces:
                    heard = True
                    if piece:
                        yield piece
                failure: Exception = StoreUnavailableError("the response ended before the stream")
            except httpx.ReadTimeout as silent:  # of a raw response it may mean nothing
                failure, heard = silent, True
            except (httpx.RequestError, httpx.StreamError) as broken:
                failure = broken
            finally:
                self._response = None
                response.close()
            if self._ended is not None and self._position is not None and self._ended[1] == self._position[1]:
                self._end(self._ended[0])
                return
            if self._status != "streaming":
                return
            logger.info("%s broke off at %s: %r", self._url, self.cursor, failure)
            self._heard_at = time.monotonic()
            if heard:
                self._failures = 0
            self._pause(failure)
            response = self._open()

    def _open(self) -> httpx.Response | None:
        """A response that gives what follows the position. None if the stream is over."""
        while True:
            try:
                response = self._send()
                if response.status_code == 500 and self._position is not None and self._is_over(response):
                    response.close()
                    self._over()
                    return None
            except httpx.UnsupportedProtocol as error:
                raise RefusedError(f"{self._url}: {error}") from error
            except httpx.TooManyRedirects as error:
                raise RefusedError(f"{self._url} redirects again and again") from error
            except httpx.LocalProtocolError as error:
                raise ValueError(f"the request cannot be sent: {error}") from error
            except httpx.RequestError as error:
                if _is_untrusted(error):
                    raise UnreachableError(f"{self._url}: {error}", transient=False) from error
                sent = not isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout))
                if sent and self._begins and self._method != "GET":
                    raise self._unknown_fate(repr(error)) from error
                self._pause(error)
                continue
            try:
                retry_at = self._judge(response)
            except BaseException:
                self._response = None
                response.close()
                raise
            if retry_at is None:
                if response.status_code != 204:
                    return response
                self._response = None
                response.close()
                self._over()
                return None
            self._response = None
            response.close()
            status = response.status_code
            answer = "that it has too many viewers" if status == 200 else f"{status}"
            refusal = RefusedError(f"{self._url} answered {answer}", status=status)
            self._pause(refusal, retry_at)

    @property
    def _begins(self) -> bool:
        """Whether the next request is the one that may begin the stream."""
        return not (self._begun or self._executed) and self._position is None

    def _is_over(self, failed: httpx.Response) -> bool:
        """Whether a raw response has failed because nothing follows but an ending other than `done`: some servers
        have not sent its headers by then. HEAD tells."""
        head = self._send("HEAD")
        head.close()
        self._response = failed
        known = self._read_headers(head) if head.status_code == 200 else None
        return (
            known is not None
            and self._position == known
            and self._ended is not None
            and self._ended[1] == known[1]
        )

    def _send(self, method: str = "") -> httpx.Response:
        begins = self._begins and not method
        headers = {"Accept": f"{_EVENT_STREAM}, */*", "Accept-Encoding": "identity", "Cache-Control": "no-store"}
        if self._position is not None:
            headers["Last-Event-ID"] = self.cursor
        url = self._url if begins else self._resume_url
        try:
            request = self._client.build_request(
                self._method if begins else method or "GET",
                url,
                headers={**headers, **self._headers},
                content=self._content if begins else None,
                timeout=self._timeout,
                extensions={"trace": self._trace},
            )
        except httpx.InvalidURL as error:
            raise ValueError(f"{url}: {error}") from error
        options: dict[str, Any] = {} if self._auth is None else {"auth": self._auth}
        response = self._client.send(request, stream=True, follow_redirects=True, **options)
        self._response = response
        if self._closed.is_set():  # after it is there: either close() finds it, or this finds the mark
            response.close()
            raise self._unreachable("it was closed here")
        return response

    def _judge(self, response: httpx.Response) -> float | None:
        """None if this is a response to follow; the seconds to wait for another; or raises."""
        status = response.status_code
        if status in _PASSING:
            if status in (502, 504) and self._begins and self._method != "GET":
                raise self._unknown_fate(f"{status} of a proxy")
            return _retry_after(response.headers.get("retry-after", ""))
        if status == 200 and self._is_turned_away(response):
            self._executed = True
            return _retry_after(response.headers["retry-after"])
        if status == 404 and not self._begun and self._position is None:
            left = self._begins_by - time.monotonic()
            if left > 0:
                self._heard_at = time.monotonic()
                self._failures = 0
                return min(left, random.uniform(0.1, _MISSING_PAUSE))
        if status not in (200, 204):
            self._refuse(response)
        position = self._read_headers(response)
        if position is None:
            if status == 204 and self._position is not None:
                raise RefusedError(f"{self._url} says 204, but not how the stream ended", status=204)
            self._refuse(response, f"no resumable stream, but {response.headers.get('content-type', 'no type')}")
        if self._format == "events" and status == 200 and not self._is_events(response):
            self._refuse(response, f"no events, but {response.headers.get('content-type', 'no type')}")
        if self._position is None:
            self._position = position[0], 0
        if position[0] != self._position[0]:
            raise self._lost(f"it was begun anew: {position[0]} is not {self._position[0]}")
        if position[1] > self._position[1]:
            raise MalformedStreamError(f"{self._url} answers from {position[1]}, after {self.cursor}")
        self._begun = True
        return None

    def _read_headers(self, response: httpx.Response) -> tuple[int, int] | None:
        """Where the body begins; None if the response does not say so. Notes how the stream has ended."""
        match = _CURSOR.fullmatch(response.headers.get("x-resumable-cursor", ""))
        if match is None:
            return None
        status, size = response.headers.get("x-resumable-status", ""), response.headers.get("x-resumable-size", "")
        if status in _ENDINGS and size.isascii() and size.isdigit():
            self._ended = status, int(size)  # an ending is never changed
        return int(match[1]), int(match[2])

    def _is_turned_away(self, response: httpx.Response) -> bool:
        """Whether these are the events of a full ViewerCap, for EventSource: none."""
        headers = response.headers
        return self._is_events(response) and "retry-after" in headers and "x-resumable-cursor" not in headers

    def _is_events(self, response: httpx.Response) -> bool:
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        return self._format != "raw" and kind == _EVENT_STREAM

    def _raw(self, response: httpx.Response) -> Iterator[bytes]:
        """The bytes of the body that are new; b"" for others."""
        position = self._read_headers(response)
        assert position is not None
        begin = position[1]
        for data in response.iter_bytes():
            yield self._take(begin, data)
            begin += len(data)
        if self._ended is not None and self._position is not None and self._position[1] > self._ended[1]:
            raise MalformedStreamError(f"{self._url} gave more bytes than the {self._ended[1]} that it has")

    def _events(self, response: httpx.Response) -> Iterator[bytes]:
        """The bytes of the events that are new; b"" for other signs of life."""
        position = self._read_headers(response)
        assert position is not None
        begin = position[1]
        parser = EventParser(_MAX_EVENT_UNITS)
        try:
            for data in response.iter_bytes():
                yield b""
                for event in parser.each(data):
                    self._retry = parser.retry if parser.retry is not None else self._retry
                    if event.event == "end":
                        self._take_ending(event)
                        return
                    if event.event != "message":
                        continue
                    match = _CURSOR.fullmatch(event.id)
                    if match is None or int(match[1]) != position[0]:
                        raise MalformedStreamError(f"an event of {self._url} has the id {event.id!r:.80}")
                    piece = _decode(event.data, int(match[2]) - begin)
                    yield self._take(begin, piece)
                    begin = int(match[2])
        except MalformedStreamError:
            raise
        except ValueError as error:
            raise MalformedStreamError(f"{self._url}: {error}") from error

    def _take(self, begin: int, data: bytes) -> bytes:
        """What is new of `data`, which begins at `begin`. It counts as delivered from now on."""
        assert self._position is not None
        generation, offset = self._position
        if begin > offset:
            raise MalformedStreamError(f"bytes of {self._url} are missing: {begin} follows {offset}")
        new = data[offset - begin :]
        self._position = generation, offset + len(new)
        return new

    def _take_ending(self, event: Event) -> None:
        """An `end` event."""
        try:
            fields = json.loads(event.data)
            status, cursor, error = fields["status"], fields["cursor"], fields.get("error")
        except (ValueError, TypeError, KeyError, AttributeError) as wrong:
            raise MalformedStreamError(f"{self._url} ended with {event.data!r:.80}") from wrong
        if cursor != self.cursor:
            raise MalformedStreamError(f"{self._url} ended at {cursor!r:.80}, not at {self.cursor}")
        self._end(str(status), error)

    def _over(self) -> None:
        """The server says that nothing follows the position."""
        if self._ended is None or self._position is None or self._ended[1] != self._position[1]:
            raise MalformedStreamError(f"{self._url} says 204 at {self.cursor}, where the stream has not ended")
        self._end(self._ended[0])

    def _end(self, status: str, error: object = None) -> None:
        """The stream has ended, and all of it is here."""
        if status != "done" and status not in _ENDINGS and status != "lost":
            raise MalformedStreamError(f"{self._url} ended as {status!r:.80}")
        self._status = status
        where = f"{self._url} at {self.cursor}"
        if status == "error":
            raise ProducerFailedError(str(error) if error else f"the source failed: {where}")
        if status == "interrupted":
            raise ProducerInterruptedError(f"the producer was lost: {where}")
        if status == "cancelled":
            raise StreamCancelledError(f"the stream was cancelled: {where}")
        if status == "lost":
            raise self._lost("it is gone")

    def _lost(self, why: str) -> StreamLostError:
        self._status = "lost"
        return StreamLostError(f"the stream was lost after {self.cursor}: {self._url}: {why}")

    def _refuse(self, response: httpx.Response, why: str = "") -> NoReturn:
        """Raise for a response that is not to be followed."""
        body = _begin_of(response)
        text = body.decode("utf-8", "replace").strip()
        status = response.status_code
        message = f"{self._url} answered {why or f'{status} {response.reason_phrase}'.strip()}"
        message += f": {text}" if text and not why else ""
        refused = RefusedError(message, status=status, body=body)
        if why:
            raise refused
        if status == 410 or (status == 404 and self._begun):
            raise self._lost(f"{status}") from refused
        if status == 404:
            raise StreamNotFoundError(message) from refused
        if status == 400 and "invalid cursor" in text:
            raise InvalidCursorError(message) from refused
        if status == 400 and "invalid stream id" in text:
            raise InvalidStreamIdError(message) from refused
        raise refused

    def _pause(self, failure: Exception, at_least: float = 0.0) -> None:
        """Wait before the next try. UnreachableError if the patience is at an end."""
        if self._closed.is_set():
            raise self._unreachable("it was closed here") from failure
        first = _FIRST_PAUSE if self._retry is None else self._retry
        longest = min(_LONGEST_PAUSE, first * 2.0 ** min(self._failures, 30))
        self._failures += 1
        seconds = at_least + random.uniform(0.0, longest)
        left = self._heard_at + self._patience - time.monotonic()
        if left <= 0 or at_least > left:
            raise self._unreachable(f"no answer for {self._patience:g} s, {failure}") from failure
        if self._closed.wait(min(seconds, left)):
            raise self._unreachable("it was closed here") from failure

    def _unknown_fate(self, why: str) -> UnreachableError:
        text = f"no answer to {self._method} {self._url}, which may have been executed: {why}"
        return UnreachableError(text, fate_unknown=True)

    def _trace(self, event: str, details: Mapping[str, Any]) -> None:
        """Called by httpcore with each step that it takes."""
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self._connection = details["return_value"]

    def _break(self) -> None:
        """End a wait under way in another thread. An HTTP/2 connection of a client that is not ours may be shared
        with others, and is left alone."""
        response, connection = self._response, self._connection
        if response is not None:
            connection = response.extensions.get("network_stream", connection)
        is_alone = self._owns_client or (response is not None and response.http_version.startswith("HTTP/1"))
        found = connection.get_extra_info("socket") if connection is not None and is_alone else None
        if isinstance(found, socket.socket):
            try:
                socket.socket.shutdown(found, socket.SHUT_RDWR)  # past SSLSocket's, which forgets its TLS layer
            except OSError as error:
                logger.debug("the connection was gone already: %r", error)

    def _unreachable(self, why: str) -> UnreachableError:
        return UnreachableError(f"{self._url}: {why}; go on after {self.cursor or 'the start'}")


_ENDINGS = frozenset({"done", "error", "cancelled", "interrupted"})


def _parse(cursor: str) -> tuple[int, int]:
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise InvalidCursorError(f"not a cursor: {cursor!r:.80}; expected '<generation>-<offset>' or ''")
    return int(match[1]), int(match[2])


def _check_url(url: str) -> None:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"{url!r:.200}: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"not an address of HTTP: {url!r:.200}")


def _decode(data: str, size: int) -> bytes:
    """The `size` bytes for which an event's data stands. Which encoding it has shows in its length: base64 and
    JSON are longer than what they stand for, text is as long."""
    text = data.encode("utf-8")
    if len(text) == size:
        return text
    try:
        found = json.loads(data) if data.startswith('"') else base64.b64decode(text, validate=True)
        decoded = found.encode("utf-8") if isinstance(found, str) else bytes(found)
        if len(decoded) == size:
            return decoded
    except (ValueError, binascii.Error):
        pass  # neither: told below
    raise MalformedStreamError(
        f"an event that stands for {size} bytes has {len(text)}: for text whose line ends are CR, the server must"
        ' say encode="json", for bytes that are not UTF-8 encode="base64"'
    )


def _retry_after(value: str) -> float:
    """Seconds, as the header says: a number or a date (RFC 9110, section 10.2.3); 0 if it says nothing."""
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _begin_of(response: httpx.Response) -> bytes:
    """The first bytes of a refusal."""
    body = b""
    try:
        for data in response.iter_bytes():
            body += data
            if len(body) >= _BODY_PIECE:
                break
    except httpx.HTTPError as error:  # its status says enough
        logger.debug("the body of a refusal broke off: %r", error)
    return body[:_BODY_PIECE]


def _is_untrusted(error: BaseException | None) -> bool:
    """Whether a certificate was refused, which another try would not change."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
