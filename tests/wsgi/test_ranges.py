"""Ranges and conditions of raw responses, asked without a server, over every store."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resumable_sync import ResumableStreamContext, Status
from resumable_sync.contract import Lease, Store
from resumable_sync.wsgi import (
    ResponseAbortedError,
    resume_response,
    resume_sse_response,
    stream_response,
)
from resumable_sync.wsgi.ranges import UNKNOWN_LENGTH

from ..backends import Backend
from .support import Feed, Reply, call, ended, wait_until

WHOLE = b"0123456789"
ENDINGS = [Status.DONE, Status.ERROR, Status.CANCELLED, Status.INTERRUPTED]
BADLY = ENDINGS[1:]
OPEN_END = f"{UNKNOWN_LENGTH - 1}/{UNKNOWN_LENGTH}"

ids = (f"s{number}" for number in count())


@pytest.fixture
def context(store: Store) -> Iterator[ResumableStreamContext]:
    with ResumableStreamContext(store) as made:
        yield made


def begin(store: Store, *chunks: bytes, stream_id: str | None = None) -> Lease:
    """A stream that grows."""
    lease = store.acquire(stream_id or next(ids))
    assert lease is not None
    for chunk in chunks:
        store.append(lease, chunk)
    return lease


def end(store: Store, lease: Lease, status: Status = Status.DONE) -> None:
    if status is Status.CANCELLED:
        assert store.cancel(lease.stream_id)
    else:
        store.finalize(lease, status)


def stored(store: Store, data: bytes = WHOLE, status: Status = Status.DONE) -> Lease:
    lease = begin(store, *([data] if data else []))
    end(store, lease, status)
    return lease


def ask(context: ResumableStreamContext, lease: Lease, asked: str = "", method: str = "GET", **more: str) -> Reply:
    headers = {"range": asked, **more} if asked else more
    return call(resume_response(context, lease.stream_id), method, **headers)


def partial(reply: Reply) -> bytes:
    """The body of a response that is broken off."""
    found = b""
    with pytest.raises(ResponseAbortedError):
        for piece in reply.body:
            found += piece
    return found


def shown(reply: Reply) -> tuple[int, str | None, str | None]:
    return reply.status, reply.headers.get("content-range"), reply.headers.get("content-length")


IGNORED = [
    "bytes",
    "bytes=",
    "bytes=-",
    "bytes=a-b",
    "bytes=5",
    "bytes=5-3",
    "bytes=+5-",
    "bytes=5-6-7",
    "bytes =5-",
    "bytes=0-1,4-5",
    "bytes=-1,-2",
    "bytes=1-2;3-4",
    "bytes=٣-",
    "lines=1-",
    "items=5-6",
    "=5-",
    "5-",
]
"""Malformed, of another unit, of several ranges."""

HUGE = "9" * 5000

OF_DONE: dict[str, tuple[int, str | None, bytes]] = {
    "bytes=0-": (206, "bytes 0-9/10", WHOLE),
    "bytes=3-": (206, "bytes 3-9/10", b"3456789"),
    "bytes=3-5": (206, "bytes 3-5/10", b"345"),
    "bytes=9-9": (206, "bytes 9-9/10", b"9"),
    "bytes=003-0005": (206, "bytes 3-5/10", b"345"),
    "bytes=3-99": (206, "bytes 3-9/10", b"3456789"),
    f"bytes=3-{HUGE}": (206, "bytes 3-9/10", b"3456789"),
    "bytes=-4": (206, "bytes 6-9/10", b"6789"),
    "bytes=-10": (206, "bytes 0-9/10", WHOLE),
    "bytes=-99": (206, "bytes 0-9/10", WHOLE),
    f"bytes=-{HUGE}": (206, "bytes 0-9/10", WHOLE),
    "BYTES=3-5": (206, "bytes 3-5/10", b"345"),
    "bytes=, 3-5 ,": (206, "bytes 3-5/10", b"345"),
    "bytes=10-": (416, "bytes */10", b""),
    "bytes=10-12": (416, "bytes */10", b""),
    "bytes=11-": (416, "bytes */10", b""),
    f"bytes={HUGE}-": (416, "bytes */10", b""),
    "bytes=-0": (416, "bytes */10", b""),
    **{asked: (200, None, WHOLE) for asked in IGNORED},
}


def test_a_stream_that_is_done(context: ResumableStreamContext, store: Store) -> None:
    lease = stored(store)
    for asked, (status, content_range, body) in OF_DONE.items():
        reply = ask(context, lease, asked)
        refusal = b'{"error":"range not satisfiable"}'
        expected = refusal if status == 416 else body
        assert shown(reply) == (status, content_range, str(len(expected))), asked
        assert reply.read() == expected
        assert (reply.headers["accept-ranges"], reply.headers["etag"]) == ("bytes", f'"{lease.generation}-0"')
        assert len(reply.pairs) == len(reply.headers), reply.pairs
        if status == 206:
            first = int(content_range.split()[1].split("-")[0])  # type: ignore[union-attr]
            assert reply.headers["x-resumable-cursor"] == f"{lease.generation}-{first}"
            assert reply.headers["x-resumable-replay-length"] == str(10 - first)


def test_an_empty_stream(context: ResumableStreamContext, store: Store) -> None:
    done, failed, growing = stored(store, b""), stored(store, b"", Status.ERROR), begin(store)
    for asked, expected in {
        "bytes=0-": (200, None, "0"),
        "bytes=0-5": (200, None, "0"),
        "bytes=1-": (416, "bytes */0", "33"),
        "bytes=-1": (416, "bytes */0", "33"),
    }.items():
        assert shown(ask(context, done, asked)) == expected, asked
    assert shown(ask(context, failed, "bytes=0-")) == (206, "bytes 0-0/1", "1")
    assert partial(ask(context, failed, "bytes=0-")) == b""
    assert shown(ask(context, failed, "bytes=-1")) == (200, None, "1")
    assert ask(context, growing, "bytes=1-").status == 409
    assert shown(ask(context, growing, "bytes=0-")) == (200, None, None)


@pytest.mark.parametrize("status", BADLY)
def test_a_stream_that_failed_is_never_complete(
    context: ResumableStreamContext, store: Store, status: Status
) -> None:
    """A byte is announced that never comes; a range that is stored whole is what it is."""
    lease = stored(store, status=status)
    for asked, expected, body in [
        ("", (200, None, "11"), WHOLE),
        ("bytes=0-", (206, "bytes 0-10/11", "11"), WHOLE),
        ("bytes=4-", (206, "bytes 4-10/11", "7"), b"456789"),
        ("bytes=4-99", (206, "bytes 4-10/11", "7"), b"456789"),
        ("bytes=10-", (206, "bytes 10-10/11", "1"), b""),
        ("bytes=-4", (200, None, "11"), WHOLE),
        *((asked, (200, None, "11"), WHOLE) for asked in IGNORED),
    ]:
        reply = ask(context, lease, asked)
        assert shown(reply) == expected, asked
        assert partial(reply) == body
    reply = ask(context, lease, "bytes=4-6")
    assert (shown(reply), reply.read()) == ((206, "bytes 4-6/*", "3"), b"456")
    assert ask(context, lease, "bytes=11-").status == 409
    head = ask(context, lease, method="HEAD")
    assert head.headers["x-resumable-size"] == "10" and "content-length" not in head.headers
    assert ask(context, lease, if_none_match="*").status == 200


@pytest.mark.parametrize("status", ENDINGS)
def test_a_stream_that_grows(context: ResumableStreamContext, store: Store, status: Status) -> None:
    """What is stored is sent at once; the rest follows, and so does what the stream's ending says."""
    for asked, expected, body, is_whole in [
        ("", (200, None, None), WHOLE, False),
        ("bytes=0-", (200, None, None), WHOLE, False),
        ("bytes=2-", (206, f"bytes 2-{OPEN_END}", None), b"23456789", False),
        ("bytes=4-", (206, f"bytes 4-{OPEN_END}", None), b"456789", False),
        ("bytes=2-3", (206, "bytes 2-3/*", "2"), b"23", True),
        ("bytes=0-3", (206, "bytes 0-3/*", "4"), b"0123", True),
        ("bytes=2-7", (206, "bytes 2-7/*", None), b"234567", True),
        ("bytes=4-4", (206, "bytes 4-4/*", None), b"4", True),
        (f"bytes=2-{UNKNOWN_LENGTH}", (206, f"bytes 2-{UNKNOWN_LENGTH}/*", None), b"23456789", False),
        ("bytes=-2", (200, None, None), WHOLE, False),
        *((asked, (200, None, None), WHOLE, False) for asked in IGNORED[:3]),
    ]:
        lease = begin(store, b"01", b"23")
        reply = ask(context, lease, asked)
        assert shown(reply) == expected, asked
        store.append(lease, b"456")
        store.append(lease, b"789")
        end(store, lease, status)
        assert (reply.read() if is_whole or status is Status.DONE else partial(reply)) == body, asked


