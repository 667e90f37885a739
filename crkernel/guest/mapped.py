"""What the processes of a sandbox have mapped, as far as a dump has to know of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from . import activity, memory

_PATH_COLUMN = 73  # of /proc/PID/maps


def mapped(but: Iterable[int]) -> tuple[set[int], set[str]]:
    """Of all processes `but` these: inodes of files that are mapped shared and writable, since a
    store to a page that is dirty already changes nothing that stat(2) shows; names of memory
    files."""
    inodes, files = set(), set()
    for pid in set(activity.processes()).difference(but):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/maps", errors="replace") as maps:
            for line in maps:
                path = line[_PATH_COLUMN:].strip()
                if memory.is_memory(path):
                    files.add(memory.name_of(path))
                elif " rw-s " in line and not path.startswith("/memfd:"):  # as CRIU brings along
                    inodes.add(int(line.split(None, 5)[4]))
    return inodes, files
