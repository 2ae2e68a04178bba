"""What README.md shows works: each block of Python runs, and the shell names commands that are there.

A block runs by itself. What it leaves to the reader, a store or a model, stands in `stand_ins`; then each route
that it made is asked for, and what USES names is tried.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import re
import shlex
import signal
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable, Iterator
from configparser import ConfigParser
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from flask import Flask, request
from werkzeug.serving import make_server
from werkzeug.test import TestResponse

import resumable_sync
from resumable_sync import ResumableStreamContext, Status, Store
from resumable_sync.cli.main import build_parser
from resumable_sync.wsgi import close_with_worker, resume_sse_response

from .assistant.adapters.providers import anthropic_answer, chat_answer
from .assistant.adapters.server import sse
from .javascript import cannot
from .support import ROOT, wait_until
from .wsgi.servers import serving

if TYPE_CHECKING:
    from selenium import webdriver

ID = "msg-1"
MESSAGES = [{"id": "1", "role": "user", "parts": [{"type": "text", "text": "hi"}]}]


class Block(NamedTuple):
    """A fenced block of the README."""

    heading: str
    language: str
    line: int
    text: str


def blocks() -> Iterator[Block]:
    """The blocks in the order of the README."""
    heading, text = "", (ROOT / "README.md").read_text("utf-8")
    for match in re.finditer(r"^#+ ([^\n]+)$|^( *)```(\w*)\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL):
        if match[1]:
            heading = match[1]
        else:
            line = text.count("\n", 0, match.start(4)) + 1
            yield Block(heading, match[3], line, textwrap.dedent(match[4]))


BLOCKS = list(blocks())


def of(*languages: str) -> list[Any]:
    """The blocks in these languages, as parameters."""
    return [pytest.param(each, id=f"{each.heading}, {each.line}") for each in BLOCKS if each.language in languages]


class Database:
    """Where an application keeps its chats."""

    def __init__(self) -> None:
        self.saved: dict[str, Any] = {}

    def save(self, key: str, value: object) -> None:
        self.saved[key] = value


class Celery:
    """Runs its tasks at once, in the calling thread."""

    def task(self, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            function.delay = function  # type: ignore[attr-defined]
            return function

        return decorate


def stand_ins(store: Store, context: ResumableStreamContext) -> dict[str, Any]:
    """What the blocks leave to the reader."""
    return {
        **{name: getattr(resumable_sync, name) for name in resumable_sync.__all__},
        "__name__": __name__,
        "app": Flask(__name__),
        "celery": Celery(),
        "close_with_worker": close_with_worker,
        "context": context,
        "database": Database(),
        "items": ["one", "two"],
        "model": lambda messages: ["an ", "answer"],
        "model_tokens": lambda question: ["an ", "answer"],
        "request": request,
        "resume_sse_response": resume_sse_response,
        "pages_of": lambda name, start, offset: [SimpleNamespace(number=start, text="page")],
        "owns": lambda user, chat_id: True,
        "run_the_build": lambda: [b"built"],
        "store": store,
        "sys": sys,
        "user_of": lambda environ: "somebody",
    }


def keep_the_message(names: dict[str, Any]) -> None:
    """Let the block's chat answer: both messages are kept."""
    assert ask(names["app"], "POST", "/api/chat/").status_code == 200
    names["context"].close()  # after the hooks
    question, answer = names["database"].saved[ID]
    assert question == MESSAGES[0]
    assert answer["parts"][-1]["text"] == "an answer", answer


@contextlib.contextmanager
def model_server() -> Iterator[str]:
    """What speaks the API of a model's provider; yields its address."""

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        asked = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        assert asked["stream"] and asked["messages"][-1] == {"role": "user", "content": "hi"}, asked
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        if environ["PATH_INFO"].endswith("/messages"):
            return [sse(*anthropic_answer("an answer"), named=True)]
        return [sse(*chat_answer("an answer"), done=True)]

    server = make_server("127.0.0.1", 0, application)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def end_at_sigterm(names: dict[str, Any]) -> None:
    with tempfile.TemporaryFile() as life:
        tmp = SimpleNamespace(fileno=life.fileno, notify=lambda: None)
        worker = SimpleNamespace(alive=False, ppid=os.getppid(), tmp=tmp, nr=0, max_requests=10, sockets=[])
        names["post_worker_init"](worker)
    assert signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, signal.SIG_IGN)


USES: dict[str, Callable[[dict[str, Any]], None]] = {
    "save": keep_the_message,
    "post_worker_init": end_at_sigterm,
}


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The stand-ins, in a directory of their own; whatever a block opens is closed."""
    monkeypatch.chdir(tmp_path)
    store = resumable_sync.MemoryStore()
    handler = signal.getsignal(signal.SIGTERM)
    own = stand_ins(store, ResumableStreamContext(store))
    found = dict(own)
    yield found
    signal.signal(signal.SIGTERM, handler)
    for context in (found["context"], own["context"]):
        context.close()
        with contextlib.closing(context.store):
            pass


@pytest.mark.parametrize("block", of("python", "py"))
def test_python(block: Block, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    given = set(names)
    with contextlib.ExitStack() as stack:
        if "from openai" in block.text:
            if importlib.util.find_spec("openai") is None:
                cannot("the chat with a model", "install the extra: ci")
            monkeypatch.setenv("OPENAI_BASE_URL", f"{stack.enter_context(model_server())}/v1")
            monkeypatch.setenv("OPENAI_API_KEY", "none")
        run_block(block, names, given)


def test_the_chat_with_anthropic(names: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The line that stands there as a comment, in place of the one before it."""
    if importlib.util.find_spec("anthropic") is None:
        cannot("the chat with Anthropic's model", "install the extra: ci")
    (block,) = (block for block in BLOCKS if "write_anthropic" in block.text)
    text = re.sub(r"( *)write_openai.*\n *# (write_anthropic)", r"\1\2", block.text)
    text = text.replace("OpenAI", "Anthropic").replace("openai", "anthropic")
    given = set(names)
    with model_server() as url:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "none")
        run_block(block._replace(text=text), names, given)