def test_beyond_what_is_stored_of_a_growing_stream(context: ResumableStreamContext, store: Store) -> None:
    """Whoever has more than there is has bytes of another life. 416 would tell curl and wget: you have it all."""
    lease = begin(store, b"0123")
    for asked in ("bytes=5-", "bytes=5-6", f"bytes={HUGE}-", f"bytes={HUGE}-{HUGE}"):
        reply = ask(context, lease, asked)
        assert reply.status == 409 and json.loads(reply.read()) == {"error": "range beyond what is stored"}
        assert reply.headers["x-resumable-size"] == "4"
        again = ask(context, lease, asked, if_range=f'"{lease.generation}-0"')
        assert shown(again) == (200, None, None)
        again.close()


def test_if_range(context: ResumableStreamContext, store: Store) -> None:
    lease = stored(store)
    tag = f'"{lease.generation}-0"'
    for good in (tag, f"  {tag} "):
        assert ask(context, lease, "bytes=3-5", if_range=good).read() == b"345"
    assert ask(context, lease, "bytes=10-", if_range=tag).status == 416
    others = [f'"{lease.generation - 1}-0"', f"W/{tag}", tag[1:-1], "Wed, 21 Oct 2015 07:28:00 GMT", "*", "", '"']
    for other in [*others, f'{tag}, "x"']:
        for asked in ("bytes=3-5", "bytes=10-"):
            reply = ask(context, lease, asked, if_range=other)
            assert (shown(reply), reply.read()) == ((200, None, "10"), WHOLE), other


