"""The argument parser, and what every command shares: one clear line instead of a traceback."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from .._version import __version__
from ..contract import MAX_WAIT
from ..errors import ResumableStreamError
from .exits import EXIT_HELP, OUTPUT_CLOSED, PROGRAM, CommandError, Exit, exit_code, say
from .location import ENVIRONMENT_VARIABLE
from .signals import Signals, Stopped

# Those that take a command behind `--`, which argparse does not know how to show.
_USAGES = {
    "publish": "publish ID [FILE | -- COMMAND ...] [options]",
    "demo": "demo [--check] [--file FILE | -- COMMAND ...] [options]",
}

_EXAMPLES = f"""\
examples:
  make 2>&1 | {PROGRAM} publish build      publish what comes in, as it comes
  {PROGRAM} publish build -- make -j8      the same, and a failing make fails the stream
  {PROGRAM} follow build                   in another terminal, or in ten: replay, then live
  {PROGRAM} follow build --after CURSOR    go on where a follower was stopped
  {PROGRAM} ls                             what there is
  {PROGRAM} demo                           the same in a browser

{EXIT_HELP}
The store is a SQLite file in the user's state directory, unless --store or
the variable {ENVIRONMENT_VARIABLE} name another, such as sqlite:////srv/streams.db.
"""

_PUBLISH_HELP = f"""\
examples:
  pg_dump shop | {PROGRAM} publish dump-7 --content-type application/sql
  {PROGRAM} publish dump-8 big.sql --ttl 3600 --metadata owner=ada
  {PROGRAM} publish build -- make -j8

The id belongs to this stream until it expires or is deleted (exit code 8 if it is taken).
Ctrl-C, SIGTERM and SIGHUP end the stream as interrupted, after everything read so far is stored.
A command that fails ends the stream as error, and its exit code becomes that of publish.
When somebody cancels the stream, publish closes its source (ends its command) and exits with 5.

{EXIT_HELP}"""

_FOLLOW_HELP = f"""\
examples:
  {PROGRAM} follow build
  {PROGRAM} follow dump-7 > dump.sql || echo "not complete: $?"
  {PROGRAM} follow dump-7 --after 1843022336139264-4096 >> dump.sql
  {PROGRAM} follow tomorrow --wait 600

Only exit code 0 means that the stream is done and every byte was written. Ctrl-C stops nothing
but this viewer; it prints the cursor to go on from.

