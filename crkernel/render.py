"""Timelines and settings as text for consoles and as HTML for notebooks; pure.

The tree is drawn like `git log --graph`, but oldest first. The main line of a tree, which leads to
the head (else to the newest checkpoint), stays flat at the left however long it is; branches off it
are indented and come first:

        ○ 0       a root
        ● 1
        ├─● 2     2 and 3 are a branch that was left by a rewind to 1
        │ ● 3
    →   ● 4       the head, which follows 1
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape

from crkernel.checkpoint import Checkpoint, Cost
from crkernel.timeline import Timeline

ROWS = 200
"""How many rows of a timeline are shown unless all are asked for."""

BY_ITSELF = "(the guest went on by itself)"
FRESH = "(fresh guest)"


@dataclass(frozen=True, slots=True)
class Row:
    """One checkpoint of a drawn timeline; `graph` ends with the dot, all texts are plain."""

    graph: str
    key: str
    labels: str
    age: str
    took: str
    cost: str
    code: str
    reason: str
    failed: bool
    head: bool

    @property
    def mark(self) -> str:
        """✗ for what cannot be rewound to, ! after an error of the cell."""
        return "✗" if self.reason else "!" if self.failed else " "


# -- quantities --------------------------------------------------------------------------------


def span(seconds: float) -> str:
    """A length of time in words: "14 ms", "3.2 s", "2 min 5 s", "3 h 20 min", "2 d 4 h"."""
    seconds = max(0.0, seconds)
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.00095 else f"{seconds * 1000:.1f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, name, below, part in ((60, "min", 1, "s"), (3600, "h", 60, "min")):
        if whole < unit * (60 if name == "min" else 24):
            rest = whole % unit // below
            return f"{whole // unit} {name}" + (f" {rest} {part}" if rest else "")
    rest = whole % 86400 // 3600
    return f"{whole // 86400} d" + (f" {rest} h" if rest else "")


def age(seconds: float) -> str:
    """How long ago, in one unit: "3 s", "12 min", "5 h", "2 d". A clock set back gives "0 s"."""
    whole = int(max(0.0, seconds))
    for unit, name, limit in ((1, "s", 60), (60, "min", 3600), (3600, "h", 86400)):
        if whole < limit:
            return f"{whole // unit} {name}"
    return f"{whole // 86400} d"


def size(amount: int) -> str:
    """Bytes in decimal units: "512 B", "1.2 MB", "340 MB"."""
    if amount < 1000:
        return f"{amount} B"
    value = float(amount)
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 999.5:
            return f"{value:.1f} {unit}" if value < 9.95 else f"{value:.0f} {unit}"
    return f"{value / 1000:.1f} TB"


def cost(spent: Cost | None) -> str:
    """What a checkpoint cost: the time of its dump and the bytes that it takes."""
    return "" if spent is None else f"{span(spent.dump)}, {size(spent.memory + spent.files)}"


# -- text that fits ----------------------------------------------------------------------------


def _plain(text: str) -> str:
    """One line without anything that could move the cursor or turn the direction of writing."""
    return "".join(c if c.isprintable() else " " for c in text.expandtabs(4)).strip()


def _wide(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _columns(text: str) -> int:
    """How many columns of a terminal the text takes."""
    return len(text) if text.isascii() else sum(map(_wide, text))


def _cut(text: str, width: int) -> str:
    """The text, shortened with "…" to at most `width` columns."""
    if _columns(text) <= width:
        return text
    room = width - 1
    kept = ""
    for char in text:
        room -= _wide(char)
        if room < 0:
            break
        kept += char
    return kept.rstrip() + "…"


def _first_line(checkpoint: Checkpoint) -> str:
    """What led to this state, in one line; "…" says that there is more."""
    if checkpoint.code is None:
        return BY_ITSELF if checkpoint.is_later else FRESH if checkpoint.parent is None else ""
    lines = [line for line in map(_plain, checkpoint.code.splitlines()) if line]
    if not lines:
        return ""
    return lines[0] + (" …" if len(lines) > 1 else "")


# -- the tree ----------------------------------------------------------------------------------


def _drawn(timeline: Timeline) -> Iterator[tuple[str, str]]:
    """(graph, key) of each checkpoint as drawn; without recursion, since chains are deep."""
    spine = set(timeline.path(timeline.head)) if timeline else set()
    stack = [("", "○", root) for root in reversed(timeline.roots)]
    while stack:
        left, dot, key = stack.pop()
        yield left + dot, key
        indent = left + ("│ " if dot == "├─●" else "")
        children = list(timeline.children(key))
        if not children:
            continue
        main = next((child for child in children if child in spine), children[-1])
        children.remove(main)
        stack.append((indent, "●", main))
        stack.extend((indent, "├─●", child) for child in reversed(children))


def rows(timeline: Timeline, now: float) -> list[Row]:
    """All rows of the drawing; `now` in seconds since 1970."""
    names: dict[str, list[str]] = {}
    for name, key in timeline.labels.items():
        names.setdefault(key, []).append(name)
    drawn = []
    for graph, key in _drawn(timeline):
        checkpoint = timeline.get(key)
        drawn.append(
            Row(
                graph=graph,
                key=key,
                labels=", ".join(sorted(names.get(key, ()))),
                age=age(now - checkpoint.created),
                took="" if checkpoint.code is None else span(checkpoint.duration),
                cost=cost(checkpoint.cost),
                code=_first_line(checkpoint),
                reason="" if checkpoint.reason is None else _plain(checkpoint.reason) or "unknown",
                failed=checkpoint.status != "ok",
                head=key == timeline.head,
            )
        )
    return drawn


def _shown(timeline: Timeline, now: float, limit: int | None) -> tuple[list[Row], str]:
    """The last `limit` rows, and a note on those that are left out."""
    drawn = rows(timeline, now)
    left_out = 0 if limit is None else max(0, len(drawn) - limit)
    if not left_out:
        return drawn, ""
    note = f"… {left_out} more above; %timeline --all shows all"
    if any(row.head for row in drawn[:left_out]):
        note += f"; the head is {timeline.head}, above"
    return drawn[left_out:], note


_TITLES = ("", "checkpoint", "label", "age", "ran", "cost", "code")


def text(timeline: Timeline, now: float, width: int = 100, limit: int | None = ROWS) -> str:
    """The timeline for a terminal of `width` columns; `limit` None shows all rows.

    → marks the head, ✗ what cannot be rewound to (its reason may go beyond `width`), ! an error.
    """
    shown, note = _shown(timeline, now, limit)
    if not shown:
        return "no checkpoint yet"
    table = [_TITLES] + [
        (
            ("→" if row.head else " ") + row.mark,
            f"{row.graph} {row.key}",
            row.labels,
            row.age,
            row.took,
            row.cost,
            "",
        )
        for row in shown
    ]
    widths = [max(_columns(line[i]) for line in table) for i in range(len(_TITLES) - 1)]
    room = max(24, width - sum(widths) - 2 * sum(1 for w in widths if w) - 1)
    out = [note] if note else []
    for line, row in zip(table, [None, *shown], strict=True):
        fields = [
            # Quantities are aligned to the right.
            " " * (w - _columns(field)) + field if i in (3, 4) else field.ljust(w)
            for i, (field, w) in enumerate(zip(line, widths, strict=False))
            if w
        ]
        last = _TITLES[-1] if row is None else _code_and_reason(row, room)
        out.append("  ".join([*fields, last]).rstrip())
    return "\n".join(out)


def _code_and_reason(row: Row, room: int) -> str:
    """The last column: the reason is why one looks here, so the code gives way to it."""
    if not row.reason:
        return _cut(row.code, room)
    reason = f"✗ {row.reason}"
    code = _cut(row.code, max(room - _columns(reason) - 2, 12))
    return _cut(f"{code}  {reason}" if code else reason, max(room, 60))


# -- HTML --------------------------------------------------------------------------------------

_FONT = "font-family:var(--jp-code-font-family,monospace);white-space:pre;"
_CELL = "text-align:left;vertical-align:baseline;padding:0 1em 0 0;border:0;"
_DIM = "color:var(--jp-ui-font-color2,GrayText);"
_BAD = "color:var(--jp-error-color1,#d32f2f);"
_HEAD = "color:var(--jp-brand-color1,#1976d2);font-weight:bold;"
_TABLE = (
    "border-collapse:collapse;border:0;margin:0;line-height:1.3;table-layout:auto;"
    "font-size:var(--jp-code-font-size,13px);color:var(--jp-ui-font-color1,inherit);"
)
# The code takes what the other columns leave and is cut there: no line makes the table wider.
_REST = "width:100%;max-width:0;overflow:hidden;text-overflow:ellipsis;"
_WRAPPED = "white-space:pre-wrap;overflow-wrap:anywhere;"
_RIGHT = "text-align:right;white-space:nowrap;"
# Front ends stripe rows and shade them under the mouse, which would cut through the tree.
_ROW = "background:transparent;"


def _td(content: str, style: str = "", *, tag: str = "td", title: str = "") -> str:
    tip = f' title="{escape(title)}"' if title else ""
    return f'<{tag} style="{_CELL}{style}"{tip}>{content}</{tag}>'


def _line(cells: list[str]) -> str:
    return f'<tr style="{_ROW}">{"".join(cells)}</tr>'


def html(timeline: Timeline, now: float, limit: int | None = ROWS) -> str:
    """The timeline as one table with its style inside, for light and dark themes alike."""
    shown, note = _shown(timeline, now, limit)
    if not shown:
        return f'<div style="{_DIM}">no checkpoint yet</div>'
    titles = [
        _td(title, _DIM + "font-weight:normal;" + _RIGHT * (title in ("age", "ran")), tag="th")
        for title in _TITLES[1:]
    ]
    lines = [_line(titles)] + [_line(_html_cells(row)) for row in shown]
    above = f'<div style="{_DIM}">{escape(note)}</div>' if note else ""
    return f'<div>{above}<table style="{_TABLE}width:100%;">{"".join(lines)}</table></div>'


def _html_cells(row: Row) -> list[str]:
    mark = ("→" if row.head else " ") + row.mark
    style = _HEAD if row.head else _BAD if row.reason else ""
    tree = f'{mark} <span style="{_DIM}">{row.graph[:-1]}</span>'
    # nbconvert shortens what is nothing but blanks.
    tree = tree.replace("  ", "&nbsp;&nbsp;")
    key = f'<span style="{style}">{row.graph[-1]} {escape(row.key)}</span>'
    line = _cut(row.code, 300)
    code = escape(line)
    if row.code in (BY_ITSELF, FRESH):
        code = f'<span style="{_DIM}">{code}</span>'
    if row.reason:
        code = f'{escape(_cut(line, 40))}  <span style="{_BAD}">✗ {escape(row.reason)}</span>'
    right = _DIM + _RIGHT
    return [
        _td(tree + key, _FONT, title="the head: the live guest continues from here" * row.head),
        _td(escape(row.labels), "font-weight:bold;"),
        _td(row.age, right),
        _td(row.took, right),
        _td(row.cost, _DIM + "white-space:nowrap;"),
        _td(
            code, _FONT + _REST + _WRAPPED * bool(row.reason), title=row.code * (len(row.code) > 40)
        ),
    ]


# -- settings and states -----------------------------------------------------------------------

Sections = Mapping[str, object]
"""Title -> (name -> value); a value that stands where a section could comes under no title."""


def _value(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(map(_value, value)) or "–"
    if isinstance(value, float):
        return f"{value:g}"
    return _plain(str(value)) or "–"


def _sections(data: Sections) -> list[tuple[str, list[tuple[str, str]]]]:
    loose = [(name, _value(v)) for name, v in data.items() if not isinstance(v, Mapping)]
    titled = [
        (title, [(str(name), _value(value)) for name, value in section.items()])
        for title, section in data.items()
        if isinstance(section, Mapping)
    ]
    return [("", loose)] * bool(loose) + titled


def status_text(data: Sections) -> str:
    """Sections of names and values, aligned over all sections."""
    sections = _sections(data)
    width = max((_columns(name) for _, pairs in sections for name, _ in pairs), default=0)
    out: list[str] = []
    for title, pairs in sections:
        out += [title] * bool(title)
        indent = "  " if title else ""
        out += [
            f"{indent}{name}{' ' * (width - _columns(name) + (2 if title else 4))}{value}"
            for name, value in pairs
        ]
    return "\n".join(out)


def status_html(data: Sections) -> str:
    """The same as one table with its style inside."""
    lines: list[str] = []
    for title, pairs in _sections(data):
        if title:
            style = f"{_CELL}font-weight:bold;padding-top:.4em;"
            lines.append(_line([f'<th colspan="2" style="{style}">{escape(title)}</th>']))
        for name, value in pairs:
            lines.append(_line([_td(escape(name), _DIM + _FONT), _td(escape(value), _FONT)]))
    return f'<table style="{_TABLE}">{"".join(lines)}</table>'
