"""Nests that wait for kernels on this machine: who gets one, and that none is left over."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import psutil
import pytest
from _driver import descendants, wait_until
from click.testing import CliRunner
from driver import SECONDS, Kernel

from crkernel import cli, doctor, golden_root, image
from crkernel.engines import Limits, local, local_pool
from crkernel.engines.local import LocalEngine
from crkernel.engines.local_pool import LocalPool
from crkernel.engines.pool import Waiting
from crkernel.errors import EngineUnavailable
from crkernel.guest import processor
from crkernel.javascript import JAVASCRIPT

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.local_only("in Docker containers wait, see test_pool"),
    pytest.mark.usefixtures("own_golden_root"),
]

ONE, TWO = "--CRKernel.pool=1", "--CRKernel.pool=2"
WARM, HALF, COLD = "a nest with a guest had waited", "warm: a nest had waited", "cold"
DRAW = "[Math.random(), require('crypto').randomUUID(), process.pid].slice(0, 2)"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Of this test's pool alone, which is empty in the end."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    place = tmp_path / "crkernel"
    yield place
    if not place.is_symlink() and place.is_dir() and place.stat().st_uid == os.geteuid():
        place.chmod(0o700)
        asyncio.run(local_pool.empty())


def waiting() -> list[Waiting]:
    """The nests that wait for a kernel."""
    with ThreadPoolExecutor() as beside:  # a test may have a loop of its own
        return beside.submit(asyncio.run, local_pool.listed()).result()


def pool_of(size: int, limits: Limits | None = None, path: Path | None = None) -> LocalPool:
    """What a kernel with this setting has."""
    limits = limits or Limits.default()
    key = golden_root.key(JAVASCRIPT, limits, processor.identity())
    wanted = {"disk": limits.disk_size, "network": None, "golden": f"@{key}"}
    return LocalPool(path or image.require_image(), limits, "none", size, lambda: wanted)


async def put(**options: Any) -> psutil.Process:
    """Have a nest wait; its process."""
    await pool_of(1, **options).fill()
    async with asyncio.timeout(SECONDS):
        while not (found := await local_pool.listed()):
            await asyncio.sleep(0.02)
    return psutil.Process(int(found[0].id))


def lives(process: psutil.Process) -> bool:
    """Whether it has not ended. Who has to reap it may be in no hurry."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def start_of(kernel: Kernel) -> str:
    """What %status says of a kernel's start."""
    lines = kernel.ok("%status").shown.splitlines()
    return next(line.split(maxsplit=1)[1] for line in lines if line.split()[:1] == ["start"])


def guests_below(pid: int) -> list[int]:
    """Processes of guests."""
    found = []
    for child in descendants(pid):
        with contextlib.suppress(OSError):  # it has just ended
            if Path(f"/proc/{child}/cmdline").read_bytes().endswith(b"/guest/main.js\0"):
                found.append(child)
    return found


async def test_without_a_pool_there_is_no_folder(folder: Path) -> None:
    keeper = pool_of(0)
    assert keeper.claim() is None
    await keeper.keep_full()
    assert waiting() == []
    assert not folder.exists()


def test_a_pool_is_filled_claimed_and_filled_again(start_kernel: Callable[..., Kernel]) -> None:
    first = start_kernel(TWO)
    first.ok("1")
    assert start_of(first) == COLD
    wait_until(lambda: len(waiting()) == 2)
    before = {one.id for one in waiting()}
    kernels = [start_kernel(TWO) for _ in range(2)]
    for number, kernel in enumerate(kernels):
        kernel.ok(f"globalThis.mine = {number}")
        assert start_of(kernel).endswith(WARM)
    drawn = [kernel.value(DRAW) for kernel in (first, *kernels)]
    assert len({str(value) for pair in drawn for value in pair}) == 6, "each has its own numbers"
    for number, kernel in enumerate(kernels):
        assert kernel.value("mine") == number
    wait_until(lambda: len(waiting()) == 2)
    assert not {one.id for one in waiting()} & before