{EXIT_HELP}"""

_DEMO_HELP = f"""\
examples:
  {PROGRAM} demo
  {PROGRAM} demo --file README.md --rate 30
  {PROGRAM} demo -- sh -c 'for i in $(seq 60); do date; sleep 1; done'
  {PROGRAM} demo --check          the story without a browser: start, cut, resume, compare, cancel
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line with `argv` (default: the program's arguments); returns the exit code.

    For the main thread of a program: it handles signals. Prints one line for whatever goes wrong.
    """
    closed_descriptors = _fill_descriptors()
    signals = Signals()
    verbose = False
    try:
        signals.install()
        arguments = _parse(sys.argv[1:] if argv is None else list(argv))
        arguments.closed_descriptors = closed_descriptors
        verbose = arguments.verbose
        _set_up_logging(verbose)
        run: Callable[[argparse.Namespace, Signals], int] = arguments.run
        code = run(arguments, signals)
        _flush_stdout()
        return code
    except Stopped as stopped:
        say(f"stopped by {stopped}")
        return stopped.exit_code
    except BrokenPipeError:
        _discard_stdout()
        return OUTPUT_CLOSED
    except OSError as error:
        if verbose:
            traceback.print_exc()
        say(str(error))
        if error.errno == errno.ENOSPC:
            _discard_stdout()
        return Exit.FAILED
    except (CommandError, ResumableStreamError) as error:
        if verbose:
            traceback.print_exc()
        say(str(error))
        return exit_code(error)
    except Exception as error:
        if verbose:
            traceback.print_exc()
        say(f"unexpected {type(error).__name__}: {error}; --verbose tells more")
        return Exit.FAILED


def _parse(argv: list[str]) -> argparse.Namespace:
    """Parse; everything behind the first `--` is a command for those that take one."""
    command: list[str] = []
    if "--" in argv:
        cut = argv.index("--")
        if any(word in argv[:cut] for word in _USAGES):
            argv, command = argv[:cut], argv[cut + 1 :]
            if not command:
                build_parser().error("there is no command behind --")
    arguments = build_parser().parse_args(argv)
    arguments.command = command
    return arguments


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    common = argparse.ArgumentParser(add_help=False)
    # Suppressed, so that an option before the command is not overwritten by the default of the same behind it.
    _add_common(common, argparse.SUPPRESS)
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Streams that survive their connection: publish once, follow anywhere, go on at any byte.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    _add_common(parser, None)
    parser.set_defaults(verbose=False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(
        name: str, run: Callable[[argparse.Namespace, Signals], int], text: str, epilog: str = ""
    ) -> argparse.ArgumentParser:
        usage = f"{PROGRAM} {_USAGES[name]}" if name in _USAGES else None
        command = commands.add_parser(
            name,
            parents=[common],
            help=text,
            description=text[:1].upper() + text[1:] + ".",
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            usage=usage,
        )
        command.set_defaults(run=run)
        return command

    _add_publish(add("publish", _run_publish, "publish stdin, a file or a command's output", _PUBLISH_HELP))
    _add_follow(add("follow", _run_follow, "write a stream to stdout", _FOLLOW_HELP))
    listing = add("ls", _run_streams("ls"), "list the streams")
    listing.add_argument("--json", action="store_true", help="one JSON object a line")
    single = add("status", _run_streams("status"), "show one stream")
    single.add_argument("id", metavar="ID")
    single.add_argument("--json", action="store_true", help="as a JSON object")
    for name, text in (
        ("cancel", "stop a running stream, wherever it is produced; what is stored stays"),
        ("delete", "remove a stream; its followers are told that it is lost"),
    ):
        add(name, _run_streams(name), text).add_argument("id", metavar="ID")
    add("sweep", _run_streams("sweep"), "remove expired streams, end those whose publishers died")
    add("check", _run_streams("check"), "verify that the store and every stream in it are whole")
    _add_demo(add("demo", _run_demo, "show it in a browser, on this machine only", _DEMO_HELP))
    return parser


def _add_common(parser: argparse.ArgumentParser, default: str | None) -> None:
    parser.add_argument(
        "--store", metavar="URL", default=default, help=f"the store (or ${ENVIRONMENT_VARIABLE}; default: a file)"
    )
    parser.add_argument(
        "--verbose", action="store_true", default=argparse.SUPPRESS, help="log to stderr, with tracebacks"
    )


def _add_publish(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="1 to 256 characters of A-Z a-z 0-9 _ . : -")
    parser.add_argument("file", metavar="FILE", nargs="?", help="instead of stdin")
    parser.add_argument("--ttl", type=float, metavar="SECONDS", help="life after the last byte (default: a day)")
    parser.add_argument(
        "--metadata",
        type=_key_and_value,
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="kept with the stream; may be repeated",
    )
    parser.add_argument("--content-type", metavar="TYPE", help="short for --metadata content-type=TYPE")
    parser.add_argument("--quiet", action="store_true", help="no progress, also on a terminal")


def _add_follow(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID")
    parser.add_argument("--after", metavar="CURSOR", default="", help="only what follows this cursor")
    parser.add_argument(
        "--wait",
        type=_seconds,
        metavar="SECONDS",
        default=5.0,
        help="wait so long for a stream that has not begun yet (default: %(default)g)",
    )


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--check", action="store_true", help="run the story without a browser, say what was seen")
    parser.add_argument("--file", metavar="FILE", help="stream this file, word by word")
    parser.add_argument("--rate", type=float, default=12.0, metavar="WORDS", help="words per second (default: 12)")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen at (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="the port (default: %(default)s; 0: any free one)")


def _key_and_value(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not key or not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds <= MAX_WAIT:
        raise argparse.ArgumentTypeError(f"must be 0 to {MAX_WAIT:g}")
    return seconds


# The commands are imported when they are run: `follow` need not pay for what only `demo` wants.


def _run_publish(arguments: argparse.Namespace, signals: Signals) -> int:
    from .publish import publish

    return publish(arguments, signals)


def _run_follow(arguments: argparse.Namespace, signals: Signals) -> int:
    from .follow import follow

    return follow(arguments, signals)


def _run_streams(name: str) -> Callable[[argparse.Namespace, Signals], int]:
    def run(arguments: argparse.Namespace, signals: Signals) -> int:
        from . import streams

        command: Callable[[argparse.Namespace], int] = getattr(streams, name)
        return command(arguments)

    return run


def _run_demo(arguments: argparse.Namespace, signals: Signals) -> int:
    from .demo import demo

    return demo(arguments, signals)


def _fill_descriptors() -> frozenset[int]:
    """Put /dev/null where stdin, stdout or stderr is closed; returns which were.

    Otherwise the store's file would get such a number, and output would be written into it.
    """
    closed = set()
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            closed.add(descriptor)
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    return frozenset(closed)


def _set_up_logging(verbose: bool) -> None:
    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    else:
        logging.getLogger("resumable_sync").addHandler(logging.NullHandler())


def _flush_stdout() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _discard_stdout() -> None:
    """Let what cannot be written go nowhere, so that the interpreter does not stumble over it at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
