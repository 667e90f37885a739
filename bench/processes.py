"""What processes hold, from /proc."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

_PROC = Path("/proc")


def tree(root: int) -> list[int]:
    """A process and all its descendants."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for folder in _PROC.glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
        # "pid (name) state parent ...": the name may hold anything, so count from its end
        children[int(stat.rpartition(")")[2].split()[1])].append(int(folder.name))
    found = [root]
    for pid in found:
        found += children[pid]
    return found


def pss(pid: int) -> float:
    """Proportional set size in MB: private pages, and its share of those that others map too.
    0 if the process has ended; raises PermissionError for one that is not ours to look at."""
    return _smaps(pid, ("Pss:",))


def private(pid: int) -> float:
    """MB that nobody else maps, as `pss`."""
    return _smaps(pid, ("Private_Clean:", "Private_Dirty:"))


def _smaps(pid: int, fields: tuple[str, ...]) -> float:
    try:
        lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith(fields)) * 1024 / 1e6


def available() -> int:
    """Bytes of memory that this machine can give."""
    lines = (_PROC / "meminfo").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))


def name(pid: int) -> str:
    """The program that runs there."""
    try:
        words = (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
        return Path(words[0].decode(errors="replace")).name or "?"
    except (FileNotFoundError, ProcessLookupError):
        return "?"
