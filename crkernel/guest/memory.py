"""Memory files: a checkpoint whose memory is mapped instead of read.

CRIU dumps of a private file mapping only the pages that were written since. So the contents of the
big anonymous mappings of a dumped process move into one sparse, immutable **memory file**, and the
images are rewritten: each such mapping becomes a private one of that file. CRIU restores that
without knowing: pages come lazily from the page cache, shared by all who were restored from it,
and the next dump holds only what was written since.

Where most of what was dumped lies in long runs, not even that is copied: the image of the pages
becomes a memory file itself.

A dump of a guest that is mapped already is rewritten in the same way: what it wrote much of moves
on into a new file, the rest stays where it is. docs/memory.md says why this is correct, and what
the shim `anonymous.c` does for it. (Formats: images/{mma,vma,pagemap,regfile}.proto of CRIU;
status bits: include/vma.h)
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from math import inf

from .images import Images, Pages, send
from .messages import Json
from .places import Image, Mapped, Store

FOLDER = "/memory"
"""Where a session's memory files lie, in the nest and, read-only, in each of its sandboxes."""
IMAGES = f"{FOLDER}/images"
"""Those of them that were images of pages, each called after its checkpoint and its old name: a
folder of staging's file system, so that they get there by a rename."""
_SHIM = "/usr/lib/crkernel-shims/anonymous.so"
_FOLDERS = (f"{FOLDER}/", "/golden/")

_PAGE = 4096
_CHUNK = 1 << 20
"""What is decided on as a whole: pieces of mappings of this size."""
_MIN_BYTES = 64 << 10
"""Fewer together that were dumped are not worth the system calls of mapping them."""
_SPARSE = 8
"""Nor is it worth so many bytes of a file to hold one that was dumped."""
_MIN_GAP = 256 << 10
"""Fewer that were not, between others, are not worth a mapping: each costs every dump and restore
to come its share."""
_RENEWED = 4
"""A mapped piece moves on when one of so many of its pages was written; one that could share its
parent's file does not, when so many differ."""
_SMALL, _RENEWED_SMALL = 24 << 20, 10
"""Of a dump with fewer bytes of pages the former is so for less: little is copied in all, and every
dump to come is smaller by it."""
_WORN = 2
"""A memory file of which less than one in so many bytes is shown is left altogether, so that it can
go when no other checkpoint needs it."""

_REG = 1  # fd_types of CRIU's fdinfo.proto
_REGULAR, _HEAP, _FILE_PRIVATE, _ANON_PRIVATE = 1 << 0, 1 << 5, 1 << 6, 1 << 9
_ANONYMOUS = (_REGULAR | _ANON_PRIVATE, _REGULAR | _ANON_PRIVATE | _HEAP)
_MAPPED = _REGULAR | _FILE_PRIVATE
_GUARD = 1 << 16
"""Pages within other mappings that are fatal (MADV_GUARD_INSTALL), as at the ends of stacks."""
_READ_WRITE = 3
_PLAIN_FLAGS = (0x22, 0x4022)  # MAP_PRIVATE | MAP_ANONYMOUS, with or without MAP_NORESERVE
_MAP_PRIVATE = 2
_HARMLESS_ADVICE = 1 << 10 | 1 << 14 | 1 << 15 | 1 << 16
"""MADV_DONTFORK (V8's heap), HUGEPAGE, NOHUGEPAGE, DONTDUMP: they mean the same for a file."""


