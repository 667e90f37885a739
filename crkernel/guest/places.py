"""Where memory lies in files: in those that a rewritten checkpoint brings, and in others.

A checkpoint brings a file that is made for it, a `Store`, and the image of pages that it was dumped
to, an `Image`, if most of that can be mapped as it is: then no byte of it is copied.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .images import Pages, Stretch

_LONG = 4 << 20
"""A run of pages is mapped from its image if it is so long: shorter ones would cut what is mapped
in one into many mappings."""
_MOST = 7, 8
"""So much of an image has to be in such runs; the rest stays in it, and is of no use."""
_HOLE = 4 << 30
"""After each group of neighbours in a store: what goes past the shim may let the last mapping grow,
into zeros. A mapping of an image grows into what was dumped next, of the same process, and that is
as good for realloc(): nobody may expect anything of what it adds."""
_END = 64 << 30
"""After all of them: growing past the end of the file would be fatal, past other groups is not."""


@dataclass(frozen=True)
class Mapped:
    """Addresses that are mapped privately from a memory file."""

    start: int
    end: int
    path: str
    offset: int


class Store:
    """A new memory file, which is there afterwards if it was needed. Neighbours in the address
    space stay neighbours, so that the kernel can merge their mappings."""

    def __init__(self, path: str, seen_as: str) -> None:
        self.seen_as = seen_as
        self._path = path
        self._position = 0
        self._end = 0  # address where the newest piece ended

    def __enter__(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self.descriptor = os.open(self._path, flags, 0o444)

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and self._position:
            os.ftruncate(self.descriptor, self.size)
        else:
            os.unlink(self._path)
        os.close(self.descriptor)

    def place(self, start: int, end: int) -> int:
        """The offset where a piece shall begin."""
        if self._position and start != self._end:
            self._position += _HOLE
        offset = self._position
        self._position, self._end = offset + end - start, end
        return offset

    @property
    def size(self) -> int:
        """Bytes, nearly all of them holes."""
        return self._position + _END


class Image:
    """The image of one process's pages, which guests will find under `prefix` and its name, if it
    may have one. `near` are mappings of an earlier checkpoint: what was dumped there had better
    share their files."""

    def __init__(self, pages: Pages, prefix: str | None, near: Sequence[Mapped]) -> None:
        new = list(_outside(pages.stretches, near))
        runs = [run for run in new if run.end - run.start >= _LONG]
        shown = sum(run.end - run.start for run in runs)
        most, of = _MOST
        if prefix is None or shown * of < pages.before * most:
            runs, shown = [], 0
        self._runs = runs
        self._starts = [run.start for run in runs]
        self.copied = sum(run.end - run.start for run in new) - shown
        """Bytes that will be copied in any case: neither mapped from it, but for those at the ends
        of runs, nor perhaps as in the earlier checkpoint."""
        self.seen_as = f"{prefix}{pages.image}"
        self.size = enlarged(pages.before)

    def find(self, start: int, end: int) -> int | None:
        """The offset of what was dumped between these addresses, if it is all in one long run."""
        index = bisect_right(self._starts, start) - 1
        if index < 0 or self._runs[index].end < end:
            return None
        return self._runs[index].position + start - self._runs[index].start


def enlarged(size: int) -> int:
    """Bytes of an image of so many once it is a memory file."""
    return size + _END


def _outside(runs: Sequence[Stretch], near: Sequence[Mapped]) -> Iterator[Stretch]:
    """What of the runs lies where nothing is mapped; all in rising order."""
    next_near = 0
    for run in runs:
        start = run.start
        while next_near < len(near) and near[next_near].end <= start:
            next_near += 1
        for there in near[next_near:]:
            if there.start >= run.end:
                break
            if start < there.start:
                yield Stretch(start, there.start, run.position + start - run.start)
            start = max(start, there.end)
        if start < run.end:
            yield Stretch(start, run.end, run.position + start - run.start)
