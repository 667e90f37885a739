"""The writable file tree of a sandbox: snapshots of what changed, and the way back.

A snapshot is a manifest, `path -> entry`, that names contents kept as files of their own. Both lie
in staging and are never changed afterwards. Whoever takes or restores one makes sure that no guest
runs meanwhile; all paths are walked by descriptor and without following links, because a guest
made them.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from . import syscalls as sc
from .sparse import extents

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 30

Entry = dict[str, Any]
Signature = tuple[int, ...]


@dataclass(frozen=True)
class Snapshot:
    """A manifest's name in staging, and the bytes that taking it added."""

    name: str
    added: int


class Tree:
    """The directory `root` and its snapshots in `staging`, both descriptors.

    Remembers the newest snapshot's stat of each file, so that the next one copies only what
    changed. (inode, mtime, ctime, size and mode catch every change but stores to a shared mapping
    that was dirty already: those files are named by the caller.)
    """

    def __init__(self, root: int, staging: int) -> None:
        self._root = root
        self._staging = staging
        self._known: dict[str, tuple[Signature, Entry]] = {}
        self._latest: str | None = None
        self._before: tuple[dict[str, tuple[Signature, Entry]], str | None] = {}, None
        """The two as they were before the newest snapshot."""

    def snapshot(self, name: str, always: Collection[int] = ()) -> Snapshot:
        """Take one under `name`, or give the newest again if nothing changed since.

        `always` are inodes to copy whether they look changed or not. Raises OSError.
        """
        try:
            return self._snapshot(name, always)
        except OSError:  # staging is full
            self.take_back(name)
            raise

    def take_back(self, name: str) -> None:
        """Leave nothing of a snapshot that nobody will need, if there is any: of the newest one."""
        if self._latest == f"{name}.tree":
            self._known, self._latest = self._before
        for left in os.listdir(self._staging):
            if left.startswith(f"{name}."):
                os.unlink(left, dir_fd=self._staging)

    def _snapshot(self, name: str, always: Collection[int]) -> Snapshot:
        known: dict[str, tuple[Signature, Entry]] = {}
        links: dict[int, str] = {}
        added = 0
        changed = self._latest is None
        for path, directory, leaf, status in _walk(self._root):
            if stat.S_ISSOCK(status.st_mode):
                continue  # CRIU binds it again
            signature = _signature(status)
            before = self._known.get(path)
            if before and before[0] == signature and status.st_ino not in always:
                known[path] = before
            else:
                changed = True
                content = f"{name}.{len(known)}"
                entry = self._record(directory, leaf, status, links, content)
                added += entry.get("size", 0) if entry.get("content") == content else 0
                known[path] = (signature, entry)
            if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
                links.setdefault(status.st_ino, path)
        if changed or known.keys() != self._known.keys():
            write_json(self._staging, f"{name}.tree", {p: e for p, (_, e) in known.items()})
            self._before = self._known, self._latest
            self._known, self._latest = known, f"{name}.tree"
        assert self._latest is not None
        return Snapshot(self._latest, added)

    @property
    def latest(self) -> str | None:
        """The newest snapshot, if the root is as that has it; a guest may have changed it since."""
        return self._latest

    def become(self, name: str) -> None:
        """Make the root what a snapshot has, where there was nothing yet or another one. Raises
        OSError, and the root is of no more use."""
        if name == self._latest:
            return
        self._latest = None
        manifest = read_manifest(self._staging, name)
        stale = _stale({path: entry for path, (_, entry) in self._known.items()}, manifest)
        for path, kind in reversed(stale.items()):  # what lies in a directory before it
            (os.rmdir if kind == "directory" else os.unlink)(path, dir_fd=self._root)
        self.fill(manifest, kept=self._known.keys() - stale.keys())
        self._latest = name

    def fill(self, manifest: dict[str, Entry], kept: Collection[str] = ()) -> None:
        """Make an empty root what a manifest says; of what it has, `kept` is there already. Raises
        OSError."""
        for path, entry in manifest.items():
            if path not in kept:
                self._create(path, entry)
            elif entry["kind"] == "directory":
                os.chmod(path or ".", entry["mode"], dir_fd=self._root)
        for path, entry in reversed(manifest.items()):  # after what lies in a directory touched it
            if entry["kind"] == "directory" or (entry["kind"] != "hardlink" and path not in kept):
                times = (entry["mtime"], entry["mtime"])
                os.utime(path or ".", ns=times, dir_fd=self._root, follow_symlinks=False)
        self._known = {
            path: (_signature(status), manifest[path])
            for path, _, _, status in _walk(self._root)
            if path in manifest
        }

    def place(self, name: str, folder: str, leaves: Collection[str]) -> None:
        """Make what `folder` has under the names `leaves` what the manifest `name` has of them.
        Raises OSError.

        The guest may be running: what is new is made where no path of its leads, and moved in by
        renames that follow no link. What has not changed since the newest snapshot is not touched,
        for a program may run from it.
        """
        after = read_manifest(self._staging, name)
        before = {
            path.removeprefix(f"{folder}/"): _seen_from(folder, entry)
            for path, (_, entry) in self._known.items()
            if path.removeprefix(f"{folder}/").partition("/")[0] in leaves
        }
        scratch = f"arriving.{secrets.token_hex(8)}"
        os.mkdir(scratch, 0o700, dir_fd=self._root)
        source = os.open(scratch, _DIRECTORY, dir_fd=self._root)
        try:
            changed = dict(enumerate(_changes(before, after)))
            arriving = Tree(source, self._staging)
            arriving.fill(_below(changed, after))
            for number, path in changed.items():
                self._swap(source, str(number), f"{folder}/{path}")
            for path, known in arriving._known.items():
                if path:
                    root, slash, rest = path.partition("/")
                    self._known[f"{folder}/{changed[int(root)]}{slash}{rest}"] = known
            self._latest = None
        finally:
            os.close(source)
            # A guest that works in what was there until now may keep a part of it from going.
            shutil.rmtree(scratch, ignore_errors=True, dir_fd=self._root)

    def _swap(self, source: int, name: str, path: str) -> None:
        """Have what lies at `path` and `name` of the directory `source` change places."""
        folder, _, leaf = path.rpartition("/")
        target = sc.open_beneath(self._root, folder)
        try:
            if not _has(source, name):
                with contextlib.suppress(FileNotFoundError):  # the guest was faster
                    os.rename(leaf, name, src_dir_fd=target, dst_dir_fd=source)
            elif _has(target, leaf):
                sc.exchange(name, leaf, source, target)
            else:
                os.rename(name, leaf, src_dir_fd=source, dst_dir_fd=target)
        finally:
            os.close(target)

    def _record(
        self, directory: int, leaf: str, status: os.stat_result, links: dict[int, str], content: str
    ) -> Entry:
        mode = status.st_mode
        entry: Entry = {"mode": stat.S_IMODE(mode), "mtime": status.st_mtime_ns}
        if stat.S_ISDIR(mode):
            return entry | {"kind": "directory"}
        if stat.S_ISLNK(mode):
            return entry | {"kind": "symlink", "target": os.readlink(leaf, dir_fd=directory)}
        if stat.S_ISFIFO(mode):
            return entry | {"kind": "fifo"}
        if status.st_ino in links:
            return entry | {"kind": "hardlink", "target": links[status.st_ino]}
        source = os.open(leaf, _READ, dir_fd=directory)
        try:
            attributes = {n: os.getxattr(source, n).hex() for n in os.listxattr(source)}
            _copy(source, os.open(content, _CREATE, 0o600, dir_fd=self._staging), status.st_size)
        finally:
            os.close(source)
        entry |= {"kind": "file", "size": status.st_size, "content": content}
        return entry | ({"attributes": attributes} if attributes else {})

    def _create(self, path: str, entry: Entry) -> None:
        kind, root = entry["kind"], self._root
        if kind == "directory":
            with contextlib.suppress(FileExistsError):  # the mount points are there from the start
                os.mkdir(path or ".", dir_fd=root)
        elif kind == "symlink":
            os.symlink(entry["target"], path, dir_fd=root)
            return
        elif kind == "fifo":
            os.mkfifo(path, dir_fd=root)
        elif kind == "hardlink":
            os.link(entry["target"], path, src_dir_fd=root, dst_dir_fd=root, follow_symlinks=False)
            return
        else:
            target = os.open(path, _CREATE, 0o600, dir_fd=root)
            source = os.open(entry["content"], _READ, dir_fd=self._staging)
            try:
                for attribute, value in entry.get("attributes", {}).items():
                    os.setxattr(target, attribute, bytes.fromhex(value))
                _copy(source, target, entry["size"])
            finally:
                os.close(source)
        os.chmod(path or ".", entry["mode"], dir_fd=root)


