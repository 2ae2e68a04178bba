"""Recovery: a thread per context and process that goes on with streams whose producers are lost."""

from __future__ import annotations

import logging
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from .contract import Status, Store, StreamInfo, TakeoverStore
from .errors import ResumableStreamError, StoreUnavailableError
from .logs import about
from .process import start_thread
from .producer import Source

logger = logging.getLogger("resumable_sync")

Recover = Callable[[StreamInfo], "Source | None"]
"""Gives the source with which this process goes on with a stream, or None."""

_ASK_SECONDS = 0.5  # between questions to the store: with the answer a lost stream is found within a second
_ANSWERS_KEPT = 10_000  # of `recover`, each about one term


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
    """Asks the store for orphans, and `recover` about each of their terms, once: its answer holds for the term.

    `_answers` and `_failed`, of what cannot go on here, belong to the thread. The context is held weakly: the
    thread ends with it, and with its close.
    """

    def __init__(self, context: Recovering, store: Store, takeover: TakeoverStore, recover: Recover) -> None:
        self._context = weakref.ref(context)
        self._store = store
        self._takeover = takeover  # the same
        self._recover = recover
        self._route: Callable[[str], str] = getattr(store, "route", lambda stream_id: "")
        self._answers: OrderedDict[tuple[str, int, int], Source | None] = OrderedDict()
        self._failed: OrderedDict[tuple[str, int], None] = OrderedDict()  # generations
        self.orphans = 0
        """Streams that waited to be taken over when the store was last asked. Assigned by the thread alone."""
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
        away: set[str] = set()  # servers that did not answer: their other streams wait, so that the rest need not
        waiting = 0
        for stream_id in self._takeover.orphans():
            if not context._may_continue():
                return
            route = self._route(stream_id)
            if route in away:
                continue
            try:
                info = self._store.info(stream_id)
                if info is not None and waits_for_takeover(info):
                    waiting += not self._ask_about(context, info)
            except ResumableStreamError as error:
                waiting += 1
                extra = about("recovery-delayed", stream_id)
                logger.debug("recovery asks about %s again: %s", stream_id, error, extra=extra)
                # Otherwise it is this stream's matter, which is damaged.
                if isinstance(error, StoreUnavailableError) and error.transient:
                    away.add(route)
        self.orphans = waiting

    def _ask_about(self, context: Recovering, info: StreamInfo) -> bool:
        """True if this process goes on with it now."""
        if (info.stream_id, info.generation) in self._failed:
            return False
        make_stream = self._answer(info)
        if make_stream is None:
            return False
        try:
            if context._continue(info, make_stream):
                extra = about("recovered", info.stream_id, info.generation)
                logger.info("stream %s goes on here at offset %d", info.stream_id, info.size, extra=extra)
                return True
            # Otherwise somebody else goes on with it, or its producer, which may yet be lost in the same term.
        except StoreUnavailableError:
            raise  # with the same answer once more
        except Exception:
            # Never again: each try may cost a term, of which too many that store nothing end the stream.
            self._failed[info.stream_id, info.generation] = None
            if len(self._failed) > _ANSWERS_KEPT:
                self._failed.popitem(last=False)
            extra = about("recovery-failed", info.stream_id, info.generation)
            logger.exception("stream %s could not be recovered", info.stream_id, extra=extra)
        return False

    def _answer(self, info: StreamInfo) -> Source | None:
        """What `recover` says about this term, or has said: it is asked once."""
        term = _term(info)
        if term in self._answers:
            return self._answers[term]
        self._answers[term] = None
        if len(self._answers) > _ANSWERS_KEPT:
            self._answers.popitem(last=False)
        try:
            self._answers[term] = self._recover(info)
        except Exception:
            extra = about("recovery-failed", info.stream_id, info.generation)
            logger.exception("stream %s could not be recovered", info.stream_id, extra=extra)
        return self._answers[term]


def _term(info: StreamInfo) -> tuple[str, int, int]:
    return info.stream_id, info.generation, info.term
