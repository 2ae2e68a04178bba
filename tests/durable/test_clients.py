"""The protocol's own clients, of npm and PyPI, against two worker processes on one store."""

from __future__ import annotations

import base64
import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import durable_streams
import pytest

from resumable_sync import ResumableStreamContext, StreamFinalizedError, open_store

from ..backends import Backend
from ..javascript import JavaScript, started
from .servers import START, Server

_numbers = itertools.count()


def numbered(count: int) -> list[dict[str, int]]:
    return [{"number": number} for number in range(count)]


@pytest.fixture(scope="module")
def npm(node: Path) -> Iterator[JavaScript]:
    """A Node process with the npm clients."""
    with started(node, "clients.mjs") as process:
        yield process


@pytest.fixture
def url(server: Server) -> str:
    """The address of a stream that is not there yet."""
    return server.address(f"clients/{next(_numbers)}")


class TestNpm:
    """@durable-streams/client"""

    def test_batches(self, npm: JavaScript, url: str) -> None:
        assert npm.ask("batching", url=url) == numbered(200)

    def test_idempotent_producer(self, npm: JavaScript, url: str) -> None:
        seen = npm.ask("producer", url=url)
        assert seen["items"] == numbered(501)
        assert seen["closed"] and seen["finalOffset"] == seen["tail"] > seen["last"]
        assert seen["sent"] > 20  # of several requests, not one

    def test_fencing_and_auto_claim(self, npm: JavaScript, url: str) -> None:
        seen = npm.ask("fencing", url=url)
        assert seen["stale"] and seen["errors"][0]["epoch"] == 1
        assert [item["by"] for item in seen["items"][:2]] == ["old", "next"]
        assert seen["items"][2:] == [{"by": "same seq, taken for a repeat"}] and seen["epoch"] == 2

    def test_live_over_reconnects(self, npm: JavaScript, url: str) -> None:
        """Longer than two windows of events, and several long-polls. True: the client chooses."""
        modes = ["sse", "long-poll", True]
        for mode, seen in zip(modes, npm.ask("live", url=url, modes=modes, count=25, seconds=2.8)):
            assert seen["items"] == numbered(25)
            asked = [request for request in seen["requests"] if request is not None]
            assert len(asked) >= 3 and set(asked) == {"long-poll" if mode is True else mode}

    @pytest.mark.parametrize("mode", ["sse", "long-poll"])
    def test_close(self, npm: JavaScript, url: str, mode: str) -> None:
        seen = npm.ask("until_closed", url=url, mode=mode)
        assert seen["items"] == numbered(6) and seen["closed"]
        assert seen["refused"]["status"] == 409 and seen["again"] == seen["offset"]

    def test_resume_after_an_offset(self, npm: JavaScript, url: str) -> None:
        assert npm.ask("resume", url=url) == {"first": 10, "rest": [{"number": 10}]}

    def test_writable(self, npm: JavaScript, url: str) -> None:
        assert npm.ask("writable", url=url) == {"text": "a  b\nü", "closed": True}

    def test_append_stream(self, npm: JavaScript, url: str) -> None:
        """Its body is chunked: it has no Content-Length."""
        assert npm.ask("append_stream", url=url) == "one two three"

    def test_binary(self, npm: JavaScript, url: str) -> None:
        whole = [*range(256), 255, 0, 255]
        assert npm.ask("binary", url=url) == {"whole": whole, "live": whole}

    def test_text_keeps_its_blanks_and_characters(self, npm: JavaScript, url: str) -> None:
        """The pieces are bytes, cut within characters."""
        text = " word\n  two\n\nthree  ünïcödé 🚀 end\n "
        data = text.encode()
        pieces = [base64.b64encode(data[at : at + 3]).decode() for at in range(0, len(data), 3)]
        seen = npm.ask("text", url=url, pieces=pieces)
        assert seen["text"] == text, seen

    def test_gone(self, npm: JavaScript, url: str) -> None:
        """An offset of a stream that was deleted and made anew is refused, in every mode."""
        seen = npm.ask("gone", url=url)
        assert seen["deleted"]["status"] == 404
        assert {mode: found["status"] for mode, found in seen["anew"].items()} == dict.fromkeys(
            ("false", "long-poll", "sse"), 410
        )

    def test_incomplete_does_not_look_closed(self, npm: JavaScript, server: Server, kind: type[Backend]) -> None:
        """A stream of `context.run` that was cancelled: read to its end, then an error in both live modes.

        On a busy machine the client may lose what it has not handed out when the error comes, as an errored
        ReadableStream drops its queue: then it is asked again.
        """
        name = f"cancelled-{next(_numbers)}"
        with open_store(server.environment["TEST_STORE"]) as store, ResumableStreamContext(store) as context:
            with pytest.raises(StreamFinalizedError):
                with context.writer(name, metadata={"content-type": "text/plain"}) as out:
                    out.write("half an ans")
                    out.flush()
                    context.cancel(name)
                    out.write("wer")
        for _ in range(5):
            found = npm.ask("incomplete", url=server.address(name))
            assert {mode: seen["status"] for mode, seen in found.items()} == {"long-poll": 410, "sse": 410}
            texts = [seen["text"] for seen in found.values()]
            if texts == ["half an ans"] * 2:
                return
            assert set(texts) <= {"", "half an ans"}
        raise AssertionError(f"the text did not come: {texts}")

    def test_tanstack_transport(self, npm: JavaScript, url: str) -> None:
        """@durable-streams/tanstack-ai-transport: one run, and a chat session."""
        seen = npm.ask("tanstack", url=url)
        assert (seen["run"], seen["session"]) == (200, 200)
        types = ["TEXT_MESSAGE_START", *["TEXT_MESSAGE_CONTENT"] * 3, "TEXT_MESSAGE_END"]
        assert [chunk["type"] for chunk in seen["chunks"]] == types
        assert [message["role"] for message in seen["messages"]] == ["user", "assistant"]
        assert seen["messages"][1]["parts"] == [{"type": "text", "content": "Hello world"}]
        assert seen["seen"][0] == {"type": "MESSAGES_SNAPSHOT", "messages": seen["messages"]}
        assert [chunk["type"] for chunk in seen["seen"][1:]] == types


