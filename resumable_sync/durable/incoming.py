"""A request: which stream it is about, and its headers and body, checked."""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable
from datetime import date
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, unquote_to_bytes

from ..contract import INTERNAL_PREFIXES, validate_stream_id
from ..errors import InvalidStreamIdError
from .answers import Refusal

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_HOST = re.compile(r"[A-Za-z0-9._~:\[\]-]{1,255}")
_MEDIA_TYPE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+(\s*;[\t\x20-\x7e]*)?")
_TTL = re.compile(r"0|[1-9][0-9]{0,99}")
_WHOLE = re.compile(r"0|[1-9][0-9]{0,15}")
_INSTANT = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,20}))?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)
_LONGEST_TYPE = 255
_PIECE = 65536
_SEPARATORS = ".:_-"

DEFAULT_TYPE = "application/octet-stream"

MapPath = Callable[[str], str]


class Names:
    """From paths to ids of streams, and to addresses. Immutable; thread-safe. ValueError for a bad namespace."""

    def __init__(self, prefix: str, namespace: str, stream_id: MapPath | None) -> None:
        self._prefix = "/" + prefix.strip("/") if prefix.strip("/") else ""
        self._namespace = namespace
        self._map = stream_id or _by_colons
        if namespace:
            try:
                validate_stream_id(namespace)
            except InvalidStreamIdError as error:
                raise ValueError(f"namespace: {error}") from error
            if namespace[-1] not in _SEPARATORS:
                raise ValueError(
                    f"namespace must end with one of {_SEPARATORS}: {namespace!r} has ids beside its own"
                )
            if namespace.startswith(INTERNAL_PREFIXES):
                raise ValueError(f"the namespace {namespace!r} is the library's own")

    def stream_id(self, path: str) -> str:
        """The id for a decoded path below the application. Refusal: 404 outside of the prefix, 501, 400."""
        if not path.startswith(f"{self._prefix}/"):
            raise Refusal(404, "not found")
        name = path[len(self._prefix) + 1 :]
        if name.partition("/")[0] == "__ds":
            raise Refusal(501, "not implemented")
        try:
            stream_id = validate_stream_id(self._namespace + self._map(name)) if name else ""
        except InvalidStreamIdError:
            stream_id = ""
        if not stream_id or stream_id.startswith(INTERNAL_PREFIXES):
            raise Refusal(400, "invalid stream id")
        return stream_id

    def source_id(self, environ: WSGIEnvironment, value: str) -> str:
        """The id for what `Stream-Forked-From` names: a path as the client sees it. Refusal 400 for anything
        else."""
        path = unquote_to_bytes(value.partition("?")[0].encode("latin-1")).decode("utf-8", "replace")
        mounted = _decoded(environ.get("SCRIPT_NAME", "")).rstrip("/")
        if not path.startswith(f"{mounted}/"):
            raise Refusal(400, "invalid source")
        try:
            return self.stream_id(path[len(mounted) :])
        except Refusal as refusal:
            raise Refusal(400, "invalid source") from refusal


def _by_colons(name: str) -> str:
    return name.replace("/", ":")


def _decoded(text: str) -> str:
    """What WSGI gives as Latin-1 is UTF-8."""
    return text.encode("latin-1").decode("utf-8", "replace")


