"""`ls`, `status`, `cancel`, `delete`, `sweep` and `check`: what is in the store, and its care."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Collection

from ..contract import Maintenance, Status, Store, StreamInfo
from .exits import CommandError, Exit, say
from .location import named_store
from .progress import human_bytes
from .terminal import printable


def ls(arguments: argparse.Namespace) -> int:
    """List the streams; returns the exit code."""
    with named_store(arguments.store) as store:
        streams = store.streams(
            prefix=arguments.prefix,
            status=arguments.status,
            metadata=_metadata(arguments),
            internal=arguments.internal,
        )
        if arguments.count:
            print(sum(1 for _ in streams))
            return Exit.DONE
        if arguments.json:
            for info in streams:
                print(json.dumps(_as_json(info)))
            return Exit.DONE
        # Printed at the end, when the width of each column is known.
        rows = [
            (printable(info.stream_id), str(info.status), human_bytes(info.size), _ago(info.updated_at))
            for info in streams
        ]
    widths = [max(map(len, column)) for column in zip(("ID", "STATUS", "SIZE"), *(row[:3] for row in rows))]
    for row in [("ID", "STATUS", "SIZE", "UPDATED"), *rows] if rows else []:
        print(f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}")
    return Exit.DONE


def status(arguments: argparse.Namespace) -> int:
    """Show one stream; returns the exit code."""
    with named_store(arguments.store) as store:
        info = store.info(arguments.id)
    if info is None:
        raise _missing(arguments.id)
    details = _as_json(info)
    if arguments.json:
        print(json.dumps(details))
        return Exit.DONE
    if not info.shared:
        del details["shared"]
        if not info.handover:
            del details["handover"], details["term"]
    if info.sliding:
        del details["sliding"]
    for name, value in details.items():
        if value is None or value == {}:
            continue
        if name in ("ttl", "handover"):
            value = f"{value:g} s"
        elif isinstance(value, float):
            value = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
        elif isinstance(value, dict):
            value = ", ".join(f"{key}={text}" for key, text in value.items())
        elif isinstance(value, bool):
            value = "yes" if value else "no"
        print(f"{name.replace('_', ' '):<15} {printable(str(value))}")
    return Exit.DONE


def cancel(arguments: argparse.Namespace) -> int:
    """Stop a running stream, or many; returns the exit code."""
    if arguments.id is None:
        return _many(arguments, "cancel", "cancelled", lambda store: store.cancel, {Status.STREAMING})
    _check_single(arguments)
    with named_store(arguments.store) as store:
        if store.cancel(arguments.id):
            say(f"stream {arguments.id} is cancelled")
            return Exit.DONE
        ending = store.status(arguments.id)
    if ending is Status.MISSING:
        raise _missing(arguments.id)
    say(f"stream {arguments.id} has already ended: {ending}")
    return Exit.DONE if ending is Status.CANCELLED else Exit.FAILED


def delete(arguments: argparse.Namespace) -> int:
    """Remove a stream, or many; returns the exit code."""
    if arguments.id is None:
        return _many(arguments, "delete", "deleted", lambda store: store.delete, arguments.status)
    _check_single(arguments)
    with named_store(arguments.store) as store:
        if not store.delete(arguments.id):
            raise _missing(arguments.id)
    say(f"stream {arguments.id} is deleted")
    return Exit.DONE


def _check_single(arguments: argparse.Namespace) -> None:
    if _selects(arguments) or arguments.dry_run:
        arguments.parser.error("name one ID, or choose streams by --prefix or the like; not both")


def _selects(arguments: argparse.Namespace) -> bool:
    return arguments.prefix is not None or arguments.status is not None or bool(arguments.metadata)


def _many(
    arguments: argparse.Namespace,
    verb: str,
    done: str,
    act: Callable[[Store], Callable[[str], bool]],
    statuses: Collection[Status] | None,
) -> int:
    """Do it to all that were chosen, after a question. Records that the library keeps for itself are never among
    them."""
    if not _selects(arguments):
        arguments.parser.error("name one ID, or choose streams by --prefix or the like")
    metadata = _metadata(arguments)
    with named_store(arguments.store) as store:
        chosen = list(store.streams(prefix=arguments.prefix or "", status=statuses, metadata=metadata))
        if arguments.dry_run:
            for info in chosen:
                print(f"{printable(info.stream_id)}  {info.status}")
            say(f"{_streams(len(chosen))} would be {done}")
            return Exit.DONE
        if not chosen:
            say(f"no stream is chosen; nothing is {done}")
            return Exit.DONE
        if not arguments.yes and not _agreed(arguments, f"{verb} {_streams(len(chosen))}", chosen):
            say(f"nothing is {done}")
            return Exit.FAILED
        changed = acted = 0
        try:
            for info in chosen:
                # Somebody may have answered an hour ago: what was begun anew, or stands otherwise by now, is kept.
                now = store.info(info.stream_id)
                same = now is not None and now.generation == info.generation
                if same and now is not None and now.status is info.status and act(store)(info.stream_id):
                    acted += 1
                else:
                    changed += 1
        except BaseException:  # the store is away, or a signal: what was done stays done
            say(f"{done} {_streams(acted)} of {len(chosen)} before it stopped")
            raise
    print(f"{done} {_streams(acted)}")
    if changed:
        say(f"{_streams(changed)} left alone: changed or gone meanwhile")
    return Exit.DONE


def _metadata(arguments: argparse.Namespace) -> dict[str, str]:
    """The pairs that were chosen by; wrong usage if no stream can have them all, rather than some dropped."""
    chosen = dict(arguments.metadata)
    if len(chosen) < len(set(arguments.metadata)):
        arguments.parser.error("--metadata names one key with two values, and no stream has both")
    return chosen


def _agreed(arguments: argparse.Namespace, question: str, chosen: list[StreamInfo]) -> bool:
    if not (sys.stdin is not None and sys.stdin.isatty()):
        arguments.parser.error(
            f"this would {question}, and there is no terminal to ask at: add --yes, or --dry-run"
        )
    names = ", ".join(printable(info.stream_id) for info in chosen[:3])
    sys.stderr.write(f"{question} ({names}{', ...' if len(chosen) > 3 else ''})? [y/N] ")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _streams(number: int) -> str:
    return f"{number} stream{'' if number == 1 else 's'}"


def sweep(arguments: argparse.Namespace) -> int:
    """Remove expired streams and end abandoned ones; returns the exit code."""
    with named_store(arguments.store) as store:
        removed = store.sweep()
    print(f"removed {removed} expired stream{'' if removed == 1 else 's'}")
    return Exit.DONE


def check(arguments: argparse.Namespace) -> int:
    """Verify the store; returns the exit code."""
    with named_store(arguments.store) as store:
        if not isinstance(store, Maintenance):
            raise CommandError(f"a {type(store).__name__} has nothing to check")
        problems = store.check()
    for problem in problems:
        print(printable(problem))
    if not problems:
        print("all streams are whole")
    return Exit.FAILED if problems else Exit.DONE


def _missing(stream_id: str) -> CommandError:
    return CommandError(f"there is no stream {stream_id}", Exit.MISSING)


def _as_json(info: StreamInfo) -> dict[str, object]:
    return {
        "id": info.stream_id,
        "status": info.status.value,
        "size": info.size,
        "entries": info.entries,
        "cursor": info.cursor,
        "created_at": info.created_at,
        "updated_at": info.updated_at,
        "finished_at": info.finished_at,
        "producer_alive": info.producer_alive,
        "shared": info.shared,
        "term": info.term,
        "handover": info.handover,
        "ttl": info.ttl,
        "sliding": info.sliding,
        "error": info.error,
        "metadata": dict(info.metadata),
        "notes": dict(info.notes),
    }


def _ago(moment: float) -> str:
    seconds = max(0.0, time.time() - moment)
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
