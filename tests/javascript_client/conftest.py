"""The client in Node and on a page in Chromium, and a server with streams for it."""

from __future__ import annotations

import base64
import contextlib
import itertools
import random
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.serving import make_server

import resumable_sync
from resumable_sync import MemoryStore, ResumableStreamContext
from resumable_sync.demo.server import DemoServer

from ..javascript import NODE, JavaScript, cannot, started
from ..stores.redis.proxy import CuttingProxy
from ..support import wait_until
from .application import Application

SCRIPT = Path(resumable_sync.__file__).parent / "static" / "resumable.js"
QUICK = {"retryDelay": 20, "maxRetryDelay": 200}
_names = itertools.count()


class Follower:
    """A stream that a client follows, as the client sees it."""

    def __init__(self, client: Client, url: str, **options: Any) -> None:
        self.client = client
        self.name = f"followed-{next(_names)}"
        self._begin = (url, {**QUICK, **options})
        self.start()

    def start(self) -> None:
        """Once more, on a page that was loaded anew."""
        self.client.ask("start", self.name, *self._begin)

    def act(self, what: str, *given: Any) -> None:
        self.client.ask("act", self.name, what, *given)

    def seen(self) -> dict[str, Any]:
        seen = self.client.ask("seen", self.name)
        assert isinstance(seen, dict)
        return seen

    def received(self) -> bytes:
        return b"".join(base64.b64decode(chunk) for chunk in self.seen()["chunks"])

    def until_received(self, size: int) -> bytes:
        wait_until(lambda: len(self.received()) >= size, what=f"{size} bytes received")
        return self.received()

    def until_state(self, state: str) -> dict[str, Any]:
        """The first status with that state."""
        found: list[dict[str, Any]] = []

        def told() -> bool:
            found[:] = [status for status in self.seen()["statuses"] if status["state"] == state]
            return bool(found)

        wait_until(told, what=state)
        return found[0]

    def ending(self) -> dict[str, Any]:
        """The ending, told once to each who asked; an iteration returns at `done` and raises at any other."""
        wait_until(lambda: self.seen()["values"], what="an ending")
        iterated = self._begin[1].get("mode", "iterate") in ("iterate", "hasty")
        if iterated:
            wait_until(lambda: self.seen()["returned"] or self.seen()["thrown"], what="the end of the iteration")
        seen = self.seen()
        (ending,) = seen["endings"]
        assert seen["values"] == [ending] and isinstance(ending, dict)
        if iterated:
            assert (seen["returned"], seen["thrown"]) == (
                (True, None) if ending["status"] == "done" else (False, ending["status"])
            )
        return ending


class Client:
    """Where resumable.js runs."""

    kind: str

    def ask(self, function: str, *given: Any) -> Any:
        raise NotImplementedError

    def follow(self, url: str, **options: Any) -> Follower:
        return Follower(self, url, **options)


class NodeClient(Client):
    kind = "node"

    def __init__(self, driver: JavaScript) -> None:
        self._driver = driver

    def ask(self, function: str, *given: Any) -> Any:
        return self._driver.ask(function, given=given)


class PageClient(Client):
    """On a page that `load` opens; what is followed there ends with it."""

    kind = "page"

    def __init__(self, browser: Any, page: str) -> None:
        self.browser = browser
        self._page = page
        self.load()

    def load(self) -> None:
        self.browser.get(self._page)
        wait_until(lambda: self.browser.execute_script("return Boolean(window.client)"), what="the page's script")

    def ask(self, function: str, *given: Any) -> Any:
        script = "const [name, given] = arguments; return (async () => (await client[name](...given)) ?? null)()"
        return self.browser.execute_script(script, function, list(given))


class Served:
    """An application on a server of this process."""

    def __init__(self, application: Application, port: int) -> None:
        self.application = application
        self.context = application.context
        self.port = port
        self._ids = itertools.count()

    def new(self) -> str:
        """An id that no stream has."""
        return f"stream-{next(self._ids)}"

    def url(self, kind: str, name: str = "", port: int | None = None) -> str:
        return f"http://127.0.0.1:{port or self.port}/{kind}" + (f"/{name}" if name else "")


@contextlib.contextmanager
def serving(protocol: str) -> Iterator[Served]:
    """Over HTTP/1.1, where a cut is seen to be one, or HTTP/1.0, where it looks like an end."""
    with MemoryStore() as store, ResumableStreamContext(store) as context:
        application = Application(context)
        if protocol == "HTTP/1.0":
            simple = DemoServer("127.0.0.1", 0, application)
            try:
                yield Served(application, simple.server_port)
            finally:
                simple.close()
            return
        server = make_server("127.0.0.1", 0, application, threaded=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield Served(application, server.port)
        finally:
            context.close()
            server.shutdown()
            thread.join()
            server.server_close()


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving("HTTP/1.1") as found:
        yield found


@pytest.fixture(scope="module", params=["HTTP/1.0", "HTTP/1.1"])
def each_served(request: pytest.FixtureRequest, served: Served) -> Iterator[Served]:
    if request.param == "HTTP/1.1":
        yield served
        return
    with serving(request.param) as found:
        yield found


@pytest.fixture(scope="module")
def node() -> Iterator[Client]:
    """Node alone: no packages are needed."""
    if shutil.which("node") is None:
        cannot("THE JAVASCRIPT CLIENT WAS", "node is not installed")
    with started(NODE, "follow.mjs", str(SCRIPT)) as driver:
        yield NodeClient(driver)


@pytest.fixture
def page(request: pytest.FixtureRequest, served: Served) -> PageClient:
    return PageClient(request.getfixturevalue("browser"), served.url("page"))


@pytest.fixture(params=["node", pytest.param("page", marks=pytest.mark.heavy)])
def client(request: pytest.FixtureRequest) -> Client:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Client)
    return found


class Cuts:
    """Cuts replies `count` times, each after at most `apart` more pieces of random sizes; then no more."""

    def __init__(self, seed: int, count: int, apart: int) -> None:
        self._chance = random.Random(seed)
        self._lock = threading.Lock()  # guards all that follows, and _chance
        self.left = count
        self._apart = apart
        self._pieces = self._chance.randint(1, apart)

    def size(self) -> int:
        with self._lock:
            return self._chance.randint(1, 1500)

    def decide(self, kind: str, _: bytes) -> str:
        with self._lock:
            if kind == "request" or not self.left:
                return "pass"
            self._pieces -= 1
            if self._pieces:
                return "pass"
            self.left -= 1
            self._pieces = self._chance.randint(1, self._apart)
            return self._chance.choice(["cut", "pass-cut"])


@contextlib.contextmanager
def proxy(served: Served, cuts: Cuts) -> Iterator[CuttingProxy]:
    made = CuttingProxy(served.port, cuts.decide, cuts.size)
    try:
        yield made
    finally:
        made.close()