class Request:
    """One request about one stream. One thread at a time."""

    def __init__(self, environ: WSGIEnvironment, names: Names, max_body_bytes: int) -> None:
        self.environ = environ
        self.method: str = environ.get("REQUEST_METHOD", "GET")
        self.stream_id = names.stream_id(_decoded(environ.get("PATH_INFO", "")))
        self._names = names
        self._max_body_bytes = max_body_bytes
        self._body: bytes | None = None

    def header(self, name: str) -> str | None:
        """The value, stripped; None where there is no such header."""
        value: str | None = self.environ.get("HTTP_" + name.upper().replace("-", "_"))
        return None if value is None else value.strip()

    @property
    def closes(self) -> bool:
        """Whether it is to close the stream."""
        return (self.header("Stream-Closed") or "").lower() == "true"

    @property
    def has_body(self) -> bool:
        """Whether the headers announce a body. Where they do not, there may be one all the same."""
        length = str(self.environ.get("CONTENT_LENGTH") or "").strip()
        return length != "0" if length else bool(self.environ.get("HTTP_TRANSFER_ENCODING"))

    @property
    def content_type(self) -> str | None:
        """None where there is none, or a malformed one."""
        value = str(self.environ.get("CONTENT_TYPE") or "").strip()
        return value if len(value) <= _LONGEST_TYPE and _MEDIA_TYPE.fullmatch(value) else None

    @property
    def query(self) -> dict[str, list[str]]:
        """The query's parameters. Refusal 400 for too many."""
        try:
            return parse_qs(self.environ.get("QUERY_STRING", ""), keep_blank_values=True, max_num_fields=100)
        except ValueError as error:
            raise Refusal(400, "invalid query") from error

    @property
    def location(self) -> str:
        """The absolute address of the stream, as the client has asked for it."""
        environ = self.environ
        host = environ.get("HTTP_HOST", "")
        if _HOST.fullmatch(host) is None:
            host = f"{environ.get('SERVER_NAME', 'localhost')}:{environ.get('SERVER_PORT', '80')}"
        path = quote((environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")).encode("latin-1"), safe="/:")
        return f"{environ.get('wsgi.url_scheme', 'http')}://{host}{path}"

    def source_id(self) -> str | None:
        """The stream that is to be forked. Refusal 400 for none."""
        value = self.header("Stream-Forked-From")
        return None if value is None else self._names.source_id(self.environ, value)

    def body(self) -> bytes:
        """The body. Refusal: 413 for more than the limit, 411 where nobody can tell its length, 400 where it
        breaks off."""
        if self._body is None:
            self._body = self._read()
        return self._body

    def _read(self) -> bytes:
        length = str(self.environ.get("CONTENT_LENGTH") or "").strip()
        limit = self._max_body_bytes
        if length:
            if not (length.isascii() and length.isdecimal()):
                raise Refusal(400, "invalid Content-Length")
            if len(length) > 15 or int(length) > limit:
                raise Refusal(413, "the body is too large")
            wanted = int(length)
        elif self.environ.get("wsgi.input_terminated"):
            wanted = limit + 1
        elif self.environ.get("HTTP_TRANSFER_ENCODING"):
            raise Refusal(411, "the body has no length")
        else:
            return b""
        body = self._read_bytes(wanted)
        if length and len(body) < wanted:
            raise Refusal(400, "the body breaks off")
        if len(body) > limit:
            raise Refusal(413, "the body is too large")
        return body

    def _read_bytes(self, wanted: int) -> bytes:
        pieces: list[bytes] = []
        try:
            while wanted > 0:
                piece = self.environ["wsgi.input"].read(min(wanted, _PIECE))
                if not piece:
                    break
                pieces.append(piece)
                wanted -= len(piece)
        except Exception as error:  # of the server's making: what it thinks of malformed chunks, and of a cut
            raise Refusal(400, "the body cannot be read") from error
        return b"".join(pieces)


def check_ttl(text: str) -> str:
    """`Stream-TTL`, else Refusal 400."""
    if _TTL.fullmatch(text) is None:
        raise Refusal(400, "invalid Stream-TTL")
    return text


def parse_whole(text: str, name: str) -> int:
    """A whole number without leading zeros, else Refusal 400."""
    if _WHOLE.fullmatch(text) is None:
        raise Refusal(400, f"invalid {name}")
    return int(text)


def parse_instant(text: str) -> tuple[int, str]:
    """Seconds of Unix time and the fraction's digits, of an RFC 3339 date with a zone; Refusal 400 for others."""
    match = _INSTANT.fullmatch(text)
    try:
        if match is None:
            raise ValueError(text)
        year, month, day, hour, minute, second = map(int, match.groups()[:6])
        zone_hours, zone_minutes = int(match[9] or 0), int(match[10] or 0)
        # 60: a leap second
        if hour > 23 or minute > 59 or second > 60 or zone_hours > 23 or zone_minutes > 59:
            raise ValueError(text)
        date(year, month, day)
    except ValueError as error:
        raise Refusal(400, "invalid Stream-Expires-At") from error
    seconds = calendar.timegm((year, month, day, hour, minute, second))
    zone = (zone_hours * 60 + zone_minutes) * 60
    seconds += zone if match[8] == "-" else -zone
    return seconds, (match[7] or "").rstrip("0")


def parse_fork_header(request: Request, name: str) -> Any:
    """For fork headers, which are an error where they are there and empty."""
    value = request.header(name)
    if value == "":
        raise Refusal(400, f"invalid {name}")
    return value
