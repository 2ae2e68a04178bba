"""Whatever is asked is answered as the protocol has it, never by a failure; what is refused changes nothing."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import random
import socket
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple
from urllib.parse import quote
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resumable_sync import MemoryStore, ResumableStreamContext, StreamNotFoundError
from resumable_sync.contract import Batch, Maintenance, Store, StreamInfo
from resumable_sync.durable import DurableStreamsApp
from resumable_sync.stores.base import MAX_TTL

from ..backends import BACKEND_PARAMS, BACKENDS
from ..figures import Report
from .application import PREFIX, allow
from .servers import Server

JSON = "application/json"
MAX_BODY = 64 * 1024
CLOSED = {"HTTP_STREAM_CLOSED": "true"}
PRODUCER = {"HTTP_PRODUCER_ID": "p", "HTTP_PRODUCER_EPOCH": "1", "HTTP_PRODUCER_SEQ": "0"}

STATUSES = {
    "GET": {200, 204, 304, 400, 404, 410, 501},
    "HEAD": {200, 400, 404, 410, 501},
    "PUT": {200, 201, 400, 404, 409, 410, 411, 413, 501},
    "POST": {200, 204, 400, 403, 404, 405, 409, 410, 411, 413, 501},
    "DELETE": {204, 400, 404, 410, 501},
    "OPTIONS": {204},
}
GONE = {errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN}
"""The server has closed the connection with bytes unread."""
LONGEST = 60
"""Requests in one world, of whose streams some are then still there."""
OTHERS = {400, 404, 405, 501}
"""What other methods get."""


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Message(NamedTuple):
    """A request, as WSGI has it."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes


