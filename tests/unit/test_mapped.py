"""What is mapped shared is known, whatever the files are called."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from crkernel.guest import activity
from crkernel.guest.mapped import mapped


def test_files_that_are_mapped_to_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activity, "processes", lambda: [os.getpid()])
    nameless = os.memfd_create("no file of anybody's")
    os.ftruncate(nameless, mmap.PAGESIZE)
    named = os.open(tmp_path / "memfd:notes", os.O_RDWR | os.O_CREAT)
    os.ftruncate(named, mmap.PAGESIZE)
    with mmap.mmap(nameless, mmap.PAGESIZE), mmap.mmap(named, mmap.PAGESIZE):
        inodes, _ = mapped(but=())
        assert os.fstat(named).st_ino in inodes
        assert os.fstat(nameless).st_ino not in inodes
        assert mapped(but=[os.getpid()]) == (set(), set())
    os.close(nameless)
    os.close(named)
