"""The pages as HTML. What is shown was written by others: `text` escapes all of it."""

from __future__ import annotations

import html
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from ..contract import ENDINGS, Status, StreamInfo

STATUSES = (Status.STREAMING, *sorted(ENDINGS))

_PAIRS_SHOWN = 3  # of a stream's metadata, in the list
_CUT = 60  # characters of them
_AS_TYPED = 'autocapitalize="off" autocomplete="off" spellcheck="false"'
_TAIL = 64 * 1024  # bytes of a long stream with which following begins


@dataclass(frozen=True)
class Filters:
    """What the list is to have."""

    prefix: str = ""
    status: Status | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    newest: bool = False
    """Those that began last come first; otherwise they are in the order of their ids."""

    def query(self, page: int = 1) -> str:
        """They, and the page, as the query of an address."""
        pairs = [("prefix", self.prefix)] if self.prefix else []
        pairs += [("status", str(self.status))] if self.status else []
        pairs += [("metadata", f"{name}={value}") for name, value in self.metadata]
        pairs += [("order", "newest")] if self.newest else []
        pairs += [("page", str(page))] if page > 1 else []
        return f"?{urlencode(pairs, errors='replace')}" if pairs else ""


@dataclass(frozen=True)
class Found:
    """One page of what was found."""

    streams: Sequence[StreamInfo]
    page: int
    per_page: int
    count: int
    whole: bool
    """Whether `count` is of all that there are."""


@dataclass(frozen=True)
class Allowed:
    """What whoever sees a stream's page may do with it."""

    follow: bool
    cancel: bool
    delete: bool


def text(value: object) -> str:
    """`value` as HTML text or as the value of an attribute. What is not printable, such as characters that turn
    the direction of the text around, is shown as an escape."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(value))
    return html.escape(shown, quote=True)


def list_page(root: str, filters: Filters, found: Found) -> str:
    """The streams that were found. `root`: the address of this page, without its query."""
    count = f"{found.count:,}" if found.whole else f"more than {found.count:,}"
    rows = "".join(_row(root, info) for info in found.streams)
    body = f"""
<form class="filters" method="get" action="{root}/">
<label>Begins with <input name="prefix" value="{text(filters.prefix)}" {_AS_TYPED}></label>
<label>Status <select name="status"><option value="">any</option>{_options(filters.status)}</select></label>
{_metadata_inputs(filters.metadata)}
<label>Order <select name="order"><option value="">by id</option><option value="newest"{
        " selected" if filters.newest else ""}>newest first</option></select></label>
<button>Show</button>
<label class="check"><input type="checkbox" id="refresh"> Refresh</label>
</form>
<section id="streams" aria-live="off">
<p class="count">{_range(found)} of {count} stream{'' if found.count == 1 and found.whole else 's'}</p>
<ul class="rows">{rows}</ul>
{_paging(root, filters, found)}
</section>"""
    return _page(root, "Streams", body)


def list_document(found: Found) -> str:
    """The same as JSON, for pages of one's own."""
    streams = [
        {
            "id": info.stream_id,
            "status": info.status.value,
            "size": info.size,
            "entries": info.entries,
            "created_at": info.created_at,
            "updated_at": info.updated_at,
            "finished_at": info.finished_at,
            "shared": info.shared,
            "producer_alive": info.producer_alive,
            "metadata": dict(info.metadata),
        }
        for info in found.streams
    ]
    return json.dumps({"count": found.count, "whole": found.whole, "page": found.page, "streams": streams})


def stream_page(root: str, info: StreamInfo, allowed: Allowed) -> str:
    """One stream."""
    body = f"""
<p class="crumbs"><a href="{root}/">All streams</a></p>
<h2 class="id">{text(info.stream_id)} {_pill(info.status)}</h2>
{_actions(root, info, allowed)}
{_output(root, info) if allowed.follow else ''}
<h3>Details</h3>
{_table(_details(info))}
{f'<h3>Metadata</h3>{_table([*info.metadata.items()])}' if info.metadata else ''}
{f'<h3>Notes</h3>{_table([*info.notes.items()])}' if info.notes else ''}"""
    return _page(root, info.stream_id, body)


def message_page(root: str, title: str, message: str) -> str:
    """A page that says what is wrong."""
    return _page(
        root, title, f'<h2>{text(title)}</h2><p>{text(message)}</p><p><a href="{root}/">All streams</a></p>'
    )


