"""The JavaScript client, in Node and in Chromium: every byte once, and one ending, whatever happens on the way."""

from __future__ import annotations

import email.utils
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from resumable_sync import ResumableStreamContext, SQLiteStore, current_producer
from resumable_sync.wsgi import ViewerCap

from ..figures import Report
from ..stores.redis.proxy import CuttingProxy
from ..support import Process, wait_until
from .application import lines
from .conftest import Client, Cuts, PageClient, Served, proxy

FORMS = ["raw", "text", "json", "base64"]
by_node = pytest.mark.parametrize("client", ["node", pytest.param("page", marks=pytest.mark.heavy)], indirect=True)
"""For what takes its time, and is the same in a browser."""
either_form = pytest.mark.parametrize("form", [pytest.param("raw", marks=pytest.mark.heavy), "json"])
both_ways = pytest.mark.parametrize(
    ("client", "each_served"),
    [
        ("node", "HTTP/1.0"),
        ("node", "HTTP/1.1"),
        pytest.param("page", "HTTP/1.0", marks=pytest.mark.heavy),
        ("page", "HTTP/1.1"),
    ],
    indirect=True,
)


def options_of(form: str) -> dict[str, Any]:
    """How a client is told of the form that the server sends."""
    return {} if form == "raw" else {"encoding": form}


class Gate:
    """A source that gives its first chunks, and the rest when the test says so."""

    def __init__(self, first: bytes, rest: bytes = b"", error: Exception | None = None) -> None:
        self.first, self.rest, self.error = first, rest, error
        self.started = 0
        self._opened = threading.Event()

    def open(self) -> None:
        self._opened.set()

    def __call__(self) -> Iterator[bytes]:
        self.started += 1
        current_producer().on_cancel(self.open)
        yield self.first
        assert self._opened.wait(60)
        if self.error is not None:
            raise self.error
        if self.rest:
            yield self.rest


def paced(chunks: list[bytes], seconds: float) -> Iterator[bytes]:
    stopped = current_producer().cancelled
    for chunk in chunks:
        if stopped.wait(seconds):
            return
        yield chunk