def rewrite(
    source: str,
    target: str,
    memory: str,
    seen_as: str,
    near: str | None = None,
    images_as: str | None = None,
    room: float = inf,
) -> int:
    """Write the images of directory `source` anew into `target`, with the memory of its processes
    in files: `memory`, which guests will find under the path `seen_as`, and for a child process
    the same with its id ("memory.5009"). What is nearly the same as in `near`, the rewritten images
    of an earlier checkpoint, shares the memory files of that. With `images_as` an image of pages
    that the new ones name under this prefix is to become a memory file, `enlarged`.

    Returns how many bytes of pages the images need no more. Raises OSError, or ValueError for
    images that are not what they are expected to be, and where that takes more than `room` bytes.
    """
    images, files = Images(source, target), Files(source)
    before = after = 0
    for pid, image in _memories(images):
        # Not one file for all: CRIU takes mappings of one file at the same addresses of parent and
        # child for the same memory, whatever their offsets.
        suffix = f".{pid}" if before else ""
        mm = image[0]
        if files.are_safe(mm):
            known = _mapped_in(near, pid) if near else []
            store = Store(memory + suffix, seen_as + suffix)
            with store, Pages(source, target, images, pid) as pages:
                kept = Image(pages, images_as, known)
                _check(room - kept.copied)
                rewriting = _Rewriting(pages, files, store, kept, known, room)
                mm["vmas"] = list(_merged(rewriting.vmas(mm["vmas"])))
                room -= rewriting.written
                before, after = before + pages.before, after + pages.after
            files.sizes |= {store.seen_as: store.size, kept.seen_as: kept.size}
            images.save(f"mm-{pid}.img", image)
    images.save("files.img", files.image())
    images.copy_others()
    return before - after


def _memories(images: Images) -> Iterator[tuple[int, list[Json]]]:
    """(process id, mm image) of each process, the root first."""
    for entry in images.load("pstree.img"):
        if os.path.exists(images.path(f"mm-{entry['pid']}.img")):  # a zombie has none
            yield entry["pid"], images.load(f"mm-{entry['pid']}.img")


class Files:
    """The files of the images in `source`, of which some are memory files."""

    def __init__(self, source: str) -> None:
        self.sizes: dict[str, int] = {}
        """Bytes of new memory files, by the paths that guests see."""
        self._image = Images(source).load("files.img")
        regular = (entry for entry in self._image if "reg" in entry)
        self.paths: dict[int, str] = {entry["id"]: entry["reg"]["name"] for entry in regular}
        self._ids = {path: number for number, path in self.paths.items() if is_memory(path)}
        self._next = 1 + max(entry["id"] for entry in self._image)
        self._new: list[str] = []
        self._program = 0  # id of the one that the root process runs

    def are_safe(self, mm: Json) -> bool:
        """Whether a process can live on memory files: the guest's own program, and those of its
        children that run the same, with the shim loaded."""
        self._program = self._program or mm["exe_file_id"]
        shim = any(self.paths.get(vma.get("shmid", 0)) == _SHIM for vma in mm["vmas"])
        return shim and self.paths.get(mm["exe_file_id"]) == self.paths.get(self._program)

    def number(self, path: str) -> int:
        """The id of a memory file."""
        if path not in self._ids:
            self._ids[path], self._next = self._next, self._next + 1
            self._new.append(path)
        return self._ids[path]

    def image(self) -> list[Json]:
        """With the files that have come in. None goes that is mapped no more: the guest that was
        dumped may run on with it, and has it by this checkpoint."""
        for path in self._new:
            size = self.sizes.get(path) or os.stat(path).st_size
            self._image.append(_file_entry(self._ids[path], path, size))
        return self._image


def _mapped_in(directory: str, pid: int) -> list[Mapped]:
    """What one process of an earlier checkpoint maps from memory files, in rising order."""
    if not os.path.exists(f"{directory}/mm-{pid}.img"):
        return []
    paths = Files(directory).paths
    vmas = Images(directory).load(f"mm-{pid}.img")[0]["vmas"]
    return [
        Mapped(vma["start"], vma["end"], paths[vma["shmid"]], vma["pgoff"])
        for vma in vmas
        if vma["status"] == _MAPPED and is_memory(paths.get(vma["shmid"], ""))
    ]


