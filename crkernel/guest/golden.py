"""The golden root: the root checkpoint of a freshly booted guest, kept with the image.

Kernels start from it instead of booting the guest, and share its memory. It lies in the image's
file tree, because a guest has to find its memory file under the same path wherever it is restored.
"""

from __future__ import annotations

import glob
import hashlib
import os

from . import golden_store, integrity, memory, record, wire
from .sparse import blocks

FOLDER = "/golden"
PREFIX = "@"
"""A checkpoint's name that begins with it means a golden root, by its key."""
_MEMORY = "memory"
_BLOCK = 1 << 16


def folder(name: str) -> str:
    """Where the golden root with this name lies, in the image."""
    return f"{FOLDER}/{name.removeprefix(PREFIX)}"


def name_of(path: str) -> str:
    """The name of the golden root that has a memory file."""
    return PREFIX + os.path.basename(os.path.dirname(path))


def read(name: str, directory: int) -> wire.Message:
    """The record of a checkpoint. That of a golden root gets the fingerprints of its memory files
    here: they were copied after it was written."""
    meta = record.read(directory)
    if name.startswith(PREFIX):
        meta["memory"] = record.fingerprints(_memory_files(folder(name)))
    return meta


def digests() -> dict[str, str]:
    """The memory files of all golden roots that are whole, by their contents."""
    keys = [k for k in golden_store.keys(FOLDER) if not golden_store.is_spoiled(FOLDER, k)]
    return {digest(path): path for key in keys for path in _memory_files(folder(key))}


def digest(path: str) -> str:
    """Names the contents of a memory file; zeros are none, whether they are a hole or not. Raises
    OSError."""
    found = hashlib.sha256()
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        for offset in blocks(descriptor, size, _BLOCK):
            block = os.pread(descriptor, _BLOCK, offset)
            if block.strip(b"\0"):
                found.update(b"%d:" % offset + block)
    finally:
        os.close(descriptor)
    return f"{found.hexdigest()}:{size}"


def _memory_files(path: str) -> list[str]:
    found = glob.glob(f"{path}/{_MEMORY}*")
    return [file for file in found if not file.endswith(integrity.SUFFIX)]


def make(source: str, target: str, key: str) -> dict[str, int]:
    """Write a golden root of the checkpoint in `source`; its files as descriptors by name.

    It has no files of its own: the guest has not run anything yet. Raises OSError, ValueError.
    """
    os.mkdir(target, 0o755)
    memory.rewrite(source, target, f"{target}/{_MEMORY}", f"{FOLDER}/{key}/{_MEMORY}")
    integrity.expect(*os.path.split(source))
    with record.opened(target) as directory:
        sizes = record.images(directory, 1)  # it will be a copy
    record.carry(source, target, files=None, images=sizes)
    integrity.seal(target)
    for path in glob.glob(f"{target}/{_MEMORY}*"):
        integrity.seal_memory(path)
    return {name: os.open(f"{target}/{name}", os.O_RDONLY) for name in os.listdir(target)}
