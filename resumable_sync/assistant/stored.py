"""The bytes that are stored of a stream, for who does not wait for more."""

from __future__ import annotations

from collections.abc import Iterator

from ..contract import Store


def stored_pieces(store: Store, stream_id: str, generation: int | None = None) -> Iterator[bytes]:
    """The bytes of a stream from its start, as far as they were stored when the reading began. Does not wait.

    Of the generation that is there, if none is given. Raises what `Store.read` raises.
    """
    cursor = "" if generation is None else f"{generation}-0"
    offset, end = 0, None
    while end is None or offset < end:
        batch = store.read(stream_id, cursor)
        cursor, offset, end = batch.cursor, batch.offset, batch.size if end is None else end
        yield batch.data
