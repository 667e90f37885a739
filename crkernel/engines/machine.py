"""How much memory there is, for this process and all others of the machine or the container."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_OWN = Path("/proc/self/cgroup")
_LIMITS = {  # by the controllers that a line of _OWN names
    "": (Path("/sys/fs/cgroup"), "memory.max"),
    "memory": (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
}


def memory() -> int:
    """Bytes: of the machine, or less if a control group has less for us."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([machine, *_limits()])


def _limits() -> Iterator[int]:
    """Those of our control group and all above it, be they of version 2 or 1."""
    for line in _read(_OWN).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in _LIMITS:
            top, name = _LIMITS[controllers]
            group = top / path.lstrip("/")
            texts = (_read(g / name) for g in (group, *group.parents) if g.is_relative_to(top))
            yield from (int(text) for text in texts if text.isdigit())


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # no such group here, or no control groups at all
        return ""
