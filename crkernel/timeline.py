"""The tree of checkpoints of one session: records and references, no IO.

A `Checkpoint` is frozen. A `Timeline` is not, on purpose: its one owner, the session, changes it
through `append`, `move`, `amend`, `label` and `adopt`, so that what happens once per cell (the
first three at the head, `later_key`, `label`, `get`) costs O(1) however long the timeline is. Only
what a user asks for (`resolve`, `path`, `between`, the `move` of a rewind, ...) walks the tree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from itertools import islice
from types import MappingProxyType
from typing import Any

from crkernel.checkpoint import (
    SEE,
    Checkpoint,
    Key,
    check_label,
    checkpoint_of,
    record_of,
    require,
)
from crkernel.errors import Corrupt, NotRestorable, UnknownCheckpoint, UserError
from crkernel.guesses import unknown

FORMAT = 1
"""Version of what `Timeline.to_dict` returns."""

_BACK = re.compile(r"-([1-9][0-9]{0,8})")


class DuplicateKey(ValueError):
    """A checkpoint was appended under a key that is taken: a bug of the caller."""


class Timeline:
    """All checkpoints of a session, those of earlier lives of its kernel included."""

    def __init__(self) -> None:
        self._checkpoints: dict[str, Checkpoint] = {}
        self._children: dict[str, list[str]] = {}
        self._roots: list[str] = []
        self._labels: dict[str, str] = {}
        self._head: str | None = None
        # The child through which the head last went: the way that a redo takes.
        self._forward: dict[str, str] = {}
        # (generation, cell) -> number of the latest "7+n".
        self._later: dict[tuple[str, int], int] = {}

    # -- looking -------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._checkpoints)

    def __iter__(self) -> Iterator[str]:
        """The keys, oldest first."""
        return iter(self._checkpoints)

    def __reversed__(self) -> Iterator[str]:
        return reversed(self._checkpoints)

    def __contains__(self, key: object) -> bool:
        return key in self._checkpoints

    @property
    def head(self) -> str:
        """The key of the checkpoint that the live guest continues from."""
        if self._head is None:
            raise UnknownCheckpoint("there is no checkpoint yet", hint="run a cell first")
        return self._head

    @property
    def labels(self) -> Mapping[str, str]:
        """label -> key, as a live view."""
        return MappingProxyType(self._labels)

    @property
    def roots(self) -> tuple[str, ...]:
        """The keys without parent: one for each life of the kernel, oldest first."""
        return tuple(self._roots)

    def get(self, key: str) -> Checkpoint:
        """The checkpoint with that key; UnknownCheckpoint if there is none."""
        checkpoint = self._checkpoints.get(key)
        if checkpoint is None:
            raise self._unknown(key)
        return checkpoint

    def children(self, key: str) -> tuple[str, ...]:
        """The keys of what followed that checkpoint, oldest first."""
        self.get(key)
        return tuple(self._children.get(key, ()))

    def path(self, key: str) -> list[str]:
        """The keys from the root of its tree to `key`, both included."""
        path = [checkpoint.key for checkpoint in self._upward(key)]
        path.reverse()
        return path

    def _upward(self, key: str) -> Iterator[Checkpoint]:
        checkpoint = self.get(key)
        yield checkpoint
        while checkpoint.parent is not None:
            checkpoint = self._checkpoints[checkpoint.parent]
            yield checkpoint

    # -- changing ------------------------------------------------------------------------------

    def append(self, checkpoint: Checkpoint) -> None:
        """Add a checkpoint and make it the head; of a cell that ended the guest the head stays.

        Raises DuplicateKey, or ValueError if the parent is not known: bugs of the caller.
        """
        key, parent = checkpoint.key, checkpoint.parent
        if key in self._checkpoints:
            raise DuplicateKey(f"there is a checkpoint {key} already")
        if parent is not None and parent not in self._checkpoints:
            raise ValueError(f"checkpoint {key} follows {parent}, which is not known")
        self._checkpoints[key] = checkpoint
        if parent is None:
            self._roots.append(key)
        else:
            self._children.setdefault(parent, []).append(key)
        parts = Key.parse(key)
        cell = (parts.generation, parts.cell)
        self._later[cell] = max(self._later.get(cell, 0), parts.later)
        if checkpoint.status != "died":
            if parent is not None and parent != self._head:
                self.move(parent)
            if parent is not None:
                self._forward[parent] = key
            self._head = key

    def move(self, key: str) -> None:
        """Make `key` the head: the live guest now continues from there."""
        if key == self._head:
            return
        child: str | None = None
        for checkpoint in self._upward(key):
            if child is not None:
                self._forward[checkpoint.key] = child
            child = checkpoint.key
        self._head = key

    def amend(self, key: str, **changes: Any) -> Checkpoint:
        """Replace fields of a checkpoint by what became known later; not its place in the tree."""
        if "key" in changes or "parent" in changes:
            raise ValueError("the place of a checkpoint in the timeline is for good")
        amended = replace(self.get(key), **changes)
        self._checkpoints[key] = amended
        return amended

    def label(self, key: str, name: str) -> None:
        """Name a checkpoint; a name that is in use moves here. BadMagic if it cannot be a name."""
        check_label(name)
        self._labels[name] = self.get(key).key

    def later_key(self, key: str) -> str:
        """The next free key for a later state of the same cell: "7" and "7+1" give "7+2"."""
        parts = Key.parse(self.get(key).key)
        latest = self._later[parts.generation, parts.cell]
        return str(replace(parts, later=latest + 1))

    def adopt(self, generation: int | None = None) -> dict[str, str]:
        """Make room for a new life of the kernel: key 7 of the life that ended becomes r1.7.

        `generation` is the number of that life, by default the next free one. Keys of lives before
        it stay, labels follow. Returns old key -> new key for all that changed.
        """
        used = {cell[0] for cell in self._later}
        if generation is None:
            generation = 1 + max((int(prefix[1:]) for prefix in used if prefix), default=0)
        prefix = f"r{generation}"
        if generation < 1 or prefix in used:
            raise ValueError(f"generation {generation} of the timeline is in use or below 1")
        renamed = {
            key: str(replace(parts, generation=prefix))
            for key in self._checkpoints
            if not (parts := Key.parse(key)).generation
        }

        def new(key: str) -> str:
            return renamed.get(key, key)

        def moved(old: Checkpoint) -> Checkpoint:
            return replace(old, key=new(old.key), parent=old.parent and new(old.parent))

        self._checkpoints = {new(key): moved(old) for key, old in self._checkpoints.items()}
        self._children = {new(k): [new(c) for c in cs] for k, cs in self._children.items()}
        self._roots = [new(key) for key in self._roots]
        self._labels = {name: new(key) for name, key in self._labels.items()}
        self._forward = {new(k): new(child) for k, child in self._forward.items()}
        self._later = {(before or prefix, cell): n for (before, cell), n in self._later.items()}
        self._head = self._head and new(self._head)
        return renamed

    # -- references ----------------------------------------------------------------------------

    def resolve(self, ref: str) -> str:
        """The key that a reference means; nothing is changed.

        7, 7+1, r1.7    that checkpoint
        a label         the checkpoint that has it
        -2              two cells back from the head; later states are skipped
        head, root      where the live guest continues from; the top of its tree
        before REF      the state from which the cell REF started

        Raises UnknownCheckpoint, or UserError for what lies before a root. Whether the state can be
        restored is another question: see `restorable`.
        """
        words = ref.split()
        steps = 0
        while len(words) > 1 and words[0] == "before":
            words.pop(0)
            steps += 1
        key = self._resolve(" ".join(words))
        for _ in range(steps):
            key = self.before(key)
        return key

    def _resolve(self, ref: str) -> str:
        if ref in self._checkpoints:
            return ref
        if ref in self._labels:
            return self._labels[ref]
        if ref == "head":
            return self.head
        if ref == "root":
            return self.path(self.head)[0]
        if match := _BACK.fullmatch(ref):
            return self._back(int(match[1]))
        raise self._unknown(ref)

    def before(self, key: str) -> str:
        """The state from which the cell that led to `key` started: its parent."""
        parent = self.get(key).parent
        if parent is None:
            raise UserError(
                f"nothing comes before {key}: it is the guest just after boot",
                hint=f"%rewind {key} goes there",
            )
        return parent

    def restorable(self, key: str) -> Checkpoint:
        """The checkpoint if it can be restored; else NotRestorable names one above that can."""
        checkpoint = self.get(key)
        if checkpoint.reason is None:
            return checkpoint
        nearest = self.nearest_restorable(key)
        raise NotRestorable(
            f"checkpoint {key} cannot be restored: {checkpoint.reason}",
            hint=f"the nearest state before it is {nearest}: %rewind {nearest}"
            if nearest is not None
            else "nothing before it can be restored either; %reset starts afresh",
        )

    def nearest_restorable(self, key: str) -> str | None:
        """The key of the nearest restorable state, `key` itself or above it; else None."""
        return next((c.key for c in self._upward(key) if c.reason is None), None)

    def undo_target(self, n: int = 1) -> str:
        """The state from which the last `n` cells before the head started.

        Later states belong to their cell: an undo at 7+1 takes back cell 7 as well.
        """
        cells = (c for c in self._upward(self.head) if not c.is_later)
        found = list(islice(cells, max(n, 0) + 1))
        if not 0 < n < len(found):
            raise _too_few("undo", len(found) + sum(1 for _ in cells) - 1, "before")
        return self.before(found[n - 1].key)

    def redo_target(self, n: int = 1) -> str:
        """The state `n` cells ahead on the way that the head last took, e.g. before an undo.

        Later states belong to their cell: the last one that can be restored is taken.
        """
        reached: list[Checkpoint] = []
        key = self._forward.get(self.head)
        while key is not None and len(reached) <= n:
            checkpoint = self._checkpoints[key]
            if not checkpoint.is_later:
                reached.append(checkpoint)
            elif reached and checkpoint.reason is None:
                reached[-1] = checkpoint
            key = self._forward.get(key)
        if n < 1 or n > len(reached):
            raise _too_few("redo", len(reached), "after")
        return reached[n - 1].key

    def span(self, first: str, last: str) -> list[str]:
        """The keys on the path from `first` to `last`, both included. Raises UserError."""
        path = self.path(last)
        if self.get(first).key not in path:
            raise self._apart(first, last)
        return path[path.index(first) :]

    def between(self, first: str, last: str) -> list[Checkpoint]:
        """The checkpoints with code on the path from `first` to `last`, both included, in order.

        To run them again, restore the parent of the first one. UserError if `first` does not lead
        to `last` or no code lies between them.
        """
        self.get(first)
        cells: list[Checkpoint] = []
        for checkpoint in self._upward(last):
            if checkpoint.code is not None:
                cells.append(checkpoint)
            if checkpoint.key == first:
                break
        else:
            raise self._apart(first, last)
        if not cells:
            raise UserError(f"no cell ran from {first} to {last}", hint=SEE)
        cells.reverse()
        return cells

    def _apart(self, first: str, last: str) -> UserError:
        if last in self.path(first):
            return UserError(f"{last} comes before {first}", hint=f"turn it round: {last}..{first}")
        return UserError(
            f"{first} does not lead to {last}: they lie on different branches", hint=SEE
        )

    def _back(self, n: int) -> str:
        cells = [c for c in self._upward(self.head) if not c.is_later]
        if n >= len(cells):
            raise UnknownCheckpoint(
                f"-{n} is too far back: {_count(len(cells) - 1)} lead to the head {self.head}",
                hint=SEE,
            )
        return cells[n].key

    def _unknown(self, ref: str) -> UnknownCheckpoint:
        return unknown(ref, self._checkpoints, self._labels)

    # -- as data -------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON, from which `from_dict` makes an equal timeline."""
        return {
            "format": FORMAT,
            "head": self._head,
            "labels": dict(self._labels),
            "checkpoints": [asdict(checkpoint) for checkpoint in self._checkpoints.values()],
        }

    @classmethod
    def from_dict(cls, data: object) -> Timeline:
        """The timeline that `to_dict` described; Corrupt if the data cannot have come from there.

        A redo afterwards takes the newest way where the old one is not known any more.
        """
        timeline = cls()
        try:
            record = record_of(data, {"format", "head", "labels", "checkpoints"}, "timeline")
            require(record["format"] == FORMAT, "format")
            require(isinstance(record["checkpoints"], list), "checkpoints")
            for checkpoint in record["checkpoints"]:
                timeline.append(checkpoint_of(checkpoint))
            require(isinstance(record["labels"], dict), "labels")
            for name, key in record["labels"].items():
                timeline.label(key, name)
            head = record["head"]
            require(head in timeline if timeline else head is None, "head")
            if head is not None:
                timeline.move(head)
        except (ValueError, TypeError, UserError) as exc:
            raise Corrupt(f"the record of the timeline is damaged: {exc}") from exc
        return timeline


def _count(n: int) -> str:
    return "no cells" if n < 1 else "1 cell" if n == 1 else f"{n} cells"


def _too_few(verb: str, there: int, side: str) -> UserError:
    if there < 1:
        return UserError(f"nothing to {verb}: no cell lies {side} the head", hint=SEE)
    return UserError(f"%{verb} can go 1 to {there} here: {_count(there)} {side} the head", hint=SEE)