async def test_a_guest_that_has_waited_is_like_any_other(
    start_kernel: Callable[..., Kernel],
) -> None:
    await put()
    kernel = start_kernel(ONE)
    assert start_of(kernel).endswith(WARM)
    kernel.ok("const begin = Date.now(), tick = performance.now()")
    kernel.ok("await new Promise((resolve) => setTimeout(resolve, 100))")
    assert kernel.value("Math.abs((Date.now() - begin) - (performance.now() - tick)) < 50")
    assert kernel.value("performance.now() / 1000 - process.uptime() < 5")
    kernel.ok("globalThis.x = 1")
    kernel.ok("x = 2; require('fs').writeFileSync('f', 'two')")
    kernel.ok("%undo")
    assert kernel.value("[x, require('fs').existsSync('f')]") == [1, False]
    kernel.rewind(0)
    assert kernel.value("typeof x") == "undefined"
    shown = kernel.ok("%timeline --all").shown
    assert "0+1" not in shown, "it rested while it waited"


async def test_of_two_kernels_that_come_at_once_one_gets_it() -> None:
    nest = await put()
    engines = [LocalEngine(Limits.default()) for _ in range(2)]
    for engine in engines:
        engine.pool = 1
    await asyncio.gather(*(engine.start() for engine in engines))
    starts = [(await engine.status())["start"] for engine in engines]
    assert sorted(starts) == [COLD, HALF]
    for engine in engines:
        await (await engine.sandbox()).warm()
    await asyncio.gather(*(engine.close() for engine in engines))
    assert not lives(nest)


