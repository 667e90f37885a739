"""Brings a checkpoint back in steps: what can be done before anybody waits, and the rest.

A CRIU is started before it is known for what. Then files are put in place, CRIU reads the images,
and makes the guest's processes with all their memory. There they stop: from the next step on their
clock runs, so one that was got ready an hour ago comes up as if it had not been.
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


class Restores:
    """Into a sandbox without a guest: holds what is ready of the next one. Raises as `Restore`."""

    def __init__(self, staging: int, work: int, tree: Tree, criu: Criu) -> None:
        self._staging = staging
        self._work = work
        self._tree = tree
        self._criu = criu
        self._start: Start | None = None
        self._ready: Restore | None = None

    def warm(self) -> None:
        """Have ready what they all begin with."""
        if self._start is None and self._ready is None:
            self._start = Start(self._criu)

    def prepare(self, name: str) -> bool:
        """Do all that can be done before somebody waits for it, if there is room for that."""
        restore = self.take(name)
        if not restore.has_room():
            restore.drop()
            return False
        restore.get_ready()
        self._ready = restore
        return True

    def take(self, name: str) -> Restore:
        """The one that is ready if it is of this checkpoint, else one that has just begun."""
        ready, self._ready = self._ready, None
        if ready is not None:
            if ready.name == name and ready.stands:
                return ready
            ready.drop()
        start, self._start = self._start, None
        if start is not None and not start.criu.waits:
            start.drop()
            start = None
        return Restore(name, self._staging, self._work, self._tree, start or Start(self._criu))

    def drop(self) -> None:
        """There will be none."""
        if self._start is not None:
            self._start.drop()
        if self._ready is not None:
            self._ready.drop()
        self._start = self._ready = None


class Start:
    """What every restore begins with, whatever it is of: a CRIU that waits, and the guest's pipes.
    Raises OSError."""

    def __init__(self, criu: Criu) -> None:
        self.pipes = Pipes.make()
        try:
            process.set_next_pid(_FIRST_PID)  # not that of one of the guest's, however often
            self.criu = criu.restore(list(self.pipes.theirs.values()))
        except BaseException:
            self.pipes.close()
            raise

    def drop(self) -> None:
        """It is not wanted any more."""
        self.criu.end()
        self.pipes.close()


class Restore:
    """Of checkpoint `name` in `staging`, into a sandbox without a guest; CRIU's log goes to `work`.
    Raises CriuError or OSError; for a damaged record KeyError, TypeError or ValueError."""

    def __init__(self, name: str, staging: int, work: int, tree: Tree, start: Start) -> None:
        self.name = name
        self._staging = staging
        self._tree = tree
        self._start = start
        self._images = -1
        try:
            self._images = _open(staging, name)
            self._record = golden.read(name, self._images)
            inodes = self._record["pipes"]
            there = [inodes[str(number)] for number in start.pipes.theirs]
            start.criu.begin(self._images, work, there)
        except BaseException:
            self.drop()
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
        return same and self._start.criu.waits

    def has_room(self) -> bool:
        """Whether its memory and files can be put in place long before somebody needs them."""
        size = sum(int(size) for size, *_ in self._record["images"].values())
        files = self._record["files"]
        if files is not None and files != self._tree.latest:
            entries = read_manifest(self._staging, files).values()
            size += sum(int(entry.get("size", 0)) for entry in entries)
        return size * _SHARE <= _free_memory()

    def get_ready(self) -> None:
        """Do all that can be done long before it is finished."""
        if not self._start.criu.approached:
            self._place()
            if self._can_wait():
                self._start.criu.approach()

    def finish(self, forward: Callable[[wire.Body], None], clock: Clock, *, twin: bool) -> Guest:
        """The guest, which runs; `forward` takes what it says, `clock` is set for it. If this
        fails, the sandbox is of no more use."""
        then, last_pid = self._record["monotonic"], int(self._record["last_pid"])
        criu, pipes = self._start.criu, self._start.pipes
        try:
            if not (was_ready := criu.approached):
                self._place()
                criu.approach()
            clock.set(then, goes_on=twin)
            criu.open()
            if was_ready:
                self._check()  # once more, while CRIU goes on
            pid = criu.finish()
        except BaseException:
            self.drop()
            raise
        os.close(self._images)
        pipes.hand_over()
        process.set_next_pid(last_pid + 1)
        return Guest(pid, pipes, forward, self._record["leftovers"])

    def drop(self) -> None:
        """It is not wanted any more."""
        self._start.drop()
        if self._images >= 0:
            os.close(self._images)
        if self._start.criu.approached:
            process.kill_all()
            process.reap_all()

    def _place(self) -> None:
        """Put its files in place, unless they are."""
        self._check()  # CRIU reads the images meanwhile
        if (files := self._record["files"]) is not None:
            self._tree.become(files)

    def _check(self) -> None:
        """CRIU would wait for ever for what is missing of an image."""
        if found := integrity.damage(self._staging, self._images, self._record):
            raise CriuError(f"the checkpoint is damaged: {found}")

    def _can_wait(self) -> bool:
        """Whether its processes may be there long before somebody needs them. Many would count for
        the limit on processes, and CRIU gives files that are open and have lost their name one for
        the time being, which would stay in the tree if this restore is dropped."""
        images = self._record["images"]
        alone = sum(name.startswith("mm-") for name in images) == 1
        return alone and not any(name.startswith(("ghost-", "remap-")) for name in images)


def _open(staging: int, name: str) -> int:
    if name.startswith(golden.PREFIX):
        return os.open(golden.folder(name), record.DIRECTORY)
    return record.open_directory(staging, name)


def _free_memory() -> int:
    with open("/proc/meminfo") as file:
        lines = dict(line.split(":") for line in file)
    return int(lines["MemAvailable"].split()[0]) << 10
