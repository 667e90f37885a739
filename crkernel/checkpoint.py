"""One checkpoint as a record: its key, what it cost, and what led to it. No IO.

Keys of checkpoints:

    0       the root: the guest just after boot
    7       right after the cell In [7]
    7+1     a later state of the same cell: the guest went on by itself; nothing is lost
    r1.7    checkpoint 7 of an earlier life of the kernel (see `Timeline.adopt`)
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from crkernel.errors import BadMagic

Status = Literal["ok", "error", "died"]

KEYWORDS = ("head", "root", "before")
"""Words with a meaning of their own in references; no label can have such a name."""

SEE = "%timeline shows all checkpoints"
"""The hint of errors about references."""

KEY = re.compile(r"(?:(r[1-9][0-9]{0,8})\.)?(0|[1-9][0-9]{0,8})(?:\+([1-9][0-9]{0,8}))?")
_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,39}")


@dataclass(frozen=True, slots=True)
class Key:
    """The parts of a checkpoint's key; `str` puts them together again."""

    generation: str
    cell: int
    later: int

    @classmethod
    def parse(cls, text: str) -> Key:
        """Raises ValueError if `text` has not the form of a key."""
        match = KEY.fullmatch(text)
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
    if name in KEYWORDS or KEY.fullmatch(name):
        raise BadMagic(
            f"{name!r} has a meaning of its own and cannot be a label", hint="choose another name"
        )
    if not _LABEL.fullmatch(name) or ".." in name or name.endswith("."):
        raise BadMagic(
            f"{name[:60]!r} cannot be a label",
            hint="a letter or _ comes first, then letters, digits, _, - or single dots; at most 40",
        )


def require(condition: bool, what: str) -> None:
    """Raises ValueError."""
    if not condition:
        raise ValueError(f"bad {what}")


def record_of(data: object, names: set[str], what: str) -> dict[str, Any]:
    """`data` if it is a dict with exactly these keys; else ValueError."""
    if not isinstance(data, dict) or set(data) != names:
        raise ValueError(f"bad {what}")
    return data


def _number(value: object) -> bool:
    """Whether this is a finite number that is not negative (bool is none)."""
    return isinstance(value, int | float) and type(value) is not bool and 0 <= value < math.inf


def checkpoint_of(data: object) -> Checkpoint:
    """A checkpoint from outside, every field checked; ValueError says which is bad."""
    record = record_of(data, {field.name for field in fields(Checkpoint)}, "fields of a checkpoint")
    for name in ("key", "status"):
        require(isinstance(record[name], str), name)
    for name in ("parent", "code", "reason"):
        require(record[name] is None or isinstance(record[name], str), name)
    for name in ("created", "duration"):
        require(_number(record[name]), name)
    if record["cost"] is None:
        return Checkpoint(**record)
    cost = record_of(record["cost"], {field.name for field in fields(Cost)}, "cost")
    require(all(_number(value) for value in cost.values()), "cost")
    require(isinstance(cost["memory"], int) and isinstance(cost["files"], int), "cost")
    return Checkpoint(**{**record, "cost": Cost(**cost)})
