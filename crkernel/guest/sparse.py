"""Where a sparse file has data, and where there is nothing but a hole. (lseek(2), SEEK_DATA)"""

from __future__ import annotations

import os
from collections.abc import Iterator


def extents(descriptor: int, size: int, position: int = 0) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of each piece that holds data, from `position` to `size`."""
    while position < size:
        try:
            position = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole is left
            return
        if position >= size:
            return
        end = min(size, os.lseek(descriptor, position, os.SEEK_HOLE))
        yield position, end
        position = end


def blocks(descriptor: int, size: int, length: int) -> Iterator[int]:
    """The offsets of aligned blocks of this length that hold data, each once."""
    after = 0
    for start, end in extents(descriptor, size):
        start = max(after, start // length * length)
        yield from range(start, end, length)
        after = -(-end // length) * length
