"""How what %time, %timeit and %whos have found is shown; pure."""

from __future__ import annotations

import html
import statistics
from collections.abc import Sequence
from typing import Any

Json = dict[str, Any]
_UNITS = ((1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1.0, "ns"))
_WIDEST = 200
"""Characters of a cell of a table."""
COLUMNS = ("name", "type", "size", "value")


def line_of(measured: Json | None) -> str | None:
    """What the guest has measured, in a line; None if there is nothing, or nothing of ours."""
    try:
        if measured is None:
            return None
        return _timeit(measured) if "times" in measured else _time(measured)
    except (ArithmeticError, KeyError, TypeError, ValueError):  # what no guest of ours says
        return None


def _time(measured: Json) -> str:
    wall, user, system = (float(measured[name]) for name in ("wall", "user", "system"))
    before, after = (float(size) / (1 << 20) for size in measured["heap"])
    return (
        f"wall {duration(wall)}, CPU {duration(user + system)} (user {duration(user)}, "
        f"system {duration(system)}), heap {before:.1f} → {after:.1f} MiB"
    )


def _timeit(measured: Json) -> str:
    loops, times = int(measured["loops"]), [float(ns) for ns in measured["times"]]
    spread = statistics.stdev(times) if len(times) > 1 else 0.0
    runs = f"{len(times)} run{'s' * (len(times) != 1)} of {loops:,} call{'s' * (loops != 1)}"
    mean = statistics.fmean(times)
    return f"best {duration(min(times))}, mean {duration(mean)} ± {duration(spread)} ({runs})"


def names_of(names: Any) -> list[str]:
    """The user's names as the guest lists them."""
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def rows_of(variables: Any, most: int) -> list[tuple[str, ...]]:
    """What the guest knows of some of them, `most` at most: a tuple of COLUMNS each."""
    rows = variables[:most] if isinstance(variables, list) else []
    return [tuple(_cell(row.get(c)) for c in COLUMNS) for row in rows if isinstance(row, dict)]


def _cell(text: Any) -> str:
    """As short as the guest promises: a table pads each row to its widest."""
    if not isinstance(text, str):
        return ""
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"


def duration(ns: float) -> str:
    """Three digits and a unit."""
    scale, unit = next((pair for pair in _UNITS if ns >= pair[0]), _UNITS[-1])
    value = ns / scale
    digits = 2 if 0 < value < 10 else 1 if 10 <= value < 100 else 0
    return f"{value:.{digits}f} {unit}"


def table_text(rows: Sequence[tuple[str, ...]]) -> str:
    """Columns that are as wide as they must be."""
    lines = [COLUMNS, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    padded = ("  ".join(f"{t:<{w}}" for t, w in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(line.rstrip() for line in padded)


def table_html(rows: Sequence[tuple[str, ...]]) -> str:
    """The same as a table."""
    head = "".join(f"<th>{column}</th>" for column in COLUMNS)
    body = "".join(
        "<tr>" + "".join(f"<td><code>{html.escape(text)}</code></td>" for text in row) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
