"""What of a dumped process moves into a memory file. (Real dumps: test_memory_files.py)"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from crkernel.guest import memory
from crkernel.guest.images import Images
from crkernel.guest.messages import Json

PAGE, MB = 4096, 1 << 20
START = 1 << 30
ANONYMOUS, GUARD = 0x201, 1 << 16
SHIM, PROGRAM, OLD = 1, 2, 3
PATHS = {
    SHIM: "/usr/lib/crkernel-shims/anonymous.so",
    PROGRAM: "/usr/local/bin/node",
    OLD: "/memory/old",
}


class Dump:
    """Images of a process with one anonymous mapping, of which some pages have been dumped."""

    def __init__(self, folder: Path, size: int, dumped: Iterable[int]) -> None:
        self.source, self.target = folder / "source", folder / "target"
        self.source.mkdir()
        self.target.mkdir()
        self._memory = folder / "memory"
        self._size = size
        self._dumped = list(dumped)
        self.guards: list[Json] = []

    def rewritten(self, room: float = 1 << 40) -> list[Json]:
        """The mappings of the memory file, afterwards."""
        shim = _mapping(0, PAGE, 0x41) | {"shmid": SHIM}
        area = _mapping(START, START + self._size, ANONYMOUS)
        vmas = [shim, area, *self.guards]
        runs = [{"vaddr": START + n * PAGE, "nr_pages": 1, "flags": 4} for n in self._dumped]
        files = [{"type": 1, "id": n, "reg": {"id": n, "name": PATHS[n]}} for n in PATHS]
        self._write("pstree.img", [{"pid": 7}])
        self._write("mm-7.img", [{"exe_file_id": PROGRAM, "vmas": vmas}])
        self._write("pagemap-7.img", [{"pages_id": 1}, *runs])
        self._write("files.img", files)
        pages = b"".join(n.to_bytes(4, "little") * 1024 for n in self._dumped)
        (self.source / "pages-1.img").write_bytes(pages)
        source, target, path = map(str, (self.source, self.target, self._memory))
        memory.rewrite(source, target, path, "/memory/new", room=room)
        vmas = Images(target).load("mm-7.img")[0]["vmas"]
        number = {path: key for key, path in self.files().items()}.get("/memory/new")
        return [vma for vma in vmas if number and vma.get("shmid") == number]

    def files(self) -> dict[int, str]:
        """Paths in the new images."""
        return memory.Files(str(self.target)).paths

    def moved(self, vma: Json, number: int) -> bytes:
        """A page of the mapping as it is in the memory file."""
        with self._memory.open("rb") as file:
            file.seek(vma["pgoff"] + START + number * PAGE - vma["start"])
            return file.read(PAGE)

    def kept(self) -> int:
        """How many pages are still in the images."""
        return (self.target / "pages-1.img").stat().st_size // PAGE

    def _write(self, name: str, entries: list[Json]) -> None:
        (self.source / name).write_bytes(bytes(8))
        Images(str(self.source), str(self.source)).save(name, entries)


def _mapping(start: int, end: int, status: int) -> Json:
    kind = {"pgoff": 0, "shmid": 0, "prot": 3, "flags": 0x22, "status": status, "madv": 0}
    return {"start": start, "end": end, **kind}


@pytest.mark.parametrize(
    ("step", "moves"), [(1, True), (2, True), (8, True), (12, False), (50, False)]
)
def test_what_was_dumped_here_and_there_stays(tmp_path: Path, step: int, moves: bool) -> None:
    dumped = range(0, 4 * MB // PAGE, step)
    dump = Dump(tmp_path, 4 * MB, dumped)
    mapped = dump.rewritten()
    assert bool(mapped) is moves
    assert dump.kept() == (0 if moves else len(dumped))
    for number in dumped if moves else ():
        assert dump.moved(mapped[0], number) == number.to_bytes(4, "little") * 1024


def test_the_gaps_between_take_room(tmp_path: Path) -> None:
    size = 64 * MB
    dump = Dump(tmp_path, size, range(0, size // PAGE, 4))
    with pytest.raises(ValueError, match="no room"):
        dump.rewritten(room=size / 2)


def test_room_for_all_of_it_is_enough(tmp_path: Path) -> None:
    size = 8 * MB
    assert Dump(tmp_path, size, range(0, size // PAGE, 4)).rewritten(room=size)


def test_guard_pages_stay_in_anonymous_memory(tmp_path: Path) -> None:
    dump = Dump(tmp_path, 2 * MB, range(1, 2 * MB // PAGE))
    dump.guards = [_mapping(START, START + PAGE, GUARD) | {"flags": 0, "prot": 0}]
    (mapped,) = dump.rewritten()
    assert (mapped["start"], mapped["end"]) == (START + MB, START + 2 * MB)


def test_memory_files_that_are_left_stay_named(tmp_path: Path) -> None:
    """The guest that was dumped maps them, and runs on."""
    dump = Dump(tmp_path, MB, range(MB // PAGE))
    assert dump.rewritten()
    assert set(dump.files().values()) == {"/memory/new", *PATHS.values()}
