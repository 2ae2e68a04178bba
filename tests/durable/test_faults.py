"""What the conformance suite cannot see: kills, restarts, races of several processes, a proxy."""

from __future__ import annotations

import http.client
import itertools
import json
import random
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest

from ..backends import Backend
from ..figures import Report
from ..javascript import cannot
from ..stores.redis.server import claim_port
from ..support import PATIENCE, wait_until
from .application import PREFIX
from .servers import START, Client, Events, Reply, Server, nginx, produced

JSON = "application/json"
PLAIN: dict[str, Any] = {"Content_Type": "text/plain"}
DIFFERENT = [b"%d" % number for number in range(8)]
"""A body for each client."""
T = TypeVar("T")

_numbers = itertools.count()


@pytest.fixture
def name() -> str:
    """Of a stream that is not there yet."""
    return f"faults/{next(_numbers)}"


def at_once(clients: Sequence[Client], act: Callable[[Client, int], T]) -> list[T]:
    """`act` by all clients, begun together. What one raises goes on."""
    barrier = threading.Barrier(len(clients))

    def run(numbered: tuple[int, Client]) -> T:
        barrier.wait(PATIENCE)
        return act(numbered[1], numbered[0])

    with ThreadPoolExecutor(len(clients)) as pool:
        return list(pool.map(run, enumerate(clients)))


def put_at_once(clients: Sequence[Client], stream: str, body: bytes | None = None, **headers: Any) -> list[int]:
    """The statuses."""
    return at_once(clients, lambda client, _: client.ask("PUT", stream, body, **PLAIN, **headers).status)


def post_at_once(clients: Sequence[Client], stream: str, bodies: Sequence[bytes], **headers: str) -> list[Reply]:
    """A body of each client."""
    return at_once(clients, lambda client, own: client.post(stream, bodies[own], **headers))


@pytest.fixture(scope="module")
def clients(server: Server) -> Iterator[list[Client]]:
    """Eight connections. Each stays with the worker that accepted it."""
    with ExitStack() as stack:
        yield [stack.enter_context(server.client()) for _ in range(8)]


