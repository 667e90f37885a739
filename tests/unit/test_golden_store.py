"""Golden roots in their folder: marked, held and removed."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from crkernel.guest import golden_store


def _store(folder: Path, key: str = "k") -> None:
    source = folder.parent / "source"
    source.write_bytes(b"x")
    golden_store.store(str(folder), key, ["memory"], [os.open(source, os.O_RDONLY)])


@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_one_is_as_open_as_its_folder(tmp_path: Path, mode: int) -> None:
    """In Docker each kernel is another user, and all may mark one and remove it."""
    folder = tmp_path / "golden"
    folder.mkdir()
    folder.chmod(mode)
    _store(folder)
    assert (folder / "k").stat().st_mode & 0o777 == mode


def test_a_damaged_one_goes_unless_checkpoints_need_it(tmp_path: Path) -> None:
    folder = tmp_path / "golden"
    _store(folder)
    golden_store.spoil(str(folder), "k")
    held = golden_store.hold(str(folder), "k", needed=True)
    assert held is not None
    assert golden_store.hold(str(folder), "k") is None
    assert golden_store.is_spoiled(str(folder), "k")  # for somebody holds it
    os.close(held)
    assert golden_store.hold(str(folder), "k") is None
    assert not (folder / "k").exists()


def test_those_go_that_nobody_has_used_for_longest(tmp_path: Path) -> None:
    folder = tmp_path / "golden"
    for age, key in enumerate("edcba"):
        _store(folder, key)
        os.utime(folder / key, (age, age))
    assert golden_store.keys(str(folder)) == ["a", "b", "c", "d"]
    golden_store.touch(str(folder), "d")
    golden_store.spoil(str(folder), "a")
    held = golden_store.hold(str(folder), "c")
    assert held is not None
    for key in "fgh":
        _store(folder, key)
    assert golden_store.keys(str(folder)) == ["c", "d", "f", "g", "h"]
    os.close(held)
    _store(folder, "i")
    assert golden_store.keys(str(folder)) == ["f", "g", "h", "i"]


def test_one_that_is_removed_meanwhile_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "golden"
    _store(folder)

    def too_late(descriptor: int, how: int) -> None:
        monkeypatch.undo()
        assert golden_store.remove_unused(f"{folder}/k")
        fcntl.flock(descriptor, how)

    monkeypatch.setattr(golden_store.fcntl, "flock", too_late)
    assert golden_store.hold(str(folder), "k") is None
