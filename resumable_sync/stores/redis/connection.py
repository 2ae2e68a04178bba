"""Carries calls to Redis: few pooled connections, one pipelined trip, repeats within a bounded time."""

from __future__ import annotations

import contextlib
import re
import selectors
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    ConnectionError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    RedisError,
    ResponseError,
    TimeoutError,
)

from ...errors import ResumableStreamError, StoreUnavailableError, StreamLostError
from ...interrupts import Event, Roll
from .cluster import SlotMap
from .scripts import Call
from .settings import Endpoint, Target, is_refused

_PAUSE_SECONDS = (0.02, 0.5)  # first and longest between repeats
# For which a server that was never there is tried: most likely the address is wrong, or nobody has started it.
_FIRST_SECONDS = 0.3
# What a server says that cannot do it at the moment, or is not the one to ask any more. Before 7.0 an error inside
# a script comes as a ResponseError with the code somewhere in its text: redis-py's classes do not suffice.
_LATER = re.compile(
    r"\b(LOADING|READONLY|TRYAGAIN|CLUSTERDOWN|MASTERDOWN|BUSY|NOREPLICAS|UNBLOCKED|MISCONF)\b"
    r"|(BusyLoading|ReadOnly|TryAgain|ClusterDown|MasterDown|MaxClients)Error"
)
# Before anything was executed: a script is not begun then, or its first write is refused.
_UNEXECUTED = re.compile(
    r"\b(LOADING|READONLY|TRYAGAIN|CLUSTERDOWN|MASTERDOWN|BUSY|NOREPLICAS|MISCONF|OOM)\b"
    r"|(BusyLoading|ReadOnly|TryAgain|ClusterDown|MasterDown|MaxClients|OutOfMemory)Error"
)
_FULL = re.compile(r"\bOOM\b|maxmemory")
_ASKING = ("ASKING",)
_CROWDED_SECONDS = 0.02  # that a call waits for a connection before another one is made
_TRUSTED_SECONDS = 0.5  # that a connection may have been idle for a call that is sent once only
_LOST_SECONDS = 0.1  # between looks for connections of trips that were broken off

Reply = Any
"""What Redis answered, strings as bytes; or the exception that stands for it."""


class UnconfirmedError(RedisError):
    """Executed by the primary, but not confirmed by as many replicas as the store was told to wait for."""


class StaleConnectionError(ConnectionError):
    """A connection that had been idle was broken: the server may be well."""


def failure(error: Exception) -> ResumableStreamError:
    """The store's error for what redis-py raised, which becomes its cause."""
    if isinstance(error, ResponseError) and "WRONGTYPE" in str(error):
        made: ResumableStreamError = StreamLostError(
            f"a key of the stream was replaced by something else: {error}"
        )
    else:
        lasting = isinstance(error, (AuthenticationError, AuthorizationError, NoPermissionError))
        full = _FULL.search(str(error)) is not None
        transient = not lasting and (is_passing(error) or isinstance(error, UnconfirmedError) or full)
        text = f"Redis: {type(error).__name__}: {error}"
        if is_refused(error):
            text += " Start the Redis server there, or correct the address that the store was given"
        made = StoreUnavailableError(text, transient=transient)
    made.__cause__ = error
    return made


def is_passing(reply: Reply) -> bool:
    """Whether this reply may be another one if the call is repeated in a moment."""
    if isinstance(reply, (AuthenticationError, AuthorizationError)):
        return False
    if isinstance(reply, (ConnectionError, TimeoutError, OSError, MovedError)):
        return True
    return isinstance(reply, ResponseError) and _LATER.search(f"{type(reply).__name__} {reply}") is not None


def is_unexecuted(reply: Reply) -> bool:
    """Whether this reply, or this error, proves that the script that was called changed nothing."""
    if isinstance(reply, (NoScriptError, MovedError, AskError, AuthenticationError)) or _was_unsent(reply):
        return True
    text = f"{type(reply).__name__} {reply}"
    return isinstance(reply, ResponseError) and _UNEXECUTED.search(text) is not None


