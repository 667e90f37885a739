"""Kernels start from the golden root: small checkpoints, and no shared randomness."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import containers
import driver
import psutil
import pytest
from _driver import eventually, guest_of
from driver import Kernel

from crkernel import golden_root, image
from crkernel.engines import Limits
from crkernel.engines.docker import container, images
from crkernel.guest import processor
from crkernel.javascript import JAVASCRIPT

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.usefixtures("own_golden_root"),
    pytest.mark.alone("docker"),  # all containers of a daemon start from one
]

DRAW = """(() => { const c = require("crypto");
    return [Math.random(), c.randomUUID(), c.randomBytes(8).toString("hex")]; })()"""


def usual(**others: int) -> Path:
    """The folder of the golden root for the usual limits, or but for some others."""
    limits = replace(Limits.default(), **others)
    key = golden_root.key(JAVASCRIPT, limits, processor.identity())
    if driver.engine == "local":
        return image.require_image() / "golden" / key
    volume = containers.client().volumes.get(container.golden_volume(images.code_tag()))
    return Path(volume.attrs["Mountpoint"]) / key


def test_there_is_one_for_the_usual_limits() -> None:
    """`crkernel image build` makes it."""
    assert (usual() / "memory").exists()


def test_a_checkpoint_holds_what_was_written_since(fresh_kernel: Kernel) -> None:
    fresh_kernel.ok("globalThis.x = 1")
    row = next(line for line in fresh_kernel.ok("%timeline").shown.split("\n") if "x = 1" in line)
    assert " MB" in row
    assert float(row.split(" MB")[0].split()[-1]) < 8


def _garble(path: Path) -> None:
    path.chmod(0o644)
    size = path.stat().st_size
    os.truncate(path, 0)
    os.truncate(path, size)  # zeros all over


def _cut(path: Path) -> None:
    path.chmod(0o644)
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.alone
def test_the_guest_of_one_kernel_more_adds_little(start_kernel: Callable[..., Kernel]) -> None:
    """By PSS, the share that each guest has of what they hold together, when they are idle."""
    first = start_kernel()

    def held(*kernels: Kernel) -> int:
        guests = map(psutil.Process, map(guest_of, kernels))
        return sum(guest.memory_full_info().pss for guest in guests)

    first.ok("globalThis.x = 1")
    first.ok("%timeline")  # comes when the checkpoint has been taken
    alone = held(first)
    second = start_kernel()
    second.ok("globalThis.x = 1")
    second.ok("%timeline")
    assert eventually(lambda: 0 < held(first, second) - alone <= 8e6, 10)


@pytest.mark.parametrize("damage", [_garble, _cut])
@pytest.mark.parametrize("file", ["core-5000.img", "memory"])
def test_a_damaged_one_is_made_anew(
    start_kernel: Callable[..., Kernel], damage: Callable[[Path], None], file: str
) -> None:
    folder = usual()
    before = folder.stat().st_ino
    damage(folder / file)
    kernel = start_kernel()
    assert kernel.ok("1 + 1").text == "2"
    assert eventually(lambda: folder.is_dir() and folder.stat().st_ino != before, 30)
    kernel.close()
    assert "could not be restored" in kernel.log.read_text()
    if damage is _garble:
        assert "other contents" in kernel.log.read_text()  # seen before CRIU or the guest did
    again = start_kernel()
    assert again.ok("1 + 1").text == "2"
    assert "golden root" not in again.log.read_text()


def _flip(path: Path) -> None:
    """One byte of a page that is not in use, with the time that the file had."""
    path.chmod(0o644)
    status = path.stat()
    with path.open("r+b") as file:
        place = 0
        while os.pread(file.fileno(), 4096, place) != bytes(4096):
            place = os.lseek(file.fileno(), place + 4096, os.SEEK_DATA)
        os.pwrite(file.fileno(), b"!", place + 2000)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    path.chmod(0o444)


def test_damage_that_a_start_does_not_see_is_told(start_kernel: Callable[..., Kernel]) -> None:
    folder = usual()
    before = folder.stat().st_ino
    _flip(folder / "memory")
    kernel = start_kernel()
    kernel.ok("globalThis.x = 1")
    assert eventually(lambda: (folder / "damaged").exists(), 30)
    assert "no way leads back to 0, 1 any more" in kernel.ok("x").stderr
    assert "other contents" in kernel.fails("%rewind root").reply["evalue"]
    kernel.ok("%reset")
    assert kernel.value("typeof x") == "undefined"
    beside = start_kernel()
    beside.ok("globalThis.x = 1")
    beside.rewind("root")  # of a guest that was booted
    beside.close()
    assert folder.stat().st_ino == before  # somebody runs on it
    kernel.close()
    again = start_kernel()
    assert again.ok("1 + 1").text == "2"
    assert eventually(lambda: folder.is_dir() and folder.stat().st_ino != before, 30)
    assert not (folder / "damaged").exists()


def test_a_restart_after_damage_boots_its_own(start_kernel: Callable[..., Kernel]) -> None:
    """The life before it needs the damaged one, and so it stays until that kernel has ended."""
    folder = usual()
    before = folder.stat().st_ino
    kernel = start_kernel()
    kernel.ok("globalThis.x = 1")
    _flip(folder / "memory")
    kernel.rewind("root")  # has it read through
    assert eventually(lambda: (folder / "damaged").exists(), 30)
    kernel.manager.restart_kernel()
    kernel.client.wait_for_ready(timeout=30)
    kernel.ok("globalThis.x = 2")
    assert re.search(  # by who is first: the rewind, or what reads through it in the pauses
        "cannot be restored: (the memory file|it is damaged)", kernel.fails("%rewind r1.1").error
    )
    kernel.ok("x = 3")
    kernel.ok("%undo")
    assert kernel.value("x") == 2
    assert folder.stat().st_ino == before
    kernel.close()
    assert start_kernel().ok("1 + 1").text == "2"
    assert eventually(lambda: folder.is_dir() and folder.stat().st_ino != before, 30)


def test_other_limits_have_their_own(start_kernel: Callable[..., Kernel]) -> None:
    """Of the root that was booted under them, whatever was set since."""
    first = start_kernel("--CRKernel.memory=1G")
    first.ok("globalThis.x = 1")
    first.ok("%config memory = 1025M")
    assert eventually(lambda: usual(memory=1 << 30).is_dir(), 30)
    assert not usual(memory=1025 << 20).exists()
    first.ok("%rewind root")
    assert first.ok("typeof x").text == "'undefined'"
    second = start_kernel("--CRKernel.memory=1G", "--CRKernel.disk_size=64M")
    test_a_checkpoint_holds_what_was_written_since(second)
    assert usual().is_dir(), "others stay"


def test_kernels_do_not_share_randomness(start_kernel: Callable[..., Kernel]) -> None:
    draws = [start_kernel().value(DRAW) for _ in range(3)]
    for drawn in zip(*draws, strict=True):
        assert len(set(drawn)) == 3


def test_crypto_is_reseeded_by_a_rewind(fresh_kernel: Kernel) -> None:
    kernel = fresh_kernel
    kernel.ok("Math.random(); require('crypto').randomBytes(8); globalThis.x = 1")
    kernel.ok("%checkpoint here")
    draws = []
    for _ in range(3):
        draws.append(kernel.value(DRAW))
        kernel.rewind("here")
    numbers, uuids, bytes_ = zip(*draws, strict=True)
    assert len(set(uuids)) == len(set(bytes_)) == 3
    assert len(set(numbers)) == 1  # a program's own sequence goes back with it


def test_the_memory_file_cannot_be_changed(fresh_kernel: Kernel) -> None:
    code = """const fs = require("fs"); const [key] = fs.readdirSync("/golden");
    [fs.openSync, fs.unlinkSync, (p) => fs.chmodSync(p, 0o666)].map((f) => {
      try { f(`/golden/${key}/memory`, "r+"); return "done"; } catch (e) { return e.code; } })"""
    assert "done" not in fresh_kernel.ok(code).text
