"""A new format is one entry of the registry: it is served, resumed, closed and read like the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import pytest

from resumable_sync import ResumableStreamContext
from resumable_sync.assistant import (
    AssistantEndpoints,
    AssistantStreamChunk,
    create_resumable_assistant_stream_response,
    create_resume_assistant_stream_response,
    read_assistant_message,
)
from resumable_sync.assistant.formats import registry
from resumable_sync.assistant.formats.base import Format, Output
from resumable_sync.assistant.message.chunks import TextDelta, UpdateState
from resumable_sync.wsgi import ResponseAbortedError

from .support import Script, call


class ToyEncoder:
    """One line per text; the voice is kept, and comes back with those who resume."""

    heartbeat = b"\n"

    def __init__(self, voice: str = "") -> None:
        self.voice = voice

    @property
    def headers(self) -> dict[str, str]:
        return {"Content-Type": "text/x-toy", "X-Toy": "yes"}

    def encode(self, chunks: Iterable[AssistantStreamChunk]) -> Iterator[bytes]:
        for chunk in chunks:
            if isinstance(chunk, TextDelta):
                yield f"say {chunk.text_delta}\n".encode()
            elif isinstance(chunk, UpdateState):
                yield b"state\n"

    def closing_frames(self, stored: Iterable[bytes], status: str, text: str = "") -> bytes:
        return b"" if status == "done" else f"bye {self.voice} {status} {len(b''.join(stored))}\n".encode()


class ToyDecoder:
    def decode(self, pieces: Iterable[bytes]) -> Iterator[AssistantStreamChunk]:
        output = Output()
        for line in b"".join(pieces).decode().splitlines():
            word, _, text = line.partition(" ")
            output.builder.append_text(f"{text}!" if word == "say" else f"({text})")
        output.builder.finish()
        yield from output.take()


def keep(encoder: ToyEncoder) -> Mapping[str, str]:
    return {"toy-voice": encoder.voice}


def restore(metadata: Mapping[str, str]) -> ToyEncoder:
    return ToyEncoder(metadata.get("toy-voice", ""))


TOY = Format(
    "toy",
    ToyEncoder,
    ToyDecoder,
    keep=keep,
    restore=restore,
    exposed=("X-Toy",),
    front_end="transport",
)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.FORMATS, "toy", TOY)


def text_of(context: ResumableStreamContext, stream_id: str) -> str:
    return "".join(part["text"] for part in read_assistant_message(context, stream_id)["parts"])


def test_serves_resumes_and_reads(context: ResumableStreamContext) -> None:
    live = call(
        create_resumable_assistant_stream_response(
            context=context, stream_id="s", callback=Script("a", "b", None), encoder=lambda: ToyEncoder("low")
        )
    )
    assert live.headers["content-type"] == "text/x-toy" and live.read() == b"say a\nsay b\n"
    again = call(create_resume_assistant_stream_response(context=context, stream_id="s"))
    assert again.headers["x-toy"] == "yes" and again.read() == b"say a\nsay b\n"
    assert text_of(context, "s") == "a!b!"


def test_closes_with_what_was_kept(context: ResumableStreamContext) -> None:
    live = call(
        create_resumable_assistant_stream_response(
            context=context, stream_id="s", callback=Script("a"), encoder=lambda: ToyEncoder("low")
        )
    )
    live.read_until(b"a\n")
    context.cancel("s")
    assert live.read() == b"bye low cancelled 6\n"
    again = call(create_resume_assistant_stream_response(context=context, stream_id="s"))
    assert again.read() == b"say a\nbye low cancelled 6\n"
    assert text_of(context, "s") == "a!(low cancelled 6)"


@pytest.mark.parametrize("closes", [True, False])
def test_an_interrupted_message_is_broken_off_where_the_format_cannot_tell(
    context: ResumableStreamContext, monkeypatch: pytest.MonkeyPatch, closes: bool
) -> None:
    monkeypatch.setitem(registry.FORMATS, "toy", Format("toy", ToyEncoder, ToyDecoder, closes=closes))
    lease = context.store.acquire("s", metadata={registry.FORMAT_KEY: "toy", registry.HEADERS_KEY: "{}"})
    assert lease is not None
    context.store.append(lease, b"say a\n")
    context.store.finalize(lease, "interrupted")
    reply = call(create_resume_assistant_stream_response(context=context, stream_id="s"))
    if closes:
        assert reply.read() == b"say a\nbye  interrupted 6\n"
    else:
        with pytest.raises(ResponseAbortedError):
            reply.read()


def test_the_endpoints_serve_it_to_the_front_end_that_it_names(context: ResumableStreamContext) -> None:
    endpoints = AssistantEndpoints(
        context, Script("a", None), authorize=None, protocol="toy", cors_origins=["https://example.com"]
    )
    reply = call(endpoints, "POST", body={"threadId": "t", "commands": []}, origin="https://example.com")
    assert reply.read() == b"state\nsay a\n"
    assert "X-Toy" in reply.headers["access-control-expose-headers"].split(", ")
    with pytest.raises(ValueError, match="toy"):
        AssistantEndpoints(context, Script(), authorize=None, protocol="plain-text")