class TestRaces:
    """Two workers."""

    def test_equal_bytes_of_several_writers_are_all_stored(self, clients: list[Client], name: str) -> None:
        assert clients[0].put(name).status == 201
        each = 40

        def write(client: Client, number: int) -> Counter[int]:
            return Counter(client.post(name, b"x").status for _ in range(each))

        statuses = sum(at_once(clients, write), Counter[int]())
        assert statuses == {204: each * len(clients)}
        assert clients[0].whole(name) == b"x" * each * len(clients)

    def test_one_of_equal_creations_creates(self, clients: list[Client], name: str) -> None:
        for number in range(5):
            statuses = put_at_once(clients, f"{name}-{number}", b"a")
            assert sorted(statuses) == [*[200] * (len(clients) - 1), 201]
            assert clients[0].whole(f"{name}-{number}") == b"a"

    def test_one_of_equal_forks_creates(self, clients: list[Client], name: str) -> None:
        assert clients[0].put(name, b"abc").status == 201
        statuses = put_at_once(clients, f"{name}-fork", Stream_Forked_From=f"{PREFIX}/{name}")
        assert sorted(statuses) == [*[200] * (len(clients) - 1), 201]
        assert clients[0].whole(f"{name}-fork") == b"abc"

    def test_a_stream_seq_has_one_winner(self, clients: list[Client], name: str) -> None:
        clients[0].put(name)
        expected = b""
        for number in range(10):
            replies = post_at_once(clients, name, DIFFERENT, Stream_Seq=f"{number:04}")
            statuses = [reply.status for reply in replies]
            assert sorted(statuses) == [204, *[409] * (len(clients) - 1)]
            expected += b"%d" % statuses.index(204)
        assert clients[0].whole(name) == expected

    def test_an_append_of_a_producer_is_stored_once(self, clients: list[Client], name: str) -> None:
        """All send the same, as a client does that repeats what it has no answer to."""
        clients[0].put(name)
        for seq in range(10):
            replies = post_at_once(clients, name, [b"%d" % seq] * len(clients), **produced("p", 0, seq))
            assert sorted(reply.status for reply in replies) == [200, *[204] * (len(clients) - 1)]
            assert {reply.headers["producer-seq"] for reply in replies} == {str(seq)}
        assert clients[0].whole(name) == b"0123456789"

    def test_a_close_has_one_winner(self, clients: list[Client], name: str) -> None:
        for number in range(5):
            stream = f"{name}-{number}"
            clients[0].put(stream)
            replies = post_at_once(clients, stream, DIFFERENT, Stream_Closed="true")
            statuses = [reply.status for reply in replies]
            assert sorted(statuses) == [204, *[409] * (len(clients) - 1)]
            assert clients[0].whole(stream) == b"%d" % statuses.index(204)

    def test_everybody_reads_what_was_written(self, clients: list[Client], name: str) -> None:
        """At once, whichever process answers."""
        clients[0].put(name)
        expected = b""
        for number in range(30):
            written = clients[number % len(clients)].post(name, b"%d;" % number)
            expected += b"%d;" % number
            for client in clients:
                head, read = client.ask("HEAD", name), client.get(name)
                assert (head.offset, read.offset, read.body) == (written.offset, written.offset, expected)
                assert "stream-up-to-date" in read.headers

    def test_a_stream_made_anew_by_another_process(self, clients: list[Client], name: str) -> None:
        """What a process remembers of a stream does not outlive it."""
        for number in range(8):
            maker, other = clients[number], clients[number - 1]
            kind = "text/plain" if number % 2 else JSON
            assert maker.put(name, Content_Type=kind).status == 201
            first = maker.post(name, b'"a"', Content_Type=kind, **produced("p", 0, 0))
            assert first.status == 200
            assert other.get(name, first.offset).status == 200
            wrong = other.post(name, b"1", Content_Type="text/plain" if kind == JSON else JSON)
            assert wrong.status == 409
            assert other.post(name, b'"b"', Content_Type=kind, **produced("p", 0, 1)).status == 200
            body = other.get(name).body
            assert body == (b'["a","b"]' if kind == JSON else b'"a""b"')
            assert maker.ask("DELETE", name).status == 204
            assert other.get(name, first.offset).status == 404
            assert other.post(name, b"1", Content_Type=kind).status == 404


class TestRestart:
    """The whole server is killed and comes back."""

    @pytest.fixture
    def mortal(self, kind: type[Backend], tmp_path: Path) -> Iterator[Server]:
        with Server(tmp_path, kind.url(tmp_path), workers=2) as running:
            yield running.await_start()

    def test_a_producer_goes_on(self, mortal: Server, name: str) -> None:
        with mortal.client() as client:
            client.put(name)
            assert client.post(name, b"0", **produced("p", 1, 0)).status == 200
            assert client.post(name, b"1", **produced("p", 1, 1), Stream_Seq="a").status == 200
            tail = client.ask("HEAD", name).offset
        mortal.kill()
        mortal.start()
        with mortal.client() as client:
            for seq in (0, 1):
                repeated = client.post(name, b"%d" % seq, **produced("p", 1, seq), Stream_Seq="a")
                assert (repeated.status, repeated.headers["producer-seq"]) == (204, "1")
                assert repeated.offset == tail
            stale = client.post(name, b"9", **produced("p", 0, 2))
            assert (stale.status, stale.headers["producer-epoch"]) == (403, "1")
            gap = client.post(name, b"9", **produced("p", 1, 3))
            assert (gap.status, gap.headers["producer-expected-seq"]) == (409, "2")
            assert client.post(name, b"9", Stream_Seq="a").status == 409
            assert client.post(name, b"2", **produced("p", 1, 2)).status == 200
            assert client.post(name, b"", **produced("p", 1, 3), Stream_Closed="true").status == 204
        mortal.kill()
        mortal.start()
        with mortal.client() as client:
            assert client.post(name, b"", **produced("p", 1, 3), Stream_Closed="true").status == 204
            assert client.post(name, b"", **produced("p", 1, 4), Stream_Closed="true").status == 409
            assert client.get(name, tail).body == b"2" and client.whole(name) == b"012"


