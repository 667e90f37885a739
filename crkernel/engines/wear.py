"""Tells when a guest is worn: when so much of its memory is its own that a twin would pay.

Each dump holds all pages that the guest has written to since it came up. With every cell that is a
little more, until each of its dumps takes twice the time of the first. Its twin, the guest that its
newest checkpoint restores, has them in a memory file instead; but the next cell may have to wait
for that. So, as with skis: rent until the rent would have bought a pair. Whatever cells do, all
swaps together then cost no more than what the dumps had in excess.
"""

from __future__ import annotations

_SWAP = 80 << 20
"""Bytes that dumps could have written in the time of a swap (some 60 ms)."""
_PER_BYTE = 2
"""And in the time that it takes to move one byte into a memory file."""


class Wear:
    """Of one guest, by what its dumps hold."""

    def __init__(self, least: int | None = None) -> None:
        """`least` is what a dump of its twin may hold; else its own first one tells."""
        self._least = least
        self._newest = 0
        self._excess = 0

    def add(self, size: int) -> None:
        """A dump of so many bytes was written."""
        self._least = size if self._least is None else min(size, self._least)
        self._newest = size
        self._excess += size - self._least

    @property
    def is_worn(self) -> bool:
        """Whether its dumps have cost as much as a swap would."""
        return self._excess > _SWAP + _PER_BYTE * self._newest

    def forgive(self) -> None:
        """A swap is tried: another one would have to be paid for as well."""
        self._excess = 0
