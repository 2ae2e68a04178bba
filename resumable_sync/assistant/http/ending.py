"""What accompanies one answer beside its stream, and what follows its end: `on_finish`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Any

from ...committer import committer_for
from ...context import ResumableStreamContext
from ...contract import Status, StreamInfo
from ...errors import StreamLostError
from ...logs import about
from ...producer import current_producer
from ..continued import keep_message
from ..newest import ActiveStreams, Claim
from ..read import read_assistant_message, read_ui
from .chat import ChatRequest

logger = logging.getLogger("resumable_sync")

OnFinish = Callable[[ChatRequest, Any, Status], object]

_BEGIN_SECONDS = 60.0  # in which the thread that was elected has written the records


class Accompanied:
    """The records of one answer: its place as the chat's newest, and the message that it goes on with.

    `begin` runs in the thread that was elected, the rest in the producer's and the callback's. `_begun` carries
    the records from the one to the other.
    """

    def __init__(
        self,
        context: ResumableStreamContext,
        active: ActiveStreams,
        chat: ChatRequest,
        continued: Mapping[str, Any] | None,
        ttl: float | None,
        on_finish: OnFinish | None,
        ui: bool,
    ) -> None:
        self._context = context
        self._active = active
        self._chat = chat
        self._continued = continued
        self._ttl = ttl
        self._on_finish = on_finish
        self._ui = ui
        self._begun: Future[tuple[Claim | None, list[StreamInfo]]] = Future()
        self._kept = ExitStack()
        self._noted = False

    def begin(self) -> None:
        """Write the records; what `keep` waits for. Raises what the store raises, there too."""
        claim, records = None, []
        try:
            chat = self._chat
            if self._continued is not None:
                records.append(keep_message(self._context.store, chat.stream_id, self._continued, self._ttl))
            if chat.chat_id:
                awaited = self._on_finish is not None
                claim = self._active.begin(chat.chat_id, chat.stream_id, self._ttl, awaited=awaited)
                records.append(claim.record)
        except BaseException as error:
            self._begun.set_exception(error)
            raise
        self._begun.set_result((claim, records))

    def keep(self) -> None:
        """Keep the records alive until the stream has ended and `on_finish` has returned. In the producer's
        thread."""
        _, records = self._begun.result(_BEGIN_SECONDS)
        with ExitStack() as kept:
            for record in records:
                committer = committer_for(self._context.store, record.stream_id)
                kept.callback(committer.keep_alive(record.stream_id, record.ttl))
            self._kept = kept.pop_all()
        current_producer()._on_end(self._end)

    def failed(self) -> None:
        """The callback has raised: its message does not end well, though its stream will."""
        self._note(Status.ERROR)

    def _note(self, ending: Status) -> None:
        claim, _ = self._begun.result(_BEGIN_SECONDS)
        if claim is not None and not self._noted:
            self._noted = True
            claim.note(ending.value, patience=self._context.store.grace)

    def _end(self) -> None:
        """The stream has ended. Raises nothing but what ends the thread."""
        given = False
        try:
            self._finish()
            given = True
        except Exception:
            stream_id = self._chat.stream_id
            extra = about("follow-up-failed", stream_id)
            logger.exception("what follows the end of stream %s failed", stream_id, extra=extra)
        finally:
            claim, _ = self._begun.result(_BEGIN_SECONDS)
            if claim is not None:
                claim.end(Status.DONE if given else Status.INTERRUPTED)
            self._kept.close()

    def _finish(self) -> None:
        stream_id = self._chat.stream_id
        info = self._context.info(stream_id)
        if info is None or not info.status.ended:
            raise StreamLostError(f"stream {stream_id} is gone, or could not be ended")
        status, message = info.status, None
        if self._ui:
            read = read_ui(self._context, info)
            message = read.saved
            ending = Status.ERROR if read.error is not None else Status.CANCELLED if read.aborted else Status.DONE
        else:
            message = read_assistant_message(self._context, stream_id)
            reason = message["status"].get("reason") if message["status"]["type"] == "incomplete" else None
            ending = {"error": Status.ERROR, "cancelled": Status.CANCELLED}.get(str(reason), Status.DONE)
        if status is Status.DONE and ending is not Status.DONE:
            self._note(ending)
            status = ending
        if self._on_finish is not None:
            self._on_finish(self._chat, message, status)