class _Producer:
    """An idempotent producer that repeats each append until it is answered."""

    def __init__(self, server: Server, stream: str, own: int) -> None:
        self._client = server.client(10)
        self._stream = stream
        self._own = own
        self.stored = 0
        self.repeated = 0

    def run(self, over: threading.Event) -> None:
        with self._client as client:
            while not over.is_set():
                body = json.dumps({"producer": self._own, "seq": self.stored}).encode()
                while not self._answered(client, body):
                    self.repeated += 1
                self.stored += 1

    def _answered(self, client: Client, body: bytes) -> bool:
        headers = produced(f"producer-{self._own}", 0, self.stored)
        try:
            reply = client.post(self._stream, body, Content_Type=JSON, **headers)
        except (OSError, http.client.HTTPException):
            return False
        assert reply.status in (200, 204, 503), reply
        return reply.status != 503


class _Reader:
    """Follows a stream until it is closed, from its last offset on when the connection breaks."""

    def __init__(self, server: Server, stream: str) -> None:
        self._server = server
        self._stream = stream
        self.offset = START
        self.items: list[Any] = []
        self.asked = 0

    def run(self) -> None:
        closed = False
        while not closed:
            self.asked += 1
            try:
                closed = self._read()
            except (OSError, http.client.HTTPException, ValueError):
                pass  # a connection broke: on from the last offset. ValueError: within the length of a chunk

    def _read(self) -> bool:
        raise NotImplementedError


class _LongPoll(_Reader):
    def _read(self) -> bool:
        with self._server.client(10) as client:
            while True:
                self.asked += 1
                reply = client.get(self._stream, self.offset, live="long-poll")
                assert reply.status in (200, 204, 503), reply
                if reply.status == 503:
                    return False
                self.items += reply.json if reply.body else []
                self.offset = reply.offset
                if "stream-closed" in reply.headers:
                    return True


class _Sse(_Reader):
    def _read(self) -> bool:
        events = Events(self._server.port, self._stream, self.offset)
        try:
            assert events.status in (200, 503), events.status
            pending: list[Any] = []
            for event, data in events:
                found = json.loads(data)
                if event == "data":
                    pending += found
                else:
                    self.items += pending
                    pending = []
                    self.offset = found["streamNextOffset"]
                    if found.get("streamClosed"):
                        return True
        finally:
            events.close()
        return False


def kill_and_produce(
    server: Server, stream: str, report: Report, *, producers: int, seconds: float, pause: float, seed: int
) -> None:
    """Producers and live readers while workers, and now and then the whole server, are killed."""
    chance = random.Random(seed)
    with server.client() as client:
        assert client.put(stream, Content_Type=JSON).status == 201
    writers = [_Producer(server, stream, own) for own in range(producers)]
    readers: list[_Reader] = [_Sse(server, stream), _LongPoll(server, stream)]
    over = threading.Event()
    kills = restarts = 0
    with ThreadPoolExecutor(producers + len(readers)) as pool:
        reading = [pool.submit(reader.run) for reader in readers]
        writing = [pool.submit(writer.run, over) for writer in writers]
        try:
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline and not any(each.done() for each in (*writing, *reading)):
                before = sum(writer.stored for writer in writers)
                wait_until(lambda: sum(writer.stored for writer in writers) > before + producers)
                over.wait(pause * chance.random())
                if chance.random() < 0.25:
                    server.kill()
                    server.start()
                    restarts += 1
                else:
                    server.kill_worker(chance)
                    kills += 1
        finally:
            over.set()
        for each in writing:
            each.result(PATIENCE)
        with server.client() as client:
            assert client.post(stream, b"", Stream_Closed="true").status == 204
            stored = client.messages(stream)
        for each in reading:
            each.result(PATIENCE)
    for writer in range(producers):
        own = [item["seq"] for item in stored if item["producer"] == writer]
        assert own == list(range(writers[writer].stored))
    assert len(stored) == sum(writer.stored for writer in writers)
    for reader in readers:
        assert reader.items == stored
    report(
        kills=kills,
        restarts=restarts,
        messages=len(stored),
        repeated=sum(writer.repeated for writer in writers),
        reader_requests=[reader.asked for reader in readers],
    )
    assert kills + restarts > 0


