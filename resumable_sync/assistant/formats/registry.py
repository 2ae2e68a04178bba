"""The formats that there are. A new one is a module of this folder with its `FORMAT`, and a line here."""

from __future__ import annotations

from collections.abc import Mapping

from . import ag_ui, data_stream, plain_text, transport, ui_message
from .base import AssistantStreamEncoder, Format

FORMATS: dict[str, Format] = {
    module.FORMAT.name: module.FORMAT for module in (data_stream, transport, ui_message, ag_ui, plain_text)
}
"""By name. Read by many threads; to be changed only before any of them serves."""

DEFAULT = data_stream.FORMAT
"""The format of streams that say nothing of theirs."""

FORMAT_KEY = "assistant-format"
HEADERS_KEY = "assistant-headers"
"""Where a stream's metadata keeps the name of its format, and the headers that it began with."""


def kept_by(encoder: AssistantStreamEncoder) -> dict[str, str]:
    """What a stream's metadata keeps of the format that `encoder` writes; nothing for a foreign one."""
    for format in FORMATS.values():
        if type(encoder) is format.encoder:
            return {FORMAT_KEY: format.name, **format.keep(encoder)}
    return {}


def encoder_of(
    metadata: Mapping[str, str], given: AssistantStreamEncoder | None = None
) -> AssistantStreamEncoder | None:
    """The encoder that knows what is stored: the one that wrote it, else the `given` one; None if nobody does."""
    format = FORMATS.get(metadata.get(FORMAT_KEY, ""))
    if format is not None:
        return format.encoder_for(metadata)
    return given or (None if HEADERS_KEY in metadata else DEFAULT.encoder_for(metadata))


def closes(encoder: AssistantStreamEncoder) -> bool:
    """Whether the encoder's closing frames can tell that a message was interrupted; so for foreign ones."""
    return all(format.closes for format in FORMATS.values() if isinstance(encoder, format.encoder))