def _was_unsent(reply: Reply) -> bool:
    return getattr(reply, "resumable_sync_unsent", False)


def _mark_unsent(error: BaseException) -> None:
    """Nothing was sent. A mark, since the type tells what is wrong."""
    setattr(error, "resumable_sync_unsent", True)


class BusyError(TimeoutError):
    """Others had all connections for the whole wait. It may be these that were broken, and the server be well."""


class _Turn:
    """A thread that waits for a connection. It holds its trip weakly. The node's lock guards the fields."""

    def __init__(self, trip: Trip) -> None:
        self.trip = weakref.ref(trip)
        self.gate = threading.Lock()  # open once it is `here`
        self.gate.acquire()
        self.here = False
        self.connection: Any = None  # once it is `here`: an idle one, or None if one is to be made


class Node:
    """A server, over at most `connections` connections, kept when idle. `_guard` guards all fields.

    Trips share a connection one after the other, first come, first served: one that comes free goes to the thread
    that has waited longest. Another is made only where none came free for some time. While a thread waits none is
    idle.

    A signal handler may raise anywhere in a call of the main thread, so which calls have one is found out, not
    counted: a trip counts for as long as it is there, and one that was broken off is collected, with its
    connection. Those that wait look for that every now and then. As in turns.py, `_guard` is reentrant, and each
    change is one call into C, or leaves at worst a thread that waits out of the queue, which it joins again.
    """

    def __init__(self, endpoint: Endpoint, timeout: float, connections: int, reached: Event | None = None) -> None:
        self.endpoint = endpoint
        self._reached = reached or Event()  # set once a server was there
        self._timeout = timeout
        self._limit = connections
        self._guard = threading.RLock()
        self._turns: deque[_Turn] = deque()
        self._trips = Roll()  # each has a connection, or makes one
        self._idle: list[Any] = []
        self._closed = False

    @property
    def open(self) -> int:
        """Connections, with those that are to be made."""
        return len(self._idle) + len(self._trips)

    def send(self, calls: Sequence[Call], *, once: bool = False) -> Trip:
        """Write all calls on one connection. The trip must be finished or closed. `once`: what was sent is not
        sent again; so not on a connection that is known to be broken, or that something on the way may have
        dropped without a word."""
        trip = Trip(self, len(calls))
        try:
            try:
                trip.connection = self._take(trip)
                trip.reused = trip.connection is not None
                if once and trip.reused and not _is_trusted(trip.connection):
                    trip.connection.disconnect()
                    trip.connection, trip.reused = None, False
                if trip.connection is None:
                    trip.connection = self.endpoint.connection(self._timeout)
                    if self.endpoint.is_found:  # Sentinel was there: a primary that is not is being replaced
                        self._reached.set()
                    trip.connection.connect()
                    self._reached.set()
            except (RedisError, OSError) as error:
                _mark_unsent(error)
                raise
            if len(calls) == 1:
                packed = trip.connection.pack_command(*calls[0].arguments)
            else:
                packed = trip.connection.pack_commands([call.arguments for call in calls])
            trip.connection.send_packed_command(packed, check_health=False)
        except BaseException as error:
            self.give_back(trip, usable=False)
            if trip.reused and _is_broken(error):
                raise StaleConnectionError(str(error)) from error
            raise
        return trip

    def give_back(self, trip: Trip, *, usable: bool) -> None:
        """The end of a trip, if it has begun. Its connection may be None."""
        connection = trip.connection
        if connection is not None:
            connection.resumable_sync_used_at = time.monotonic()
        with self._guard:
            usable = usable and not self._closed
            if trip in self._trips:
                self._trips.leave(trip)
                self._hand_over(connection if usable else None)
        if not usable and connection is not None:
            connection.disconnect()

    def drop_idle(self) -> None:
        """Forget the idle connections: after one broke the others are not worth much."""
        with self._guard:
            dropped, self._idle = self._idle, []
        for connection in dropped:
            connection.disconnect()

    def close(self) -> None:
        """Close the connections; those in use when they come back. From now on nobody gets one."""
        with self._guard:
            self._closed = True
        self.drop_idle()

    def _take(self, trip: Trip) -> Any:
        """An idle connection; None if one is to be made. It is the trip's from here on."""
        with self._guard:
            if self._idle and not self._closed:
                self._trips.enter(trip)
                return self._idle.pop()
        return self._wait_for_one(trip)

    def _wait_for_one(self, trip: Trip) -> Any:
        began = time.monotonic()
        turn: _Turn | None = None
        try:
            while True:
                with self._guard:
                    waited = time.monotonic() - began
                    if turn is not None and turn.here:
                        return turn.connection
                    if self._closed:
                        raise ConnectionError("the store is closed")
                    room = self.open < self._limit
                    if self._idle or not self.open or (room and waited >= _CROWDED_SECONDS):
                        self._trips.enter(trip)
                        connection = self._idle.pop() if self._idle else None
                        self._leave(turn)
                        return connection
                    left = self._timeout - waited
                    if left <= 0:
                        raise BusyError("all connections of the store are busy")
                    if turn is None:
                        turn = _Turn(trip)
                    if turn not in self._turns:
                        self._turns.append(turn)
                pause = _CROWDED_SECONDS - waited if room else _LOST_SECONDS
                turn.gate.acquire(timeout=min(max(pause, 0.0), left))
        except BaseException:
            with self._guard:
                self._leave(turn)
                if turn is not None and turn.here:  # what it was given meanwhile goes to the next
                    self._trips.leave(trip)
                    self._hand_over(turn.connection)
            raise

    # The helpers below are called with the lock held.

    def _leave(self, turn: _Turn | None) -> None:
        if turn is not None and turn in self._turns:
            self._turns.remove(turn)

    def _hand_over(self, connection: Any) -> None:
        """To the thread that has waited longest; None: it may make one."""
        while self._turns:
            turn = self._turns.popleft()
            trip = turn.trip()
            if trip is not None:
                self._trips.enter(trip)
                turn.connection = connection
                turn.here = True
                turn.gate.release()
                return
        if connection is not None:
            self._idle.append(connection)