def test_another_life_is_sent_whole(context: ResumableStreamContext, store: Store) -> None:
    lease = stored(store, b"an old life")
    tag = ask(context, lease, method="HEAD").headers["etag"]
    assert store.delete(lease.stream_id)
    reply = call(resume_response(context, lease.stream_id), range="bytes=5-", if_range=tag)
    assert reply.status == 404
    begin(store, b"a new one", stream_id=lease.stream_id)
    reply = ask(context, lease, "bytes=5-", if_range=tag)
    assert shown(reply) == (200, None, None) and reply.headers["etag"] != tag
    reply.close()


def test_if_none_match(context: ResumableStreamContext, store: Store) -> None:
    lease, growing = stored(store), begin(store, WHOLE)
    tag = f'"{lease.generation}-0"'
    for method in ("GET", "HEAD"):
        for held in (tag, f"W/{tag}", f'"x", {tag}', f'"a,b",W/"c" , W/{tag}', "*", " * "):
            reply = ask(context, lease, "bytes=3-5", method, if_none_match=held)
            assert (reply.status, reply.read()) == (304, b""), held
            names = {name.lower() for name, _ in reply.pairs}
            assert {"etag", "cache-control", "x-resumable-status"} <= names
            assert not {name for name in names if name.startswith("content-")}
        for other in ('"x"', tag[1:-1], f'"{lease.generation}-1"', "", '"', f'"x{tag[1:]}'):
            assert ask(context, lease, method=method, if_none_match=other).status == 200, other
    reply = ask(context, growing, if_none_match=f'"{growing.generation}-0", *')
    assert reply.status == 200  # nobody has all of it
    reply.close()


def test_head_has_no_ranges(context: ResumableStreamContext, store: Store) -> None:
    lease, growing = stored(store), begin(store, WHOLE)
    reply = ask(context, lease, "bytes=3-5", "HEAD")
    assert shown(reply) == (200, None, "10") and reply.read() == b""
    assert reply.headers["accept-ranges"] == "bytes" and reply.headers["etag"] == f'"{lease.generation}-0"'
    reply = ask(context, growing, "bytes=30-", "HEAD")
    assert shown(reply) == (200, None, None) and reply.headers["accept-ranges"] == "bytes"


