"""The argument parser, and what every command shares: one clear line instead of a traceback."""

from __future__ import annotations

import argparse
import logging
import math
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from .._version import __version__
from ..contract import ENDINGS, MAX_WAIT, Status, check_restart
from ..errors import ResumableStreamError
from .exits import EXIT_HELP, OUTPUT_CLOSED, PROGRAM, CommandError, Exit, exit_code, say
from .location import ENVIRONMENT_VARIABLE
from .signals import Signals, Stopped
from .terminal import discard_stdout, prepare_standard_streams

# The commands that take another command after `--`, which argparse cannot show.
_USAGES = {
    "publish": "publish [options] ID [FILE | -- COMMAND ...]",
    "demo": "demo [options] [--check] [--file FILE | -- COMMAND ...]",
}

_COMMANDS = {"publish", "follow", "ls", "status", "cancel", "delete", "sweep", "check", "demo"}

_EXAMPLES = f"""\
examples:
  make 2>&1 | {PROGRAM} publish build    publish output as it comes
  {PROGRAM} publish build -- make -j8    if make fails, so does the stream
  {PROGRAM} follow build                 in any other terminal
  {PROGRAM} follow build --after CURSOR  continue where a follower stopped
  {PROGRAM} ls                           list all streams
  {PROGRAM} demo                         try it in a browser

{EXIT_HELP}
The store is a SQLite file in your state directory, unless --store or the
variable {ENVIRONMENT_VARIABLE} names another one, such as sqlite:////srv/streams.db.

An id that begins with "-" goes after "--":  {PROGRAM} status -- -x
"""

_PUBLISH_HELP = f"""\
examples:
  pg_dump shop | {PROGRAM} publish dump-7 --content-type application/sql
  {PROGRAM} publish dump-8 big.sql --ttl 3600 --metadata owner=ada
  {PROGRAM} publish build --tee --stderr -- make -j8
  {PROGRAM} publish nightly --restart error,interrupted -- ./export.sh
  {PROGRAM} publish dump-9 big.sql --continue      again, should it be killed
  {PROGRAM} publish -- -x               an id that begins with "-"

An id can be used again when its stream has expired or was deleted, or with
--restart; until then publish exits with 8. Ctrl-C, SIGTERM and SIGHUP end the
stream as interrupted, after everything read so far is stored, and end the
command; with --continue the stream goes on when the same command runs again,
and its followers wait.

A command that fails ends the stream as error; publish exits with its exit
code. If somebody cancels the stream, the command is ended or the input is
closed, and publish exits with 5. If --tee cannot write to stdout any more, it
says so once, and the stream goes on; a slow reader slows the source down.

{EXIT_HELP}"""

_FOLLOW_HELP = f"""\
examples:
  {PROGRAM} follow build
  {PROGRAM} follow dump-7 > dump.sql || echo "incomplete: $?"
  {PROGRAM} follow dump-7 --after 1843022336139264-4096 >> dump.sql
  {PROGRAM} follow tomorrow --wait 600
  {PROGRAM} follow https://example.com/answers/7 -H "Authorization: Bearer $TOKEN"

Exit code 0 means that the stream is done and every byte was written; no other
exit code does. With 4 the message tells whether the producer was stopped (by Ctrl-C,
say) or was lost: killed, or cut off. Ctrl-C stops this follower only, which then prints the cursor
to continue from.

An address is that of a response of resumable_sync.wsgi, of bytes or of events. A connection
that breaks is made anew, at the very byte. Needs the extra: client.

{EXIT_HELP}"""

_MANY_HELP = """
Instead of an ID, --prefix and the like choose many; --prefix "" chooses all.
Records that the library keeps for itself are never among them. It asks first;
without a terminal it needs --yes, or exits with 2. A stream that was begun
anew, or has ended, between the list and its turn is left as it is.
"""

_CANCEL_HELP = f"""\
examples:
  {PROGRAM} cancel build
  {PROGRAM} cancel --prefix export- --dry-run
  {PROGRAM} cancel --metadata owner=ada --yes
{_MANY_HELP}"""

_DELETE_HELP = f"""\
examples:
  {PROGRAM} delete build
  {PROGRAM} delete --prefix build- --status error,interrupted --dry-run
  {PROGRAM} delete --status done --yes
{_MANY_HELP}"""

_DEMO_HELP = f"""\
examples:
  {PROGRAM} demo
  {PROGRAM} demo --file README.md --rate 30
  {PROGRAM} demo -- sh -c 'for i in $(seq 60); do date; sleep 1; done'
  {PROGRAM} demo --check   start, cut, resume, compare, cancel
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line with `argv` (default: the program's arguments) and return the exit code.

    For the main thread of a program, at its end: it handles signals and replaces `sys.stderr`, both for good.
    Prints one line for whatever goes wrong.
    """
    prepare_standard_streams()
    signals = Signals()
    try:
        signals.install()
        code = _run(sys.argv[1:] if argv is None else list(argv), signals)
        signals.disarm()
        return code
    except Stopped as stopped:
        signals.disarm()
        discard_stdout()  # its reader may be slow
        say(f"stopped by {stopped}")
        return stopped.exit_code


