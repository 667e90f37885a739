"""The record in a checkpoint's directory, written last: what makes it a checkpoint.

Functions that work on a directory take it as a descriptor, but for `carry` and `at`.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from . import claims, wire
from .memory import path_of

NAME = "crkernel.json"
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
TRAVELLING = ("added", "hello", "last_pid", "leftovers", "monotonic", "pipes")
"""What of a record means the same in another staging."""
_SCRATCH = f"{NAME}.new"
_MORE = 1 << 12
_MOST_PID = 1 << 22


def open_directory(staging: int, name: str, *, make: bool = False) -> int:
    """A descriptor of a directory in staging. Raises OSError."""
    if "/" in name or name.startswith("."):
        raise OSError(f"{name!r} is no name of a checkpoint")
    if make:
        os.mkdir(name, 0o700, dir_fd=staging)
    return os.open(name, DIRECTORY, dir_fd=staging)


@contextmanager
def opened(path: str, within: int | None = None) -> Iterator[int]:
    """A directory by its path, below that of the descriptor `within` if it is relative."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=within)
    try:
        yield directory
    finally:
        os.close(directory)


def write(directory: int, record: wire.Message) -> None:
    """Put it under its name only when it is whole; its check sum is the last line."""
    text = json.dumps(record).encode()
    with _scratch(directory) as file:
        file.write(b"%s\n%08x\n" % (text, zlib.crc32(text)))
        file.truncate()
    os.rename(_SCRATCH, NAME, src_dir_fd=directory, dst_dir_fd=directory)


def reserve(directory: int) -> None:
    """See to it that `write` has room to write the record that is there once more, with other
    numbers in it, however full staging is by then. Raises OSError if there is none now."""
    with _scratch(directory) as file:
        file.write(bytes(os.stat(NAME, dir_fd=directory).st_size + _MORE))


def release(directory: int) -> None:
    """Give up what was reserved and not used."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_SCRATCH, dir_fd=directory)


def _scratch(directory: int) -> BinaryIO:
    """What there is of it already is written over: a page that it has needs no room."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
    return open(os.open(_SCRATCH, flags, 0o600, dir_fd=directory), "wb")


def carry(source: str, target: str, **changes: object) -> None:
    """Write the record of directory `source` into `target`, which has its images in another form;
    `changes` are fields that differ."""
    with opened(target) as new:
        write(new, at(source) | {"images": images(new)} | changes)


def at(path: str) -> wire.Message:
    """As `read`, of a directory by its path."""
    with opened(path) as directory:
        return read(directory)


def read(directory: int) -> wire.Message:
    """Raises FileNotFoundError where there is no checkpoint, ValueError for a damaged record."""
    with open(os.open(NAME, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory), "rb") as file:
        text, _, rest = file.read().partition(b"\n")
    if rest != b"%08x\n" % zlib.crc32(text):
        raise ValueError("its record has other contents than it had")
    return wire.parse(text)


def found(path: str) -> wire.Message | None:
    """As `at`; None for a damaged one: no way leads to that checkpoint, so it needs nothing."""
    try:
        return at(path)
    except ValueError:
        return None


def checked(found: wire.Message) -> wire.Message:
    """These fields of a record that somebody else wrote. Raises ValueError, KeyError or
    AttributeError for what is none."""
    meta = {key: found[key] for key in TRAVELLING}
    guest, host = meta["monotonic"]
    claims.number(meta["last_pid"], most=_MOST_PID - 1)
    for number in (meta["added"], guest, host, *meta["pipes"].values()):
        claims.number(number)
    for text in meta["leftovers"].values():
        bytes.fromhex(text)
    if not isinstance(meta["hello"], dict):
        raise ValueError("a record has no hello")
    return meta


def images(directory: int, length: int = 3) -> dict[str, list[int]]:
    """The fingerprint of each of CRIU's images, or its beginning: a copy has just the size."""
    with os.scandir(directory) as entries:
        return {e.name: _print(e.stat())[:length] for e in entries if e.name.endswith(".img")}


def fingerprints(names: Iterable[str]) -> dict[str, list[int]]:
    """What tells memory files from others, by their names. Raises OSError where one is missing."""
    return {name: _print(os.stat(path_of(name))) for name in sorted(names)}


def _print(status: os.stat_result) -> list[int]:
    """Size, inode and the time of the newest change, which nobody can set."""
    return [status.st_size, status.st_ino, status.st_ctime_ns]
