"""CRIU's images in a directory: read, and written anew into another. (https://criu.org/Images)

An image is eight bytes that say which one it is, and then entries: each a length and a message.
"""

from __future__ import annotations

import os
import shutil
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from .messages import Json, kinds

_PAGE = 4096
_LAZY, _PRESENT = 2, 4  # PE_LAZY, PE_PRESENT of CRIU's pagemap.h
_HEADER = 8


class Images:
    """The images of `source`, and those of `target` that take their place."""

    def __init__(self, source: str, target: str | None = None) -> None:
        self._source = source
        self._target = target
        self._replaced: set[str] = set()

    def path(self, name: str) -> str:
        """Where an image lies, if there is one of that name."""
        return f"{self._source}/{name}"

    def load(self, name: str) -> list[Json]:
        """The entries of an image. Raises OSError, or ValueError for a damaged one."""
        with open(self.path(name), "rb") as file:
            data = file.read()
        position, entries, kind = _HEADER, [], kinds(name)
        while position < len(data):
            size = int.from_bytes(data[position : position + 4], "little")
            begin, position = position + 4, position + 4 + size
            if position > len(data):
                raise ValueError(f"{name} is cut short")
            entries.append(next(kind).parse(data[begin:position]))
        return entries

    def save(self, name: str, entries: list[Json]) -> None:
        """Write one anew."""
        with open(self.path(name), "rb") as old:
            header = old.read(_HEADER)
        with open(f"{self._target}/{name}", "wb") as file:
            pieces = [header]
            for entry, kind in zip(entries, kinds(name), strict=False):
                message = kind.encode(entry)
                pieces += (len(message).to_bytes(4, "little"), message)
            file.write(b"".join(pieces))
        self._replaced.add(name)

    def replaced(self, name: str) -> None:
        """This one has been written by other means."""
        self._replaced.add(name)

    def copy_others(self) -> None:
        """All that was not written anew stays as it was."""
        for name in os.listdir(self._source):
            if name.endswith(".img") and name not in self._replaced:
                # Not a link: that would change when the file was changed.
                shutil.copyfile(f"{self._source}/{name}", f"{self._target}/{name}")


class Stretch(NamedTuple):
    """Addresses that were dumped, and where their pages begin in the image."""

    start: int
    end: int
    position: int


class Pages:
    """The dumped pages of one process, on their way to where they belong. Addresses are asked for
    in rising order; what is kept is written anew into the images of the target."""

    def __init__(self, source: str, target: str, images: Images, pid: int) -> None:
        self._images = images
        self._name = f"pagemap-{pid}.img"
        self._head, *runs = images.load(self._name)
        if any(run.get("in_parent") or run["flags"] & ~_LAZY != _PRESENT for run in runs):
            raise ValueError("the image is a difference already")
        self._runs = runs
        self._starts = [run["vaddr"] for run in runs]
        self._positions = [0]
        for run in runs:
            self._positions.append(self._positions[-1] + run["nr_pages"] * _PAGE)
        self.image = f"pages-{self._head['pages_id']}.img"
        images.replaced(self.image)
        self._old = os.open(f"{source}/{self.image}", os.O_RDONLY | os.O_CLOEXEC)
        self._kept = os.open(f"{target}/{self.image}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._entries: list[Json] = []
        self.before = self._positions[-1]
        """Bytes of pages in the source."""
        self.after = 0
        """Bytes of pages that the target holds so far."""

    def __enter__(self) -> Pages:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        os.close(self._old)
        os.close(self._kept)
        if kind is None:
            self._images.save(self._name, [self._head, *self._entries])

    @property
    def stretches(self) -> list[Stretch]:
        """The runs in rising order, those that follow each other as one."""
        found: list[Stretch] = []
        for run, start, position in zip(self._runs, self._starts, self._positions, strict=False):
            end = start + run["nr_pages"] * _PAGE
            if found and found[-1].end == start:
                found[-1] = found[-1]._replace(end=end)
            else:
                found.append(Stretch(start, end, position))
        return found

    def count(self, start: int, end: int) -> int:
        """How many pages between these addresses were dumped."""
        return sum(upto - begin for _, begin, upto, _ in self._pieces(start, end)) // _PAGE

    def groups(self, start: int, end: int, gap: int) -> Iterator[tuple[int, int]]:
        """(start, end) of what was dumped in a range: runs that have fewer than `gap` bytes between
        them, or between them and an end of the range, belong together."""
        begin = last = -1
        for _, first, upto, _ in self._pieces(start, end):
            if begin >= 0 and first - last >= gap:
                yield (start if begin - start < gap else begin), last
                begin = -1
            begin, last = (first if begin < 0 else begin), upto
        if begin >= 0:
            yield (start if begin - start < gap else begin), (end if end - last < gap else last)

    def read(self, start: int, end: int) -> bytes:
        """The memory between these addresses; what was not dumped is zero."""
        memory = bytearray(end - start)
        for _, begin, upto, position in self._pieces(start, end):
            memory[begin - start : upto - start] = os.pread(self._old, upto - begin, position)
        return bytes(memory)

    def keep(self, start: int, end: int) -> None:
        """Leave the pages between these addresses in the images."""
        for run, begin, upto, position in self._pieces(start, end):
            send(self._kept, self.after, self._old, position, upto - begin)
            self._add(run, begin, upto - begin)

    def move(self, start: int, end: int, target: int, offset: int) -> None:
        """Take the pages out of the images, into a file where `start` has that offset."""
        for _, begin, upto, position in self._pieces(start, end):
            send(target, offset + begin - start, self._old, position, upto - begin)

    def replace(self, start: int, end: int, memory: bytes, offsets: list[int]) -> None:
        """Leave just some pages of `memory`, which begins at `start`, in the images."""
        if not offsets:
            return
        run = next(self._pieces(start, end))[0]
        for offset in offsets:
            os.pwrite(self._kept, memory[offset : offset + _PAGE], self.after)
            self._add(run, start + offset, _PAGE)

    def _add(self, run: Json, address: int, length: int) -> None:
        last = self._entries[-1] if self._entries else None
        if last is not None and last["vaddr"] + last["nr_pages"] * _PAGE == address:
            count = last["nr_pages"] + length // _PAGE
            last.update(nr_pages=count, compat_nr_pages=count)
        else:
            count = length // _PAGE
            new = {"vaddr": address, "nr_pages": count, "compat_nr_pages": count}
            self._entries.append(run | new)
        self.after += length

    def _pieces(self, start: int, end: int) -> Iterator[tuple[Json, int, int, int]]:
        """(run, first address, end, position in the pages file) of what was dumped in a range."""
        index = max(0, bisect_right(self._starts, start) - 1)
        for number in range(index, len(self._runs)):
            run, first = self._runs[number], self._starts[number]
            if first >= end:
                return
            begin, upto = max(start, first), min(end, first + run["nr_pages"] * _PAGE)
            if begin < upto:
                yield run, begin, upto, self._positions[number] + begin - first


def send(target: int, to: int, source: int, at: int, length: int) -> None:
    """Copy part of a file to a place in another. Raises ValueError if there is less of it."""
    os.lseek(target, to, os.SEEK_SET)
    while length:
        sent = os.sendfile(target, source, at, length)
        if sent == 0:
            raise ValueError("the images hold less memory than they say")
        at, length = at + sent, length - sent