async def test_who_only_looks_does_not_take_a_busy_one_for_dead(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    nest = await put()
    monkeypatch.setattr(local_pool, "_STILLBORN", 0.0)
    nest.suspend()
    for _ in range(8):
        await pool_of(0).sweep()
    assert len(list(folder.iterdir())) == 1
    nest.resume()
    assert [one.id for one in waiting()] == [str(nest.pid)]


async def test_one_that_ends_after_its_hello_is_not_listened_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nest = await put()
    calls = []
    listen = LocalEngine._on_answer
    monkeypatch.setattr(LocalEngine, "_on_answer", lambda self: (calls.append(1), listen(self)))
    monkeypatch.setattr(local, "Heirloom", Mock(side_effect=ProcessLookupError))
    engine = LocalEngine(Limits.default())
    engine.pool = 1
    await engine.start()
    assert (await engine.status())["start"] == COLD
    wait_until(lambda: not lives(nest))
    await asyncio.sleep(0.2)
    assert len(calls) < 10
    await engine.close()


async def test_of_many_threads_one_gets_it() -> None:
    await put()
    got: list[socket.socket] = []
    barrier = threading.Barrier(8)

    def claim() -> None:
        barrier.wait()
        if link := pool_of(1).claim():
            got.append(link)

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (link,) = got
    link.close()


async def test_it_dies_with_the_kernel_that_took_it(start_kernel: Callable[..., Kernel]) -> None:
    nest = await put()
    kernel = start_kernel(ONE)
    kernel.ok("let x = 1")
    family = [psutil.Process(pid) for pid in descendants(nest.pid)]
    assert lives(nest)
    assert len(family) >= 3
    os.kill(kernel.pid, 9)
    wait_until(lambda: not any(lives(one) for one in (nest, *family)))


async def test_it_outlives_who_started_it_and_survives_a_restart(
    start_kernel: Callable[..., Kernel],
) -> None:
    starter = start_kernel(ONE)
    starter.ok("1")
    wait_until(lambda: len(waiting()) == 1)
    os.kill(starter.pid, 9)
    wait_until(lambda: not psutil.pid_exists(starter.pid) or starter.manager.is_alive() is False)
    kernel = start_kernel(ONE)
    assert start_of(kernel).endswith(WARM)
    kernel.ok("globalThis.x = 'before'")
    kernel.manager.restart_kernel()
    kernel.client.wait_for_ready(timeout=SECONDS)
    kernel.rewind("r1.2")
    assert kernel.value("x") == "before"


async def test_one_whose_guest_died_is_taken_without(start_kernel: Callable[..., Kernel]) -> None:
    nest = await put()
    (guest,) = guests_below(nest.pid)
    os.kill(guest, 9)
    kernel = start_kernel(ONE)
    assert kernel.ok("1 + 1").text == "2"
    assert start_of(kernel) in (HALF, f"warm: {WARM}")  # it may just have been replaced
    assert lives(nest)


def replaced(nest: psutil.Process, before: list[int]) -> bool:
    """Whether another guest waits in a nest; who looks has that look, too."""
    waiting()
    return bool(found := guests_below(nest.pid)) and found != before


async def test_a_guest_that_dies_while_it_waits_is_replaced(
    start_kernel: Callable[..., Kernel],
) -> None:
    nest = await put()
    (guest,) = guests_below(nest.pid)
    os.kill(guest, 9)
    wait_until(lambda: replaced(nest, [guest]))
    kernel = start_kernel(ONE)
    assert start_of(kernel) == f"warm: {WARM}"
    assert lives(nest)


async def test_a_guest_waits_as_soon_as_there_is_a_golden_root(tmp_path: Path) -> None:
    """One that is made later, as by the first kernel of a new version, or in place of another."""
    here, copy = image.require_image(), tmp_path / image.require_image().name
    subprocess.run(["cp", "-al", here, copy], check=True)
    key = golden_root.key(JAVASCRIPT, Limits.default(), processor.identity())
    folder = copy / "golden" / key
    shutil.rmtree(folder)
    nest = await put(path=copy)
    assert not replaced(nest, [])
    for _ in range(2):
        before = guests_below(nest.pid)
        subprocess.run(["cp", "-a", "--sparse=always", here / "golden" / key, folder], check=True)
        wait_until(lambda before=before: replaced(nest, before))
        assert len(guests_below(nest.pid)) == 1
        shutil.rmtree(folder)
    (folder.parent / "none").mkdir()
    wait_until(lambda: not replaced(nest, []))


async def test_one_that_was_killed_is_not_missed(
    start_kernel: Callable[..., Kernel], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nest = await put()
    nest.kill()
    wait_until(lambda: not waiting())
    kernel = start_kernel()
    assert kernel.ok("1 + 1").text == "2"
    assert start_of(kernel) == COLD
    assert len(list(folder.iterdir())) == 1
    await pool_of(1).sweep()
    assert len(list(folder.iterdir())) == 1, "it may be just coming up"
    monkeypatch.setattr(local_pool, "_STILLBORN", 0.0)
    await pool_of(1).sweep()
    assert list(folder.iterdir()) == []


def _chmod(folder: Path) -> None:
    folder.chmod(0o750)


def _link(folder: Path) -> None:
    shutil.move(folder, folder.with_name("elsewhere"))
    folder.symlink_to(folder.with_name("elsewhere"))


def _give(folder: Path) -> None:
    if os.geteuid() == 0:
        os.chown(folder, 12345, 12345)
    else:
        folder.chmod(0o777)


@pytest.mark.parametrize("spoil", [_chmod, _link, _give])
async def test_nothing_is_taken_from_a_folder_of_others(
    start_kernel: Callable[..., Kernel], folder: Path, spoil: Callable[[Path], None]
) -> None:
    nest = await put()
    spoil(folder)
    kernel = start_kernel(ONE)
    assert kernel.ok("1 + 1").text == "2"
    assert start_of(kernel) == COLD
    assert "the pool is of no use" in kernel.log.read_text()
    with pytest.raises((EngineUnavailable, OSError)):
        await local_pool.listed()
    assert "starts are cold" in await asyncio.to_thread(doctor.check_pool)
    nest.kill()


async def test_a_lock_that_somebody_keeps_is_not_waited_for(
    start_kernel: Callable[..., Kernel], folder: Path
) -> None:
    nest = await put()
    keeper = os.open(folder, os.O_RDONLY)
    fcntl.flock(keeper, fcntl.LOCK_EX)
    kernel = start_kernel(ONE)
    assert kernel.ok("1 + 1").text == "2"
    os.close(keeper)
    assert start_of(kernel) == COLD
    assert "is locked by a process" in kernel.log.read_text()
    assert lives(nest)


async def test_nobody_else_is_taken_for_a_nest(
    start_kernel: Callable[..., Kernel], folder: Path
) -> None:
    folder.mkdir(0o700)
    with (
        contextlib.chdir(folder),  # an address is at most 107 bytes long
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as impostor,
    ):
        impostor.bind(pool_of(1).name(0))
        impostor.listen()
        threading.Thread(target=lambda: impostor.accept()[0].close(), daemon=True).start()
        kernel = start_kernel(ONE)
        assert kernel.ok("1 + 1").text == "2"
        assert start_of(kernel) == COLD
        impostor.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    "argument", ["--CRKernel.memory=1G", "--CRKernel.staging_size=1G", "--CRKernel.disk_size=64M"]
)
async def test_one_with_other_limits_is_not_taken(
    start_kernel: Callable[..., Kernel], argument: str
) -> None:
    nest = await put()
    kernel = start_kernel(ONE, argument)
    assert start_of(kernel) == COLD
    assert lives(nest)


async def test_limits_without_a_golden_root_have_nests_without_a_guest() -> None:
    limits = replace(Limits.default(), memory=(1 << 30) + (os.getpid() << 12))  # nobody else's
    nest = await put(limits=limits)
    assert guests_below(nest.pid) == []
    engine = LocalEngine(limits)
    engine.pool = 1
    await engine.start()
    assert (await engine.status())["start"] == HALF
    await engine.close()


async def test_one_for_which_nobody_comes_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_pool, "PATIENCE", 0.5)
    nest = await put()
    wait_until(lambda: not lives(nest))


