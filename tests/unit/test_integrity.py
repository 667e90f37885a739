"""Check sums do not depend on where a copy has holes."""

from __future__ import annotations

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
