"""Where golden roots are kept: a folder with one directory each, named by its key.

Whoever runs guests of one holds a lock on it; only what nobody holds is removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Sequence

from .sparse import extents

_BLOCK = 1 << 14
_KEPT = 4
"""How many there are, for other limits or other versions of the code each, beside those in use."""
_SPOILED = "damaged"
"""A file that marks a golden root from which nobody is to start."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY


def hold(folder: str, key: str, *, needed: bool = False) -> int | None:
    """A descriptor that holds a golden root until it is closed; None if there is none. One that is
    damaged goes, if nobody runs on it any more, unless checkpoints need it."""
    if not needed and is_spoiled(folder, key):
        remove_unused(f"{folder}/{key}")
        return None
    try:
        descriptor = os.open(f"{folder}/{key}", _DIRECTORY)
    except FileNotFoundError:
        return None
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.stat(f"{folder}/{key}"), os.fstat(descriptor)):
            return descriptor
    os.close(descriptor)  # it was just removed
    return None


def touch(folder: str, key: str) -> None:
    """It is in use: those that nobody has used for longer go before it."""
    with contextlib.suppress(OSError):  # it is another user's
        os.utime(f"{folder}/{key}")


def is_spoiled(folder: str, key: str) -> bool:
    """Whether it is marked as damaged."""
    return os.path.exists(f"{folder}/{key}/{_SPOILED}")


def spoil(folder: str, key: str) -> None:
    """Mark a golden root as damaged. Raises OSError."""
    with open(f"{folder}/{key}/{_SPOILED}", "w"):
        pass


def keys(folder: str) -> list[str]:
    """Of those that are there."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    return []


def store(folder: str, key: str, names: Sequence[str], descriptors: list[int]) -> None:
    """Copy the files of a golden root into `folder`: whole, or not at all. Closes the descriptors.

    Of the others those go that have not been used for longest. Raises OSError.
    """
    os.makedirs(folder, exist_ok=True)
    partial = f"{folder}/.{key}.partial"
    lock = os.open(folder, _DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # so whatever is partial was left by a kernel that died
        for litter in os.listdir(folder):
            if litter.endswith(".partial"):
                shutil.rmtree(f"{folder}/{litter}")
        if os.path.exists(f"{folder}/{key}"):
            return  # another kernel was faster
        os.mkdir(partial)
        os.chmod(partial, 0o777)  # in Docker each kernel is another user, and may have to sweep it
        for name, descriptor in zip(names, descriptors, strict=True):
            with open(f"{partial}/{os.path.basename(name)}", "wb") as target:
                _copy(descriptor, target.fileno())
                os.fchmod(target.fileno(), 0o444)  # what CRIU will expect
                os.fsync(target.fileno())
        for old in _oldest(folder):
            remove_unused(f"{folder}/{old}")
        # Who may make one may mark and remove it.
        os.chmod(partial, os.stat(folder).st_mode & 0o777)
        os.rename(partial, f"{folder}/{key}")
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        for descriptor in (lock, *descriptors):
            os.close(descriptor)


def _oldest(folder: str) -> list[str]:
    """Those that make room for one more."""
    whole = [key for key in keys(folder) if not is_spoiled(folder, key)]
    latest = sorted(whole, key=lambda key: _used_at(f"{folder}/{key}"), reverse=True)
    return [key for key in keys(folder) if key not in latest[: _KEPT - 1]]


def _used_at(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except FileNotFoundError:  # it was just removed
        return 0.0


def remove_unused(path: str) -> bool:
    """Remove a golden root, unless a kernel holds it or it is another user's; whether it went."""
    try:
        descriptor = os.open(path, _DIRECTORY)
    except FileNotFoundError:  # another kernel was faster
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path)
    except (BlockingIOError, PermissionError):
        return False
    except FileNotFoundError:
        return True
    finally:
        os.close(descriptor)
    return True


def _copy(source: int, target: int) -> None:
    """All data; what is zero becomes a hole, on whatever file system."""
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    for position, end in extents(source, size):
        while position < end:
            block = os.pread(source, min(_BLOCK, end - position), position)
            if block.strip(b"\0"):
                os.pwrite(target, block, position)
            position += len(block)