def call(application: Any, request: Message) -> Reply:
    """The whole answer. What breaks the rules of WSGI or HTTP is an AssertionError."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": request.path,
        "QUERY_STRING": request.query,
        "wsgi.input": io.BytesIO(request.body),
        **request.headers,
    }
    if "HTTP_TRANSFER_ENCODING" not in request.headers:
        environ.setdefault("CONTENT_LENGTH", str(len(request.body)))
    setup_testing_defaults(environ)
    started: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> Any:
        started.append((status, headers))
        return None

    pieces = application(environ, start_response)
    try:
        body = b"".join(pieces)
    finally:
        getattr(pieces, "close", lambda: None)()
    ((line, pairs),) = started
    status = int(line[:3])
    for name, value in pairs:
        assert value.isprintable() and max(value, default="") <= "\xff", (name, value)
    headers = {name.lower(): value for name, value in pairs}
    assert len(headers) == len(pairs), pairs
    assert headers["x-content-type-options"] == "nosniff" and "cross-origin-resource-policy" in headers
    if status in (204, 304):
        assert body == b"" and "content-type" not in headers
    if request.method == "HEAD":
        assert body == b""
    elif "content-length" in headers:
        assert int(headers["content-length"]) == len(body)
    return Reply(status, headers, body)


def parsed(text: bytes) -> Any:
    """JSON of which numbers may have any number of digits."""
    return json.loads(text, parse_int=str, parse_float=str)


class World:
    """An application, and streams of every kind in it. One thread."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.context = ResumableStreamContext(store)
        self.application = DurableStreamsApp(
            self.context,
            authorize=allow,
            prefix=PREFIX,
            cors_origins=["http://page.example"],
            long_poll_seconds=0.001,
            sse_seconds=0.001,
            max_body_bytes=MAX_BODY,
            read_bytes=100,
            max_writers=5,
        )
        self.checked = validator(self.application)
        self.passing: set[str] = set()  # what may go at any time: it expires, or waits for the last fork to go
        self.names = ["json", "text", "bytes", "shut", "source", "made"]
        self.tokens = ["-1", "now", "0" * 16 + "_" + "0" * 16, "9" * 16 + "_" + "9" * 16]
        json_, text, data, shut, source, made = self.names
        for name, kind, body in (
            (json_, JSON, b'[{"a":1}, 2 , "three"]'),
            (text, "text/plain", "früh am Morgen".encode()),
            (data, "", bytes(range(256))),
            (shut, JSON, b"[1]"),
            (source, "text/plain", b"source"),
        ):
            self._make("PUT", name, body, {"CONTENT_TYPE": kind} if kind else {})
        self._make("POST", shut, b"", CLOSED)
        for name, kind in ((json_, JSON), (text, "text/plain")):
            self._make("POST", name, b"0", {"CONTENT_TYPE": kind, **PRODUCER})
        self._make("PUT", f"{source}-fork", b"", {"HTTP_STREAM_FORKED_FROM": f"{PREFIX}/{source}"})
        self._make("DELETE", source, b"", {})
        self.context.produce(made, lambda: [b"made ", b"here"])
        self.names += [f"{source}-fork", "missing"]

    def _make(self, method: str, name: str, body: bytes, headers: dict[str, str]) -> None:
        reply = call(self.application, Message(method, f"{PREFIX}/{name}", "", headers, body))
        assert reply.status in (200, 201, 204), reply
        self.tokens += [value for key, value in reply.headers.items() if key == "stream-next-offset"]

    def _kept(self) -> Iterator[tuple[StreamInfo, Batch]]:
        """All streams. One that expires meanwhile is left out."""
        for listed in self.store.streams():
            with contextlib.suppress(StreamNotFoundError):
                info = self.store.info(listed.stream_id)
                if info is not None:
                    if info.ttl < MAX_TTL or any(name.endswith("deleted") for name in info.notes):
                        self.passing.add(info.stream_id)
                    yield info, self.store.read(info.stream_id, "", max_bytes=1 << 24)

    def picture(self) -> dict[str, Any]:
        """All that is kept, but for notes of forks, which whoever asks may tidy up."""
        found = {}
        for info, batch in self._kept():
            notes = {name: value for name, value in info.notes.items() if ".fork." not in name}
            digest = hashlib.sha256(batch.data).hexdigest()
            found[info.stream_id] = (info.generation, info.status, notes, digest, len(batch.entries))
        return found

    def _is_strict(self, request: Message) -> bool:
        """Whether wsgiref's checker may come in between. It has no patience with absurd requests, nor with the 200
        of a producer, which has no body and no Content-Type."""
        headers = request.headers
        if request.method not in STATUSES or not request.path.startswith("/"):
            return False
        return not any(name.startswith(("CONTENT_LENGTH", "HTTP_TRANSFER", "HTTP_PRODUCER")) for name in headers)

    def check_messages(self) -> None:
        """Every message of JSON is whole."""
        for info, batch in self._kept():
            if info.metadata.get("content-type", "").lower().startswith(JSON):
                for entry in batch.entries:
                    parsed(entry.chunk)

    def ask(self, request: Message) -> Reply:
        """The answer, which must be among those that the method has; then nothing but what it promises changed."""
        self.passing.clear()
        before = self.picture()
        reply = call(self.checked if self._is_strict(request) else self.application, request)
        allowed = STATUSES.get(request.method, OTHERS)
        assert reply.status in allowed, reply
        after = self.picture()
        removed = before.keys() - after.keys()
        if reply.status >= 300 or request.method in ("GET", "HEAD", "OPTIONS"):
            assert after == {name: value for name, value in before.items() if name not in removed}
            assert removed <= self.passing
        if reply.status == 200 and reply.headers.get("content-type") == JSON and request.method == "GET":
            assert isinstance(parsed(reply.body), list)
        token = reply.headers.get("stream-next-offset")
        if token is not None and len(self.tokens) < 200:
            self.tokens.append(token)
        return reply


