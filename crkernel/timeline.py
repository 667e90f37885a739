"""The tree of checkpoints of one session: records and references, no IO.

A `Checkpoint` is frozen. A `Timeline` is not, on purpose: its one owner, the session, changes it
through `append`, `move`, `amend`, `label` and `adopt`, so that what happens once per cell (the
first three at the head, `later_key`, `label`, `get`) costs O(1) however long the timeline is. Only
what a user asks for (`resolve`, `path`, `between`, the `move` of a rewind, ...) walks the tree.

Keys of checkpoints:

    0       the root: the guest just after boot
    7       right after the cell In [7]
    7+1     a later state of the same cell: the guest went on by itself; nothing is lost
    r1.7    checkpoint 7 of an earlier life of the kernel (see `Timeline.adopt`)
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from types import MappingProxyType
from typing import Any, Literal, get_args

from crkernel.errors import BadMagic, Corrupt, NotRestorable, UnknownCheckpoint, UserError

Status = Literal["ok", "error", "died"]

KEYWORDS = ("head", "root", "before")
"""Words with a meaning of their own in references; no label can have such a name."""

FORMAT = 1
"""Version of what `Timeline.to_dict` returns."""

_KEY = re.compile(r"(?:(r[1-9][0-9]{0,8})\.)?(0|[1-9][0-9]{0,8})(?:\+([1-9][0-9]{0,8}))?")
_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_BACK = re.compile(r"-([1-9][0-9]{0,8})")
_SEE = "%timeline shows all checkpoints"


class DuplicateKey(ValueError):
    """A checkpoint was appended under a key that is taken: a bug of the caller."""


@dataclass(frozen=True, slots=True)
class Key:
    """The parts of a checkpoint's key; `str` puts them together again."""

    generation: str
    cell: int
    later: int

    @classmethod
    def parse(cls, text: str) -> Key:
        """Raises ValueError if `text` has not the form of a key."""
        match = _KEY.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not the key of a checkpoint")
        return cls(match[1] or "", int(match[2]), int(match[3] or 0))

    def __str__(self) -> str:
        generation = f"{self.generation}." if self.generation else ""
        return f"{generation}{self.cell}" + (f"+{self.later}" if self.later else "")


