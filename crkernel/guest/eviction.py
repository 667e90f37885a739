"""What checkpoints take of staging, and how they go, with all that nobody else needs of them.

A checkpoint's memory files, the contents of its files and, if others are differences to it, its
images may be part of other checkpoints. Those stay until the last of these is dropped too. Who
drops some sees to it that nobody works on checkpoints meanwhile, and that the one which the live
guest was dumped to or restored from last is not dropped: it names all that the guest maps.

What npm has made for a guest belongs to a folder that is marked from the start: it goes with the
last checkpoint that needs it, and not while a guest has it that was not dumped since.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections import Counter
from collections.abc import Collection

from . import golden, integrity, memory, record, wire
from .rebase import share_room, used
from .tree import NO_MANIFEST, named_by

DROPPED = "dropped"
"""A file that marks a checkpoint which others need a part of, and nobody else."""


def drop(staging: str, names: Collection[str]) -> int:
    """Drop checkpoints; bytes that are free now. Raises OSError or ValueError; what is marked by
    then goes the next time."""
    before, _ = used()
    for name in names:
        if "/" in name or "." in name:
            raise ValueError(f"{name!r} is no name of a checkpoint")
    folders = [n for n in os.listdir(staging) if "." not in n and os.path.isdir(f"{staging}/{n}")]
    marked = {name for name in folders if _is_marked(f"{staging}/{name}")}
    dropped = marked | set(names)
    alive = (f"{staging}/{name}" for name in folders if _lives(staging, name, dropped))
    living = [meta for meta in map(record.found, alive) if meta is not None]
    bases = dropped & {str(found.get("base")) for found in living}
    needed = bases | {file for found in living for file in found["memory"]}
    contents = _contents(staging, living)
    for name in dropped - marked:  # from here on it is done, now or the next time
        mark(f"{staging}/{name}")
    left = _remove(memory.FOLDER, dropped, needed)
    left |= _remove(memory.IMAGES, dropped, {os.path.basename(file) for file in needed})
    left |= _remove(staging, dropped, needed | contents)
    for name in dropped - bases:
        shutil.rmtree(f"{staging}/{name}")
        if name in left:
            mark(f"{staging}/{name}", make=True)
    share_room()
    return before - used()[0]


def mark(folder: str, *, make: bool = False, within: int | None = None) -> None:
    """From here on a checkpoint's folder, by its path, below that of the descriptor `within` if it
    is relative, stays only for what others need of it."""
    if make:
        os.mkdir(folder, 0o700, dir_fd=within)
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
    os.close(os.open(f"{folder}/{DROPPED}", flags, 0o600, dir_fd=within))


def hold(staging: int, name: str) -> int:
    """A descriptor. Until it is closed nothing goes of what is marked under that name. Raises
    OSError."""
    descriptor = record.open_directory(staging, name)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def _is_marked(folder: str) -> bool:
    """And nobody holds it."""
    if not os.path.exists(f"{folder}/{DROPPED}"):
        return False
    with record.opened(folder) as descriptor, contextlib.suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def costs(staging: str, names: Collection[str]) -> dict[str, list[int]]:
    """Bytes that checkpoints take: of their images; of memory files that no other needs; of what
    others need too, memory files and the images that differences are to; and of the files' contents
    that they brought. What is made small or dropped at this moment may be missing. Raises OSError.
    """
    needs: dict[str, list[str]] = {}
    contents = Counter[str]()
    with os.scandir(staging) as entries:
        for entry in entries:
            name, _, suffix = entry.name.partition(".")
            with contextlib.suppress(FileNotFoundError):
                if not entry.is_dir():
                    contents[name] += entry.stat().st_size
                elif not suffix and not os.path.exists(f"{entry.path}/{DROPPED}"):
                    meta = record.found(entry.path)
                    needs[name] = _needs(staging, meta) if meta else []
    users = Counter(path for paths in needs.values() for path in paths)
    found = {}
    for name in needs.keys() & set(names):
        with contextlib.suppress(FileNotFoundError):
            images, own, shared = f"{staging}/{name}", 0, 0
            for path in needs[name]:
                if users[path] > 1 or path.startswith(golden.FOLDER):  # or of other kernels
                    shared += _taken(path)
                else:
                    own += _taken(path)
            mine = _taken(images)
            if users[images]:
                mine, shared = 0, shared + mine
            found[name] = [mine, own, shared, contents[name]]
    return found


def _needs(staging: str, meta: wire.Message) -> list[str]:
    """The paths of what a checkpoint needs beside its own images."""
    base = [f"{staging}/{meta['base']}"] if "base" in meta else []
    return base + [memory.path_of(name) for name in meta["memory"]]


def _taken(path: str) -> int:
    """Bytes of a memory file, or of the images in a directory."""
    if not os.path.isdir(path):
        return os.stat(path).st_blocks * 512
    with os.scandir(path) as entries:
        return sum(entry.stat(follow_symlinks=False).st_size for entry in entries)


def _lives(staging: str, name: str, dropped: Collection[str]) -> bool:
    """Whether this is a checkpoint: not one that is being made, nor staging's other folders."""
    return name not in dropped and os.path.exists(f"{staging}/{name}/{record.NAME}")


def _contents(staging: str, living: list[wire.Message]) -> set[str]:
    """The names of manifests and of contents of files that checkpoints need. No way leads to one
    whose manifest is damaged, so it needs none."""
    needed = {str(found["files"]) for found in living}
    with record.opened(staging) as directory:
        for name in list(needed):
            with contextlib.suppress(FileNotFoundError, *NO_MANIFEST):
                needed |= named_by(directory, name)
    return needed


def _remove(folder: str, dropped: set[str], needed: set[str]) -> set[str]:
    """Remove files that dropped checkpoints brought; the names of those that left some."""
    left = set()
    for file in sorted(os.listdir(folder), key=integrity.is_of_files):  # a seal of several, last
        name = file.partition(".")[0]
        if name in dropped and not os.path.isdir(f"{folder}/{file}"):
            if file.removesuffix(integrity.SUFFIX) in needed:
                left.add(name)
            elif not (integrity.is_of_files(file) and name in left):
                os.unlink(f"{folder}/{file}")
    return left
