"""Check sums do not depend on where a copy has holes, nor on who else writes them down."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

from crkernel.guest import integrity


def test_a_short_last_block_of_zeros_is_as_a_hole(tmp_path: Path) -> None:
    contents = b"x" * (1 << 16) + bytes(5 << 12)
    seals = []
    for name, written in (("written", contents), ("hole", contents[: 1 << 16])):
        path = tmp_path / name / "memory"
        path.parent.mkdir()
        with path.open("wb") as file:
            file.write(written)
            file.truncate(len(contents))
        integrity.seal_memory(str(path))
        seals.append(path.with_name("memory.seal").read_text())
    assert seals[0] == seals[1]


def _seal(path: str) -> None:
    for _ in range(300):
        integrity.seal(path)


def test_two_may_write_one_seal_at_once(tmp_path: Path) -> None:
    (tmp_path / "files.img").write_bytes(b"x")
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_seal, args=(str(tmp_path),)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["files.img", "images.seal"]