NUMBERS = (
    "0",
    "1",
    "2",
    "-1",
    "01",
    "+1",
    "1e3",
    "9007199254740991",
    "9007199254740992",
    "9" * 100,
    "",
    " 1 ",
    "½",
    "x",
)
TYPES = (
    JSON,
    "Application/JSON; charset=utf-8",
    "text/plain",
    "text/html",
    "",
    "nonsense",
    "a/b\tc",
    "x/y;" + "z" * 300,
)
BODIES = (
    b"",
    b"text",
    b"[]",
    b" [ ] ",
    b'{"whole": true}',
    b'[1, "two", {"three": [3]}]',
    b"[1, 2",
    b'{"torn": ',
    b"[1,]",
    b"NaN",
    b"[Infinity]",
    b"1 2",
    b"\xff\xfe",
    b'"\xed\xa0\x80"',
    b'"\\ud800"',
    b"\xef\xbb\xbf[1]",
    b"[" * 5000,
    b"[" * 400 + b"]" * 400,
    b'{"a":' * 3000,
    b"1" * 5000,
    b"-",
    b"[null, true, false, 1.5e300, -0, 1E400]",
    "[\u2028\u2029]".encode(),
    b"x" * (MAX_BODY + 1),
    bytes(range(256)),
)
INSTANTS = (
    "2099-01-01T00:00:00Z",
    "2099-01-01T00:00:00.5+01:00",
    "2099-02-30T00:00:00Z",
    "2099-01-01",
    "2099-01-01T00:00:00",
    "2001-01-01T00:00:00Z",
    "0000-01-01T00:00:00Z",
    "9999-12-31T23:59:60-23:59",
    "²099-01-01T00:00:00Z",
    "tomorrow",
)
METHODS = ("GET", "GET", "HEAD", "PUT", "PUT", "POST", "POST", "POST", "POST", "DELETE", "OPTIONS")


