"""`demo`: serve the page, or play its story without a browser."""

from __future__ import annotations

import argparse
import contextlib
import errno
import http.client
import importlib.util
import tempfile
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import quote

from ..context import ResumableStreamContext
from ..contract import Store
from ..demo.answers import AnswerSource, command_source, file_source, own_text_source
from ..demo.bare import create_bare_app
from ..demo.server import DemoServer
from ..demo.story import Story, StoryError
from .exits import CommandError, Exit, check_command, say
from .location import named_store, store_url
from .signals import Signals, Stopped

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

_CHECK_RATE = 400.0  # words per second: nobody has to read along
_SIGNAL_SECONDS = 1.0  # a signal that comes just before a wait does not interrupt it, and is handled after it


def demo(arguments: argparse.Namespace, signals: Signals) -> int:
    """Run the command `demo`; returns the exit code."""
    if arguments.check:
        return _check(arguments)
    if not _has_flask():
        raise CommandError('the demo needs Flask: pip install "resumable_sync[demo]"')
    source = _source(arguments, arguments.rate)
    with named_store(arguments.store) as store:
        from ..demo.app import create_app

        app = create_app(store, source, arguments.rate)
        with _served(app, app.extensions["resumable_sync"], arguments.host, arguments.port) as url:
            print(f"{url}  streams “{source.title}” to {store_url(arguments.store)}; Ctrl-C ends it", flush=True)
            stopped = _wait_for_signal()
            say(f"stopped by {stopped}: running streams end as interrupted, and stay readable")
    return stopped.exit_code


def _wait_for_signal() -> Stopped:
    forever = threading.Event()
    while True:
        try:
            forever.wait(_SIGNAL_SECONDS)
        except Stopped as stopped:
            return stopped


def _check(arguments: argparse.Namespace) -> int:
    """Play the story on a store of its own."""
    source = _source(arguments, max(arguments.rate, _CHECK_RATE))
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="resumable-sync-demo-"))
        url = arguments.store or "sqlite:///" + quote(f"{directory}/streams.db")
        store = stack.enter_context(named_store(url))
        app, context, kind = _application(store, source)
        address = stack.enter_context(_served(app, context, "127.0.0.1", 0))
        print(f"server    {address} ({kind}), store {url}", flush=True)
        story = Story(address, source.whole, lambda line: print(line, flush=True))
        try:
            story.play()
        except (StoryError, OSError, http.client.HTTPException) as error:
            print(f"FAILED    {error}", flush=True)
            return Exit.FAILED
        print("all is well", flush=True)
        return Exit.DONE


def _application(store: Store, source: AnswerSource) -> tuple[WSGIApplication, ResumableStreamContext, str]:
    if _has_flask():
        from ..demo.app import create_app

        app = create_app(store, source)
        context: ResumableStreamContext = app.extensions["resumable_sync"]
        return app, context, "Flask"
    context = ResumableStreamContext(store)
    return create_bare_app(context, source), context, "bare WSGI: Flask is not installed"


@contextlib.contextmanager
def _served(app: WSGIApplication, context: ResumableStreamContext, host: str, port: int) -> Iterator[str]:
    """Serve `app` during the block. After it no request is taken, and running streams end as interrupted."""
    try:
        server = DemoServer(host, port, app)
    except (OSError, OverflowError) as error:
        busy = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        hint = "; --port 0 takes any free port" if busy else ""
        raise CommandError(f"cannot listen at {host}:{port}: {error}{hint}") from error
    try:
        yield server.url
    finally:
        server.close()
        context.close()


def _source(arguments: argparse.Namespace, rate: float) -> AnswerSource:
    if not rate > 0:
        raise CommandError(f"the rate must be a positive number of words per second, not {rate:g}", Exit.USAGE)
    try:
        if arguments.command:
            if arguments.file:
                raise CommandError("give a file or a command, not both", Exit.USAGE)
            check_command(arguments.command[0])
            return command_source(arguments.command)
        return file_source(arguments.file, rate) if arguments.file else own_text_source(rate)
    except ValueError as error:
        raise CommandError(str(error), Exit.USAGE) from error
    except OSError as error:
        raise CommandError(f"cannot read {arguments.file}: {error.strerror}") from error


def _has_flask() -> bool:
    return importlib.util.find_spec("flask") is not None