class TestKills:
    """Three workers, of which one is killed every moment."""

    @pytest.fixture
    def mortal(self, kind: type[Backend], tmp_path: Path) -> Iterator[Server]:
        with Server(tmp_path, kind.url(tmp_path), workers=3, sse_seconds=2.0) as running:
            yield running.await_start()

    def test_every_append_is_stored_once_and_read_in_order(
        self, mortal: Server, name: str, report: Report
    ) -> None:
        kill_and_produce(mortal, name, report, producers=4, seconds=2.5, pause=0.4, seed=1)

    @pytest.mark.heavy
    @pytest.mark.timeout(300)
    @pytest.mark.parametrize("seed", [2, 3])
    def test_for_long(self, mortal: Server, name: str, report: Report, seed: int) -> None:
        kill_and_produce(mortal, name, report, producers=6, seconds=45, pause=1.5, seed=seed)


@pytest.fixture(scope="module")
def proxied(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of nginx."""
    for program in ("nginx", "curl"):
        if shutil.which(program) is None:
            cannot("DURABLE STREAMS THROUGH NGINX WERE", f"{program} is not installed")
    port, claim = claim_port()
    with claim, nginx(tmp_path_factory.mktemp("nginx"), server.port, port):
        yield port


class TestNginx:
    """In front of the server, which holds nothing back."""

    def test_events_pass_at_once(self, proxied: int, name: str) -> None:
        """curl follows; each event is there before the next append."""
        with Client(proxied) as client:
            assert client.put(name, b"begun").status == 201
            location = client.put(name).headers["location"]
            assert location == f"http://127.0.0.1:{proxied}{PREFIX}/{name}"  # of the proxy
            curl = subprocess.Popen(
                ["curl", "-sSN", "--http1.1", f"{location}?offset=-1&live=sse"], stdout=subprocess.PIPE, text=True
            )
            with curl:
                assert curl.stdout is not None
                lines = (line.rstrip("\n") for line in curl.stdout)
                for text in ("begun", "one", "two"):
                    if text != "begun":
                        assert client.post(name, text.encode()).status == 204
                    assert (
                        next(line for line in lines if line.startswith("data:") and "{" not in line)
                        == f"data:{text}"
                    )
                assert client.post(name, b"", Stream_Closed="true").status == 204
                assert any('"streamClosed":true' in line for line in lines)
            assert curl.returncode == 0

    def test_long_poll_waits_and_is_woken(self, proxied: int, name: str) -> None:
        with Client(proxied) as reader, Client(proxied) as writer, ThreadPoolExecutor(1) as pool:
            offset = reader.put(name).offset
            idle = reader.get(name, offset, live="long-poll")
            assert idle.status == 204 and idle.body == b"" and "stream-cursor" in idle.headers

            def until_woken() -> Reply:
                while (reply := reader.get(name, offset, live="long-poll")).status == 204:
                    pass
                return reply

            waiting = pool.submit(until_woken)
            assert writer.post(name, b"news").status == 204
            assert waiting.result(PATIENCE).body == b"news"

    def test_bodies_without_a_length(self, proxied: int, name: str) -> None:
        """curl sends chunks; nginx passes them on with the length."""
        with Client(proxied) as client:
            client.put(name)
            address = f"http://127.0.0.1:{proxied}{PREFIX}/{name}"
            headers = ["-H", "Transfer-Encoding: chunked", "-H", "Content-Type: text/plain"]
            command = ["curl", "-sS", "-o", "-", "-w", "%{http_code}", "-X", "POST", *headers, "-T", "-", address]
            done = subprocess.run(command, input=b"piped", capture_output=True, timeout=PATIENCE, check=True)
            assert done.stdout == b"204"
            assert client.whole(name) == b"piped"