def test_ranges_count_from_the_cursor_that_was_asked_for(context: ResumableStreamContext, store: Store) -> None:
    """What is served after a cursor is another representation, with a tag of its own."""
    lease = stored(store)
    after = f"{lease.generation}-4"
    headers: dict[str, str]
    for headers, option in [({"last_event_id": after}, None), ({}, after)]:
        make = resume_response(context, lease.stream_id, after=option)
        reply = call(make, range="bytes=2-3", **headers)
        assert (shown(reply), reply.read()) == ((206, "bytes 2-3/6", "2"), b"67")
        assert reply.headers["etag"] == f'"{after}"'
        assert reply.headers["x-resumable-cursor"] == f"{lease.generation}-6"
        assert call(make, range="bytes=6-", **headers).headers["content-range"] == "bytes */6"
        assert call(make, range="bytes=2-", if_range=f'"{lease.generation}-0"', **headers).status == 200
    reply = call(resume_response(context, lease.stream_id), query=f"after={after}", range="bytes=-1")
    assert (shown(reply), reply.read()) == ((206, "bytes 5-5/6", "1"), b"9")
    failed = stored(store, status=Status.ERROR)
    reply = call(resume_response(context, failed.stream_id, after=f"{failed.generation}-4"), range="bytes=2-")
    assert shown(reply) == (206, "bytes 2-6/7", "5") and partial(reply) == b"6789"
    growing = begin(store, WHOLE)
    reply = call(resume_response(context, growing.stream_id, after=f"{growing.generation}-4"), range="bytes=6-7")
    store.append(growing, b"ABC")
    assert (shown(reply), reply.read()) == ((206, "bytes 6-7/*", None), b"AB")


def test_the_response_that_begins_a_stream(context: ResumableStreamContext) -> None:
    """It has ranges too: curl and wget resume at the address at which they began."""
    stream_id, feed = next(ids), Feed(b"0123")
    reply = call(stream_response(context, stream_id, feed), range="bytes=2-")
    assert reply.status == 404 and context.info(stream_id) is None  # who has two bytes has them of another life
    reply = call(stream_response(context, stream_id, feed), range="bytes=2-", if_range='"1-0"')
    assert shown(reply) == (200, None, None)
    reply.close()
    wait_until(lambda: _size(context, stream_id) == 4)
    reply = call(stream_response(context, stream_id, feed), range="bytes=2-")
    assert reply.status == 206 and feed.started == 1
    feed.put(b"4567")
    feed.end()
    assert reply.read() == b"234567"
    head = call(stream_response(context, next(ids), feed), "HEAD", range="bytes=2-")
    assert head.status == 200 and "etag" not in head.headers


def test_a_restart_splices_no_lives(context: ResumableStreamContext, store: Store) -> None:
    """Who goes on with a stream that failed gets what there is of it. From the start, a new life begins."""
    lease = stored(store, status=Status.ERROR)
    make = stream_response(context, lease.stream_id, lambda: [b"a new life"], restart={"error"})
    assert partial(call(make, range="bytes=4-")) == b"456789"
    reply = call(make, range="bytes=4-", if_range=f'"{lease.generation}-0"')
    assert reply.status == 200 and reply.read() == b"a new life"
    assert call(make, range="bytes=6-").read() == b"life"


def _size(context: ResumableStreamContext, stream_id: str) -> int:
    info = context.info(stream_id)
    return 0 if info is None else info.size


def test_a_post_has_no_ranges(context: ResumableStreamContext) -> None:
    stream_id = next(ids)
    for _ in range(2):
        reply = call(
            stream_response(context, stream_id, ended(WHOLE)), "POST", range="bytes=2-", if_none_match="*"
        )
        assert reply.status == 200 and reply.read() == WHOLE
        assert not {"etag", "accept-ranges"} & reply.headers.keys()


@pytest.mark.parametrize("name", ["ETag", "accept-ranges", "Last-Modified"])
def test_an_application_that_sees_to_it_itself(context: ResumableStreamContext, store: Store, name: str) -> None:
    lease = stored(store)
    response = resume_response(context, lease.stream_id, headers={name: "none"})
    reply = call(response, range="bytes=2-", if_none_match="*")
    assert shown(reply) == (200, None, "10") and reply.read() == WHOLE
    assert [value for key, value in reply.pairs if key.lower() == name.lower()] == ["none"]


def test_responses_whose_bytes_cannot_be_counted(context: ResumableStreamContext, store: Store) -> None:
    lease = stored(store)
    for response in (
        resume_response(context, lease.stream_id, heartbeat_bytes=b"\n"),
        resume_sse_response(context, lease.stream_id),
    ):
        reply = call(response, range="bytes=2-", if_none_match="*")
        assert reply.status == 200 and not {"etag", "accept-ranges"} & reply.headers.keys()


