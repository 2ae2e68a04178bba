"""The worked examples over a real server, and Python's own clients of server-sent events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import httpx_sse
import pytest
import requests
import sseclient

from ..formats.programs import (
    CASES,
    DECODERS,
    ENCODERS,
    JAVASCRIPT_FORMATS,
    accumulate,
    body_of,
    normalized,
    written_steps,
)
from .servers import ChatServer
from .support import unescaped

EVENTS = [
    format_name
    for format_name in JAVASCRIPT_FORMATS
    if ENCODERS[format_name]().headers["Content-Type"].startswith("text/event-stream")
]

each_case = pytest.mark.parametrize("name", CASES)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChatServer]:
    directory = tmp_path_factory.mktemp("golden")
    with ChatServer(directory, f"sqlite:///{directory / 'streams.db'}", 2) as running:
        yield running


@each_case
@pytest.mark.parametrize("format_name", JAVASCRIPT_FORMATS)
def test_golden_cases_over_http(server: ChatServer, name: str, format_name: str) -> None:
    expected = CASES[name]["encoders"][format_name]
    for path in (f"/golden/{format_name}/{name}", f"/resume/{format_name}.{name}"):
        response = requests.get(server.url(path), timeout=20)
        assert unescaped(response.content) == unescaped(body_of(CASES[name], format_name).encode())
        assert response.headers["x-resumable-stream-id"] == f"{format_name}.{name}"
        headers = {key: value for key, value in expected["headers"].items() if key not in ("connection",)}
        headers["content-type"] = headers["content-type"].partition(";")[0] + "; charset=utf-8"
        assert {key: response.headers[key] for key in headers} == headers
        message = accumulate(DECODERS[format_name]().decode([response.content]))
        message = normalized(message)
        assert written_steps(message, format_name) == written_steps(
            CASES[name]["messages"][format_name], format_name
        )


def with_httpx(url: str) -> list[str]:
    with httpx.Client(trust_env=False) as client, httpx_sse.connect_sse(client, "GET", url) as source:
        return [event.data for event in source.iter_sse()]


def with_sseclient(url: str) -> list[str]:
    with requests.get(url, stream=True, timeout=20) as response:
        return [event.data for event in sseclient.SSEClient(response).events()]  # type: ignore[arg-type]


def with_requests(url: str) -> list[str]:
    with requests.get(url, stream=True, timeout=20) as response:
        lines = [str(line) for line in response.iter_lines(decode_unicode=True)]
    return [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]


@each_case
@pytest.mark.parametrize("format_name", EVENTS)
@pytest.mark.parametrize("read", [with_httpx, with_sseclient, with_requests])
def test_clients_read_every_event(server: ChatServer, name: str, format_name: str, read: Any) -> None:
    found = read(server.url(f"/golden/{format_name}/{name}"))
    body = body_of(CASES[name], format_name)
    expected = [line.removeprefix("data: ") for line in body.split("\n") if line.startswith("data: ")]
    assert found[-1] == expected[-1] == "[DONE]"
    assert [json.loads(data) for data in found[:-1]] == [json.loads(data) for data in expected[:-1]]