def a_request(chance: random.Random, world: World) -> Message:
    """A request with anything from well-formed to absurd in each of its places."""

    def rarely(one_in: int) -> bool:
        return chance.randrange(one_in) == 0

    def a_token() -> str:
        token = chance.choice(world.tokens)
        if rarely(3):
            lineage, _, offset = token.partition("_")
            changed = [
                f"{lineage}_{chance.randrange(300):016d}",
                f"{chance.randrange(10**16):016d}_{offset}",
                token[:-1],
                token + "0",
                token.replace("_", "-"),
                token.replace("0", "٠"),
                "",
                "\x00",
            ]
            token = chance.choice(changed)
        return token

    def noise() -> str:
        return "".join(
            chr(chance.choice((chance.randrange(0x20, 0x7F), chance.randrange(0xA0, 0x100)))) for _ in range(8)
        )

    name = chance.choice(world.names[:2] if rarely(3) else world.names)
    path = f"{PREFIX}/{name}"
    if rarely(25):
        path = chance.choice(
            [
                "",
                "/",
                PREFIX,
                PREFIX + "/",
                f"{PREFIX}/__ds/jwks",
                f"{path}/../x",
                f"{PREFIX}/{'a' * 300}",
                f"{PREFIX}/\xc3\xbc",
            ]
            + [f"{PREFIX}/chat.x", f"{PREFIX}/a\x00b", f"{PREFIX}/\xff", "/other", f"{PREFIX}/{noise()}"]
        )
    elif rarely(10):
        path = f"{PREFIX}/new-{chance.randrange(30)}"
    query: list[tuple[str, str]] = []
    method = chance.choice(("PATCH", "TRACE", "get", "")) if rarely(30) else chance.choice(METHODS)
    if method == "GET" or rarely(10):
        while chance.random() < 0.6:
            live = chance.choice(["long-poll", "sse", "sse", "true", "", "SSE"])
            key = chance.choice(["offset", "offset", "offset", "live", "cursor", "unknown"])
            query.append((key, {"offset": a_token(), "live": live}.get(key, chance.choice(NUMBERS))))
    headers: dict[str, str] = {}
    if not rarely(5):
        usual = JSON if name in ("json", "shut") else "text/plain"
        headers["CONTENT_TYPE"] = chance.choice(TYPES) if rarely(3) else usual
    if not headers.get("CONTENT_TYPE", "x"):
        del headers["CONTENT_TYPE"]
    if rarely(2):
        for key in ("ID", "EPOCH", "SEQ"):
            if not rarely(8):
                good = chance.choice("ppqü" if key == "ID" else "0012")
                bad = chance.choice(("", " ", "p" * 2000, noise())) if key == "ID" else chance.choice(NUMBERS)
                headers[f"HTTP_PRODUCER_{key}"] = bad if rarely(6) else good
    for key, values, one_in in (
        ("STREAM_SEQ", ("a", "b", "c", "", "\xff", "s" * 2000, noise()), 6),
        ("STREAM_CLOSED", ("true", "TRUE", "false", "1", ""), 5),
        ("STREAM_TTL", (*NUMBERS, "3600"), 8),
        ("STREAM_EXPIRES_AT", INSTANTS, 10),
        (
            "STREAM_FORKED_FROM",
            (f"{PREFIX}/{chance.choice(world.names)}", "/x", "", "//", quote(path, safe=""), noise()),
            8,
        ),
        ("STREAM_FORK_OFFSET", (a_token(),), 10),
        ("STREAM_FORK_SUB_OFFSET", NUMBERS, 15),
        ("IF_NONE_MATCH", ("*", "*", '"x"', "W/", noise()), 6),
        ("ORIGIN", ("http://page.example", "http://other.example", "null", noise()), 6),
        ("HOST", ("example.com", "a b", "[::1]:80", noise()), 20),
        ("ACCESS_CONTROL_REQUEST_METHOD", ("PUT", noise()), 20),
        ("TRANSFER_ENCODING", ("chunked",), 25),
    ):
        if rarely(one_in):
            headers[f"HTTP_{key}"] = chance.choice(values)
    body = chance.choice(BODIES) if method in ("PUT", "POST") or rarely(10) else b""
    if "HTTP_TRANSFER_ENCODING" in headers and rarely(2):
        headers["wsgi.input_terminated"] = "yes"
    if rarely(25):
        headers["CONTENT_LENGTH"] = chance.choice(("", "-1", "x", "99", "1", "9" * 30, str(MAX_BODY + 1), "²"))
    return Message(method, path, "&".join(f"{key}={quote(value)}" for key, value in query), headers, body)


@pytest.fixture(scope="module", params=BACKEND_PARAMS)
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """One of each kind for all examples."""
    backend = BACKENDS[request.param]()
    made = backend.make(max_streams=100_000)
    yield made
    made.close()
    backend.close()


@contextlib.contextmanager
def a_world(store: Store) -> Iterator[World]:
    assert isinstance(store, Maintenance)
    store.clear()
    world = World(store)
    try:
        yield world
    finally:
        world.context.close()


def play(world: World, seeds: Iterable[int]) -> Counter[int]:
    """A request of each seed. How often each status was the answer."""
    statuses: Counter[int] = Counter()
    for seed in seeds:
        statuses[world.ask(a_request(random.Random(seed), world)).status] += 1
    world.check_messages()
    return statuses


@given(seeds=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=LONGEST))
def test_any_requests(store: Store, seeds: list[int]) -> None:
    with a_world(store) as world:
        play(world, seeds)


def play_many(store: Store, first: int, count: int) -> Counter[int]:
    """`count` requests in worlds of their own. How often each status was the answer."""
    statuses: Counter[int] = Counter()
    for begin in range(first, first + count, LONGEST):
        with a_world(store) as world:
            statuses += play(world, range(begin, begin + LONGEST))
    return statuses


