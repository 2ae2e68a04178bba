"""The formats of assistant streams: encoding tokens of text, and the arguments of a tool call that grow.

The chunks are made before the clock starts. What is timed is one encoder, or one accumulator, fed with all.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from typing import Any

from resumable_sync.assistant import create_assistant_stream
from resumable_sync.assistant.controller import AssistantStreamController
from resumable_sync.assistant.formats.registry import FORMATS
from resumable_sync.assistant.message.accumulator import AssistantMessageAccumulator
from resumable_sync.assistant.message.ui_message import UIMessageAccumulator
from resumable_sync.sse import parse_events

from .support import Job

_TOKEN = "word "
_DELTA = 20  # characters of a delta of arguments
_ROUNDS = 3  # of which the fastest counts


def encode(job: Job) -> dict[str, Any]:
    """Chunks a second of an encoder; seconds for arguments of two lengths."""
    encoder = FORMATS[job["format"]].encoder
    return _measured(job, lambda chunks: sum(map(len, encoder().encode(chunks))), list)


def accumulate(job: Job) -> dict[str, Any]:
    """The same of the accumulator that `read_assistant_message` uses."""

    def add_all(chunks: Iterable[Any]) -> None:
        accumulator = AssistantMessageAccumulator()
        for chunk in chunks:
            accumulator.add(chunk)

    return _measured(job, add_all, list)


def accumulate_ui(job: Job) -> dict[str, Any]:
    """The same of the accumulator that `read_ui_message` uses, fed with the frames of the UI format."""

    def frames(chunks: Iterable[Any]) -> list[Any]:
        events = parse_events(FORMATS["ui-message-stream"].encoder().encode(chunks))
        return [json.loads(event.data) for event in events if event.data != "[DONE]"]

    def add_all(made: Iterable[Any]) -> None:
        accumulator = UIMessageAccumulator()
        for frame in made:
            accumulator.add(frame)

    return _measured(job, add_all, frames)


def _measured(
    job: Job, run: Callable[[Any], object], prepare: Callable[[Iterable[Any]], list[Any]]
) -> dict[str, Any]:
    def speak(controller: AssistantStreamController) -> None:
        for _ in range(job["tokens"]):
            controller.append_text(_TOKEN)

    text = prepare(_chunks(speak))
    metrics = {"chunks_per_s": job["tokens"] / _fastest(run, text)}
    seconds = []
    for size in job["arguments"]:
        seconds.append(_fastest(run, prepare(_chunks(lambda controller: _call(controller, size)))))
        metrics[f"arguments_{size // 1000}_kb_ms"] = seconds[-1] * 1e3
    metrics["growth_over_size"] = seconds[-1] / seconds[0] / (job["arguments"][-1] / job["arguments"][0])
    return {"metrics": metrics}


def _call(controller: AssistantStreamController, size: int) -> None:
    whole = json.dumps({"text": "x" * size})
    with controller.add_tool_call_part("write") as call:
        for begin in range(0, len(whole), _DELTA):
            call.args_text.append(whole[begin : begin + _DELTA])


def _chunks(callback: Callable[[AssistantStreamController], object]) -> list[Any]:
    def write(controller: AssistantStreamController) -> None:
        callback(controller)

    return list(create_assistant_stream(write))


def _fastest(run: Callable[[Any], object], made: list[Any]) -> float:
    times = []
    for _ in range(_ROUNDS):
        begin = time.perf_counter()
        run(made)
        times.append(time.perf_counter() - begin)
    return min(times)