class TestPyPI:
    """durable-streams, which knows neither closed streams nor idempotent producers"""

    def test_writes_and_reads(self, url: str) -> None:
        with durable_streams.DurableStream.create(url, content_type="application/json", ttl_seconds=60) as made:
            for item in numbered(20):
                made.append(item)
            head = made.head()
        assert head.content_type == "application/json"
        with durable_streams.stream(url, live=False) as response:
            assert response.read_json() == numbered(20)
            assert response.offset == head.offset
        with pytest.raises(durable_streams.StreamNotFoundError):
            durable_streams.DurableStream.connect(f"{url}-missing")

    @pytest.mark.parametrize("live", ["sse", "long-poll", "auto"])
    def test_live(self, url: str, live: Any) -> None:
        found: list[Any] = []
        with durable_streams.DurableStream.create(url, content_type="application/json") as made:
            made.append({"number": 0})

            def write() -> None:
                for item in numbered(10)[1:]:
                    made.append(item)

            with durable_streams.stream(url, offset=START, live=live) as response:
                writer = threading.Thread(target=write)
                writer.start()
                for item in response.iter_json():
                    found.append(item)
                    if len(found) == 10:
                        break
                writer.join()
        assert found == numbered(10)

    def test_binary_and_offsets(self, url: str) -> None:
        data = bytes(range(256))
        with durable_streams.DurableStream.create(url, content_type="application/octet-stream") as made:
            first = made.append(data)
            made.append(data)
        with durable_streams.stream(url, offset=first.next_offset, live=False) as response:
            assert response.read_bytes() == data

    def test_sequence_conflict(self, url: str) -> None:
        with durable_streams.DurableStream.create(url, content_type="text/plain") as made:
            made.append("a", seq="2")
            with pytest.raises(durable_streams.SeqConflictError):
                made.append("b", seq="1")
        with durable_streams.stream(url, live=False) as response:
            assert response.read_text() == "a"

    def test_deleted(self, url: str) -> None:
        with durable_streams.DurableStream.create(url, content_type="text/plain", body="a") as made:
            made.delete()
            with pytest.raises(durable_streams.StreamNotFoundError):
                made.append("b")
