"""How measurements and variables are shown, whatever a guest sends."""

from __future__ import annotations

from typing import Any

import pytest

from crkernel import measuring


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0 ns"),
        (0.5, "0.50 ns"),
        (9.994, "9.99 ns"),
        (10, "10.0 ns"),
        (999, "999 ns"),
        (1234, "1.23 µs"),
        (56_780, "56.8 µs"),
        (1e6, "1.00 ms"),
        (123.4e6, "123 ms"),
        (1.5e9, "1.50 s"),
        (3600e9, "3600 s"),
    ],
)
def test_durations_have_three_digits(ns: float, text: str) -> None:
    assert measuring.duration(ns) == text


def test_what_was_measured_is_a_line() -> None:
    heap = [1 << 20, 3 << 20]
    time = {"wall": 2e9, "user": 1e6, "system": 0, "heap": heap}
    assert measuring.line_of(time) == (
        "wall 2.00 s, CPU 1.00 ms (user 1.00 ms, system 0 ns), heap 1.0 → 3.0 MiB"
    )
    timeit = {"loops": 1000, "times": [10.0, 12.0]}
    assert measuring.line_of(timeit) == (
        "best 10.0 ns, mean 11.0 ns ± 1.41 ns (2 runs of 1,000 calls)"
    )
    one = {"loops": 1, "times": [5.0]}
    assert measuring.line_of(one) == "best 5.00 ns, mean 5.00 ns ± 0 ns (1 run of 1 call)"


@pytest.mark.parametrize(
    "measured",
    [
        None,
        {},
        {"wall": 1},
        {"wall": "x", "user": 1, "system": 1, "heap": [1, 2]},
        {"wall": 1, "user": 1, "system": 1, "heap": [1]},
        {"wall": 1, "user": 1, "system": 1, "heap": None},
        {"times": [], "loops": 1},
        {"times": ["x"], "loops": 1},
        {"times": [1.0], "loops": None},
        {"times": [1.0], "loops": float("inf")},
        {"times": 5, "loops": 1},
    ],
)
def test_what_is_no_measurement_is_not_shown(measured: Any) -> None:
    assert measuring.line_of(measured) is None


def test_variables_are_checked_and_escaped() -> None:
    rows = measuring.rows_of([{"name": "a", "type": "string", "value": "<b>"}, 5, None], 9)
    assert rows == [("a", "string", "", "<b>")]
    assert "&lt;b&gt;" in measuring.table_html(rows)
    assert measuring.table_text(rows).splitlines() == [
        "name  type    size  value",
        "a     string        <b>",
    ]
    assert measuring.rows_of("abc", 9) == measuring.rows_of(None, 9) == []


def test_a_table_is_no_wider_or_longer_than_it_may_be() -> None:
    """Each row is padded to the widest: one long value and many rows would be terabytes."""
    rows = measuring.rows_of([{"value": "x" * 10_000_000}, {"name": [[]]}] * 1_000_000, 1000)
    assert len(rows) == 1000
    assert len(measuring.table_text(rows)) < 300_000
    assert rows[1] == ("", "", "", "")
    assert measuring.names_of(["a", ["b"]]) == ["a"]
