"""Control groups, of Linux's own: the version 2 hierarchy, mounted for the test."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from crkernel.engines import cgroup

_FAMILY = r"""
import os, sys
for _ in range(2):
    if os.fork():
        break
os.write(1, b"%d\n" % os.getpid())
sys.stdin.read()
"""


@pytest.fixture
def top(tmp_path: Path) -> Iterator[Path]:
    """The top of the hierarchy."""
    mounted = subprocess.run(["mount", "-t", "cgroup2", "none", tmp_path], capture_output=True)
    if mounted.returncode:
        pytest.skip("takes root, and a kernel with control groups of version 2")
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


@pytest.fixture
def group(top: Path) -> Iterator[Path]:
    """A new group below the top."""
    path = top / f"crkernel-test-{os.getpid()}"
    path.mkdir()
    yield path
    path.rmdir()


@pytest.fixture
def family() -> Iterator[list[int]]:
    """A process, its child and its grandchild, which wait."""
    command = [sys.executable, "-c", _FAMILY]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield sorted(int(process.stdout.readline()) for _ in range(3))


def members(group: Path) -> list[int]:
    return sorted(map(int, (group / "cgroup.procs").read_text().split()))


def test_a_family_moves_as_a_whole(top: Path, group: Path, family: list[int]) -> None:
    cgroup._move(family[0], group)
    assert members(group) == family
    cgroup._move(family[0], top)
    assert members(group) == []


def test_who_has_ended_keeps_nobody_from_moving(
    group: Path, family: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    with pytest.raises(ProcessLookupError):
        (group / "cgroup.procs").write_text(str(ended.pid))
    relatives = [family[0], ended.pid, *family[1:]]
    monkeypatch.setattr(cgroup, "_family", lambda _pid: iter(relatives))
    cgroup._move(family[0], group)
    assert members(group) == family
    cgroup._move(family[0], group.parent)


def test_what_was_killed_is_swept(top: Path, family: list[int]) -> None:
    left, used = (top / f"{cgroup._PREFIX}{os.getpid()}-{name}" for name in ("left", "used"))
    left.mkdir()
    used.mkdir()
    cgroup._move(family[0], used)
    cgroup._sweep(top)
    assert not left.exists()
    assert members(used) == family
    cgroup._move(family[0], top)
    used.rmdir()


def test_a_group_that_cannot_have_limits_holds_nobody(
    top: Path, family: list[int], monkeypatch: pytest.MonkeyPatch, limits: cgroup.Limits
) -> None:
    """As where the controllers that we need are not delegated after all."""
    monkeypatch.setattr(cgroup, "_places", lambda: iter([(top, top)]))
    monkeypatch.setattr(cgroup, "_NEEDED", set())
    before = set(top.glob(f"{cgroup._PREFIX}*"))
    if (top / "memory.max").exists():
        pytest.skip("here is a group above, with limits")
    assert cgroup.Cgroup.around(family[0], limits) is None
    assert set(top.glob(f"{cgroup._PREFIX}*")) == before
    assert set(family) <= set(members(top))


def test_limits_where_groups_may_be_made(family: list[int], limits: cgroup.Limits) -> None:
    """Under a systemd user session, say, or as root where version 2 has all controllers."""
    made = cgroup.Cgroup.around(family[0], limits)
    if made is None:
        pytest.skip("nobody may make groups with limits here")
    assert members(made.path) == family
    assert int((made.path / "memory.max").read_text()) > limits.memory
    assert not made.ran_out_of_memory
    made.hold(replace(limits, memory=2 * limits.memory))
    made.hold(limits)  # guests of before may come back
    assert int((made.path / "memory.max").read_text()) > 2 * limits.memory
    made.remove()
    assert members(made.path) == family  # who is in it keeps it
    here, _ = next(cgroup._places())
    cgroup._move(family[0], here)
    made.remove()
    assert not made.path.exists()