def test_the_first_application_survives_a_reload(names: dict[str, Any], browser: webdriver.Chrome) -> None:
    block = next(block for block in BLOCKS if block.heading == "Five minutes" and block.language == "python")
    exec(block.text, names)
    with serving("werkzeug", names["app"]) as port:
        browser.get(f"http://127.0.0.1:{port}/")

        def shown() -> str:
            return str(browser.execute_script("return answer.textContent"))

        browser.execute_script("ask.click()")
        wait_until(lambda: "asked" in shown(), 20)
        browser.refresh()
        begun = shown()
        wait_until(lambda: shown().endswith("a reload. "), 20)
        assert shown().startswith("You asked: Why") and shown().startswith(begun) and begun != shown()
        assert shown().count("Why") == 1
        browser.get("about:blank")


def run_block(block: Block, names: dict[str, Any], given: set[str]) -> None:
    exec(compile("\n" * (block.line - 1) + block.text, "README.md", "exec"), names)
    answers = {each: ask(names["app"], *each) for each in routes(names["app"])}
    assert all(answer.status_code < 500 for answer in answers.values()), answers
    if answers:  # whatever else there is, such as the routes of a blueprint for other methods and paths
        (method, _), first = next(iter(answers.items()))
        assert method == "POST" and first.status_code == 200, answers
        assert "answer" in first.text, first.text
    for name in set(names) - given:
        if name in USES:
            USES[name](names)


def routes(app: Flask) -> list[tuple[str, str]]:
    """Method and path: what makes a stream first, then what resumes it."""
    found = []
    for rule in app.url_map.iter_rules():
        if rule.endpoint != "static":
            path = re.sub("<[^>]+>", ID, rule.rule)
            found += [(method, path) for method in ("POST", "GET") if method in (rule.methods or ())]
    return sorted(found, key=lambda each: each[0], reverse=True)


def ask(app: Flask, method: str, path: str) -> TestResponse:
    """The whole answer to what a chat sends; a block that takes text takes it as such."""
    answer = app.test_client().open(path, method=method, json={"id": ID, "messages": MESSAGES})
    answer.get_data()
    return answer


WORDS = {"make"}
"""Programs in the examples that are not ours."""


@pytest.mark.parametrize("block", of("sh", "bash"))
def test_shell(block: Block) -> None:
    """Commands and options exist, modules can be found, extras are declared."""
    for command in commands(block.text):
        program, *arguments = command
        if program.startswith(".venv/bin/"):
            program = program.removeprefix(".venv/bin/")
        if program == "resumable-sync":
            build_parser().parse_args(arguments[: arguments.index("--")] if "--" in arguments else arguments)
        elif program in ("python", "python3"):
            check_python(*arguments)
        else:
            assert program in WORDS, command


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command in a block."""
    for line in text.splitlines():
        lexer = shlex.shlex(line.replace("2>&1", ""), posix=True, punctuation_chars="&|;")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("&|;"):
                if words:
                    yield words
                words = []
            else:
                words.append(word)


def check_python(*arguments: str) -> None:
    option, module, *rest = arguments
    assert option == "-m" and importlib.util.find_spec(module) is not None, arguments
    for extra in re.findall(r"\[(.*)\]", " ".join(rest)):
        config = ConfigParser()
        config.read(ROOT / "setup.cfg")
        assert extra in config["options.extras_require"], arguments


def test_there_are_blocks() -> None:
    assert len(of("python")) >= 5 and len(of("sh")) >= 2
    assert all(any(f"def {name}(" in block.text for block in BLOCKS) for name in USES)  # else nobody tries them
    assert {block.language for block in BLOCKS} <= {"python", "sh", "js", "", "text"}


def test_paths_exist() -> None:
    """Files that the README names."""
    text = (ROOT / "README.md").read_text("utf-8")
    for path in re.findall(r"`((?:resumable_sync|tests|benchmarks)/[\w./-]*)`|\]\(([\w./-]+)\)", text):
        assert (ROOT / "".join(path)).exists(), path


def test_every_module_has_its_place() -> None:
    """The tree of "How it is built" names each module, but for those of folders that it names as a whole."""
    text = (ROOT / "README.md").read_text("utf-8")
    tree = text.split("## How it is built")[1].split("```")[1]
    named = set(re.findall(r"\w+", tree))
    for folder in ("", "stores", "stores/sqlite", "stores/redis", "wsgi", "assistant"):
        modules = {path.stem for path in (ROOT / "resumable_sync" / folder).glob("[!_]*.py")}
        assert modules <= named, folder


def test_modules_exist() -> None:
    """Names that the README gives with a dot: `resumable_sync.testing.StoreContract`."""
    text = (ROOT / "README.md").read_text("utf-8")
    for name in re.findall(r"`(resumable_sync(?:\.\w+)+)`", text):
        module, _, last = name.rpartition(".")
        parent = importlib.import_module(module)
        found = importlib.util.find_spec(name) if hasattr(parent, "__path__") else None
        assert found is not None or hasattr(parent, last), name


def test_the_statuses_are_those_of_the_contract() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert all(f"`{status.value}`" in text for status in Status if status.ended)
