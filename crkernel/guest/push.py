"""Takes a shipment into staging: all of it, or nothing.

Nothing that comes is believed. Names on this side are our own, sizes have to fit the budget,
whatever refers to something refers to what came before, and fingerprints and seals are made anew
of what has arrived. What CRIU's images say is CRIU's to judge, in the sandbox that they are
restored in. Records are written last; until then no checkpoint is there.
"""

from __future__ import annotations

import errno
import glob
import os
import re
import shutil

from . import claims, eviction, golden, integrity, manifest, memory, processor, record, wire
from .images import Images
from .link import Channel
from .rebase import share_room, used
from .shipment import Incoming, Refused
from .tree import write_json

_IMAGE = re.compile(r"[a-z0-9][A-Za-z0-9._-]*\.img")
_FILES, _TASK = "files.img", "core-"
_NAME = re.compile(r"[A-Za-z0-9-]{1,32}")
_MOST_READ = 64 << 20
"""Bytes of what is taken apart here."""
_MOST_WORDS = 150
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DAMAGE = (
    *(AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError),
    FileExistsError,  # it brings something twice
)


def push(staging: str, name: str, image: str, channel: Channel) -> wire.Message:
    """Take in checkpoints that were made with `image`; all that is new has `name` in its name.
    Says what they are called now, and which golden roots they need. Raises Refused, and nothing of
    it is there."""
    try:
        return _Dock(staging, name, image, Incoming(channel)).unload()
    except (Refused, EOFError, *_DAMAGE, OSError) as error:
        clear(staging, name)
        raise _refusal(error) from error


