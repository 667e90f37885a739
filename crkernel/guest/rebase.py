"""Puts a checkpoint's memory into a memory file after the fact, and keeps to one budget.

Like thinning (thin.py) it runs in the background, in a process of its own, and swaps the
directories at the end. What is new in big areas moves into a new memory file; the checkpoint is a
full one afterwards, a base for those that come after it.
"""

from __future__ import annotations

import glob
import os
import shutil

from . import memory, record
from . import syscalls as sc
from .mounts import MEMORY_IMAGES, STAGING
from .places import enlarged

_PAGE = 4096


def rebase(staging: str, name: str, near: str | None) -> tuple[int, int]:
    """Rewrite checkpoint `name` onto memory files, those of the rebased checkpoint `near` where
    they nearly fit; bytes of pages in its images before and after.

    Raises OSError or ValueError, and the checkpoint is as it was.
    """
    old, new, file = f"{staging}/{name}", f"{staging}/{name}.rebased", f"{memory.FOLDER}/{name}"
    if os.path.lexists(f"{old}/parent"):
        raise ValueError("the checkpoint is a difference already")
    before = _pages(old)
    taken, size = used()
    os.mkdir(new, 0o700)
    try:
        images_as = f"{memory.IMAGES}/{name}."
        where = near and f"{staging}/{near}"
        if not memory.rewrite(old, new, file, file, where, images_as, size - taken):
            _unlink(file)
            return before, before
        paths = {path for path in memory.Files(new).paths.values() if memory.is_memory(path)}
        for path in paths:
            if path.startswith(images_as):
                _take(old, path.removeprefix(images_as), name)
        record.carry(old, new, memory=record.fingerprints(map(memory.name_of, paths)))
        sc.exchange(old, new)
    except BaseException:
        _give_back(staging, name)
        _unlink(file)
        raise
    finally:
        shutil.rmtree(new)
        share_room()
    return before, _pages(old)


def _take(folder: str, image: str, name: str) -> None:
    """Make a memory file of an image of pages."""
    path = f"{MEMORY_IMAGES}/{name}.{image}"
    if os.path.exists(path):
        raise ValueError("it has become one already")
    os.rename(f"{folder}/{image}", path)
    os.truncate(path, enlarged(os.path.getsize(path)))
    os.chmod(path, 0o444)


def _give_back(staging: str, name: str) -> None:
    """Undo `_take`, of all images that checkpoint `name` does not need as memory files."""
    folder, prefix = f"{staging}/{name}", f"{MEMORY_IMAGES}/{name}."
    found = record.at(folder)
    needed = {os.path.basename(file) for file in found["memory"]}
    taken = [path for path in glob.glob(f"{prefix}*.img") if os.path.basename(path) not in needed]
    for path in taken:
        image = path.removeprefix(prefix)
        os.chmod(path, 0o600)
        os.truncate(path, found["images"][image][0])
        os.rename(path, f"{folder}/{image}")
    if taken:
        with record.opened(folder) as directory:
            record.write(directory, found | {"images": record.images(directory)})


def clear(staging: str, name: str) -> None:
    """Take away what a process left that was ended while it made checkpoint `name` smaller."""
    _give_back(staging, name)
    needed = record.at(f"{staging}/{name}").get("memory", {})
    for path in (f"{memory.FOLDER}/{name}", *glob.glob(f"{memory.FOLDER}/{name}.*")):
        if os.path.basename(path) not in needed and os.path.exists(path):
            os.unlink(path)
    for suffix in ("thin", "rebased", "golden"):
        shutil.rmtree(f"{staging}/{name}.{suffix}", ignore_errors=True)
    share_room()


def used() -> tuple[int, int]:
    """Bytes that staging and its memory files take, and that they may take together."""
    (in_staging, _), (in_files, size) = _fill(STAGING), _fill(memory.FOLDER)
    return in_staging + in_files, size


def share_room() -> None:
    """Two mounts, one budget: staging gets what memory files leave of it. It keeps what it takes
    already, for less is refused, and a rebase may copy a little more than it can tell before."""
    (in_staging, _), (in_files, size) = _fill(STAGING), _fill(memory.FOLDER)
    flags = sc.MS_REMOUNT | sc.MS_NOSUID | sc.MS_NODEV
    sc.mount("none", STAGING, flags=flags, data=f"size={max(_PAGE, size - in_files, in_staging)}")


def _fill(mount: str) -> tuple[int, int]:
    status = os.statvfs(mount)
    return (status.f_blocks - status.f_bfree) * status.f_frsize, status.f_blocks * status.f_frsize


def _unlink(file: str) -> None:
    """Take away memory files of one checkpoint that nobody uses yet."""
    for left in [*glob.glob(file), *glob.glob(f"{file}.*")]:
        os.unlink(left)


def _pages(directory: str) -> int:
    with os.scandir(directory) as entries:
        return sum(e.stat().st_size for e in entries if e.name.startswith("pages-"))
