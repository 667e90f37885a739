"""Whether checkpoints are what they were: images and memory files that nobody has changed.

Three layers, each as dear as the place where it is asked. A **fingerprint** (size, inode, time of
change, which nobody can set) is in the record from the start. A **seal**, written in the
background, has check sums: of all contents, and of a sample of them. A restore compares
fingerprints and samples; in the background what was restored is read through (`verify`).

The seal of a checkpoint's images lies in its directory, that of a memory file beside it, and that
of the files' contents that a checkpoint brought beside them; these are only read through.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from . import memory, record, wire
from .sparse import blocks
from .tree import named_by

SUFFIX = ".seal"
_FILES = f".files{SUFFIX}"
_NAME = f"images{SUFFIX}"
_BLOCK = 1 << 16
_NOTHING = bytes(_BLOCK)
_PAGE = 4096
_SMALL = 1 << 18
"""Files up to so many bytes are compared as a whole before a restore."""
_SAMPLES = 16

Sums = dict[str, list[int]]
"""By file: the sum of all of it; of a bigger one also the sum of a sample, and its offsets."""


@dataclass(frozen=True)
class Findings:
    """What reading something through has shown: what is wrong, in words; which memory files a
    checkpoint needs, and its base; which checkpoints need what was read."""

    damage: str | None
    needs: list[str]
    needed_by: list[str]


def damage(staging: int, directory: int, meta: wire.Message) -> str | None:
    """What of a checkpoint is not as it was, as far as that costs next to nothing to see. `meta` is
    its record; all else are descriptors."""
    found = _images_damage(directory, meta["images"]) or _memory_damage(meta["memory"])
    if found is None and "base" in meta:
        with record.opened(str(meta["base"]), staging) as base:
            found = _images_damage(base, meta["base_images"])
    return found


def expect(staging: str, *names: str) -> None:
    """That checkpoints are what they were, as far as `damage` tells. Who makes something else of
    them asks this when all has been read: what changes later has another fingerprint than the
    record, which goes along. Raises OSError, ValueError."""
    with record.opened(staging) as directory:
        for name in names:
            with record.opened(name, directory) as images:
                if found := damage(directory, images, record.read(images)):
                    raise ValueError(f"checkpoint {name} is damaged: {found}")


def changed(known: wire.Message, now: wire.Message) -> str | None:
    """The first memory file that has another fingerprint than it had."""
    return next((name for name in sorted(known) if now.get(name, known[name]) != known[name]), None)


def seal(path: str) -> None:
    """Write down the sums of a checkpoint's images, as they are now."""
    with record.opened(path) as directory:
        _write(f"{path}/{_NAME}", _sums_of(directory, _images(directory)))


def seal_memory(path: str) -> None:
    """As `seal`, of one memory file."""
    _write(f"{path}{SUFFIX}", {os.path.basename(path): _sums(None, path)})


def seal_files(staging: str, name: str) -> None:
    """As `seal`, of the contents of files that a checkpoint brought."""
    if (manifest := record.at(f"{staging}/{name}")["files"]) == f"{name}.tree":
        with record.opened(staging) as directory:
            own = {c for c in named_by(directory, manifest) if c.startswith(f"{name}.")}
            _write(f"{staging}/{name}{_FILES}", _sums_of(directory, own))


def is_of_files(name: str) -> bool:
    """Whether this is the name of a seal of files' contents."""
    return name.endswith(_FILES)


def verify(staging: str, path: str) -> Findings:
    """Read the images of the checkpoint in a directory through, or a memory file. What has no seal
    yet gets one. Raises OSError where there is no such thing."""
    if not os.path.isdir(path):
        found, name = _verify_memory(path), memory.name_of(path)
        return Findings(found, [], [n for n, meta in _records(staging) if name in meta["memory"]])
    meta = record.at(path)
    needs = [memory.path_of(name) for name in meta["memory"]]
    needs += [file for file in glob.glob(f"{path}/memory*") if not file.endswith(SUFFIX)]
    needs += [str(meta["base"])] if "base" in meta else []
    found, name = _verify_images(path, meta), os.path.basename(path)
    users = [other for other, its in _records(staging) if its.get("base") == name]
    if found is None and meta["files"] is not None:
        found, sharing = _verify_files(staging, str(meta["files"]))
        users += sharing
    return Findings(found, sorted(needs), users)


def _records(staging: str) -> Iterator[tuple[str, wire.Message]]:
    """Of all checkpoints, by name; of one that is made small meanwhile perhaps both forms."""
    for name in os.listdir(staging):
        if os.path.exists(f"{staging}/{name}/{record.NAME}"):
            with contextlib.suppress(FileNotFoundError):  # the old form has just gone
                if (meta := record.found(f"{staging}/{name}")) is not None:
                    yield name, meta