class Trip:
    """Calls on their way. One thread's. `reused`: the connection had been idle, or another trip's."""

    def __init__(self, node: Node, count: int) -> None:
        self.connection: Any = None  # the node's: see Node.send
        self.reused = False
        self._node = node
        self._count = count
        self._finished = False

    def replies(self) -> list[Reply]:
        """Read all replies; errors of single calls are among them. If the connection breaks, that error stands for
        those that did not come; it is raised if none came."""
        found: list[Reply] = []
        usable = False
        try:
            for _ in range(self._count):
                try:
                    found.append(self.connection.read_response(disable_decoding=True))
                except ResponseError as error:
                    found.append(error)
            usable = True
        except (RedisError, OSError) as error:
            if found:
                return found + [error] * (self._count - len(found))
            if self.reused and _is_broken(error):
                raise StaleConnectionError(str(error)) from error
            raise
        finally:
            self._finished = True
            self._node.give_back(self, usable=usable)
        return found

    def fileno(self) -> int:
        """The socket's, for a selector. Nothing else is on its way on this connection, so what can be read is the
        reply."""
        number: int = self.connection._sock.fileno()
        return number

    def abandon(self) -> None:
        """Give up without the replies. Idempotent, and harmless after `replies`."""
        if not self._finished:
            self._finished = True
            self._node.give_back(self, usable=False)

    def time_out(self) -> Exception:
        """Give up on a node that does not answer; the error that stands for its replies."""
        self.abandon()
        kind = StaleConnectionError if self.reused else TimeoutError
        return kind(f"{self._node.endpoint.address} did not answer in time")


