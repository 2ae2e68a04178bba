"""What the demo streams: a text word by word, or a command's output as it comes."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from ..producer import current_producer
from ..sources import CommandSource

_WORD = re.compile(r"\S*\s*")


@dataclass(frozen=True)
class AnswerSource:
    """Makes the answers: `make_stream` for the context, and what is known of them before."""

    title: str
    make_stream: Callable[[], Iterable[bytes | str]]
    whole: bytes | None = None
    """All of it, if it is known beforehand; the page shows progress by its length."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """Kept with each stream."""
        known = {} if self.whole is None else {"expected-bytes": str(len(self.whole))}
        return {"title": self.title, "content-type": "text/plain; charset=utf-8", **known}


def text_source(text: str, title: str, rate: float) -> AnswerSource:
    """`text`, word by word, `rate` words a second; ValueError unless that is positive."""
    if not rate > 0:
        raise ValueError(f"the rate must be a positive number of words per second, not {rate:g}")

    def words() -> Iterator[str]:
        stopped = current_producer().cancelled
        for word in _WORD.findall(text):
            if stopped.wait(1 / rate):  # the pace, and the end of it at once when somebody stops the stream
                return
            yield word

    return AnswerSource(title, words, text.encode("utf-8"))


def own_text_source(rate: float) -> AnswerSource:
    """The demo's own text."""
    text = resources.files(__package__).joinpath("text.txt").read_text("utf-8")
    return text_source(text, "The signal keeper", rate)


def file_source(path: str | os.PathLike[str], rate: float) -> AnswerSource:
    """The text of a file, word by word; bytes that are not UTF-8 are shown as U+FFFD. OSError if unreadable."""
    return text_source(Path(path).read_bytes().decode("utf-8", "replace"), os.path.basename(path), rate)


def command_source(command: Sequence[str]) -> AnswerSource:
    """What `command` writes to stdout, as it comes; it is run afresh for each answer."""

    return AnswerSource(" ".join(command), lambda: CommandSource(command).chunks())