def test_many_requests(store: Store, report: Report) -> None:
    """Every status is an answer, but for the rare 403: the requests are not all refused for one reason."""
    statuses = play_many(store, 0, 600)
    report(statuses=dict(sorted(statuses.items())))
    assert statuses.keys() | {403} == set().union(*STATUSES.values())


@pytest.mark.heavy
@pytest.mark.timeout(1200)
def test_100_000_requests(store: Store, report: Report) -> None:
    """A tenth of them where each costs calls of a database or a server."""
    count = 100_000 if isinstance(store, MemoryStore) else 10_000
    statuses = play_many(store, 1_000_000, count)
    report(statuses=dict(sorted(statuses.items())))
    assert statuses.keys() == set().union(*STATUSES.values())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("server")
    with Server(directory, BACKENDS["sqlite"].url(directory), workers=2, max_body_bytes=MAX_BODY) as running:
        yield running.await_start()


def statuses_of(server: Server, sent: bytes, *, leave: bool = False) -> list[int]:
    """What a server answers to bytes: all statuses until it closes the connection, or the client has to.

    `leave`: the client goes without waiting for an answer.
    """
    with socket.create_connection(("127.0.0.1", server.port), 20) as connection:
        received = b""
        try:
            connection.sendall(sent)
            if leave:
                return []
            connection.shutdown(socket.SHUT_WR)
            while data := connection.recv(65536):
                received += data
        except OSError as error:
            if error.errno not in GONE:
                raise
    return [int(line[9:12]) for line in received.split(b"\r\n") if line.startswith(b"HTTP/1.")]


def raw(method: str, name: str, *headers: str, body: bytes = b"") -> bytes:
    """A request as it is sent, without a Content-Length of its own."""
    head = [f"{method} {PREFIX}/{name} HTTP/1.1", "Host: x", "Content-Type: text/plain", *headers]
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