def _is_broken(error: BaseException) -> bool:
    """Whether the connection itself failed: subclasses say what the server thinks, for example LOADING."""
    return type(error) in (ConnectionError, TimeoutError) or isinstance(error, OSError)


def _is_trusted(connection: Any) -> bool:
    """Whether a connection that had been idle most likely is not broken."""
    used_at: float = connection.resumable_sync_used_at
    return time.monotonic() - used_at < _TRUSTED_SECONDS and not _has_news(connection)


def _has_news(connection: Any) -> bool:
    """Whether there is something to read on a connection on which nothing is awaited: most likely its end."""
    with selectors.DefaultSelector() as selector:
        try:
            selector.register(connection._sock, selectors.EVENT_READ)
        except (ValueError, TypeError, AttributeError, KeyError):  # it has no socket any more
            return True
        return bool(selector.select(0))


def _have_failed(replies: Iterable[Reply]) -> bool:
    for reply in replies:  # `any` would be two calls more on the way of every live chunk
        if isinstance(reply, Exception):
            return True
    return False


class Link:
    """A process's way to Redis. Thread-safe. Every call must be safe to repeat, but those of `commit`.

    `connections`: to each server at most. A call and its repeats take about twice `timeout` seconds at most.
    `slots`: of a Cluster, which the links of a process share.
    `wait_replicas`: a call succeeds only once that many replicas have confirmed it, within so many seconds.
    `reached`: set once a server was there, which the links of a process share. Before that, one that is not there
    is tried for a fraction of a second only.
    """

    def __init__(
        self,
        target: Target,
        timeout: float,
        connections: int,
        slots: SlotMap | None = None,
        wait_replicas: tuple[int, float] | None = None,
        reached: Event | None = None,
    ) -> None:
        self.timeout = timeout
        self.reply_timeout = timeout
        self._wait_replicas = wait_replicas
        if wait_replicas is not None:
            self.reply_timeout += wait_replicas[1]
        self._connections = connections
        self._target = target
        self._closed = Event()
        self._reached = reached or Event()
        self._lock = threading.Lock()  # guards changes of _nodes
        self._nodes: dict[Endpoint, Node] = {}
        self._slots = slots

    def run(self, calls: Sequence[Call], patience: float | None = None) -> list[Any]:
        """Make all calls, those for one server in one trip. A ResumableStreamError stands for what failed.

        What fails for the moment is repeated for `patience` seconds (default: the link's timeout), and once in any
        case if an idle connection was broken: something on the way may have dropped it without a word. The same
        for who waited all that time for those that had such a one.
        """
        began = time.monotonic()
        replies = self._attempt(calls)
        if _have_failed(replies):
            patience = self.timeout if patience is None else min(patience, self.timeout)
            replies = self._repeat(calls, replies, began, patience)
            return [failure(reply) if isinstance(reply, Exception) else reply for reply in replies]
        return replies

    def ask(self, call: Call) -> Any:
        """The reply to one call, repeated as in `run`. Raises what `run` returns for an error."""
        reply = self.run([call])[0]
        if isinstance(reply, ResumableStreamError):
            raise reply
        return reply

    def commit(self, calls: Sequence[Call], repeatable: Sequence[bool], patience: float) -> list[tuple[Any, bool]]:
        """For each call the reply, or the ResumableStreamError that stands for it; and whether an attempt before
        that reply may have been executed. Repeated as in `run`, for `patience` seconds, but one that is not
        `repeatable` only where it certainly was not executed.
        """
        doubtful = [False] * len(calls)

        def is_to_be_repeated(place: int, reply: Reply) -> bool:
            unexecuted = is_unexecuted(reply)
            doubtful[place] = doubtful[place] or not unexecuted
            return is_passing(reply) and (unexecuted or repeatable[place])

        once = not all(repeatable)
        began = time.monotonic()
        replies = self._attempt(calls, once)
        if _have_failed(replies):
            patience = min(patience, self.timeout)
            replies = self._repeat(calls, replies, began, patience, is_to_be_repeated, once)
        return [
            (failure(reply) if isinstance(reply, Exception) else reply, doubt)
            for reply, doubt in zip(replies, doubtful)
        ]

    def _repeat(
        self,
        calls: Sequence[Call],
        found: list[Reply],
        began: float,
        patience: float,
        is_to_be_repeated: Callable[[int, Reply], bool] = lambda place, reply: is_passing(reply),
        once: bool = False,
    ) -> list[Reply]:
        """Go on after a first attempt, which began at `began` (monotonic) and `found` replies some of which are
        errors."""
        deadline = began + patience
        replies: list[Reply] = [None] * len(calls)
        pending = list(calls)
        places = list(range(len(calls)))
        pause = 0.0
        first = True
        while True:
            again = []
            for place, call, reply in zip(places, pending, found):
                if isinstance(reply, AskError) and not isinstance(reply, MovedError):
                    reply = self._ask(call, reply)
                replies[place] = reply
                if isinstance(reply, NoScriptError):
                    again.append((place, call.in_full()))
                elif isinstance(reply, Exception) and is_to_be_repeated(place, reply):
                    again.append((place, call))
            if not again:
                if any(isinstance(reply, StaleConnectionError) for reply in found):
                    self._drop_idle()
                return replies
            places, pending = [list(column) for column in zip(*again)]
            if not all(isinstance(replies[place], NoScriptError) for place in places):
                self._drop_idle()
                not_tried = (StaleConnectionError, BusyError)
                stale = first and any(isinstance(replies[place], not_tried) for place in places)
                first = False
                if self._is_nobody_there(replies[place] for place in places):
                    deadline = min(deadline, began + _FIRST_SECONDS)
                if time.monotonic() + pause >= deadline and not stale or self._closed.wait(pause):
                    return replies
                pause = min(max(_PAUSE_SECONDS[0], pause * 2), _PAUSE_SECONDS[1])
                self.recover()
            # Else nothing is wrong: the server has not seen the script yet.
            found = self._attempt(pending, once)

    def endpoint(self, key: str) -> Endpoint:
        """The server that holds `key`. May raise redis-py's errors."""
        if self._slots is None:
            return self._target.endpoints[0]
        return self._slots.find(key)

    def node_name(self, key: str) -> str:
        """Names the node that holds `key`; empty where there is one server, or no node tells."""
        if self._slots is None:
            return ""
        try:
            host, port = self._slots.find(key).address
        except (RedisError, OSError):
            return ""
        return f"{host}:{port}"

    def close(self) -> None:
        """Close all connections, end waits. What is called from now on fails."""
        self._closed.set()
        with self._lock:
            nodes = list(self._nodes.values())
        for node in nodes:
            node.close()

    def _attempt(self, calls: Sequence[Call], once: bool = False) -> list[Reply]:
        """One try of all calls."""
        if self._slots is None:
            try:
                node = self._node(self._target.endpoints[0])
                return self._confirmed(node.send([*calls, *self._epilogue], once=once).replies())
            except (RedisError, OSError) as error:
                return [error] * len(calls)
        replies: list[Reply] = [None] * len(calls)
        try:
            groups = self._route(calls, self._slots)
        except (RedisError, OSError) as error:
            return [error] * len(calls)
        trips: list[tuple[list[int], Trip]] = []
        # In one order for all threads: each holds connections of several nodes while it waits for the next.
        for node, places in groups:
            try:
                part = [calls[place] for place in places]
                trips.append((places, node.send(part + self._epilogue, once=once)))
            except (RedisError, OSError) as error:
                for place in places:
                    replies[place] = error
        try:
            for places, trip in self._as_answered(trips):
                try:
                    found = self._confirmed(trip.replies())
                except (RedisError, OSError) as error:
                    found = [error] * len(places)
                for place, reply in zip(places, found):
                    replies[place] = reply
        except BaseException:
            for _, trip in trips:
                trip.abandon()
            raise
        for places, trip in trips:
            for place in places:
                replies[place] = trip.time_out()
        return replies

    def _as_answered(self, trips: list[tuple[list[int], Trip]]) -> Iterator[tuple[list[int], Trip]]:
        """Takes the trips out of the list as their nodes answer, so that one that hangs keeps no connection of
        another. Those that have not answered in time stay in it."""
        deadline = time.monotonic() + self.reply_timeout
        with selectors.DefaultSelector() as selector:
            for each in trips:
                selector.register(each[1], selectors.EVENT_READ, each)
            while trips:
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if not ready:
                    return
                for key, _ in ready:
                    selector.unregister(key.fileobj)  # before its replies are read: then the socket may be closed
                    trips.remove(key.data)
                    yield key.data

    @property
    def _epilogue(self) -> list[Call]:
        """What closes every trip. WAIT covers all that this connection wrote; every script here writes, also when
        it is repeated, so a repeat waits for what the first attempt stored."""
        if self._wait_replicas is None:
            return []
        count, seconds = self._wait_replicas
        return [Call("", ("WAIT", count, max(1, int(seconds * 1000))))]

    def _confirmed(self, found: list[Reply]) -> list[Reply]:
        """The replies of a trip without that of its epilogue, which may turn them into errors."""
        if self._wait_replicas is None:
            return found
        confirmed = found.pop()
        if isinstance(confirmed, int) and confirmed >= self._wait_replicas[0]:
            return found
        count, seconds = self._wait_replicas
        unconfirmed = confirmed  # the connection broke before
        if isinstance(confirmed, (int, ResponseError)):
            unconfirmed = UnconfirmedError(f"{confirmed} of {count} replicas confirmed within {seconds:g} s")
        return [reply if isinstance(reply, Exception) else unconfirmed for reply in found]

    def _ask(self, call: Call, redirect: AskError) -> Reply:
        """The call at the node that a moving slot's key is to be asked of."""
        if self._slots is None:
            return redirect
        node = self._node(self._slots.at((redirect.host, redirect.port)))
        try:
            for each in (call, call.in_full()):
                reply = self._confirmed(node.send([Call("", _ASKING), each, *self._epilogue]).replies())[1]
                if not isinstance(reply, NoScriptError):
                    break
            return reply
        except (RedisError, OSError) as error:
            return error

    def _route(self, calls: Sequence[Call], slots: SlotMap) -> Iterable[tuple[Node, list[int]]]:
        groups: dict[Endpoint, list[int]] = {}
        for place, call in enumerate(calls):
            groups.setdefault(slots.find(call.key), []).append(place)
        return [(self._node(endpoint), groups[endpoint]) for endpoint in sorted(groups, key=lambda e: e.address)]

    def _node(self, endpoint: Endpoint) -> Node:
        node = self._nodes.get(endpoint)  # a dict is read atomically
        if node is None:
            with self._lock:
                node = self._nodes.get(endpoint)
                if node is None:
                    node = self._nodes[endpoint] = Node(
                        endpoint, self.reply_timeout, self._connections, self._reached
                    )
                    if self._closed.is_set():
                        node.close()
        return node

    def recover(self) -> None:
        """After a failure: see whether slots have moved."""
        if self._slots is not None:
            with contextlib.suppress(RedisError, OSError):
                self._slots.refresh()

    def _is_nobody_there(self, failed: Iterable[Reply]) -> bool:
        """Whether no server was ever there, and these say that none is."""
        known = self._reached.is_set() or (self._slots is not None and self._slots.has_answered)
        return not known and all(map(is_refused, failed))

    def _drop_idle(self) -> None:
        """After a failure connections made before are suspect."""
        with self._lock:
            nodes = list(self._nodes.values())
        for node in nodes:
            node.drop_idle()