def _run(argv: list[str], signals: Signals) -> int:
    verbose = False
    try:
        try:
            arguments = _parse(argv)
            verbose = arguments.verbose
            _set_up_logging(verbose)
            code: int = arguments.run(arguments, signals)
        except SystemExit as exit:  # argparse has printed what there is to say
            code = Exit.DONE if exit.code is None else int(exit.code)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        discard_stdout()
        return OUTPUT_CLOSED
    except Exception as error:
        if verbose:
            traceback.print_exc()
        if isinstance(error, (CommandError, ResumableStreamError)):
            say(str(error))
        elif isinstance(error, OSError):
            discard_stdout()
            say(f"{error.filename or 'input or output failed'}: {error.strerror or error}")
        else:
            say(f"unexpected {type(error).__name__}: {error}; run it again with --verbose for a traceback")
        return exit_code(error)


def _parse(argv: list[str]) -> argparse.Namespace:
    """Parse `argv`; `command` is what comes after the `--` that introduces a command.

    `--` also ends the options, as everywhere, for an id that begins with a dash. So where publish has no id before
    the first `--`, the id comes after it, and the command after the second.
    """
    name = next((word for word in argv if word in _COMMANDS), None)
    cut = argv.index("--") if name in _USAGES and "--" in argv else len(argv)
    arguments = _parse_words(argv[:cut])
    if name == "publish" and arguments.id is None:
        cut = argv.index("--", cut + 1) if "--" in argv[cut + 1 :] else len(argv)
        arguments = _parse_words(argv[:cut])
        if arguments.id is None:
            arguments.parser.error("ID is missing: give the stream a name")
    arguments.command = argv[cut + 1 :]
    if argv[cut:] == ["--"]:
        arguments.parser.error("there is no command after --")
    return arguments


def _parse_words(argv: list[str]) -> argparse.Namespace:
    """Parse, and allow options between ID and FILE, which argparse does not."""
    arguments, rest = build_parser().parse_known_args(argv)
    if len(rest) == 1 and arguments.run is _run_publish and arguments.file is None and rest[0][:1] != "-":
        arguments.file = rest[0]
    elif rest:
        arguments.parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return arguments


