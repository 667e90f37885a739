"""The record in a checkpoint's directory, written last: what makes it a checkpoint.

All functions but `carry` and `at` take the directory as a descriptor.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable

from . import wire
from .memory import FOLDER

NAME = "crkernel.json"


def write(directory: int, record: wire.Message) -> None:
    """Put it under its name only when it is whole."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with open(os.open(f"{NAME}.new", flags, 0o600, dir_fd=directory), "w") as file:
        json.dump(record, file)
    os.rename(f"{NAME}.new", NAME, src_dir_fd=directory, dst_dir_fd=directory)


def carry(source: str, target: str, **changes: object) -> None:
    """Write the record of directory `source` into `target`, which has its images in another form;
    `changes` are fields that differ."""
    old, new = (os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (source, target))
    try:
        write(new, read(old) | {"sizes": sizes(new)} | changes)
    finally:
        os.close(old)
        os.close(new)


def at(path: str) -> wire.Message:
    """As `read`, of a directory by its path."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return read(directory)
    finally:
        os.close(directory)


def read(directory: int) -> wire.Message:
    """Raises FileNotFoundError where there is no checkpoint, ValueError for a damaged record."""
    with open(os.open(NAME, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)) as file:
        return wire.parse(file.read().encode())


def is_whole(staging: int, directory: int, record: wire.Message) -> bool:
    """Whether no image of a checkpoint is missing or cut, those of its base included, and its
    memory files are the ones that it was made with."""
    if sizes(directory) != record["sizes"]:
        return False
    try:
        if fingerprints(record["memory"]) != record["memory"]:
            return False
    except OSError:
        return False
    if "base" not in record:
        return True
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    base = os.open(str(record["base"]), flags, dir_fd=staging)
    try:
        return bool(sizes(base) == read(base)["sizes"])
    finally:
        os.close(base)


def sizes(directory: int) -> dict[str, int]:
    """Bytes of each of CRIU's images."""
    with os.scandir(directory) as entries:
        return {e.name: e.stat().st_size for e in entries if e.name.endswith(".img")}


def fingerprints(names: Iterable[str]) -> dict[str, list[int]]:
    """What tells memory files of the session from others: size, inode and the time of the newest
    change, which nobody can set. Raises OSError where one is missing."""
    found = {name: os.stat(f"{FOLDER}/{name}") for name in sorted(names)}
    return {name: [s.st_size, s.st_ino, s.st_ctime_ns] for name, s in found.items()}