def _page(root: str, title: str, body: str) -> str:
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{text(title)}</title>
<link rel="icon" href="{root}/inspector.svg" type="image/svg+xml">
<link rel="stylesheet" href="{root}/inspector.css">
<script src="{root}/inspector.js" defer></script>
</head>
<body>
<header><h1><a href="{root}/">Streams</a></h1></header>
<main>{body}
</main>
</body>
</html>
"""


def _address(root: str, name: str, stream_id: str) -> str:
    # In the query: browsers would take "." and "..", which are good ids, out of a path.
    return f"{root}/{name}?{text(urlencode({'id': stream_id}))}"


def _options(chosen: Status | None) -> str:
    return "".join(f"<option{' selected' if each is chosen else ''}>{text(each)}</option>" for each in STATUSES)


def _metadata_inputs(pairs: Sequence[tuple[str, str]]) -> str:
    values = [f"{name}={value}" for name, value in pairs] or [""]
    return "".join(
        f'<label>Metadata <input name="metadata" placeholder="key=value" value="{text(value)}" '
        f"{_AS_TYPED}></label>"
        for value in values
    )


def _row(root: str, info: StreamInfo) -> str:
    pairs = list(info.metadata.items())
    shown = "".join(
        f'<span class="pair"><b>{text(name[:_CUT])}</b> {text(value[:_CUT])}{"…" * (len(value) > _CUT)}</span>'
        for name, value in pairs[:_PAIRS_SHOWN]
    )
    more = f'<span class="pair">+{len(pairs) - _PAIRS_SHOWN}</span>' if len(pairs) > _PAIRS_SHOWN else ""
    orphan = info.status is Status.STREAMING and not info.producer_alive and not info.shared
    return (
        f'<li><a class="id" href="{_address(root, "stream", info.stream_id)}">{text(info.stream_id)}</a>'
        f'{_pill(info.status)}<span class="size">{_bytes(info.size)}</span>'
        f'<span class="when">{_ago(info.updated_at)}</span>'
        f'<span class="pairs">{shown}{more}{"<span class=pair>no producer</span>" if orphan else ""}</span></li>'
    )


def _range(found: Found) -> str:
    if not found.streams:
        return "None"
    first = (found.page - 1) * found.per_page + 1
    return f"{first:,} to {first + len(found.streams) - 1:,}"


def _paging(root: str, filters: Filters, found: Found) -> str:
    last = max(1, -(-found.count // found.per_page))
    links = []
    if found.page > 1:
        links.append(f'<a rel="prev" href="{root}/{text(filters.query(min(found.page - 1, last)))}">Previous</a>')
    if found.page < last:
        links.append(f'<a rel="next" href="{root}/{text(filters.query(found.page + 1))}">Next</a>')
    return f'<nav class="paging">Page {found.page:,} of {last:,} {" ".join(links)}</nav>' if links else ""


def _pill(status: Status) -> str:
    return f'<span class="pill {text(status)}">{text(status)}</span>'


def _actions(root: str, info: StreamInfo, allowed: Allowed) -> str:
    forms = ""
    if allowed.cancel and info.status is Status.STREAMING:
        forms += _form(root, "cancel", info, "Cancel…", "Its producer is stopped; what is stored stays.")
    if allowed.delete:
        forms += _form(root, "delete", info, "Delete…", "All of it is removed, and its viewers are cut off.")
    return f'<div class="actions">{forms}</div>' if forms else ""


def _form(root: str, name: str, info: StreamInfo, label: str, what: str) -> str:
    return (
        f'<details><summary>{label}</summary><form method="post" action="{_address(root, name, info.stream_id)}">'
        f'<p>{what}</p><button class="danger">{name.capitalize()} it</button></form></details>'
    )


def _output(root: str, info: StreamInfo) -> str:
    begin = max(0, info.size - _TAIL)
    left_out = f"The first {_bytes(begin)} are left out. " if begin else ""
    events = f"{_address(root, 'events', info.stream_id)}&amp;after={info.generation}-{begin}"
    # A stream that is done and empty has nothing to follow, and EventSource would be told so without an ending.
    over = " data-over" if info.status is Status.DONE and not info.size else ""
    return f"""
<section class="follow">
<div class="bar" role="group" aria-label="Show as">
<label><input type="radio" name="mode" value="text" checked> Text</label>
<label><input type="radio" name="mode" value="hex"> Hex</label>
<span id="state" role="status">{"nothing is stored" if over else "needs JavaScript"}</span>
</div>
<pre id="output" tabindex="0" data-events="{events}" data-begin="{begin}"{over}></pre>
<p class="note">{left_out}Only the last 128 KiB are kept on this page.</p>
</section>"""


def _details(info: StreamInfo) -> Iterable[tuple[str, str]]:
    yield "Size", f"{_bytes(info.size)} ({info.size:,} bytes) in {info.entries:,} chunks"
    yield "Cursor", info.cursor
    yield "Created", _moment(info.created_at)
    yield "Updated", _moment(info.updated_at)
    if info.finished_at is not None:
        yield "Ended", _moment(info.finished_at)
    if info.error:
        yield "Error", info.error
    if info.shared:
        yield "Producer", "none: the stream is shared"
    elif info.status is Status.STREAMING:
        yield "Producer", "alive" if info.producer_alive else "lost"
    if info.handover:
        yield "Handover", f"{info.handover:g} s, term {info.term}"
    yield "Lives", f"{info.ttl:g} s after {'its last sign of life' if info.sliding else 'it was created'}"


def _table(pairs: Iterable[tuple[str, str]]) -> str:
    rows = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in pairs)
    return f'<dl class="table">{rows}</dl>'


def _bytes(size: int) -> str:
    if size < 1024:
        return f"{size} B"
    value, unit = size / 1024, "KiB"
    for larger in ("MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.1f} {unit}"


def _moment(seconds: float) -> str:
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(seconds))} UTC, {_ago(seconds)}"


def _ago(moment: float) -> str:
    seconds = max(0.0, time.time() - moment)
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
