"""Puts a checkpoint's memory into a memory file after the fact, and keeps to one budget.

Like thinning (thin.py) it runs in the background, in a process of its own, and swaps the
directories at the end. What is new in big areas moves into a new memory file; the checkpoint is a
full one afterwards, a base for those that come after it.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil

from . import integrity, memory, record, wire
from . import syscalls as sc
from .mounts import MEMORY_IMAGES, STAGING
from .places import enlarged

_PAGE = 4096
_TAKEN = "taken"
"""A file in a checkpoint's old form that names the images which the new one has as memory files."""


def rebase(staging: str, name: str, near: str | None) -> tuple[int, int]:
    """Rewrite checkpoint `name` onto memory files, those of the rebased checkpoint `near` where
    they nearly fit; bytes of pages in its images before and after.

    Raises OSError or ValueError, and the checkpoint is as it was.
    """
    old, new, file = f"{staging}/{name}", f"{staging}/{name}.rebased", f"{memory.FOLDER}/{name}"
    if os.path.lexists(f"{old}/parent"):
        raise ValueError("the checkpoint is a difference already")
    before = _pages(old)
    if any(os.path.basename(f).partition(".")[0] == name for f in record.at(old)["memory"]):
        return before, before  # in some of its own already
    taken, size = used()
    try:
        os.mkdir(new, 0o700)
        where = near and f"{staging}/{near}"
        if memory.rewrite(old, new, file, file, where, _images_as(name), size - taken):
            _move_in(staging, name, near)
    finally:
        clear(staging, name)
    return before, _pages(old)


def _move_in(staging: str, name: str, near: str | None) -> None:
    """Have the new form of a checkpoint take the place of the old one."""
    old, new = f"{staging}/{name}", f"{staging}/{name}.rebased"
    integrity.seal(new)
    sources = [name] if near is None else [name, near]
    integrity.expect(staging, *sources)
    known: wire.Message = {}  # files that are shared keep the fingerprints that they had
    for source in sources:
        known |= record.at(f"{staging}/{source}")["memory"]
    paths = set(filter(memory.is_memory, memory.Files(new).paths.values()))
    prefix = _images_as(name)
    _take(old, name, [p.removeprefix(prefix) for p in sorted(paths) if p.startswith(prefix)])
    files = set(map(memory.name_of, paths))
    shared = {file: known[file] for file in files & known.keys()}
    record.carry(old, new, memory=shared | record.fingerprints(files - known.keys()))
    sc.exchange(old, new)


def _images_as(name: str) -> str:
    """How the paths of memory files begin that were images of a checkpoint."""
    return f"{memory.IMAGES}/{name}."


def _take(folder: str, name: str, images: list[str]) -> None:
    """Make memory files of images of pages. That changes them, so from here on the record in
    `folder` does not fit any more, until `_give_back` has written it anew."""
    if not images:
        return
    with record.opened(folder) as directory:
        record.reserve(directory)
    with open(f"{folder}/{_TAKEN}", "w") as file:
        file.write("\n".join(images))
    for image in images:
        path = f"{MEMORY_IMAGES}/{name}.{image}"
        os.rename(f"{folder}/{image}", path)
        os.truncate(path, enlarged(os.path.getsize(path)))
        os.chmod(path, 0o444)


def _give_back(folder: str, name: str) -> None:
    """Undo `_take`, however far it or an earlier try of this came."""
    if not os.path.exists(f"{folder}/{_TAKEN}"):
        return
    with open(f"{folder}/{_TAKEN}") as file:
        images = file.read().split()
    found = record.at(folder)
    for image in images:
        path = f"{MEMORY_IMAGES}/{name}.{image}"
        if os.path.exists(path):
            os.chmod(path, 0o600)
            os.truncate(path, found["images"][image][0])
            os.rename(path, f"{folder}/{image}")
    with record.opened(folder) as directory:
        now = record.images(directory)
        found["images"] |= {image: now[image] for image in images}
        record.write(directory, found)
    os.unlink(f"{folder}/{_TAKEN}")


def clear(staging: str, name: str) -> None:
    """Take away what is left of work on a checkpoint that is over, by whatever end; the checkpoint
    is there in its new form or, whole again, in the old one. If it was dropped meanwhile, whatever
    has its name is of use to others."""
    folder = f"{staging}/{name}"
    for suffix in ("thin", "rebased", "golden"):
        shutil.rmtree(f"{folder}.{suffix}", ignore_errors=True)
    if os.path.exists(f"{folder}/{record.NAME}"):
        _give_back(folder, name)
        with record.opened(folder) as directory:
            record.release(directory)
            needed = record.read(directory)["memory"]
        for path in (f"{memory.FOLDER}/{name}", *glob.glob(f"{memory.FOLDER}/{name}.*")):
            if memory.name_of(path).removesuffix(integrity.SUFFIX) not in needed:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
    share_room()


def used() -> tuple[int, int]:
    """Bytes that staging and its memory files take, and that they may take together."""
    (in_staging, _), (in_files, size) = _fill(STAGING), _fill(memory.FOLDER)
    return in_staging + in_files, size


def share_room() -> None:
    """Two mounts, one budget: staging gets what memory files leave of it. It keeps what it takes
    already, for less is refused, and a rebase may copy a little more than it can tell before."""
    flags = sc.MS_REMOUNT | sc.MS_NOSUID | sc.MS_NODEV
    while True:
        in_staging, (in_files, size) = _fill(STAGING), _fill(memory.FOLDER)
        room = max(_PAGE, size - in_files, in_staging[0])
        try:
            return sc.mount("none", STAGING, flags=flags, data=f"size={room}")
        except OSError:
            if _fill(STAGING) == in_staging:  # else a dump has filled it meanwhile
                raise


def _fill(mount: str) -> tuple[int, int]:
    status = os.statvfs(mount)
    return (status.f_blocks - status.f_bfree) * status.f_frsize, status.f_blocks * status.f_frsize


def _pages(directory: str) -> int:
    with os.scandir(directory) as entries:
        return sum(e.stat().st_size for e in entries if e.name.startswith("pages-"))
