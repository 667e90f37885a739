"""Walks, deletes and sets to rights the tree of an image."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from crkernel.errors import EngineError


def walk(folder: Path) -> Iterator[Path]:
    """The folder and everything in it; a directory comes before its contents are read."""
    yield folder
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from walk(Path(entry.path))
            else:
                yield Path(entry.path)


def normalise(folder: Path) -> int:
    """Let everybody read the tree and take away all set-id bits; the tree's size in bytes.

    On a host where root runs the kernel, sandboxes read the image as another user. Old versions of
    set-id programs in a data folder would be a gift to whoever can reach them.
    """
    size = 0
    for path in walk(folder):
        status = path.lstat()
        size += status.st_blocks * 512
        if stat.S_ISLNK(status.st_mode):
            continue
        before = stat.S_IMODE(status.st_mode)
        mode = before & ~(stat.S_ISUID | stat.S_ISGID)
        if stat.S_ISDIR(status.st_mode):
            mode |= 0o755
        else:
            mode |= 0o555 if mode & stat.S_IXUSR else 0o444
        if mode != before:
            path.chmod(mode)
    return size


def delete(folder: Path) -> None:
    """Remove a tree; `EngineError` if something is mounted in it, whose files are not ours."""
    if mounts := mounts_in(folder):
        raise EngineError(
            f"{mounts[0]} is mounted inside a tree that is to be removed",
            hint=f"run: sudo umount {mounts[-1]}",
        )
    for path in walk(folder):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)  # Debian has directories that their owner may not write
    shutil.rmtree(folder)


def mounts_in(folder: Path) -> list[str]:
    """The mount points at or below a folder, outer ones first."""
    below = folder.resolve()
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        # Blanks and backslashes in paths are written as octal numbers.
        point = os.fsdecode(line.split()[4].encode().decode("unicode_escape").encode("latin-1"))
        if Path(point).is_relative_to(below):
            found.append(point)
    return found