class _Rewriting:
    """Goes through the mappings of one process, in the order of their addresses."""

    def __init__(
        self,
        pages: Pages,
        files: Files,
        store: Store,
        image: Image,
        near: list[Mapped],
        room: float,
    ) -> None:
        self._pages = pages
        self._files = files
        self._store = store
        self._image = image
        self._near = near
        self._room = room
        self._moved = 0
        self._next_near = 0
        self._opened: dict[str, int] = {}
        self._worn: set[str] = set()
        self._guards: list[Json] = []
        self._renewed = _RENEWED_SMALL if pages.before < _SMALL else _RENEWED

    def vmas(self, old: list[Json]) -> Iterator[Json]:
        """The same addresses, in mappings as they shall be restored; the pages go where they
        belong meanwhile."""
        self._worn = self._find_worn(old)
        self._guards = [vma for vma in old if vma["status"] & _GUARD]
        try:
            for vma in old:
                base = self._base(vma)
                if base is None and not _is_anonymous(vma):
                    self._pages.keep(vma["start"], vma["end"])
                    yield vma
                    continue
                for start, end in _chunks(vma["start"], vma["end"]):
                    piece = vma | {"start": start, "end": end}
                    if base is None:
                        yield from self._anonymous(piece)
                    else:
                        offset = base.offset + start - base.start
                        yield self._mapped(piece, Mapped(start, end, base.path, offset))
        finally:
            for descriptor in self._opened.values():
                os.close(descriptor)

    @property
    def written(self) -> int:
        """Bytes that have been written: into the new file, and into images."""
        return self._moved + self._pages.after

    def _base(self, vma: Json) -> Mapped | None:
        """The part of a memory file that a mapping shows."""
        path = self._files.paths.get(vma.get("shmid", 0), "")
        if vma["status"] != _MAPPED or vma["prot"] != _READ_WRITE or not is_memory(path):
            return None
        return Mapped(vma["start"], vma["end"], path, vma["pgoff"])

    def _find_worn(self, vmas: list[Json]) -> set[str]:
        """The session's memory files that are hardly shown any more."""
        shown: Counter[str] = Counter()
        for base in filter(None, map(self._base, vmas)):
            if base.path.startswith(FOLDER):
                shown[base.path] += base.end - base.start
        held = {path: os.stat(path).st_blocks * 512 for path in shown}
        return {path for path in shown if shown[path] * _WORN < held[path]}

    def _anonymous(self, piece: Json) -> Iterator[Json]:
        """Moves what was dumped of a piece. Where nothing was it stays anonymous: a hole in a
        mapped file would take memory as soon as somebody reads it."""
        at = piece["start"]
        for start, end in self._pages.groups(at, piece["end"], _MIN_GAP):
            if not self._is_worth_it(start, end):
                continue
            if at < start:
                self._pages.keep(at, start)
                yield piece | {"start": at, "end": start}
            part, at = piece | {"start": start, "end": end}, end
            yield self._like_parent(part) or self._move(part)
        if at < piece["end"]:
            self._pages.keep(at, piece["end"])
            yield piece | {"start": at}

    def _is_worth_it(self, start: int, end: int) -> bool:
        """Whether what was dumped here is so much, and may move: before Linux 6.15 only anonymous
        memory can have guard pages."""
        dumped = self._pages.count(start, end) * _PAGE
        if dumped < _MIN_BYTES or dumped * _SPARSE < end - start:
            return False
        return not any(start < vma["end"] and vma["start"] < end for vma in self._guards)

    def _like_parent(self, piece: Json) -> Json | None:
        """Shown from the parent's memory file, if that nearly holds it."""
        start, end = piece["start"], piece["end"]
        base = self._parent(start, end)
        if base is None:
            return None
        data = self._pages.read(start, end)
        theirs = os.pread(self._open(base.path), end - start, base.offset)
        differing = list(_differing(data, theirs))
        if len(differing) * _RENEWED * _PAGE >= end - start:
            return None
        self._pages.replace(start, end, data, differing)
        return self._show(piece, base)

    def _mapped(self, piece: Json, base: Mapped) -> Json:
        count = self._pages.count(base.start, base.end)
        if count * self._renewed * _PAGE < base.end - base.start and base.path not in self._worn:
            self._pages.keep(base.start, base.end)
            return piece | {"pgoff": base.offset}
        return self._move(piece, base)

    def _move(self, piece: Json, base: Mapped | None = None) -> Json:
        """Into the new file: what the old one has, and over it what was written since. Or it stays
        in the image of pages."""
        start, end = piece["start"], piece["end"]
        if (at := self._image.find(start, end)) is not None:
            return self._show(piece, Mapped(start, end, self._image.seen_as, at))
        self._moved += end - start
        _check(self._room - self.written)
        offset = self._store.place(start, end)
        if base is not None:
            send(self._store.descriptor, offset, self._open(base.path), base.offset, end - start)
        else:
            os.posix_fallocate(self._store.descriptor, offset, end - start)
        self._pages.move(start, end, self._store.descriptor, offset)
        return self._show(piece, Mapped(start, end, self._store.seen_as, offset))

    def _show(self, piece: Json, part: Mapped) -> Json:
        number = self._files.number(part.path)
        shown = {"shmid": number, "pgoff": part.offset, "flags": _MAP_PRIVATE, "fdflags": 0}
        return piece | shown | {"status": _MAPPED}

    def _parent(self, start: int, end: int) -> Mapped | None:
        """What the earlier checkpoint had at these addresses, if all of it is one mapping."""
        near = self._near
        while self._next_near < len(near) and near[self._next_near].end <= start:
            self._next_near += 1
        if self._next_near == len(near):
            return None
        found = near[self._next_near]
        if not found.start <= start < end <= found.end:
            return None
        return Mapped(start, end, found.path, found.offset + start - found.start)

    def _open(self, path: str) -> int:
        if path not in self._opened:
            self._opened[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return self._opened[path]


def name_of(path: str) -> str:
    """The name of a memory file in records: of one of the session without its folder."""
    return path.removeprefix(f"{FOLDER}/")


def path_of(name: str) -> str:
    """Where the memory file with that name lies."""
    return os.path.join(FOLDER, name)


def is_memory(path: str) -> bool:
    """Whether this is the path of a memory file, as guests see it."""
    return path.startswith(_FOLDERS)


def _check(room: float) -> None:
    if room < 0:
        raise ValueError("there is no room to make it smaller")


def _is_anonymous(vma: Json) -> bool:
    return (
        vma["status"] in _ANONYMOUS
        and vma["prot"] == _READ_WRITE
        and vma["flags"] in _PLAIN_FLAGS
        and not vma.get("madv", 0) & ~_HARMLESS_ADVICE
    )


def _chunks(start: int, end: int) -> Iterator[tuple[int, int]]:
    while start < end:
        upto = min(end, (start // _CHUNK + 1) * _CHUNK)
        yield start, upto
        start = upto


def _merged(pieces: Iterator[Json]) -> Iterator[Json]:
    """Pieces of one kind that follow each other, in memory and in the file, become one mapping."""
    last: Json | None = None
    for piece in pieces:
        if last is not None and _continues(last, piece):
            last["end"] = piece["end"]
            continue
        if last is not None:
            yield last
        last = dict(piece)
    if last is not None:
        yield last


def _continues(last: Json, piece: Json) -> bool:
    offset = last["pgoff"] + (last["end"] - last["start"] if last["status"] == _MAPPED else 0)
    then = last | {"start": last["end"], "end": piece["end"], "pgoff": offset}
    return piece == then and (last["status"] == _MAPPED or last["status"] in _ANONYMOUS)


def _differing(mine: bytes, theirs: bytes) -> Iterator[int]:
    """Offsets of pages that are not the same. Past the end of a file there are zeros."""
    if mine == theirs:
        return
    theirs = theirs.ljust(len(mine), b"\0")
    for page in range(0, len(mine), _PAGE):
        if mine[page : page + _PAGE] != theirs[page : page + _PAGE]:
            yield page


def _file_entry(number: int, path: str, size: int) -> Json:
    owner = {"uid": 0, "euid": 0, "signum": 0, "pid_type": 0, "pid": 0}
    file: Json = {
        "id": number,
        "flags": os.O_RDONLY,
        "pos": 0,
        "fown": owner,
        "name": path,
        "size": size,
        "mode": 0o100444,
    }
    return {"type": _REG, "id": number, "reg": file}