async def test_it_goes_with_its_image(tmp_path: Path) -> None:
    here, copy = image.require_image(), tmp_path / image.require_image().name
    subprocess.run(["cp", "-al", here, copy], check=True)
    nest = await put(path=copy)
    assert pool_of(1, path=copy).kind != pool_of(1).kind
    assert pool_of(1).claim() is None
    shutil.rmtree(copy)
    await local_pool.listed()  # who looks has it look, too
    wait_until(lambda: not lives(nest))


async def test_a_new_golden_root_is_not_that_of_the_guest_that_waits(
    start_kernel: Callable[..., Kernel],
) -> None:
    """Of the same key: a guest of the old one could not be dumped."""
    key = golden_root.key(JAVASCRIPT, Limits.default(), processor.identity())
    folder = image.require_image() / "golden" / key
    await put()
    twin = folder.with_name("twin")
    subprocess.run(["cp", "-a", "--sparse=always", folder, twin], check=True)  # it has large holes
    shutil.rmtree(folder)
    twin.rename(folder)
    kernel = start_kernel(ONE)
    assert start_of(kernel) in (HALF, f"warm: {WARM}")  # it may just have been replaced
    kernel.ok("globalThis.x = 1")
    kernel.ok("x = 2")
    kernel.rewind(kernel.ok("x").count - 2)


async def test_the_command_lists_and_ends_them(folder: Path) -> None:
    await put()
    listed = await asyncio.to_thread(CliRunner().invoke, cli.cli, ["pool", "--engine", "local"])
    said = await asyncio.to_thread(doctor.check_pool)
    assert said == "1 nest waits for kernels (crkernel pool)"
    (line,) = listed.stdout.splitlines()
    assert line.split()[:2] == [pool_of(1).name(0), image.require_image().name]
    empty = ["pool", "--engine", "local", "--empty"]
    ended = await asyncio.to_thread(CliRunner().invoke, cli.cli, empty)
    assert ended.stdout.split()[-1] == "ended"
    assert await asyncio.to_thread(doctor.check_pool) == "empty, starts are cold"
    assert list(folder.iterdir()) == []
