"""Makes a checkpoint small after the fact: pages that it shares with an earlier one go.

CRIU on most kernels has no way to dump only what changed. But its image format can say "this page
is as in the parent image", and a restore looks it up there. So a full dump is compared with a base,
another full dump of the same guest, and rewritten as the difference: of an idle guest 99 % of the
pages fall away. The base is never thinned itself; a restore opens two images, never a chain.

Runs in the background, in a process of its own, and swaps the directories at the end.
"""

from __future__ import annotations

import mmap
import os
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from . import integrity, protobuf, record
from .syscalls import exchange

_PAGE = 4096
_BLOCK = 16 * _PAGE
"""Compared in one go first: nearly all are equal."""
_NEW_BYTES = 2 << 20
_FROM_PARENT, _PRESENT = 1, 6  # PE_PARENT, PE_LAZY | PE_PRESENT of CRIU's pagemap.h


@dataclass(frozen=True)
class Pages:
    """The memory of one process in an image: where each run of pages begins in the pages file."""

    head: bytes
    pages_id: int
    runs: list[tuple[int, int, int]]  # address, number of pages, offset in the pages file


def thin(staging: str, name: str, base: str) -> tuple[int, int]:
    """Rewrite checkpoint `name` as a difference to `base`; bytes of memory before and after.

    If too much of it is new, it stays as it is, a base for those that come after it: memory drifts
    away from any base. Raises OSError or ValueError, and the checkpoint is as it was.
    """
    old, new = f"{staging}/{name}", f"{staging}/{name}.thin"
    os.mkdir(new, 0o700)
    try:
        before, after, replaced = 0, 0, set()
        for file in sorted(os.listdir(old)):
            if not file.startswith("pagemap-") or not file[8:].split(".")[0].isdigit():
                continue
            if not os.path.exists(f"{staging}/{base}/{file}"):
                continue  # a process that the base does not have
            pages = _read(f"{old}/{file}")
            kept = _rewrite(old, new, f"{staging}/{base}", file, pages)
            before += sum(count for _, count, _ in pages.runs) * _PAGE
            after += kept
            replaced |= {file, f"pages-{pages.pages_id}.img"}
        if after * 2 >= before or after > max(_NEW_BYTES, before // 3):
            return before, before
        for file in os.listdir(old):
            if file.endswith(".img") and file not in replaced:
                # Not a link: that would change when the file was changed.
                shutil.copyfile(f"{old}/{file}", f"{new}/{file}")
        os.symlink(f"../{base}", f"{new}/parent")
        integrity.seal(new)
        integrity.expect(staging, name, base)
        record.carry(old, new, base=base, base_images=record.at(f"{staging}/{base}")["images"])
        exchange(old, new)
    finally:
        shutil.rmtree(new)
    return before, after


def _rewrite(old: str, new: str, base: str, file: str, pages: Pages) -> int:
    """Write the difference of one process's memory; the bytes that are left."""
    base_pages = _read(f"{base}/{file}")
    kept = 0
    with (
        _mapped(f"{old}/pages-{pages.pages_id}.img") as mine,
        _mapped(f"{base}/pages-{base_pages.pages_id}.img") as theirs,
        open(f"{new}/pages-{pages.pages_id}.img", "wb") as out,
        open(f"{new}/{file}", "wb") as pagemap,
    ):
        pagemap.write(pages.head)
        lookup = _Lookup(base_pages.runs)
        for address, count, offset in pages.runs:
            for start, length, same in _differences(address, count, offset, mine, theirs, lookup):
                pagemap.write(_entry(start, length, _FROM_PARENT if same else _PRESENT))
                if not same:
                    position = offset + (start - address)
                    out.write(mine[position : position + length * _PAGE])
                    kept += length * _PAGE
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


def _read(path: str) -> Pages:
    """Parse a pagemap image: two magic numbers, then length-prefixed messages."""
    with open(path, "rb") as file:
        data = file.read()
    position, entries = 8, []
    while position < len(data):
        (size,) = struct.unpack_from("<I", data, position)
        entries.append(data[position + 4 : position + 4 + size])
        position += 4 + size
    head, *rest = entries
    pages_id = int(dict(protobuf.decode(head))[1])
    runs, offset = [], 0
    for entry in map(dict, map(protobuf.decode, rest)):
        count = int(entry.get(5, entry.get(2, 0)))
        if int(entry.get(4, _PRESENT)) & _FROM_PARENT or entry.get(3):
            raise ValueError("the image is a difference already")
        runs.append((int(entry[1]), count, offset))
        offset += count * _PAGE
    return Pages(data[: 12 + len(head)], pages_id, runs)


def _entry(address: int, count: int, flags: int) -> bytes:
    body = protobuf.encode([(1, address), (2, count), (4, flags), (5, count)])
    return struct.pack("<I", len(body)) + body


@contextmanager
def _mapped(path: str) -> Iterator[mmap.mmap]:
    """A file's contents as memory."""
    with (
        open(path, "rb") as file,
        mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory,
    ):
        yield memory
