"""Recovery: a thread per context and process that goes on with streams whose producers are lost."""

from __future__ import annotations

import logging
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from .contract import Status, Store, StreamInfo, TakeoverStore
from .errors import ResumableStreamError
from .process import start_thread
from .producer import Source

logger = logging.getLogger("resumable_sync")

Recover = Callable[[StreamInfo], "Source | None"]
"""Gives the source with which this process goes on with a stream, or None."""

_ASK_SECONDS = 0.5  # between questions to the store: with the answer a lost stream is found within a second
_ASKED_KEPT = 10_000  # terms about which `recover` was asked


def waits_for_takeover(info: StreamInfo) -> bool:
    """Whether nobody produces the stream, and somebody may."""
    orphan = info.status is Status.STREAMING and not info.producer_alive
    return orphan and not info.shared and info.handover > 0


class Recovering(Protocol):
    """What recovery needs of its context."""

    @property
    def closed(self) -> bool:
        """Whether it is closed or draining: nothing is recovered any more."""

    def _may_continue(self) -> bool: ...
    def _continue(self, info: StreamInfo, make_stream: Source) -> bool: ...


class Recovery:
    """Asks the store for orphans and `recover` about each of their terms, once.

    `_asked` belongs to the thread. The context is held weakly: the thread ends with it, and with its close.
    """

    def __init__(self, context: Recovering, store: Store, takeover: TakeoverStore, recover: Recover) -> None:
        self._context = weakref.ref(context)
        self._store = store
        self._takeover = takeover  # the same
        self._recover = recover
        self._asked: OrderedDict[tuple[str, int, int], None] = OrderedDict()
        self._pause = threading.Event()  # never set: a wait that a fork or an exit cannot leave locked

    def start(self) -> None:
        """Begin to ask. StoreUnavailableError if no thread can be started."""
        start_thread(self._run, "resumable-sync-recovery")

    def _run(self) -> None:
        while True:
            context = self._context()
            if context is None or context.closed:
                return
            try:
                self._ask(context)
            except ResumableStreamError as error:
                logger.debug("recovery asks again: %s", error)
            except BaseException:
                logger.exception("recovery goes on after an unexpected error")
            del context  # it may be collected meanwhile
            # A store does not tell of a death, so there is nothing to wait for but time.
            self._pause.wait(_ASK_SECONDS)

    def _ask(self, context: Recovering) -> None:
        for stream_id in self._takeover.orphans():
            if not context._may_continue():
                return
            info = self._store.info(stream_id)
            if info is not None and waits_for_takeover(info):
                self._ask_about(context, info)

    def _ask_about(self, context: Recovering, info: StreamInfo) -> None:
        term = info.stream_id, info.generation, info.term
        if term in self._asked:
            return
        self._asked[term] = None
        if len(self._asked) > _ASKED_KEPT:
            self._asked.popitem(last=False)
        try:
            make_stream = self._recover(info)
            if make_stream is not None and context._continue(info, make_stream):
                logger.info("stream %s goes on here at offset %d", info.stream_id, info.size)
        except Exception:
            logger.exception("stream %s could not be recovered", info.stream_id)
