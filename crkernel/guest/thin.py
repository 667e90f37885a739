"""Makes a checkpoint small after the fact: pages that it shares with an earlier one go.

CRIU on most kernels has no way to dump only what changed. But its image format can say "this page
is as in the parent image", and a restore looks it up there. So a full dump is compared with a base,
another full dump of the same guest, and rewritten as the difference: of an idle guest 99 % of the
pages fall away. The base is never thinned itself; a restore opens two images, never a chain.

Runs in the background, in a process of its own, and swaps the directories at the end.
"""

from __future__ import annotations

import functools
import mmap
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from . import integrity, record
from .images import Images
from .messages import Json
from .syscalls import exchange

_PAGE = 4096
_BLOCK = 16 * _PAGE
"""Compared in one go first: nearly all are equal."""
_NEW_BYTES = 2 << 20
_FROM_PARENT, _PRESENT = 1, 6  # PE_PARENT, PE_LAZY | PE_PRESENT of CRIU's pagemap.h


class Layout(NamedTuple):
    """Of the memory of one process in an image: the image of its pages, and where there each run
    of pages begins."""

    head: Json
    pages: str
    runs: list[tuple[int, int, int]]  # address, number of pages, offset


def thin(staging: str, name: str, base: str) -> tuple[int, int]:
    """Rewrite checkpoint `name` as a difference to `base`; bytes of memory before and after.

    If too much of it is new, it stays as it is, a base for those that come after it: memory drifts
    away from any base. Raises OSError or ValueError, and the checkpoint is as it was.
    """
    old, new = f"{staging}/{name}", f"{staging}/{name}.thin"
    images, earlier = Images(old, new), f"{staging}/{base}"
    if record.at(old).get("base") == base:  # a kernel that was restarted then does not know
        return _sizes(images, old)
    os.mkdir(new, 0o700)
    try:
        before, after = 0, 0
        for file in sorted(os.listdir(old)):
            if not _is_layout(file):
                continue
            if not os.path.exists(f"{earlier}/{file}"):
                continue  # a process that the base does not have
            layout = _layout(images, file)
            before += sum(count for _, count, _ in layout.runs) * _PAGE
            after += _rewrite(images, earlier, file, layout, f"{new}/{layout.pages}")
        if after * 2 >= before or after > max(_NEW_BYTES, before // 3):
            return before, before
        images.copy_others()
        os.symlink(f"../{base}", f"{new}/parent")
        integrity.seal(new)
        integrity.expect(staging, name, base)
        record.carry(old, new, base=base, base_images=record.at(f"{staging}/{base}")["images"])
        exchange(old, new)
    finally:
        shutil.rmtree(new)
    return before, after


def _is_layout(file: str) -> bool:
    """Whether an image says where the memory of a process lies."""
    return file.startswith("pagemap-") and file[8:].split(".")[0].isdigit()


def _sizes(images: Images, folder: str) -> tuple[int, int]:
    """Of a difference: bytes of memory that it stands for, and those that it holds."""
    runs = [run for file in os.listdir(folder) if _is_layout(file) for run in images.load(file)[1:]]
    kept = (run["nr_pages"] for run in runs if not run["flags"] & _FROM_PARENT)
    return sum(run["nr_pages"] for run in runs) * _PAGE, sum(kept) * _PAGE


def _rewrite(images: Images, earlier: str, file: str, layout: Layout, target: str) -> int:
    """Write the difference of one process's memory, its pages into `target`; the bytes that are
    left."""
    base = _layout_of_base(earlier, file)
    kept, entries = 0, [layout.head]
    with (
        _mapped(images.path(layout.pages)) as mine,
        _mapped(f"{earlier}/{base.pages}") as theirs,
        open(target, "wb") as out,
    ):
        lookup = _Lookup(base.runs)
        for address, count, offset in layout.runs:
            for start, length, same in _differences(address, count, offset, mine, theirs, lookup):
                flags = _FROM_PARENT if same else _PRESENT
                run = {"vaddr": start, "compat_nr_pages": length, "flags": flags}
                entries.append(run | {"nr_pages": length})
                if not same:
                    position = offset + (start - address)
                    out.write(mine[position : position + length * _PAGE])
                    kept += length * _PAGE
    images.save(file, entries)
    images.replaced(layout.pages)
    return kept


def _differences(
    address: int, count: int, offset: int, mine: mmap.mmap, theirs: mmap.mmap, lookup: _Lookup
) -> Iterator[tuple[int, int, bool]]:
    """Cut a run into (address, pages, whether the base has the same)."""
    start, same = address, None
    for at, length, there in lookup.cut(address, count * _PAGE):
        for piece, equal in _compare(mine, offset + at - address, theirs, there, length):
            where = at + piece
            if same is not None and equal != same:
                yield start, (where - start) // _PAGE, same
                start = where
            same = equal
    if same is not None:
        yield start, (address + count * _PAGE - start) // _PAGE, same


def _compare(
    mine: mmap.mmap, here: int, theirs: mmap.mmap, there: int | None, length: int
) -> Iterator[tuple[int, bool]]:
    """Yield (distance from the start, whether it is equal) of consecutive pieces."""
    if there is None:
        yield 0, False
        return
    for block in range(0, length, _BLOCK):
        size = min(_BLOCK, length - block)
        a, b = here + block, there + block
        if mine[a : a + size] == theirs[b : b + size]:
            yield block, True
            continue
        for page in range(0, size, _PAGE):
            x, y = a + page, b + page
            yield block + page, mine[x : x + _PAGE] == theirs[y : y + _PAGE]


class _Lookup:
    """Where the base keeps an address. Runs come in rising order on both sides."""

    def __init__(self, runs: list[tuple[int, int, int]]) -> None:
        self._runs = runs
        self._next = 0

    def cut(self, address: int, length: int) -> Iterator[tuple[int, int, int | None]]:
        """Pieces (address, bytes, offset in the base's pages or None) of a range."""
        end = address + length
        while address < end:
            while self._next < len(self._runs) and _end(self._runs[self._next]) <= address:
                self._next += 1
            if self._next == len(self._runs) or self._runs[self._next][0] >= end:
                yield address, end - address, None
                return
            start, _, offset = self._runs[self._next]
            if start > address:
                yield address, start - address, None
                address = start
            upto = min(end, _end(self._runs[self._next]))
            yield address, upto - address, offset + address - start
            address = upto


def _end(run: tuple[int, int, int]) -> int:
    return run[0] + run[1] * _PAGE


@functools.lru_cache(maxsize=8)
def _layout_of_base(folder: str, file: str) -> Layout:
    """Of a base, which never changes: who thins one checkpoint after the other reads it once."""
    return _layout(Images(folder), file)


def _layout(images: Images, file: str) -> Layout:
    head, *entries = images.load(file)
    runs, offset = [], 0
    for run in entries:
        if run.get("in_parent") or run["flags"] & _FROM_PARENT:
            raise ValueError("the image is a difference already")
        runs.append((run["vaddr"], run["nr_pages"], offset))
        offset += run["nr_pages"] * _PAGE
    return Layout(head, f"pages-{head['pages_id']}.img", runs)


@contextmanager
def _mapped(path: str) -> Iterator[mmap.mmap]:
    """A file's contents as memory."""
    with (
        open(path, "rb") as file,
        mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory,
    ):
        yield memory
