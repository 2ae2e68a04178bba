"""What the recipes' tests share: packages that may be missing, a place for each test, viewers in threads."""

from __future__ import annotations

import contextlib
import http.client
import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

import pytest
import werkzeug.serving

from resumable_sync import sse

from ..support import PATIENCE, Process, wait_until

APPS = "tests.recipes.apps"
T = TypeVar("T")


def need(*packages: str) -> None:
    """Skip the module where a package is missing, and say so; fail where everything must run."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            problem = f"the recipe with {package} NOT TESTED: install the extra: ci"
            if os.environ.get("CI", "").lower() == "true":
                pytest.fail(problem)
            pytest.skip(problem)


class Place:
    """Where one test's processes meet: a directory, which the environment names, a store, perhaps a broker."""

    def __init__(self, directory: Path, streams: str = "", broker: str = "") -> None:
        self.directory = directory
        self.streams = streams or f"sqlite:///{directory}/streams.db"
        self._environment = {"PLACE": str(directory), "STREAMS": self.streams, "BROKER": broker}

    @contextlib.contextmanager
    def environment(self, **more: str) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {**self._environment, **more}.items():
                patch.setenv(name, value)
            yield

    @contextlib.contextmanager
    def application(self, name: str, context: str = "", **more: str) -> Iterator[Any]:
        """An application imported anew, as in a process of its own; `context` names the module that has it."""
        own = f"{APPS}.{name.partition('.')[0]}"
        for each in [each for each in sys.modules if each == own or each.startswith(own + ".")]:
            del sys.modules[each]
        with self.environment(**more):
            module = importlib.import_module(f"{APPS}.{name}")
            owner: Any = importlib.import_module(f"{APPS}.{context}") if context else module
        try:
            yield module
        finally:
            owner.context.close()
            owner.context.store.close()

    @contextlib.contextmanager
    def process(self, module: str, *arguments: object, **more: str) -> Iterator[Process]:
        """A process of the application, told to end at the end, so that it ends its children."""
        with self.environment(**more), Process(module, *arguments) as process:
            try:
                yield process
            finally:
                self.release()
                process.popen.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(PATIENCE / 2)

    def held(self) -> int:
        """Wait until the model pauses; the id of its process."""
        held = self.directory / "held"
        wait_until(held.exists, what="a model that pauses")
        pid = int(held.read_text())
        held.unlink()
        return pid

    def release(self) -> None:
        """Let the model go on."""
        (self.directory / "go").touch()


class Background(Generic[T]):
    """A call in a thread, begun before something that it waits for."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._result: T
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._call()
        except BaseException as error:
            self._error = error

    def result(self) -> T:
        """What the call returned, or raises."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "no answer"
        if self._error is not None:
            raise self._error
        return self._result


class Site:
    """A WSGI application on a real socket."""

    def __init__(self, application: Any) -> None:
        self._server = werkzeug.serving.make_server("127.0.0.1", 0, application, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.port = self._server.server_port

    def ask(self, method: str, path: str, body: str | None = None) -> tuple[int, bytes]:
        """Status and whole body."""
        connection = http.client.HTTPConnection("127.0.0.1", self._server.server_port, timeout=PATIENCE)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def events(self, path: str) -> tuple[str, str]:
        """The text of a stream, and how it ended."""
        status, body = self.ask("GET", path)
        assert status == 200, (status, body)
        events = list(sse.parse_events([body]))
        assert events[-1].event == "end", events
        return (
            "".join(each.data for each in events if each.event == "message"),
            json.loads(events[-1].data)["status"],
        )

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(PATIENCE)


def waits_for(context: Any, stream_id: str) -> None:
    """Wait until somebody waits for a stream that has not begun."""
    wait_until(lambda: stream_id in context._running.get().arrivals._awaited, what="a viewer that waits")
