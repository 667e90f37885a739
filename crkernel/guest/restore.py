"""Brings a checkpoint back in two steps: what can be done before anybody waits, and the rest.

The first puts its files in place and has CRIU read its images. No process of the guest is there
before the second, for its clock runs from then on: one that was got ready an hour ago comes up as
if it had not been.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from . import golden, integrity, process, record, wire
from .clock import Clock
from .criu import Criu, CriuError
from .process import Guest, Pipes
from .tree import Tree, read_manifest

_FIRST_PID = 2
"""Of the CRIUs of an empty sandbox, which come and go."""
_SHARE = 8
"""While nobody waits for them, files may take one in so many bytes of the memory that is free."""


class Restore:
    """Of checkpoint `name` in `staging`, into a sandbox without a guest; CRIU's log goes to `work`.
    Raises CriuError or OSError; for a damaged record KeyError, TypeError or ValueError."""

    def __init__(self, name: str, staging: int, work: int, tree: Tree, criu: Criu) -> None:
        self.name = name
        self._staging = staging
        self._tree = tree
        self._images = _open(staging, name)
        self._pipes = Pipes.make()
        try:
            process.set_next_pid(_FIRST_PID)  # not that of one of the guest's, however often
            self._criu = criu.restore(list(self._pipes.theirs.values()))
            try:  # CRIU starts meanwhile
                self._record = golden.read(name, self._images)
                self._check()
                inodes = self._record["pipes"]
                there = [inodes[str(number)] for number in self._pipes.theirs]
                self._criu.begin(self._images, work, there)
            except BaseException:
                self._criu.end()
                raise
        except BaseException:
            self._close()
            raise

    @property
    def hello(self) -> wire.Message:
        """What the guest said of itself when it was booted."""
        hello: wire.Message = self._record["hello"]
        return hello

    @property
    def memory(self) -> wire.Message:
        """Fingerprints of the memory files that it has."""
        memory: wire.Message = self._record["memory"]
        return memory

    @property
    def stands(self) -> bool:
        """Whether it can still be finished, however long ago it began: CRIU waits, and no smaller
        form has taken the place of the checkpoint."""
        try:
            there = _open(self._staging, self.name)
        except OSError:
            return False
        same = os.path.sameopenfile(there, self._images)
        os.close(there)
        return same and not self._criu.has_ended

    def has_room(self) -> bool:
        """Whether its files can be put in place long before somebody needs them."""
        files = self._record["files"]
        if files is None or files == self._tree.latest:
            return True
        entries = read_manifest(self._staging, files).values()
        return sum(int(entry.get("size", 0)) for entry in entries) * _SHARE <= _free_memory()

    def place_files(self) -> None:
        """Put its files in place, unless they are."""
        if (files := self._record["files"]) is not None:
            self._tree.become(files)

    def finish(self, forward: Callable[[wire.Body], None], clock: Clock, *, twin: bool) -> Guest:
        """The guest, which runs; `forward` takes what it says, `clock` is set for it. If this
        fails, the sandbox is of no more use."""
        then, last_pid = self._record["monotonic"], int(self._record["last_pid"])
        try:
            self._check()  # it may have been a while
            self.place_files()
            pid = self._criu.finish(lambda criu: clock.set(criu, then, goes_on=twin))
        except BaseException:
            self.drop()
            raise
        os.close(self._images)
        self._pipes.hand_over()
        process.set_next_pid(last_pid + 1)
        return Guest(pid, self._pipes, forward, self._record["leftovers"])

    def drop(self) -> None:
        """It is not wanted any more."""
        self._criu.end()
        self._close()

    def _check(self) -> None:
        """CRIU would wait for ever for what is missing of an image."""
        if found := integrity.damage(self._staging, self._images, self._record):
            raise CriuError(f"the checkpoint is damaged: {found}")

    def _close(self) -> None:
        os.close(self._images)
        self._pipes.close()


def _open(staging: int, name: str) -> int:
    if name.startswith(golden.PREFIX):
        return os.open(golden.folder(name), record.DIRECTORY)
    return record.open_directory(staging, name)


def _free_memory() -> int:
    with open("/proc/meminfo") as file:
        lines = dict(line.split(":") for line in file)
    return int(lines["MemAvailable"].split()[0]) << 10