def read_manifest(staging: int, name: str) -> dict[str, Entry]:
    """What a snapshot holds, each directory before what is in it."""
    with open(os.open(name, os.O_RDONLY, dir_fd=staging), encoding="utf-8") as file:
        manifest: dict[str, Entry] = json.load(file)
    return manifest


NO_MANIFEST = (AttributeError, KeyError, TypeError, ValueError)
"""What comes of reading one that is damaged."""


def named_by(staging: int, name: str) -> set[str]:
    """Contents, by their names in staging, that a snapshot needs: its own, too."""
    entries = read_manifest(staging, name).values()
    return {name} | {entry["content"] for entry in entries if "content" in entry}


def _stale(before: dict[str, Entry], after: dict[str, Entry]) -> dict[str, str]:
    """What has to go before the one can become the other: kinds by path. Directories stay if they
    are in both, and links to a file go with it."""
    stale: dict[str, str] = {}
    for path, entry in before.items():
        kind, new = entry["kind"], after.get(path, {})
        same = new.get("kind") == kind if kind == "directory" else new == entry
        if not same or (kind == "hardlink" and entry["target"] in stale):
            stale[path] = kind
    return stale


def _changes(before: dict[str, Entry], after: dict[str, Entry]) -> list[str]:
    """The paths of what differs, but nothing below one of them: it comes or goes along."""
    found: list[str] = []
    for path in sorted(before.keys() | after.keys() - {""}, key=lambda path: path.split("/")):
        if not (found and path.startswith(f"{found[-1]}/")):
            old, new = before.get(path), after.get(path)
            if old is None or new is None or essence(old) != essence(new):
                found.append(path)
    return found