def _cut(client: Client, served: Served, form: str, as_: str, count: int, seed: int) -> None:
    """Follow a stream that is produced meanwhile, and cut it `count` times: nothing is lost or comes twice."""
    size, apart = (60_000, 9) if count < 10 else (400_000, 5)
    chunks = list(lines(size // 200))
    name = served.new()
    served.application.sources[name] = lambda: paced(chunks, 0.0005)
    cuts = Cuts(seed, count, apart)
    with proxy(served, cuts) as way:
        follower = client.follow(
            served.url(form, name, way.port), method="POST", **{"as": as_}, **options_of(form)
        )
        ending = follower.ending()
        assert (ending["status"], cuts.left, way.cuts) == ("done", 0, count)
    assert follower.received() == b"".join(chunks)
    assert follower.seen()["kind"] == ("string" if as_ == "text" else "object")


@pytest.mark.parametrize(
    ("form", "as_"), [("raw", "text"), ("raw", "bytes"), ("json", "text"), ("base64", "bytes")]
)
def test_cut_at_three_random_bytes(client: Client, served: Served, form: str, as_: str) -> None:
    _cut(client, served, form, as_, 3, len(form + as_))


@pytest.mark.heavy
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("as_", ["text", "bytes"])
@pytest.mark.parametrize("form", FORMS)
def test_cut_at_fifty_random_bytes(
    client: Client, each_served: Served, form: str, as_: str, seed: int, report: Report
) -> None:
    began = time.monotonic()
    _cut(client, each_served, form, as_, 50, seed)
    report(cuts=50, seconds=round(time.monotonic() - began, 1))


@pytest.mark.parametrize("mark", ["cursor: ", "size: ", "length: ", pytest.param("", marks=pytest.mark.heavy)])
def test_headers_that_are_cut_are_no_response(client: Client, served: Served, mark: str) -> None:
    """Browsers take them for one. Here 40 bytes are known of 400, and half a size says that these are all."""
    name, whole = served.new(), bytes(range(100)) * 4
    assert served.context.start(name, lambda: [whole])
    wait_until(lambda: served.context.status(name) == "done")
    cursor = f"{served.context.info(name).generation}-40"  # type: ignore[union-attr]
    with urllib.request.urlopen(f"{served.url('raw', name)}?after={cursor}") as reply:
        head = "".join(f"{key}: {value}\r\n" for key, value in reply.headers.items())
    status_line = len("HTTP/1.1 200 OK\r\n")
    ends = range(len(head)) if not mark else [head.index(mark) + len(mark) + more for more in (0, 1, 2, 3)]
    for end in ends:
        size, left = status_line + end, [1]

        def decide(kind: str, _: bytes) -> str:
            if kind == "reply" and left:
                left.pop()
                return "pass-cut"
            return "pass"

        way = CuttingProxy(served.port, decide, lambda: size if left else 65536)
        try:
            follower = client.follow(served.url("raw", name, way.port), cursor=cursor, **{"as": "bytes"})
            assert (follower.ending()["status"], follower.received()) == ("done", whole[40:]), head[:end]
        finally:
            way.close()
        assert not left


@both_ways
@pytest.mark.parametrize("form", ["raw", "json"])
@pytest.mark.parametrize("status", ["done", "error", "cancelled", "interrupted", "lost"])
def test_each_ending_is_told_once(client: Client, each_served: Served, form: str, status: str) -> None:
    served, name = each_served, each_served.new()
    gate = Gate(b"the first, ", b"the rest", ValueError("no more") if status == "error" else None)
    served.application.sources[name] = gate
    producer = ResumableStreamContext(served.context.store)
    if status == "interrupted":
        producer.start(name, gate)  # whoever begins it then only views it
    how = {"method": "POST", "cancelUrl": served.url("cancel", name), **options_of(form)}
    follower = client.follow(served.url(form, name), **how)
    assert follower.until_received(11) == b"the first, "
    follower.until_state("live")
    if status == "cancelled":
        follower.act("cancel")
    elif status == "lost":
        served.context.delete(name)
    elif status == "interrupted":
        producer.close()
    else:
        gate.open()
    ending = follower.ending()
    assert ending["status"] == status
    assert follower.received() == (b"the first, the rest" if status == "done" else b"the first, ")
    if status == "error" and form == "json":
        assert "no more" in ending["error"]
    assert ending["cursor"].endswith(f"-{len(follower.received())}")
    if status == "lost":
        return
    late = client.follow(served.url(form, name), mode="push", **options_of(form))
    assert late.ending() == ending
    assert late.received() == follower.received()
    after = client.follow(served.url(form, name), cursor=ending["cursor"], **options_of(form))
    assert (after.ending(), after.received()) == (ending, b"")


def test_begun_by_one_post_and_resumed_by_get(client: Client, served: Served) -> None:
    name, gate = served.new(), Gate(b"first", b" rest")
    served.application.sources[name] = gate
    cuts = Cuts(1, 0, 1)
    with proxy(served, cuts) as way:
        start = served.url("raw", name, way.port)
        follower = client.follow(start, body="question", resumeUrl=served.url("raw", name), headers={"x-own": "1"})
        follower.until_received(5)
    # The proxy is gone, and the other address goes on.
    wait_until(lambda: served.application.requests(name, "GET"), what="resumed")
    gate.open()
    assert (follower.ending()["status"], follower.received()) == ("done", b"first rest")
    post, *gets = served.application.requests(name)
    assert (post.method, post.query, post.body) == ("POST", "", b"question")
    assert gets and all(each.method == "GET" and each.query.startswith("after=") for each in gets)


@pytest.mark.parametrize("lost", ["request", "reply"])
def test_a_lost_beginning_begins_one_stream(client: Client, served: Served, lost: str) -> None:
    name, gate = served.new(), Gate(b"first")
    gate.open()
    served.application.sources[name] = gate
    left = [1]

    def decide(kind: str, _: bytes) -> str:
        if kind == lost and left:
            left.pop()
            return "cut"
        return "pass"

    way = CuttingProxy(served.port, decide)
    try:
        follower = client.follow(served.url("json", name, way.port), method="POST", **options_of("json"))
        assert (follower.ending()["status"], follower.received()) == ("done", b"first")
    finally:
        way.close()
    assert gate.started == 1
    asked = [each.method for each in served.application.requests(name)]
    assert asked == (["GET", "POST"] if lost == "request" else ["POST", "GET"])


@by_node
@pytest.mark.parametrize(
    ("status", "by_date"), [("503 Service Unavailable", False), ("429 Too Many Requests", True)]
)
def test_a_server_that_asks_to_be_left_alone(client: Client, served: Served, status: str, by_date: bool) -> None:
    name, gate = served.new(), Gate(b"first")
    gate.open()
    served.application.sources[name] = gate
    asked = email.utils.formatdate(time.time() + 2, usegmt=True) if by_date else "1"
    served.application.refusals = [(status, [("Retry-After", asked)]), (status, [])]
    follower = client.follow(served.url("raw", name), method="POST")
    assert (follower.ending()["status"], follower.received()) == ("done", b"first")
    first, second, third, *_ = served.application.requests(name)
    assert second.seconds - first.seconds >= 0.95
    assert [each.method for each in (first, second, third)] == ["POST"] * 3  # nothing was begun by the first two


def test_a_phase_of_errors_in_the_middle(client: Client, served: Served) -> None:
    name, gate = served.new(), Gate(b"first", b" rest")
    served.application.sources[name] = gate
    cuts = Cuts(1, 0, 1)
    with proxy(served, cuts) as way:
        url = served.url("base64", name)
        how = {"method": "POST", "resumeUrl": url, **options_of("base64")}
        follower = client.follow(served.url("base64", name, way.port), **how)
        follower.until_received(5)
        phase = ["500 Internal Server Error", "502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout"]
        served.application.refusals = [(status, []) for status in phase]
    gate.open()
    assert (follower.ending()["status"], follower.received()) == ("done", b"first rest")
    waited = [status["attempt"] for status in follower.seen()["statuses"] if status["state"] == "waiting"]
    assert waited[:5] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("form", ["raw", "text"])
def test_a_stream_that_is_waited_for(client: Client, served: Served, form: str) -> None:
    name = served.new()
    follower = client.follow(served.url(form, name), wait=60_000, **options_of(form))
    wait_until(lambda: len(served.application.requests(name)) >= 3, what="asked again")
    assert served.context.start(name, lambda: [b"there"])
    assert (follower.ending()["status"], follower.received()) == ("done", b"there")
    missing = client.follow(served.url(form, served.new()), wait=100, **options_of(form)).ending()
    assert (missing["status"], missing["cursor"], missing["httpStatus"]) == ("missing", "", 404)


@pytest.mark.parametrize("how", ["abort", "close", "break", "raise"])
def test_aborted_in_the_middle(client: Client, served: Served, how: str) -> None:
    name, gate = served.new(), Gate(b"first", b" rest")
    served.application.sources[name] = gate
    mode = {"break": "pull", "raise": "raise"}.get(how, "push")
    follower = client.follow(served.url("raw", name), method="POST", mode=mode)
    if how == "break":
        follower.act("pull", 1)
    follower.until_received(5)
    if how != "raise":
        follower.act(how)
    ending = follower.ending()
    assert (ending["status"], ending["cursor"]) == ("aborted", follower.seen()["cursor"])
    assert served.context.status(name) == "streaming"
    gate.open()
    rest = client.follow(served.url("raw", name), cursor=ending["cursor"])
    assert (rest.ending()["status"], rest.received()) == ("done", b" rest")
    assert follower.received() == b"first"


@by_node
def test_who_pulls_sets_the_pace(client: Client, served: Served) -> None:
    """What is not asked for is not read, for longer than a silence may last."""
    name, chunks = served.new(), [b"x" * 60_000] * 200  # more than sockets hold
    assert served.context.start(name, lambda: chunks)
    wait_until(lambda: served.context.status(name) == "done")
    passed: list[float] = []

    def decide(kind: str, _: bytes) -> str:
        passed.append(time.monotonic())
        return "pass"

    way = CuttingProxy(served.port, decide)
    try:
        follower = client.follow(served.url("raw", name, way.port), mode="pull", timeout=500)
        assert not passed
        follower.act("pull", 2)
        wait_until(lambda: time.monotonic() - passed[-1] > 0.8, what="a standstill")
        before = len(passed)
        assert len(follower.seen()["chunks"]) == 2
        follower.act("pull", 10**6)
        assert follower.seen()["returned"] and len(follower.received()) == 12_000_000
        assert len(served.application.requests(name)) == 1
        assert before < len(passed) - 10
    finally:
        way.close()


@by_node
def test_a_dead_connection_is_noticed_by_its_missing_heartbeats(client: Client, served: Served) -> None:
    name, gate = served.new(), Gate(b"first", b" rest")
    served.application.sources[name] = gate
    dead = threading.Event()
    way = CuttingProxy(served.port, lambda kind, _: "drop" if kind == "reply" and dead.is_set() else "pass")
    try:
        how = {"method": "POST", "resumeUrl": served.url("json", name), "timeout": 1200, **options_of("json")}
        follower = client.follow(served.url("json", name, way.port), **how)
        follower.until_received(5)
        began = time.monotonic()
        wait_until(
            lambda: time.monotonic() - began > 1.5, what="a silence longer than the timeout, with heartbeats"
        )
        assert len(served.application.requests(name)) == 1
        dead.set()
        assert "heard" in follower.until_state("waiting")["reason"]
        gate.open()
        assert (follower.ending()["status"], follower.received()) == ("done", b"first rest")
    finally:
        way.close()


def test_what_another_attempt_would_not_change(client: Client, served: Served) -> None:
    name = served.new()
    assert served.context.start(name, lambda: [b"whole"])
    served.application.refusals = [("403 Forbidden", [])]
    ending = client.follow(served.url("raw", name)).ending()
    assert (ending["status"], ending["httpStatus"]) == ("refused", 403)
    for url in (served.url("page"), served.url("resumable.js")):  # what is no stream
        assert client.follow(url).ending()["status"] == "refused"
    wait_until(lambda: served.context.status(name) == "done")
    assert client.follow(served.url("text", name), encoding="json").ending()["status"] == "refused"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        mute = client.follow(served.url("raw", name, port), timeout=100, giveUpAfter=300)  # accepts, and is silent
        assert mute.ending()["status"] == "unreachable"
    ending = client.follow(served.url("raw", name, port), giveUpAfter=300).ending()
    assert ending["status"] == "unreachable" and ending["error"]
    hasty = client.follow(served.url("raw", name), mode="hasty")  # closed from within a callback
    assert (hasty.ending()["status"], hasty.received()) == ("aborted", b"")
    for wrong in ({"cursor": "no"}, {"encoding": "no"}):
        with pytest.raises(Exception, match="no such encoding|not a cursor"):
            client.follow(served.url("raw", name), **wrong)


def test_a_stream_that_was_replaced_is_lost(client: Client, served: Served) -> None:
    name, gate = served.new(), Gate(b"first")
    served.application.sources[name] = gate
    cuts = Cuts(1, 0, 1)
    with proxy(served, cuts) as way:
        follower = client.follow(
            served.url("raw", name, way.port), method="POST", resumeUrl=served.url("raw", name)
        )
        follower.until_received(5)
        served.context.delete(name)
        assert served.context.start(name, lambda: [b"another life"])
    ending = follower.ending()
    assert (ending["status"], follower.received()) == ("lost", b"first") and ending["httpStatus"] in (404, 410)


def test_the_format_of_events(client: Client, served: Served) -> None:
    """Line ends of all kinds, a byte order mark, comments, fields that mean nothing, a name without data."""
    canned = served.application.canned
    canned["strange"] = (
        b"\xef\xbb\xbf: comment\r\nid: 1-3\r\ndata: a\r\ndata: b\r\n\r\nevent: odd\n\n"
        b"retry: 5\nid:1-6\rdata:\rdata:x \r"
        b"\rignored\n\nevent: other\ndata: ?\n\nid: 1-9\ndata: c\ndata\n\ndata: 1-9 again\n\n"
        b'event: end\ndata: {"status": "cancelled"}\n\n'
    )
    for encoding in ("text", "json"):
        follower = client.follow(served.url("canned", "strange"), encoding=encoding)
        if encoding == "json":
            assert follower.ending()["status"] == "refused"
            continue
        assert follower.ending() == {"status": "cancelled", "cursor": "1-9"}
        assert follower.received() == b"a\nb" + b"\nx " + b"c\n"
    canned["foreign"] = b"data: of another server\n\n"
    assert client.follow(served.url("canned", "foreign")).ending()["status"] == "refused"


def test_torn_characters(client: Client, served: Served) -> None:
    """Text is told in whole characters, and so is the cursor; what is no UTF-8 becomes U+FFFD."""
    name, gate = served.new(), Gate("ab🌊".encode()[:4], "ab🌊!".encode()[4:] + b"\xff\xe4\xbd")
    served.application.sources[name] = gate
    follower = client.follow(served.url("raw", name), method="POST")
    assert follower.until_received(2) == b"ab"
    wait_until(lambda: served.context.info(name).size == 4)  # type: ignore[union-attr]
    at = follower.seen()["cursor"]
    assert at.endswith("-2")
    gate.open()
    assert follower.ending()["status"] == "done"
    assert follower.received().decode() == "ab🌊!\ufffd\ufffd"
    late = client.follow(served.url("base64", name), cursor=at, encoding="base64")
    assert late.ending()["status"] == "done" and late.received().decode() == "🌊!\ufffd\ufffd"


@either_form
def test_the_server_is_killed_and_started_again(client: Client, tmp_path: Path, form: str) -> None:
    url, module = f"sqlite:///{tmp_path}/streams.db", "tests.javascript_client.application"
    gate = Gate(b"first", b" rest")
    with SQLiteStore(tmp_path / "streams.db") as store, ResumableStreamContext(store) as producer:
        assert producer.start("one", gate)
        with Process(module, url, 0) as server:
            port = server.line()
            follower = client.follow(f"http://127.0.0.1:{port}/{form}/one", **options_of(form))
            follower.until_received(5)
            server.kill()
        follower.until_state("waiting")
        gate.open()
        with Process(module, url, port) as server:
            server.line()
            assert (follower.ending()["status"], follower.received()) == ("done", b"first rest")


def test_a_tab_that_is_frozen(page: PageClient, served: Served) -> None:
    name, gate = served.new(), Gate(b"first", b" rest")
    served.application.sources[name] = gate
    follower = page.follow(served.url("json", name), method="POST", timeout=1000, **options_of("json"))
    follower.until_received(5)
    page.browser.execute_cdp_cmd("Page.setWebLifecycleState", {"state": "frozen"})
    began = time.monotonic()
    gate.open()
    wait_until(
        lambda: served.context.status(name) == "done" and time.monotonic() - began > 1.5, what="a long sleep"
    )
    page.browser.execute_cdp_cmd("Page.setWebLifecycleState", {"state": "active"})
    assert (follower.ending()["status"], follower.received()) == ("done", b"first rest")


def test_a_network_that_is_gone_and_back(page: PageClient, served: Served) -> None:
    name, gate = served.new(), Gate(b"first", b" rest")
    served.application.sources[name] = gate
    waits = {"retryDelay": 600_000, "maxRetryDelay": 600_000}  # the network's return wakes it, no timer
    follower = page.follow(served.url("json", name), method="POST", **{**options_of("json"), **waits})
    follower.until_received(5)
    away = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.browser.execute_script("addEventListener('offline', () => { window.heard_offline = true; })")
    page.browser.execute_cdp_cmd("Network.enable", {})
    page.browser.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": True, **away})
    try:
        gate.open()
        wait_until(lambda: served.context.status(name) == "done")
        wait_until(lambda: page.browser.execute_script("return window.heard_offline"), what="the page knows")
    finally:
        page.browser.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": False, **away})
    assert (follower.ending()["status"], follower.received()) == ("done", b"first rest")


@either_form
def test_a_page_that_is_reloaded_goes_on_where_it_was(page: PageClient, served: Served, form: str) -> None:
    name, chunks = served.new(), list(lines(100))
    served.application.sources[name] = lambda: paced(chunks, 0.005)
    how = {"method": "POST", "mode": "push", "keep": True, "storageKey": name, **options_of(form)}
    follower = page.follow(served.url(form, name), **how)
    for size in (1, 3000, 6000):
        follower.until_received(size)
        page.load()
        follower.start()
    assert follower.ending()["status"] == "done"
    assert follower.received() == b"".join(chunks)
    assert len(served.application.requests(name, "POST")) == 1
    page.load()
    follower.start()  # it has ended: nothing comes again but the ending
    assert follower.ending()["status"] == "done" and follower.received() == b"".join(chunks)


def test_without_storage_a_reload_begins_anew(page: PageClient, served: Served) -> None:
    name, gate = served.new(), Gate(b"whole")
    gate.open()
    served.application.sources[name] = gate
    how = {"method": "POST", "storageKey": name, "storage": "none"}
    follower = page.follow(served.url("raw", name), **how)
    assert (follower.ending()["status"], follower.received()) == ("done", b"whole")
    page.load()
    follower.start()
    assert (follower.ending()["status"], follower.received()) == ("done", b"whole")
    assert gate.started == 1


def test_a_stream_that_is_gone_is_not_kept(page: PageClient, served: Served) -> None:
    name, gate = served.new(), Gate(b"first")
    served.application.sources[name] = gate
    follower = page.follow(served.url("raw", name), method="POST", storageKey=name)
    follower.until_received(5)
    kept = "return sessionStorage.getItem(arguments[0])"
    wait_until(
        lambda: page.browser.execute_script(kept, name) == follower.seen()["cursor"], what="the cursor is kept"
    )
    served.context.delete(name)
    assert follower.ending()["status"] == "lost"
    assert page.browser.execute_script(kept, name) is None


@by_node
def test_a_cap_for_event_sources_is_come_back_to(client: Client, served: Served) -> None:
    """Not before the server's time is over; what begins the stream was executed, and is not sent again."""
    name, gate = served.new(), Gate(b"begun ", b"and ended")
    served.application.sources[name] = gate
    cap = served.application.viewers = ViewerCap(1, retry_after=1, event_source=True)
    try:
        place = cap.enter()
        assert place is not None
        follower = client.follow(served.url("json", name), method="POST", encoding="json")
        waiting = follower.until_state("waiting")
        assert waiting["delay"] >= 1000 and "too many viewers" in waiting["reason"] and gate.started == 1
        place.release()
        assert follower.until_received(6) == b"begun "
        gate.open()
        assert follower.ending()["status"] == "done" and follower.received() == b"begun and ended"
    finally:
        served.application.viewers = None
    assert [each.method for each in served.application.requests(name)] == ["POST", "GET"]
