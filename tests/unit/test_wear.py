"""When dumps have cost as much as a twin: soon after a guest grew, never where that is vain."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from crkernel.engines.wear import Wear

MB = 1 << 20


def test_a_guest_that_drifts_is_worn_after_some_dozens_of_cells() -> None:
    assert 30 < cells_until_worn(3 * MB + cell * MB // 16 for cell in itertools.count()) < 120


def test_a_guest_that_grew_at_once_is_worn_after_a_few_cells() -> None:
    assert cells_until_worn(itertools.chain([3 * MB], itertools.repeat(1000 * MB))) <= 5


def test_a_guest_whose_every_cell_writes_as_much_never_is() -> None:
    wear = Wear()
    for _ in range(10_000):
        wear.add(500 * MB)
        assert not wear.is_worn


def test_a_guest_that_was_booted_is_worn_after_a_few_cells() -> None:
    assert cells_until_worn(itertools.repeat(28 * MB), Wear(least=0)) <= 6


def test_each_try_is_paid_for() -> None:
    wear = Wear()
    wear.add(3 * MB)
    for _ in range(5):
        before = 0
        while not wear.is_worn:
            wear.add(13 * MB)
            before += 10 * MB
        assert before >= 100 * MB
        wear.forgive()


def cells_until_worn(sizes: Iterable[int], wear: Wear | None = None) -> int:
    wear = wear or Wear()
    for number, size in enumerate(sizes):
        if wear.is_worn:
            return number
        wear.add(size)
    raise AssertionError("it ended")