def _verify_images(path: str, meta: wire.Message) -> str | None:
    with record.opened(path) as directory:
        if (found := _images_damage(directory, meta["images"])) is not None:
            return found
        if (sums := _read(_NAME, directory)) is None:
            seal(path)
            return None
        return next((_other(name) for name in sums if _sums(directory, name) != sums[name]), None)


def _verify_files(staging: str, manifest: str) -> tuple[str | None, list[str]]:
    """What is wrong with the contents of a checkpoint's files, and which checkpoints need that."""
    brought: defaultdict[str, set[str]] = defaultdict(set)
    with record.opened(staging) as directory:
        try:
            for content in named_by(directory, manifest):
                brought[content.partition(".")[0]].add(content)
            for name, contents in brought.items():
                sums = _read(f"{name}{_FILES}", directory) or {}
                if new := contents - sums.keys():
                    known = sums | _sums_of(directory, new)
                    _write(f"{staging}/{name}{_FILES}", known)
                for content in sorted(contents & sums.keys()):
                    if _sums(directory, content) != sums[content]:
                        return _other(content), _users(staging, directory, content)
        except (FileNotFoundError, ValueError) as error:  # or what no manifest can be read of
            return f"what its files held cannot be read: {error}", []
    return None, []


def _users(staging: str, directory: int, content: str) -> list[str]:
    """The checkpoints that need the contents of a file."""
    manifests = {name: meta["files"] for name, meta in _records(staging)}
    return [n for n, its in manifests.items() if its and content in named_by(directory, its)]


def _verify_memory(path: str) -> str | None:
    sums = _read(f"{path}{SUFFIX}")
    if sums is None:
        seal_memory(path)
        return None
    return None if sums[os.path.basename(path)] == _sums(None, path) else _other(path)


def _images_damage(directory: int, fingerprints: wire.Message) -> str | None:
    if fingerprints != record.images(directory, max(map(len, fingerprints.values()))):
        return "an image is missing, cut or another"
    sums = _read(_NAME, directory) or {}
    return next((_other(n) for n, known in sums.items() if not _fits(directory, n, known)), None)


def _memory_damage(fingerprints: wire.Message) -> str | None:
    try:
        if other := changed(fingerprints, record.fingerprints(fingerprints)):
            return f"the memory file {other} is another"
    except FileNotFoundError as error:
        return f"the memory file {error.filename} is missing"
    for name in fingerprints:
        path = memory.path_of(name)
        known = (_read(f"{path}{SUFFIX}") or {}).get(os.path.basename(path))
        if known is not None and not _fits(None, path, known):
            return _other(path)
    return None


def _other(name: str) -> str:
    return f"{name} has other contents than it had"


def _images(directory: int) -> Iterator[str]:
    return (name for name in sorted(os.listdir(directory)) if name.endswith(".img"))


def _sums_of(directory: int, names: Iterable[str]) -> Sums:
    return {name: _sums(directory, name) for name in names}


def _sums(directory: int | None, name: str) -> list[int]:
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        size = os.fstat(descriptor).st_size
        total, data = 0, []
        for offset in blocks(descriptor, size, _BLOCK):
            block = os.pread(descriptor, _BLOCK, offset)
            if block != _NOTHING[: len(block)]:  # whether zeros are a hole is no difference
                total = zlib.crc32(block, zlib.crc32(offset.to_bytes(8, "little"), total))
                data.append(offset)
        if size <= _SMALL:
            return [total]
        chosen = [data[len(data) * i // _SAMPLES] for i in range(_SAMPLES)] if data else []
        return [total, _sample(descriptor, chosen), *chosen]
    finally:
        os.close(descriptor)


def _fits(directory: int | None, name: str, known: list[int]) -> bool:
    """Whether a file is what its sums say, all of a small one, a sample of a bigger one."""
    if len(known) == 1:
        return _sums(directory, name) == known
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        return _sample(descriptor, known[2:]) == known[1]
    finally:
        os.close(descriptor)


def _sample(descriptor: int, offsets: Iterable[int]) -> int:
    total = 0
    for offset in offsets:
        total = zlib.crc32(os.pread(descriptor, _PAGE, offset), total)
    return total


def _write(path: str, sums: Sums) -> None:
    """Put it under its name only when it is whole; two processes may write the same one at once."""
    scratch = f"{path}.{os.getpid()}.new"
    with open(scratch, "w") as file:
        json.dump(sums, file)
    os.rename(scratch, path)


def _read(path: str, directory: int | None = None) -> Sums | None:
    """The sums of a seal; None if there is none. ValueError for a damaged one."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory), "rb") as file:
            sums: Sums = wire.parse(file.read())
    except FileNotFoundError:
        return None
    return sums
