"""A control group around a nest, where one may be made: limits for all its sandboxes together.

Limits by process (rlimits) hold everywhere; they cannot add up what many processes use. Where this
user may make control groups beside its own, as under a systemd user session, one is made with
room for the guest, its files and staging. (cgroups(7), "Delegation" in the kernel's cgroup-v2.rst)
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from crkernel.engines.limits import Limits

_NEEDED = {"memory", "pids"}
_PREFIX = "crkernel-"


class Cgroup:
    """One control group that this kernel made."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen = 0

    @classmethod
    def around(cls, pid: int, limits: Limits) -> Cgroup | None:
        """Put a process and its descendants, also those to come, into a new one; None where it
        cannot be, and then they are where this process is. One that has waited in a pool has some,
        at rest."""
        for here, parent in _places():
            if not set(_read(parent / "cgroup.subtree_control").split()) >= _NEEDED:
                continue
            _sweep(parent)
            path = parent / f"{_PREFIX}{os.getpid()}"
            try:
                path.mkdir()
                cls(path).hold(limits)
                _move(pid, path)
            except OSError:  # not ours to use after all
                with contextlib.suppress(OSError):
                    _move(pid, here)  # or who is in already would stay in a group of nobody's
                    path.rmdir()
                continue
            return cls(path)
        return None

    @classmethod
    def of(cls, path: str) -> Cgroup:
        """One that the kernel before a restart made; only what happens from now on counts."""
        group = cls(Path(path))
        group._seen = group._kills()
        return group

    def hold(self, limits: Limits) -> None:
        """Have room for guests under these limits, and for those of before. Raises OSError."""
        for name, most in zip(("memory.max", "pids.max"), limits.room(), strict=True):
            now = (self.path / name).read_text().strip()
            if now == "max" or int(now) < most:
                (self.path / name).write_text(str(most))

    @property
    def ran_out_of_memory(self) -> bool:
        """Whether the kernel has ended a process of it for its memory since this was last asked."""
        before, self._seen = self._seen, self._kills()
        return self._seen > before

    def _kills(self) -> int:
        events = dict(line.split() for line in _read(self.path / "memory.events").splitlines())
        return int(events.get("oom_kill", 0))

    def remove(self) -> None:
        """Once all its processes have ended."""
        with contextlib.suppress(OSError):  # one is still ending: the next kernel sweeps
            self.path.rmdir()


def _places() -> Iterator[tuple[Path, Path]]:
    """Our own group, and one where others could be made: beside it, or in it if that is the top."""
    own = [line[3:] for line in _read(Path("/proc/self/cgroup")).splitlines() if line[:3] == "0::"]
    for line in _read(Path("/proc/self/mountinfo")).splitlines():
        fields, _, rest = line.partition(" - ")
        if rest.split()[0] == "cgroup2" and own:
            root, mount_point = fields.split()[3:5]
            top = Path(mount_point)
            here = top / own[0].removeprefix(root.rstrip("/")).lstrip("/")
            if here != top:
                yield here, here.parent
            yield here, here


def _move(pid: int, group: Path) -> None:
    """A process and its descendants. What one forks once it is there is there, too; so its children
    are looked for after it has been moved."""
    for process in _family(pid):
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            (group / "cgroup.procs").write_text(str(process))


def _family(pid: int) -> Iterator[int]:
    yield pid
    for child in _read(Path(f"/proc/{pid}/task/{pid}/children")).split():
        yield from _family(int(child))


def _sweep(parent: Path) -> None:
    """Remove what kernels that were killed left here: only an empty group can be removed."""
    for group in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            group.rmdir()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
