"""What a benchmark found: repeated values, their median and quartiles, the ratio to a baseline."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

_HEADINGS = ("what", "of", "median", "quartiles", "", "n", "ratio", "aim")
_LEFT = (0, 1, 4, 7)  # columns of text; the others are numbers


@dataclass(frozen=True, slots=True)
class Row:
    """One measured thing. `ratio` is median to baseline's median; `aim` what is wanted."""

    what: str
    of: str
    values: tuple[float, ...]
    unit: str
    ratio: float | None
    aim: str
    missing: str = ""

    @property
    def median(self) -> float:
        """In `unit`."""
        return statistics.median(self.values)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The first and the third; of a single value, itself."""
        if len(self.values) == 1:
            return self.values[0], self.values[0]
        first, _, third = statistics.quantiles(self.values, n=4, method="inclusive")
        return first, third

    def cells(self) -> tuple[str, ...]:
        """As texts, in the order of the headings."""
        if self.missing:
            return (self.what, self.of, "-", self.missing, "", "", "", self.aim)
        low, high = (_number(value) for value in self.quartiles)
        spread = f"{low} - {high}" if len(self.values) > 1 else ""
        ratio = "" if self.ratio is None else f"{self.ratio:.{2 if self.ratio >= 0.1 else 3}f}x"
        count = str(len(self.values))
        return (self.what, self.of, _number(self.median), spread, self.unit, count, ratio, self.aim)


@dataclass(slots=True)
class Table:
    """Rows under a title; `note` says what one must know to read it."""

    title: str
    note: str = ""
    rows: list[Row] = field(default_factory=list)

    def add(
        self,
        what: str,
        of: str,
        values: Sequence[float],
        unit: str = "ms",
        *,
        against: Sequence[float] = (),
        aim: str = "",
    ) -> None:
        """Append a row; `against` are the values of its baseline, in the same unit."""
        ratio = None
        if against and (base := statistics.median(against)) > 0:
            ratio = statistics.median(values) / base
        self.rows.append(Row(what, of, tuple(values), unit, ratio, aim))

    def lacks(self, what: str, of: str, why: str) -> None:
        """Append a row that says why there is no value."""
        self.rows.append(Row(what, of, (), "", None, "", why))

    def text(self) -> str:
        """Plain text, in columns."""
        lines = [_HEADINGS, *(row.cells() for row in self.rows)]
        # A reason is long and stands alone in its line: it does not widen the column.
        sized = [_HEADINGS, *(row.cells() for row in self.rows if not row.missing)]
        named = [(row.what, row.of) for row in self.rows]
        widths = [max(len(line[i]) for line in sized) for i in range(len(_HEADINGS))]
        for i in (0, 1):
            widths[i] = max([widths[i], *(len(pair[i]) for pair in named)])
        drawn = []
        for line in lines:
            pieces = [
                text.ljust(width) if i in _LEFT else text.rjust(width)
                for i, (text, width) in enumerate(zip(line, widths, strict=True))
            ]
            drawn.append("  ".join(pieces).rstrip())
        note = [self.note] if self.note else []
        return "\n".join([self.title, *note, *(f"  {line}" for line in drawn)])

    def data(self) -> dict[str, Any]:
        """For JSON: with all values."""
        rows = [asdict(row) | ({} if row.missing else {"median": row.median}) for row in self.rows]
        return {"title": self.title, "note": self.note, "rows": rows}


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
