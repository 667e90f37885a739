"""Sends checkpoints out of staging, as a shipment, with all that they need.

Who has them sent sees to it that they are not dropped or made smaller meanwhile; if they are, the
shipment ends without its end, and nobody takes it for one.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence

from . import eviction, golden, integrity, manifest, memory, processor, record, wire
from .link import Channel, write_all
from .shipment import PAGE, Outgoing, Refused
from .sparse import extents
from .tree import Entry, read_manifest


def fetch(
    staging: str, names: Sequence[str], image: str, known: Collection[str], channel: Channel
) -> None:
    """Send the checkpoints `names`, made with `image`. Memory of golden roots whose digest is among
    the `known` is left out. Raises Refused for checkpoints that are damaged or are not there,
    OSError once nobody listens."""
    load = _Load(staging, names)
    load.check()
    load.send(Outgoing(channel), image, known)


class _Load:
    """What some checkpoints consist of."""

    def __init__(self, staging: str, names: Sequence[str]) -> None:
        self._staging = staging
        wanted = {name: _record(staging, name) for name in names}
        bases = {str(meta["base"]) for meta in wanted.values() if "base" in meta}
        extra = {name: record.at(f"{staging}/{name}") for name in sorted(bases - wanted.keys())}
        self._wanted = wanted
        # What others are a difference to comes first.
        self._records = extra | dict(sorted(wanted.items(), key=lambda one: "base" in one[1]))
        self._memory = list(dict.fromkeys(f for meta in wanted.values() for f in meta["memory"]))
        self._data: dict[str, list[tuple[int, int]]] = {}
        self._trees: dict[str, dict[str, Entry]] = {}
        with record.opened(staging) as directory:
            for meta in wanted.values():
                if meta["files"] not in self._trees:
                    self._trees[meta["files"]] = read_manifest(directory, meta["files"])
        entries = [entry for tree in self._trees.values() for entry in tree.values()]
        contents = [entry["content"] for entry in entries if entry["kind"] == "file"]
        self._contents = {name: number for number, name in enumerate(dict.fromkeys(contents))}

    def check(self) -> None:
        """Read through what is to be sent."""
        for path in (*self._folders(), *map(memory.path_of, self._memory)):
            if damage := integrity.verify(self._staging, path).damage:
                raise Refused("Corrupt", f"a checkpoint is damaged: {damage}")

    def send(self, stream: Outgoing, image: str, known: Collection[str]) -> None:
        """All of it."""
        paths = [memory.path_of(name) for name in self._memory]
        digests = {path: golden.digest(path) for path in paths if path.startswith(golden.FOLDER)}
        left_out = {path for path, digest in digests.items() if digest in known}
        contents = [f"{self._staging}/{name}" for name in self._contents]
        images = [path for folder in self._folders() for path in _images(folder)]
        texts = [manifest.write(tree, self._contents) for tree in self._trees.values()]
        sparse = [*(path for path in paths if path not in left_out), *contents]
        # Once and for all: a guest that reads a hole of its memory file makes it data.
        self._data = {path: _data(path) for path in sparse}
        self._data |= {path: [(0, os.stat(path).st_size)] for path in images}
        size = sum(end - start for data in self._data.values() for start, end in data)
        size += sum(map(len, texts))
        # The sum of the header comes at once: from here on sizes are believed.
        stream.say("header", image=image, machine=processor.identity(), bytes=size)
        stream.sum()
        for path in paths:
            if path in left_out:
                stream.say("golden", path=path, digest=digests[path])
            else:
                self._send(stream, "memory", path, path=path)
        for path in contents:
            self._send(stream, "content", path)
        for text in texts:
            _send_text(stream, text)
        numbers = {name: number for number, name in enumerate(self._records)}
        trees = {name: number for number, name in enumerate(self._trees)}
        for name, meta in self._records.items():
            for path in _images(f"{self._staging}/{name}"):
                self._send(stream, "image", path, name=os.path.basename(path))
            self._send_record(stream, name, meta, numbers, trees)
        self._check_again()
        stream.say("end")
        stream.sum()

    def _send(self, stream: Outgoing, part: str, source: str, /, **fields: object) -> None:
        descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(descriptor).st_size
            stream.say(part, size=size, **fields)
            stream.file(descriptor, size, self._data[source])
        finally:
            os.close(descriptor)

    def _send_record(
        self,
        stream: Outgoing,
        name: str,
        meta: wire.Message,
        numbers: dict[str, int],
        trees: dict[str, int],
    ) -> None:
        needed = list(map(memory.path_of, meta["memory"]))
        fields = {key: meta[key] for key in record.TRAVELLING}
        wanted = name in self._wanted
        stream.say(
            "checkpoint",
            name=name if wanted else None,
            base=numbers[meta["base"]] if "base" in meta else None,
            files=trees[meta["files"]] if wanted else None,
            memory=needed if wanted else [],
            record=fields,
        )

    def _check_again(self) -> None:
        """That nothing has changed since it was read through."""
        with record.opened(self._staging) as directory:
            for name, meta in self._records.items():
                needed = meta if name in self._wanted else meta | {"memory": {}}
                with record.opened(f"{self._staging}/{name}") as images:
                    damage = integrity.damage(directory, images, needed)
                    if damage or record.read(images) != meta:
                        raise Refused("EngineError", "a checkpoint was changed while it was sent")

    def _folders(self) -> list[str]:
        return [f"{self._staging}/{name}" for name in self._records]


def _record(staging: str, name: str) -> wire.Message:
    path = f"{staging}/{name}"
    if "/" in name or "." in name or os.path.exists(f"{path}/{eviction.DROPPED}"):
        raise Refused("EngineError", f"{name!r} is no checkpoint in staging")
    try:
        return record.at(path)
    except FileNotFoundError:
        raise Refused("EngineError", f"there is no checkpoint {name!r} in staging") from None


def _images(folder: str) -> list[str]:
    return [f"{folder}/{name}" for name in sorted(os.listdir(folder)) if name.endswith(".img")]


def _data(path: str) -> list[tuple[int, int]]:
    """Where a file has data, in whole pages: blocks of a disk may be smaller."""
    found: list[tuple[int, int]] = []
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        for start, end in extents(descriptor, size):
            start, end = start // PAGE * PAGE, min(size, -(-end // PAGE) * PAGE)
            if found and start <= found[-1][1]:
                start = found.pop()[0]
            found.append((start, end))
    finally:
        os.close(descriptor)
    return found


def _send_text(stream: Outgoing, text: bytes) -> None:
    descriptor = os.memfd_create("manifest")
    try:
        write_all(descriptor, text)
        stream.say("manifest", size=len(text))
        stream.file(descriptor, len(text), [(0, len(text))])
    finally:
        os.close(descriptor)