TORN = {
    "no http": b"\x16\x03\x01\x02\x00\x01\x00",
    "no version": b"GET /\r\n\r\n",
    "a line without an end": b"GET /" + b"a" * 100_000,
    "a huge header": raw("POST", "raw", "Stream-Seq: " + "s" * 100_000, "Content-Length: 1", body=b"x"),
    "many headers": raw("POST", "raw", *(f"X-{n}: y" for n in range(1000)), "Content-Length: 1", body=b"x"),
    "a NUL in a header": raw("POST", "raw", "Producer-Id: a\x00b", "Content-Length: 1", body=b"x"),
    "a torn header": raw("POST", "raw", "Producer-Id", "Content-Length: 1", body=b"x"),
    "a folded header": raw("POST", "raw", "Producer-Id: a", " b", "Content-Length: 1", body=b"x"),
    "two lengths": raw("POST", "raw", "Content-Length: 1", "Content-Length: 2", body=b"xy"),
    "a negative length": raw("POST", "raw", "Content-Length: -1", body=b"x"),
    "a length that is no number": raw("POST", "raw", "Content-Length: 1x", body=b"x"),
    "length and chunks": raw("POST", "raw", "Content-Length: 3", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "a body that breaks off": raw("POST", "raw", "Content-Length: 10", body=b"x"),
    "a closing body that breaks off": raw("POST", "raw", "Stream-Closed: true", "Content-Length: 10", body=b"x"),
    "chunks that break off": raw("POST", "raw", "Transfer-Encoding: chunked", body=b"5\r\nxx"),
    "chunks without an end": raw("POST", "raw", "Transfer-Encoding: chunked", body=b"1\r\nx\r\n"),
    "chunks of no size": raw("POST", "raw", "Transfer-Encoding: chunked", body=b"zz\r\nx\r\n0\r\n\r\n"),
    "a chunk of negative size": raw("POST", "raw", "Transfer-Encoding: chunked", body=b"-1\r\nx\r\n0\r\n\r\n"),
    "too large in chunks": raw(
        "POST", "raw", "Transfer-Encoding: chunked", body=b"10001\r\n" + b"x" * 0x10001 + b"\r\n0\r\n\r\n"
    ),
    "too large by its length": raw("POST", "raw", f"Content-Length: {1 << 40}", body=b"x"),
    "an unknown coding": raw("POST", "raw", "Transfer-Encoding: gzip", body=b"x"),
    "a coding twice": raw("POST", "raw", "Transfer-Encoding: chunked, chunked", body=b"1\r\nx\r\n0\r\n\r\n"),
    "a strange method": raw("P\xf6ST", "raw", "Content-Length: 1", body=b"x"),
    "a path that is no UTF-8": raw("POST", "%ff%00", "Content-Length: 1", body=b"x"),
    "an id that is none": raw("POST", "raw%20", "Content-Length: 1", body=b"x"),
}


@pytest.mark.parametrize("sent", TORN.values(), ids=TORN.keys())
def test_torn_requests_store_nothing(server: Server, sent: bytes) -> None:
    with server.client() as client:
        assert client.put("raw", b"kept").status in (200, 201)
        before = client.ask("HEAD", "raw")
        for leave in (True, False):
            statuses = statuses_of(server, sent, leave=leave)
            assert all(400 <= status <= 501 and status != 500 for status in statuses), statuses
        after = client.ask("HEAD", "raw")
        assert (after.offset, "stream-closed" in after.headers) == (before.offset, False)
        assert client.whole("raw") == b"kept"
    assert not server.complaints()


def test_pipelined_requests_are_answered_one_by_one(server: Server) -> None:
    """Also after one that is refused before its body was read: what follows is the body's rest, or the connection
    ends, but never are bytes of a body taken for a request."""
    inner = raw("POST", "outer", "Content-Length: 5", body=b"inner")
    with server.client() as client:
        client.put("outer")
        whole = raw("POST", "outer", "Content-Length: 1", body=b"1")
        assert statuses_of(server, whole * 3 + raw("GET", "outer?offset=-1", "Connection: close")) == [
            204,
            204,
            204,
            200,
        ]
        for refused in (
            raw("POST", "missing", f"Content-Length: {len(inner)}", body=inner),
            raw("POST", "__ds/x", f"Content-Length: {len(inner)}", body=inner),
            raw("GET", "outer?offset=bad", f"Content-Length: {len(inner)}", body=inner),
            raw("PUT", "outer", "Stream-TTL: x", f"Content-Length: {len(inner)}", body=inner),
            raw("POST", "outer", "Producer-Id: x", f"Content-Length: {len(inner)}", body=inner),
            raw("POST", "outer", "Content-Length: 70000", body=inner.ljust(70_000)),
        ):
            statuses = statuses_of(server, refused + whole)
            assert statuses[0] >= 400 and set(statuses[1:]) <= {204, 400}
        assert client.whole("outer").strip(b"1") == b""


@pytest.mark.heavy
def test_random_bytes(server: Server, report: Report) -> None:
    """Of requests that were well-formed, with some bytes changed, cut or doubled."""
    chance = random.Random(5)
    answers: Counter[int] = Counter()
    with server.client() as client:
        client.put("target", b"")
        for _ in range(3000):
            data = bytearray(chance.choice(list(TORN.values()))[:3000].replace(b"raw", b"target"))
            for _ in range(chance.randrange(1, 6)):
                at = chance.randrange(len(data))
                change = chance.randrange(3)
                if change == 0:
                    data[at] = chance.randrange(256)
                elif change == 1:
                    del data[at : at + chance.randrange(20)]
                else:
                    data[at:at] = data[at : at + chance.randrange(20)]
                data = data or bytearray(b"x")
            answers.update(statuses_of(server, bytes(data), leave=chance.random() < 0.2))
        assert client.ask("HEAD", "target").status == 200
    report(statuses=dict(sorted(answers.items())))
    assert not any(status >= 500 and status not in (501, 505) for status in answers)
    assert not server.complaints()