def _refusal(error: Exception) -> Refused:
    """In one line, whatever the stream had them say."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, EOFError):
        return Refused("Corrupt", "the stream of checkpoints was cut")
    if isinstance(error, _DAMAGE):
        return Refused("Corrupt", f"the stream of checkpoints is damaged: {_brief(error)}")
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return Refused("NoSpace", "the checkpoints do not fit (limit staging_size)")
    return Refused("EngineError", f"the checkpoints cannot be taken in: {_brief(error)}")


def _brief(word: object) -> str:
    return str(word).replace("\n", " ")[:_MOST_WORDS]


def clear(staging: str, name: str) -> None:
    """Take away what there is of a push."""
    for path in (*glob.glob(f"{staging}/{name}*"), *glob.glob(f"{memory.FOLDER}/{name}*")):
        if os.path.isdir(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    share_room()


class _Dock:
    """What has come of one shipment so far."""

    def __init__(self, staging: str, name: str, image: str, stream: Incoming) -> None:
        self._staging = staging
        self._name = name
        self._image = image
        self._stream = stream
        self._files = 0  # how many, with names of our own
        self._memory: dict[str, str] = {}  # paths there -> paths here
        self._contents: list[tuple[str, int]] = []  # name here, size
        self._manifests: list[str] = []
        self._folders: list[str] = []  # of checkpoints, finished but for their place
        self._differences: set[str] = set()  # of these, those that are one to another
        self._images: str | None = None  # folder of the one that is arriving
        self._names: dict[str, str] = {}  # of those that were wanted: there -> here
        self._golden: set[str] = set()
        self._known: dict[str, str] | None = None
        self._parts = {
            "checkpoint": self._checkpoint,
            "content": self._content,
            "golden": self._golden_memory,
            "image": self._image_file,
            "manifest": self._manifest,
            "memory": self._memory_file,
        }

    def unload(self) -> wire.Message:
        """Everything, to its end."""
        self._header(self._stream.hear())
        while (said := self._stream.hear())["part"] != "end":
            self._parts[said["part"]](said)
        self._stream.sum()
        if self._images is not None or not self._names:
            raise ValueError("it ends before a checkpoint does")
        # What several share belongs to a folder that nobody wanted: it goes with its last user.
        eviction.mark(self._path(self._name), make=True)
        for folder in self._folders:
            os.rename(f"{self._path(folder)}.new", self._path(folder))
        share_room()
        return {"names": self._names, "golden": sorted(self._golden)}

    def _header(self, said: wire.Message) -> None:
        self._stream.sum()
        if said["part"] != "header":
            raise ValueError("it has no header")
        if said["image"] != self._image:
            raise Refused("FormatVersion", "the checkpoints were made with another sandbox image")
        if lacking := processor.lacking(said["machine"]):
            raise Refused("EngineError", f"the checkpoints need a processor with {_brief(lacking)}")
        size, (taken, room) = claims.number(said["bytes"]), used()
        if size > room - taken:
            raise Refused(
                "NoSpace",
                f"the checkpoints take {size >> 20} MiB, {(room - taken) >> 20} MiB are free "
                "(limit staging_size)",
            )
        self._stream.left = size

    # -- parts

    def _memory_file(self, said: wire.Message) -> None:
        path = f"{memory.FOLDER}/{self._new_name()}"
        self._receive(path, said, mode=0o444)
        share_room()
        integrity.seal_memory(path)
        self._meet(said["path"], path)

    def _golden_memory(self, said: wire.Message) -> None:
        if self._known is None:
            self._known = golden.digests()
        if said["digest"] not in self._known:
            raise Refused("EngineError", "the checkpoints need a golden root that is not here")
        path = self._known[said["digest"]]
        self._golden.add(golden.name_of(path).removeprefix(golden.PREFIX))
        self._meet(said["path"], path)

    def _meet(self, there: str, here: str) -> None:
        if not memory.is_memory(there) or there in self._memory:
            raise ValueError(f"{there!r} is no memory file, or comes twice")
        self._memory[there] = here

    def _content(self, said: wire.Message) -> None:
        name = self._new_name()
        self._receive(self._path(name), said)
        self._contents.append((name, said["size"]))

    def _manifest(self, said: wire.Message) -> None:
        claims.number(said["size"], most=_MOST_READ)
        name, scratch = self._new_name(), self._path(self._new_name())
        self._receive(scratch, said, whole=True)
        with open(scratch, "rb") as file:
            entries = manifest.read(file.read(), self._contents)
        os.unlink(scratch)
        with record.opened(self._staging) as directory:
            write_json(directory, name, entries)
        self._manifests.append(name)

    def _image_file(self, said: wire.Message) -> None:
        if not _IMAGE.fullmatch(said["name"]):
            raise ValueError(f"{said['name']!r} is no name of an image")
        if self._images is None:
            self._images = f"{self._name}-{len(self._folders)}"
            os.mkdir(f"{self._path(self._images)}.new", 0o700)
        if said["name"] == _FILES or said["name"].startswith(_TASK):
            claims.number(said["size"], most=_MOST_READ)
        self._receive(f"{self._path(self._images)}.new/{said['name']}", said, whole=True)

    def _checkpoint(self, said: wire.Message) -> None:
        if self._images is None:
            raise ValueError("a checkpoint has no images")
        folder, path = self._images, f"{self._path(self._images)}.new"
        meta = record.checked(said["record"])
        needed = {there: self._memory[there] for there in said["memory"]}
        meta["memory"] = record.fingerprints(map(memory.name_of, needed.values()))
        meta["files"] = None
        name, base = said["name"], said["base"]
        if name is None:
            eviction.mark(path)
        else:
            self._names[self._unknown(name)] = folder
            meta["files"] = self._manifests[claims.number(said["files"])]
            _settle(path, needed)
        if base is not None:
            meta["base"] = self._folders[claims.number(base)]
            if meta["base"] in self._differences:
                raise ValueError("a checkpoint is the difference to a difference")
            self._differences.add(folder)
            with record.opened(f"{self._path(meta['base'])}.new") as directory:
                meta["base_images"] = record.images(directory)
            os.symlink(f"../{meta['base']}", f"{path}/parent")
        integrity.seal(path)
        with record.opened(path) as directory:
            record.write(directory, meta | {"images": record.images(directory)})
        self._folders.append(folder)
        self._images = None

    def _unknown(self, name: str) -> str:
        if not _NAME.fullmatch(name) or name in self._names:
            raise ValueError(f"{name!r} is no name of a checkpoint, or comes twice")
        return name

    # -- files

    def _receive(
        self, path: str, said: wire.Message, *, mode: int = 0o600, whole: bool = False
    ) -> None:
        descriptor = os.open(path, _NEW, mode)
        try:
            self._stream.file(descriptor, claims.number(said["size"]), whole=whole)
        finally:
            os.close(descriptor)

    def _new_name(self) -> str:
        self._files += 1
        return f"{self._name}.{self._files}"

    def _path(self, name: str) -> str:
        return f"{self._staging}/{name}"


def _settle(path: str, memory_files: dict[str, str]) -> None:
    """Have the images of a checkpoint mean the memory files of this side. Its processes get the
    groups that the ones of this side have: which the others had is their host's affair, nobody
    could give them to a guest here, and CRIU would wait for ever for a thread that tried."""
    images = Images(path, path)
    entries = images.load(_FILES)
    for entry in entries:
        if "reg" in entry and memory.is_memory(entry["reg"]["name"]):
            entry["reg"]["name"] = memory_files[entry["reg"]["name"]]
    images.save(_FILES, entries)
    for name in glob.glob(f"{_TASK}*", root_dir=path):
        threads = images.load(name)
        for entry in threads:
            thread = entry.get("thread", {})  # a zombie has none
            thread.get("credentials", {}).pop("groups", None)
        images.save(name, threads)
