"""The writable tree's snapshots, on real files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from crkernel.guest.tree import Tree, read_manifest


@dataclass
class Place:
    """A tree with its files in `files`."""

    tree: Tree
    files: Path
    staging: Path


@pytest.fixture
def places(tmp_path: Path) -> Iterator[list[Place]]:
    """Two places with one staging: where snapshots are taken, and where they are restored."""
    staging = tmp_path / "staging"
    staging.mkdir()
    descriptors, out = [os.open(staging, os.O_RDONLY)], []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        descriptors.append(os.open(tmp_path / name, os.O_RDONLY))
        out.append(Place(Tree(descriptors[-1], descriptors[0]), tmp_path / name, staging))
    yield out
    for descriptor in descriptors:
        os.close(descriptor)


def listing(root: Path) -> dict[str, object]:
    """All that a snapshot promises to bring back."""
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content: object = None
        if path.is_symlink():
            content = path.readlink()
        elif path.is_file():
            content = (path.read_bytes(), status.st_mtime_ns, status.st_nlink)
        found[str(path.relative_to(root))] = (status.st_mode, content)
    return found


def test_everything_comes_back(places: list[Place]) -> None:
    here, there = places
    (here.files / "deep" / "er").mkdir(parents=True)
    (here.files / "deep" / "er" / "data").write_bytes(os.urandom(100_000))
    (here.files / "empty").touch()
    (here.files / "secret").write_text("x")
    (here.files / "secret").chmod(0o600)
    (here.files / "link").symlink_to("deep/er/data")
    (here.files / "dangling").symlink_to("/nowhere")
    os.link(here.files / "secret", here.files / "same")
    os.mkfifo(here.files / "pipe", 0o640)
    (here.files / "line\nbreak").write_text("name")
    Path(os.fsdecode(os.fsencode(here.files) + b"/\xff\xfe")).write_text("not UTF-8")
    os.setxattr(here.files / "empty", "user.mark", b"\0yes")
    os.utime(here.files / "secret", ns=(1, 1_234_567_890))
    there.tree.become(here.tree.snapshot("one").name)
    assert listing(there.files) == listing(here.files)
    assert os.getxattr(there.files / "empty", "user.mark") == b"\0yes"
    assert (there.files / "same").samefile(there.files / "secret")


def test_holes_stay_holes(places: list[Place]) -> None:
    here, there = places
    with (here.files / "sparse").open("wb") as file:
        file.seek(50 << 20)
        file.write(b"end")
    there.tree.become(here.tree.snapshot("one").name)
    copy = there.files / "sparse"
    assert copy.stat().st_size == (50 << 20) + 3
    assert copy.stat().st_blocks * 512 < 1 << 20


def test_only_what_changed_is_copied(places: list[Place]) -> None:
    tree, files = places[0].tree, places[0].files
    (files / "big").write_bytes(b"b" * 10_000)
    (files / "small").write_bytes(b"s")
    first = tree.snapshot("one")
    assert first.added == 10_001
    assert tree.snapshot("two") == type(first)(first.name, 0)
    (files / "small").write_bytes(b"changed")
    third = tree.snapshot("three")
    assert (third.added, third.name == first.name) == (7, False)
    (files / "big").unlink()
    assert tree.snapshot("four").added == 0


def test_what_is_mapped_is_copied_though_it_looks_unchanged(places: list[Place]) -> None:
    tree, files = places[0].tree, places[0].files
    (files / "shm").write_bytes(b"1" * 4096)
    tree.snapshot("one")
    inode = (files / "shm").stat().st_ino
    assert tree.snapshot("two", {inode}).added == 4096


def test_older_snapshots_stay_what_they_were(places: list[Place]) -> None:
    here, there = places
    (here.files / "f").write_text("old")
    one = here.tree.snapshot("one").name
    (here.files / "f").write_text("new")
    (here.files / "g").write_text("more")
    here.tree.snapshot("two")
    there.tree.become(one)
    assert {p.name: p.read_text() for p in there.files.iterdir()} == {"f": "old"}


def test_what_was_taken_back_was_never_taken(places: list[Place]) -> None:
    here, there = places
    (here.files / "old").write_text("old")
    here.tree.snapshot("one")
    before = listing(here.staging)
    (here.files / "new").write_text("new")
    here.tree.snapshot("two")
    here.tree.take_back("two")
    here.tree.take_back("two")
    assert listing(here.staging) == before
    (here.files / "newer").write_text("newer")
    taken = here.tree.snapshot("three")
    there.tree.become(taken.name)
    assert listing(there.files) == listing(here.files)
    here.tree.snapshot("four")  # nothing changed: it is the one before
    here.tree.take_back("four")
    assert here.tree.snapshot("five").name == taken.name


def test_a_restored_tree_goes_on_from_there(places: list[Place]) -> None:
    here, there = places
    (here.files / "f").write_text("old")
    one = here.tree.snapshot("one")
    there.tree.become(one.name)
    assert there.tree.snapshot("two").added == 0
    (there.files / "f").write_text("newer")
    assert there.tree.snapshot("three").added == 5


def test_links_are_never_followed(places: list[Place], tmp_path: Path) -> None:
    here, there = places
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("host")
    (here.files / "way").symlink_to(outside)
    there.tree.become(here.tree.snapshot("one").name)
    assert (there.files / "way").is_symlink()
    assert b"host" not in b"".join(p.read_bytes() for p in here.staging.iterdir() if p.is_file())


# -- what others made --------------------------------------------------------------------------


def test_files_are_put_in_place_and_what_is_the_same_is_left_alone(places: list[Place]) -> None:
    guest, courier = places
    project = guest.files / "work"
    (project / "mods" / "kept").mkdir(parents=True)
    (project / "mods" / "kept" / "run").write_text("runs")
    (project / "mods" / "old").mkdir()
    (project / "mods" / "old" / "x").write_text("x")
    (project / "mods" / "new").write_text("was a file")
    (project / "own").write_text("not to be touched")
    guest.tree.snapshot("g1")
    kept = (project / "mods" / "kept" / "run").stat().st_ino
    before = read_manifest(os.open(guest.staging, os.O_RDONLY), "g1.tree")
    seen = {p.removeprefix("work/"): e for p, e in before.items() if p.startswith("work/mods")}
    courier.tree.fill({"": before["work"], **seen})
    (courier.files / "mods" / "old" / "x").unlink()
    (courier.files / "mods" / "old").rmdir()
    (courier.files / "mods" / "new").unlink()
    (courier.files / "mods" / "new").mkdir()
    (courier.files / "mods" / "new" / "y").write_text("y")
    (courier.files / "list").write_text("l")
    guest.tree.place(courier.tree.snapshot("n1").name, "work", ("mods", "list"))
    assert listing(project / "mods") == listing(courier.files / "mods")
    assert (project / "list").read_text() == "l"
    assert (project / "own").read_text() == "not to be touched"
    assert (project / "mods" / "kept" / "run").stat().st_ino == kept
    assert sorted(path.name for path in guest.files.iterdir()) == ["work"]
    after = guest.tree.snapshot("g2")
    assert after.name == "g2.tree"
    assert after.added == 1  # "list", whose rename shows; the rest lies in staging already


def test_no_link_is_followed_to_put_files_in_place(places: list[Place], tmp_path: Path) -> None:
    guest, courier = places
    away = tmp_path / "away"
    away.mkdir()
    (guest.files / "work").mkdir()
    (guest.files / "work" / "mods").mkdir()
    guest.tree.snapshot("g1")
    (courier.files / "mods").mkdir()
    (courier.files / "mods" / "x").write_text("x")
    name = courier.tree.snapshot("n1").name
    (guest.files / "work" / "mods").rmdir()
    (guest.files / "work" / "mods").symlink_to(away)
    with pytest.raises(OSError, match="open work/mods"):
        guest.tree.place(name, "work", ("mods",))
    assert list(away.iterdir()) == []
    assert sorted(path.name for path in guest.files.iterdir()) == ["work"]