class _Parser(argparse.ArgumentParser):
    """Tells where an id goes that looks like an option, and of output that cannot be written."""

    def _print_message(self, message: str, file: Any | None = None) -> None:
        if file is sys.stdout and file is not None:
            file.write(message)  # argparse would swallow an OSError
        else:
            super()._print_message(message, file)

    def error(self, message: str) -> NoReturn:
        dashed = message.endswith("required: ID") or message.startswith("unrecognized arguments: -")
        super().error(message + '; an id that begins with "-" goes after "--"' * dashed)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    common = _Parser(add_help=False)
    # No default, which would overwrite the same option given before the command.
    _add_common(common, argparse.SUPPRESS)
    parser = _Parser(
        prog=PROGRAM,
        description="Streams that survive their connection: publish once, follow anywhere,\nresume at any byte.",
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
        command.set_defaults(run=run, parser=command)
        return command

    _add_publish(add("publish", _run_publish, "publish stdin, a file or the output of a command", _PUBLISH_HELP))
    _add_follow(add("follow", _run_follow, "write a stream to stdout", _FOLLOW_HELP))
    listing = add("ls", _run_streams("ls"), "list the streams")
    listing.add_argument("--json", action="store_true", help="print one JSON object per line")
    listing.add_argument("--count", action="store_true", help="print only how many there are")
    _add_prefix(listing, "")
    _add_status(listing)
    _add_metadata(listing)
    listing.add_argument(
        "--internal", action="store_true", help="also the records that the library keeps for itself"
    )
    single = add("status", _run_streams("status"), "show one stream")
    single.add_argument("id", metavar="ID", help="the stream to show")
    single.add_argument("--json", action="store_true", help="print a JSON object")
    for name, text, epilog in (
        ("cancel", "stop running streams, wherever their publishers run", _CANCEL_HELP),
        ("delete", "remove streams; their followers exit with 6", _DELETE_HELP),
    ):
        command = add(name, _run_streams(name), text, epilog)
        command.add_argument("id", metavar="ID", nargs="?", help=f"the stream to {name}")
        _add_prefix(command, None)
        if name == "delete":
            _add_status(command)
        else:
            command.set_defaults(status=None)
        _add_metadata(command)
        command.add_argument("--yes", action="store_true", help="do not ask first")
        command.add_argument("--dry-run", action="store_true", help=f"print what it would {name}, and how many")
    add("sweep", _run_streams("sweep"), "remove expired streams, end those of dead publishers")
    add("check", _run_streams("check"), "verify the store and every stream in it")
    _add_demo(add("demo", _run_demo, "try it in a browser, on this machine only", _DEMO_HELP))
    return parser


def _add_prefix(parser: argparse.ArgumentParser, default: str | None) -> None:
    parser.add_argument("--prefix", metavar="TEXT", default=default, help="only those whose id begins so")


def _add_status(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--status",
        type=_statuses,
        metavar="STATUS[,STATUS]",
        help="only those that stand so: streaming, done, error, cancelled, interrupted",
    )


def _add_metadata(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--metadata",
        type=_key_and_value,
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="only those with this metadata; may be repeated",
    )


def _add_common(parser: argparse.ArgumentParser, default: str | None) -> None:
    parser.add_argument(
        "--store",
        metavar="URL",
        default=default,
        help=f"the store (default: ${ENVIRONMENT_VARIABLE}, or a SQLite file)",
    )
    parser.add_argument(
        "--verbose", action="store_true", default=argparse.SUPPRESS, help="write a log and tracebacks to stderr"
    )


def _add_publish(parser: argparse.ArgumentParser) -> None:
    # Optional for argparse alone: see `_parse`.
    parser.add_argument("id", metavar="ID", nargs="?", help="1 to 256 characters of A-Z a-z 0-9 _ . : -")
    parser.add_argument("file", metavar="FILE", nargs="?", help="publish this file instead of stdin")
    parser.add_argument(
        "--ttl", type=float, metavar="SECONDS", help="keep it so long after its last byte (default: a day)"
    )
    parser.add_argument(
        "--metadata",
        type=_key_and_value,
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="keep this with the stream; may be repeated",
    )
    parser.add_argument("--content-type", metavar="TYPE", help="short for --metadata content-type=TYPE")
    parser.add_argument("--tee", action="store_true", help="also write to stdout what is published")
    parser.add_argument("--stderr", action="store_true", help="publish the command's stderr, too (as 2>&1)")
    parser.add_argument(
        "--idle-timeout",
        type=_timeout,
        metavar="SECONDS",
        help="end the stream as error when the source is silent for so long (default: never)",
    )
    parser.add_argument(
        "--restart",
        type=_endings,
        metavar="ENDING[,ENDING]",
        default=(),
        help="replace a stream of this id that has ended so: done, error, cancelled, interrupted",
    )
    parser.add_argument(
        "--continue",
        dest="continues",
        action="store_true",
        help="go on where a run of this command stopped, which had --continue too: the source gives the same bytes"
        " again, and those that are stored are skipped",
    )
    parser.add_argument(
        "--handover",
        type=_timeout,
        metavar="SECONDS",
        default=3600.0,
        help="with --continue: how long after this process is gone another run may go on (default: an hour)",
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress on a terminal")


def _add_follow(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="the stream to write, or its address: https://...")
    parser.add_argument("--after", metavar="CURSOR", default="", help="write only the bytes after this cursor")
    parser.add_argument(
        "--wait",
        type=_seconds,
        metavar="SECONDS",
        default=5.0,
        help="wait so long for a stream to begin (default: %(default)g)",
    )
    parser.add_argument(
        "-H",
        "--header",
        type=_header,
        metavar="'NAME: VALUE'",
        action="append",
        default=[],
        help="send this with each request to an address; may be repeated",
    )
    parser.add_argument(
        "--patience",
        type=_seconds,
        metavar="SECONDS",
        default=120.0,
        help="give an address up after so long without an answer (default: %(default)g)",
    )


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--check", action="store_true", help="play the story without a browser and verify it")
    parser.add_argument("--file", metavar="FILE", help="stream this file, word by word")
    parser.add_argument("--rate", type=float, default=12.0, metavar="WORDS", help="words per second (default: 12)")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=int, default=8000, help="the port (default: %(default)s; 0 takes a free one)"
    )


def _key_and_value(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not key or not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


def _header(text: str) -> tuple[str, str]:
    name, separator, value = text.partition(":")
    if not name.strip() or not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not 'NAME: VALUE'")
    return name.strip(), value.strip()


def _statuses(text: str) -> frozenset[Status]:
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if word not in {Status.STREAMING, *ENDINGS}:  # `missing` is a Status, which no stream has
            raise argparse.ArgumentTypeError(f"{word!r} is none; use streaming, {', '.join(sorted(ENDINGS))}")
    return frozenset(map(Status, words))


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MAX_WAIT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to {MAX_WAIT:g}")
    return seconds


def _timeout(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    return seconds


def _endings(text: str) -> frozenset[Status]:
    try:
        return check_restart([Status(word.strip()) for word in text.split(",")])
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of endings: done, error, cancelled, interrupted"
        ) from error


# Each command is imported when it runs: `follow` does not pay for what only `demo` needs.


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


def _set_up_logging(verbose: bool) -> None:
    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    else:
        logging.getLogger("resumable_sync").addHandler(logging.NullHandler())
