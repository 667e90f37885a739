"""Where a sparse file has data, and where there is nothing but a hole. (lseek(2), SEEK_DATA)"""

from __future__ import annotations

import os
from collections.abc import Iterator


def extents(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of each piece of the first `size` bytes that holds data."""
    position = 0
    while position < size:
        try:
            position = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole is left
            return
        end = os.lseek(descriptor, position, os.SEEK_HOLE)
        yield position, end
        position = end