def _seen_from(folder: str, entry: Entry) -> Entry:
    if entry["kind"] != "hardlink":
        return entry
    return entry | {"target": entry["target"].removeprefix(f"{folder}/")}


def essence(entry: Entry) -> Entry:
    """What makes an entry another one: not its time, and of a directory nothing."""
    if entry["kind"] == "directory":
        return {"kind": "directory"}
    return {name: value for name, value in entry.items() if name != "mtime"}


def _below(roots: dict[int, str], manifest: dict[str, Entry]) -> dict[str, Entry]:
    """A manifest of parts of another one, each under its number."""
    numbers = {path: number for number, path in roots.items()}
    parts: dict[str, Entry] = {"": {"kind": "directory", "mode": 0o700, "mtime": 0}}
    for path, entry in manifest.items():
        root = path
        while root and root not in numbers:
            root = root.rpartition("/")[0]
        if root:
            if entry["kind"] == "hardlink":  # to what may not be among the parts: a copy will do
                entry = manifest[entry["target"]]
            parts[f"{numbers[root]}{path[len(root) :]}"] = entry
    return parts


def _has(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _walk(root: int) -> Iterator[tuple[str, int, str, os.stat_result]]:
    """Yield (path, descriptor of its directory, name in it, lstat), each directory before what it
    holds. The root itself is "" and comes first."""
    yield "", root, ".", os.stat(root)
    pending = [""]
    while pending:
        prefix = pending.pop()
        directory = os.open(prefix or ".", _DIRECTORY, dir_fd=root)
        try:
            with os.scandir(directory) as entries:
                for entry in sorted(entries, key=lambda e: e.name):
                    status = entry.stat(follow_symlinks=False)
                    yield prefix + entry.name, directory, entry.name, status
                    if stat.S_ISDIR(status.st_mode):
                        pending.append(f"{prefix}{entry.name}/")
        finally:
            os.close(directory)


def _signature(status: os.stat_result) -> Signature:
    if stat.S_ISDIR(status.st_mode):  # its contents speak for themselves
        return (status.st_ino, status.st_mode, status.st_mtime_ns)
    return (
        status.st_ino,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_size,
        status.st_mode,
        status.st_nlink,
    )


def _copy(source: int, target: int, size: int) -> None:
    """Copy the data and leave the holes; closes `target`."""
    try:
        os.ftruncate(target, size)
        for position, end in extents(source, size):
            os.lseek(target, position, os.SEEK_SET)
            while position < end:
                sent = os.sendfile(target, source, position, min(end - position, _CHUNK))
                if sent == 0:
                    return
                position += sent
    finally:
        os.close(target)


def write_json(directory: int, name: str, value: object) -> None:
    """A new file. Raises OSError."""
    with open(os.open(name, _CREATE, 0o600, dir_fd=directory), "w", encoding="utf-8") as file:
        json.dump(value, file, separators=(",", ":"))
