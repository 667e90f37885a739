"""Memory files: a checkpoint whose memory is mapped instead of read.

CRIU dumps of a private file mapping only the pages that were written since. So the contents of the
big anonymous mappings of a dumped process move into one sparse, immutable **memory file**, and the
images are rewritten: each such mapping becomes a private one of that file. CRIU restores that
without knowing: pages come lazily from the page cache, shared by all who were restored from it,
and the next dump holds only what was written since.

Used for the golden root. Stacks, code, shared memory and small mappings stay as they are.
(Formats: images/{mma,vma,pagemap,regfile,fdinfo}.proto of CRIU; status bits: include/vma.h)
"""

from __future__ import annotations

import os
import shutil
import sys
from bisect import bisect_right
from collections.abc import Iterator
from typing import Any

from . import record

_PAGE = 4096
_REGULAR, _HEAP, _FILE_PRIVATE, _ANON_PRIVATE = 1 << 0, 1 << 5, 1 << 6, 1 << 9
_CANDIDATES = (_REGULAR | _ANON_PRIVATE, _REGULAR | _ANON_PRIVATE | _HEAP)
_READ_WRITE = 3
_PLAIN_FLAGS = (0x22, 0x4022)  # MAP_PRIVATE | MAP_ANONYMOUS, with or without MAP_NORESERVE
_MAP_PRIVATE = 2
_MIN_PAGES = 16
"""A mapping with fewer is not worth the system calls of mapping it."""
_HOLE = 4 << 30
"""After each group of mappings: mremap may let the last one grow, into zeros."""
_PYCRIU = "/usr/lib/python3/dist-packages"

Json = dict[str, Any]


def rewrite(source: str, target: str, memory: str, seen_as: str) -> None:
    """Write the images of directory `source` anew into `target`, with the memory of its root
    process in the file `memory`, which guests will find under the path `seen_as`.

    Raises OSError, or ValueError for images that are not what they are expected to be.
    """
    os.mkdir(target, 0o755)
    images = _Images(source, target)
    pid = images.load("pstree.img")["entries"][0]["pid"]
    mm, files = images.load(f"mm-{pid}.img"), images.load("files.img")
    pagemap = images.load(f"pagemap-{pid}.img")
    head, runs = pagemap["entries"][0], pagemap["entries"][1:]
    pages = f"pages-{head['pages_id']}.img"
    chosen = _choose(mm["entries"][0]["vmas"], runs)
    offsets, size = _lay_out(chosen)
    with (
        open(f"{source}/{pages}", "rb") as old,
        open(memory, "wb") as shared,
        open(f"{target}/{pages}", "wb") as kept,
    ):
        shared.truncate(size)
        pagemap["entries"] = [head, *_move(runs, chosen, offsets, old, shared, kept)]
    number = 1 + max(entry["id"] for entry in files["entries"])
    for vma in chosen:
        vma.update(shmid=number, pgoff=offsets[vma["start"]], flags=_MAP_PRIVATE, fdflags=0)
        vma["status"] = _REGULAR | _FILE_PRIVATE
    files["entries"].append(_file_entry(number, seen_as, size))
    images.save("files.img", files)
    images.save(f"mm-{pid}.img", mm)
    images.save(f"pagemap-{pid}.img", pagemap)
    images.copy_others({pages, record.NAME})


def _choose(vmas: list[Json], runs: list[Json]) -> list[Json]:
    """The mappings that move, in the order of their addresses."""
    candidates = [
        vma
        for vma in vmas
        if vma["status"] in _CANDIDATES
        and vma["prot"] == _READ_WRITE
        and vma["flags"] in _PLAIN_FLAGS
    ]
    populated: dict[int, int] = {}
    for _, vma, start, end in _pieces(runs, candidates):
        if vma is not None:
            populated[vma["start"]] = populated.get(vma["start"], 0) + (end - start) // _PAGE
    return [vma for vma in candidates if populated.get(vma["start"], 0) >= _MIN_PAGES]


def _lay_out(chosen: list[Json]) -> tuple[dict[int, int], int]:
    """Where each mapping begins in the memory file, and the size of that. Neighbours stay
    neighbours, so that the kernel can merge them."""
    offsets: dict[int, int] = {}
    position, previous_end = 0, None
    for vma in chosen:
        if previous_end is not None and vma["start"] != previous_end:
            position += _HOLE
        offsets[vma["start"]] = position
        position += vma["end"] - vma["start"]
        previous_end = vma["end"]
    return offsets, position + _HOLE


def _move(
    runs: list[Json], chosen: list[Json], offsets: dict[int, int], old: Any, shared: Any, kept: Any
) -> Iterator[Json]:
    """Copy all pages to where they belong; the pagemap entries of those that stay."""
    position = 0
    for run, vma, start, end in _pieces(runs, chosen):
        length = end - start
        if vma is not None:
            _copy(old, position, shared, offsets[vma["start"]] + start - vma["start"], length)
        else:
            _copy(old, position, kept, kept.seek(0, os.SEEK_END), length)
            yield run | {"vaddr": start, "nr_pages": length // _PAGE}
        position += length


def _pieces(runs: list[Json], vmas: list[Json]) -> Iterator[tuple[Json, Json | None, int, int]]:
    """Cut runs of pages at the borders of `vmas`: (run, the mapping it lies in, start, end)."""
    starts = [vma["start"] for vma in vmas]
    for run in runs:
        address, end = run["vaddr"], run["vaddr"] + run["nr_pages"] * _PAGE
        while address < end:
            index = bisect_right(starts, address) - 1
            vma = vmas[index] if index >= 0 and address < vmas[index]["end"] else None
            if vma is not None:
                upto = min(end, vma["end"])
            else:
                upto = min(end, starts[index + 1]) if index + 1 < len(starts) else end
            yield run, vma, address, upto
            address = upto


def _copy(source: Any, at: int, target: Any, to: int, length: int) -> None:
    target.flush()
    os.lseek(target.fileno(), to, os.SEEK_SET)
    while length:
        sent = os.sendfile(target.fileno(), source.fileno(), at, length)
        if sent == 0:
            raise ValueError("the images hold less memory than they say")
        at, length = at + sent, length - sent


def _file_entry(number: int, path: str, size: int) -> Json:
    owner = {"uid": 0, "euid": 0, "signum": 0, "pid_type": 0, "pid": 0}
    file = {
        "id": number,
        "flags": os.O_RDONLY,
        "pos": 0,
        "fown": owner,
        "name": path,
        "size": size,
        "mode": 0o100444,
    }
    return {"type": "REG", "id": number, "reg": file}


class _Images:
    """CRIU's images in one directory, and where they are written anew."""

    def __init__(self, source: str, target: str) -> None:
        if _PYCRIU not in sys.path:
            sys.path.append(_PYCRIU)
        from pycriu import images

        self._format: Any = images
        self._source = source
        self._target = target
        self._saved: set[str] = set()

    def load(self, name: str) -> Json:
        with open(f"{self._source}/{name}", "rb") as file:
            loaded: Json = self._format.load(file)
        return loaded

    def save(self, name: str, image: Json) -> None:
        with open(f"{self._target}/{name}", "wb") as file:
            self._format.dump(image, file)
        self._saved.add(name)

    def copy_others(self, but: set[str]) -> None:
        for name in os.listdir(self._source):
            if name.endswith(".img") and name not in self._saved | but:
                shutil.copyfile(f"{self._source}/{name}", f"{self._target}/{name}")