def test_an_own_cache_control_stays_with_304(context: ResumableStreamContext, store: Store) -> None:
    lease = stored(store)
    own = {"Cache-Control": "private, max-age=60", "Content-Language": "en", "X-Own": "1"}
    reply = call(resume_response(context, lease.stream_id, headers=own), if_none_match="*")
    assert reply.status == 304 and reply.headers["cache-control"] == "private, max-age=60"
    assert reply.headers["x-own"] == "1" and "content-language" not in reply.headers


def test_a_stream_that_is_lost_in_between(context: ResumableStreamContext, backend: Backend) -> None:
    """Deleted after the headers: broken off, whatever length was announced. Expired before: there is none."""
    store = context.store
    for asked in ("bytes=1-", "bytes=1-99"):
        lease = begin(store, b"0123")
        reply = ask(context, lease, asked)
        assert reply.read_bytes(3) == b"123"
        assert store.delete(lease.stream_id)
        assert partial(reply) == b""
    other = backend.make(ttl=3.0)
    with ResumableStreamContext(other) as short:
        lease = stored(other)
        tag = ask(short, lease, method="HEAD").headers["etag"]
        reply = ask(short, lease, "bytes=3-5", if_range=tag)
        assert reply.read() == b"345"
        wait_until(lambda: other.info(lease.stream_id) is None)
        assert ask(short, lease, "bytes=3-5", if_range=tag).status == 404
    other.close()


RANGES = st.one_of(
    st.builds("bytes={}-".format, st.integers(0, 30)),
    st.builds("bytes=-{}".format, st.integers(0, 30)),
    st.tuples(st.integers(0, 30), st.integers(0, 30)).map(lambda pair: "bytes={}-{}".format(*pair)),
    st.sampled_from(IGNORED),
)


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=9), max_size=6),
    at=st.integers(0, 6),
    status=st.sampled_from(ENDINGS),
    asked=RANGES,
    start=st.integers(0, 8),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_asked_for_is_exact(
    context: ResumableStreamContext,
    store: Store,
    chunks: list[bytes],
    at: int,
    status: Status,
    asked: str,
    start: int,
) -> None:
    """The request comes when `at` chunks are stored, and asks for what follows `start`. Whatever the answer says
    that it is, it is; and it comes to an end only with all of it."""
    lease = begin(store, *chunks[:at])
    ended_before = at >= len(chunks)
    if ended_before:
        end(store, lease, status)
    data, known = b"".join(chunks), len(b"".join(chunks[:at]))
    start = min(start, known)
    represented, known = data[start:], known - start
    reply = call(resume_response(context, lease.stream_id, after=f"{lease.generation}-{start}"), range=asked)
    for chunk in chunks[at:]:
        store.append(lease, chunk)
    if not ended_before:
        end(store, lease, status)
    done_before = ended_before and status is Status.DONE
    if reply.status == 416:
        assert done_before and reply.headers["content-range"] == f"bytes */{len(represented)}"
        assert _reference(asked, len(represented)) is None
        return
    if reply.status == 409:
        assert not done_before and int(asked[6:].split("-")[0]) > known
        return
    wanted, is_whole = represented, status is Status.DONE
    if reply.status == 206:
        found = re.fullmatch(r"bytes ([0-9]+)-([0-9]+)/([0-9]+|\*)", reply.headers["content-range"])
        assert found is not None
        first, last = int(found[1]), int(found[2])
        wanted = represented[first : last + 1]
        is_whole = is_whole or last < len(represented)
        if done_before:
            assert range(first, last + 1) == _reference(asked, len(represented))
        assert reply.headers["x-resumable-cursor"] == f"{lease.generation}-{start + first}"
    else:
        assert reply.status == 200
    length: Any = reply.headers.get("content-length")
    if is_whole:
        assert reply.read() == wanted and int(length or len(wanted)) == len(wanted)
    else:
        assert partial(reply) == wanted and int(length or len(wanted) + 1) > len(wanted)


def _reference(asked: str, size: int) -> range | None:
    """The bytes of a representation that a range stands for; None: none."""
    first, last = asked.removeprefix("bytes=").split("-")
    if not first:
        return range(max(0, size - int(last)), size) or None
    return range(int(first), min(int(last or size), size - 1) + 1) or None
