"""Golden roots in their folder: marked, held and removed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from crkernel.guest import golden_store


def _store(folder: Path) -> None:
    source = folder.parent / "source"
    source.write_bytes(b"x")
    golden_store.store(str(folder), "k", ["memory"], [os.open(source, os.O_RDONLY)])


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