@dataclass(frozen=True, slots=True)
class Cost:
    """What taking a checkpoint cost: seconds for `dump` and `frozen`, bytes for the others."""

    dump: float
    frozen: float
    memory: int
    files: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The record of one state of the guest.

    `code` is None for the root and for states that no code led to; `created` is in seconds since
    1970, `duration` in seconds that the cell ran. `reason` says why the state cannot be restored;
    None means that it can. `status` "died" means that the cell ended the guest: nothing is left of
    that state, so it must have a reason.
    """

    key: str
    parent: str | None
    code: str | None
    created: float
    duration: float = 0.0
    status: Status = "ok"
    cost: Cost | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        key = Key.parse(self.key)
        if self.status not in get_args(Status):
            raise ValueError(f"checkpoint {self.key}: no such status: {self.status!r}")
        if self.status == "died" and self.reason is None:
            raise ValueError(f"checkpoint {self.key}: the guest died, so a reason is needed")
        if key.later:
            parent = Key.parse(self.parent) if self.parent is not None else None
            if parent is None or (parent.generation, parent.cell) != (key.generation, key.cell):
                raise ValueError(f"checkpoint {self.key} must follow a state of the same cell")

    @property
    def cell(self) -> int:
        """The execution count of the cell that led here; 0 for the root."""
        return Key.parse(self.key).cell

    @property
    def is_later(self) -> bool:
        """Whether this is a later state of its cell ("7+1"), not the one right after it ("7")."""
        return Key.parse(self.key).later > 0


def check_label(name: str) -> None:
    """Raise BadMagic unless `name` can be a label, i.e. cannot be mistaken for anything else."""
    if name in KEYWORDS or _KEY.fullmatch(name):
        raise BadMagic(
            f"{name!r} has a meaning of its own and cannot be a label", hint="choose another name"
        )
    if not _LABEL.fullmatch(name) or ".." in name or name.endswith("."):
        raise BadMagic(
            f"{name!r} cannot be a label",
            hint="a letter or _ comes first, then letters, digits, _, - or single dots",
        )


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
        cells = [c for c in self._upward(self.head) if not c.is_later]
        if n < 1 or n >= len(cells):
            raise _too_few("undo", len(cells) - 1, "before")
        return self.before(cells[n - 1].key)

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
            raise UserError(f"{first} does not lead to {last}: they lie on different branches")
        if not cells:
            raise UserError(f"no cell ran from {first} to {last}", hint=_SEE)
        cells.reverse()
        return cells

    def _back(self, n: int) -> str:
        cells = [c for c in self._upward(self.head) if not c.is_later]
        if n >= len(cells):
            raise UnknownCheckpoint(
                f"-{n} is too far back: {_count(len(cells) - 1)} lead to the head {self.head}",
                hint=_SEE,
            )
        return cells[n].key

    def _unknown(self, ref: str) -> UnknownCheckpoint:
        """The error for a reference that means nothing, with what may have been meant."""
        if not self._checkpoints:
            return UnknownCheckpoint("there is no checkpoint yet", hint="run a cell first")
        if not ref:
            return UnknownCheckpoint("no checkpoint was named", hint=_SEE)
        present = [Key.parse(key).cell for key in self._checkpoints if "." not in key]
        span = f"checkpoints {min(present)} to {max(present)} exist; " if present else ""
        near = self._near(ref)
        guess = f"; did you mean {' or '.join(near)}?" if near else ""
        shown = ref if len(ref) <= 40 else ref[:39] + "…"
        return UnknownCheckpoint(f"there is no checkpoint {shown!r}{guess}", hint=span + _SEE)

    def _near(self, ref: str) -> list[str]:
        """At most three references that exist and are close to one that does not."""
        if match := _KEY.fullmatch(ref):
            cell = int(match[2])
            peers = [k for k in self._checkpoints if (Key.parse(k).generation or None) == match[1]]
            near = sorted(peers, key=lambda k: (abs(Key.parse(k).cell - cell), k))[:2]
            earlier = [k for k in reversed(self._checkpoints) if k.endswith(f".{ref}")]
            return near + earlier[:1]
        lower = {name.lower(): name for name in (*KEYWORDS[:2], *self._labels)}
        return [lower[name] for name in difflib.get_close_matches(ref.lower(), lower, n=2)]

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
            record = _record(data, {"format", "head", "labels", "checkpoints"}, "timeline")
            _require(record["format"] == FORMAT, "format")
            _require(isinstance(record["checkpoints"], list), "checkpoints")
            for checkpoint in record["checkpoints"]:
                timeline.append(_checkpoint(checkpoint))
            _require(isinstance(record["labels"], dict), "labels")
            for name, key in record["labels"].items():
                timeline.label(key, name)
            head = record["head"]
            _require(head in timeline if timeline else head is None, "head")
            if head is not None:
                timeline.move(head)
        except (ValueError, TypeError, UserError) as exc:
            raise Corrupt(f"the record of the timeline is damaged: {exc}") from exc
        return timeline


def _count(n: int) -> str:
    return "no cells" if n < 1 else "1 cell" if n == 1 else f"{n} cells"


def _too_few(verb: str, there: int, side: str) -> UserError:
    if there < 1:
        return UserError(f"nothing to {verb}: no cell lies {side} the head", hint=_SEE)
    return UserError(
        f"%{verb} can go 1 to {there} here: {_count(there)} {side} the head", hint=_SEE
    )


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise ValueError(f"bad {what}")


def _record(data: object, names: set[str], what: str) -> dict[str, Any]:
    """`data` if it is a dict with exactly these keys; else ValueError."""
    if not isinstance(data, dict) or set(data) != names:
        raise ValueError(f"bad {what}")
    return data


def _number(value: object) -> bool:
    """Whether this is a finite number that is not negative (bool is none)."""
    return isinstance(value, int | float) and type(value) is not bool and 0 <= value < math.inf


def _checkpoint(data: object) -> Checkpoint:
    """A checkpoint from outside, every field checked; ValueError says which is bad."""
    record = _record(data, {field.name for field in fields(Checkpoint)}, "fields of a checkpoint")
    for name in ("key", "status"):
        _require(isinstance(record[name], str), name)
    for name in ("parent", "code", "reason"):
        _require(record[name] is None or isinstance(record[name], str), name)
    for name in ("created", "duration"):
        _require(_number(record[name]), name)
    if record["cost"] is None:
        return Checkpoint(**record)
    cost = _record(record["cost"], {field.name for field in fields(Cost)}, "cost")
    _require(all(_number(value) for value in cost.values()), "cost")
    _require(isinstance(cost["memory"], int) and isinstance(cost["files"], int), "cost")
    return Checkpoint(**{**record, "cost": Cost(**cost)})
