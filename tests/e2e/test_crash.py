"""Processes killed at random moments, damaged checkpoints: the past stays reachable, and nothing of
a session outlives its kernel."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from _driver import descendants, eventually, guest_of, guests_of, nest_of, supervisors_of
from driver import Kernel, Result

from crkernel import golden_root, image
from crkernel.engines import Limits
from crkernel.guest import processor
from crkernel.javascript import JAVASCRIPT

pytestmark = pytest.mark.e2e

_CELLS = 4
_FS = "process.getBuiltinModule('fs')"


def _history(kernel: Kernel) -> dict[int, int]:
    """Run some cells; what `x` and the file f hold at each checkpoint."""
    kernel.ok("let x = 0")
    values = {}
    for value in range(1, _CELLS + 1):
        count = kernel.ok(f"x = {value}; {_FS}.writeFileSync('f', String(x))").count
        values[count] = value
    return values


def _all_reachable(kernel: Kernel, values: dict[int, int]) -> None:
    for count, value in values.items():
        kernel.rewind(count)
        assert kernel.value(f"[x, Number({_FS}.readFileSync('f', 'utf8'))]") == [value, value]


def _kill(pids: list[int], chance: random.Random) -> None:
    with contextlib.suppress(ProcessLookupError):  # it was just being left
        os.kill(chance.choice(pids), signal.SIGKILL)


_VICTIMS: dict[str, Callable[[Kernel], list[int]]] = {
    "guest": guests_of,
    "supervisor": supervisors_of,
}


@pytest.fixture(scope="module")
def victim_kernel(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Kernel, dict[int, int]]]:
    """One kernel that survives all of this, and what its checkpoints hold."""
    kernel = Kernel(tmp_path_factory.mktemp("crash") / "kernel.log")
    yield kernel, _history(kernel)
    kernel.close()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("victim", _VICTIMS)
def test_killed_in_a_cell(
    victim_kernel: tuple[Kernel, dict[int, int]], victim: str, seed: int
) -> None:
    kernel, values = victim_kernel
    chance = random.Random(f"cell {victim} {seed}")
    kernel.rewind(max(values))
    time.sleep(0.3)  # until the spare is there, so that it may be hit as well
    live = _live_only(kernel, victim)
    running = kernel.submit("x = 'wrong'; console.log('begun'); for (;;);")
    kernel.messages_until(running, "stream", "begun")
    time.sleep(chance.uniform(0, 0.1))
    _kill(live, chance)
    error = kernel.finish(running).error
    assert error.startswith("GuestDied: the guest ")
    assert ("SIGKILL" if victim == "guest" else "its sandbox ended") in error
    assert f"the state before it (checkpoint {max(values)}) is restored" in error
    assert kernel.value("x") == _CELLS
    _all_reachable(kernel, values)


def _live_only(kernel: Kernel, victim: str) -> list[int]:
    """The process of the live sandbox; its spare has no guest, and a kill there goes unnoticed."""
    guest = guest_of(kernel)
    if victim == "guest":
        return [guest]
    return [one for one in supervisors_of(kernel) if guest in descendants(one)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("victim", _VICTIMS)
def test_killed_in_a_checkpoint(
    victim_kernel: tuple[Kernel, dict[int, int]], victim: str, seed: int
) -> None:
    """The cell's result stands; what follows is its state or the one before it."""
    kernel, values = victim_kernel
    chance = random.Random(f"checkpoint {victim} {seed}")
    kernel.rewind(max(values))
    pids = _live_only(kernel, victim)
    assert kernel.ok("x = 'kept or not'; 42").text == "42"
    time.sleep(chance.uniform(0, 0.03))
    _kill(pids, chance)
    kernel.run("1")
    assert kernel.value("x") in ("kept or not", _CELLS)
    _all_reachable(kernel, values)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("victim", _VICTIMS)
def test_killed_in_a_rewind(
    victim_kernel: tuple[Kernel, dict[int, int]], victim: str, seed: int
) -> None:
    """It succeeds or it fails; either way the present is one of the two states."""
    kernel, values = victim_kernel
    chance = random.Random(f"rewind {victim} {seed}")
    kernel.rewind(max(values))
    time.sleep(chance.choice((0, 0.3)))
    going = kernel.submit(f"%rewind {min(values)}")
    time.sleep(chance.uniform(0, 0.08))
    pids = _VICTIMS[victim](kernel)
    if pids:
        _kill(pids, chance)
    kernel.finish(going)
    kernel.run("1")  # may still be told of the death
    assert kernel.value("x") in (values[min(values)], _CELLS)
    _all_reachable(kernel, values)


def test_a_supervisor_that_was_killed_takes_its_guest_along(fresh_kernel: Kernel) -> None:
    kernel = fresh_kernel
    kernel.ok("require('node:child_process').spawn('sleep', ['1000']); 1")
    guest = guests_of(kernel)
    (supervisor,) = _live_only(kernel, "supervisor")
    inside = descendants(supervisor)
    os.kill(supervisor, signal.SIGKILL)
    assert eventually(lambda: not any(_alive(pid) for pid in [*guest, *inside]), 2)


@pytest.mark.local_only("in Docker it goes on in a new container, see test_docker")
def test_without_its_nest_the_kernel_says_what_to_do(fresh_kernel: Kernel) -> None:
    """Staging is gone, and all of the past with it: nothing but a restart helps."""
    kernel = fresh_kernel
    kernel.ok("let x = 1")
    running = kernel.submit("for (;;);")
    time.sleep(0.2)
    os.kill(nest_of(kernel), signal.SIGKILL)
    for result in (
        kernel.finish(running, 10),
        *[kernel.run(c, 10) for c in ("x", "%rewind 1", "2")],
    ):
        assert "restart the kernel" in result.traceback
        assert len(result.reply["traceback"]) <= 3
    kernel.manager.restart_kernel(now=False)
    kernel.client.wait_for_ready(timeout=30)
    assert kernel.value("1 + 1") == 2


# -- restores that fail


def _cut(path: Path) -> None:
    (pages,) = path.glob("pages-1.img")
    os.truncate(pages, pages.stat().st_size // 2)


def _lose_core(path: Path) -> None:
    (path / "core-5000.img").unlink()


def _garble_record(path: Path) -> None:
    (path / "crkernel.json").write_text("{")


def _empty_record(path: Path) -> None:
    (path / "crkernel.json").write_text("{}")


def _lose_files(path: Path) -> None:
    for manifest in path.parent.glob(f"{path.name}.tree"):
        manifest.unlink()


@pytest.mark.parametrize("damage", [_cut, _lose_core, _garble_record, _empty_record, _lose_files])
def test_a_damaged_checkpoint_fails_and_the_present_stays(
    fresh_kernel: Kernel, damage: Callable[[Path], None]
) -> None:
    kernel = fresh_kernel
    for value in (1, 2, 3):
        kernel.ok(f"globalThis.x = {value}; {_FS}.writeFileSync('f', String(x))")
    kernel.ok("globalThis.x = 'now'")
    assert kernel.value("x") == "now"  # and checkpoint 4 is taken
    guest = guest_of(kernel)
    damage(Path(f"/proc/{nest_of(kernel)}/root/run/staging/c1"))
    assert kernel.fails("%rewind 1").error.startswith("RestoreFailed: ")
    assert guests_of(kernel) == [guest]
    assert kernel.value("x") == "now"
    kernel.rewind(2)
    assert kernel.value("x") == 2
    kernel.rewind(4)
    assert kernel.value("x") == "now"


# -- the end of a kernel


def _alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def _mounts() -> set[str]:
    return set(Path("/proc/self/mountinfo").read_text().splitlines())


def _listing(folder: Path) -> set[str]:
    return {str(path) for path in folder.iterdir()} if folder.is_dir() else set()


def _begin_cell(kernel: Kernel) -> Result:
    return kernel.submit("require('node:child_process').spawn('sleep', ['1000']); for (;;);")


def _begin_checkpoint(kernel: Kernel) -> Result:
    return kernel.ok("const more = Buffer.alloc(50 << 20, 1)")


def _begin_rewind(kernel: Kernel) -> Result:
    return kernel.submit("%rewind 1")


def _begin_thinning(kernel: Kernel) -> Result:
    for _ in range(5):
        result = kernel.ok("globalThis.big = Buffer.alloc(40 << 20, 1); 0")
    time.sleep(0.5)  # the pause that the thinner waits for
    return result


def _begin_restart(kernel: Kernel) -> Result:
    kernel.manager.restart_kernel()
    kernel.client.wait_for_ready(timeout=30)
    return kernel.submit("%rewind r1.1")


@pytest.mark.alone
@pytest.mark.parametrize(
    "begin", [_begin_cell, _begin_checkpoint, _begin_rewind, _begin_thinning, _begin_restart]
)
@pytest.mark.parametrize("seed", range(2))
def test_nothing_outlives_a_killed_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: Callable[[Kernel], Result], seed: int
) -> None:
    chance = random.Random(f"kernel {begin.__name__} {seed}")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    places = (temporary, Path("/dev/shm"), image.data_home(), image.images_dir())
    before = [_mounts(), *map(_listing, places)]
    kernel = Kernel(tmp_path / "kernel.log")
    kernel.ok("let x = 1")
    kernel.ok("x = 2")
    nest = nest_of(kernel)
    begin(kernel)
    time.sleep(chance.uniform(0, 0.1))
    assert eventually(lambda: len(descendants(nest)) >= 2, 10)  # supervisor, guest
    inside = [nest, *descendants(nest)]
    os.kill(kernel.pid, signal.SIGKILL)
    assert eventually(lambda: not any(_alive(pid) for pid in inside), 2)
    assert eventually(lambda: _mounts() <= before[0], 10)  # Docker's daemon takes its time
    after = [_mounts(), *map(_listing, places)]
    assert [new - old for old, new in zip(before, after, strict=True)] == [set()] * 5
    kernel.close()
    assert _listing(temporary) == set()


@pytest.mark.usefixtures("own_golden_root")
@pytest.mark.local_only("in Docker golden roots lie in a volume")
@pytest.mark.parametrize("seed", range(4))
def test_a_kernel_that_was_killed_as_it_made_the_golden_root(
    start_kernel: Callable[..., Kernel], seed: int
) -> None:
    """What it left of it is of no harm, and gone with the next one."""
    chance = random.Random(f"golden {seed}")
    folder = image.require_image() / "golden"
    before = set(folder.iterdir())
    key = golden_root.key(JAVASCRIPT, Limits.default(), processor.identity())
    shutil.rmtree(folder / key)
    kernel = start_kernel()
    kernel.ok("1")
    inside = descendants(kernel.pid)
    begun = "the nest's child that makes it is there"
    assert eventually(lambda: len(descendants(kernel.pid)) > len(inside), 20), begun
    time.sleep(chance.uniform(0, 0.6))
    inside = descendants(kernel.pid)
    os.kill(kernel.pid, signal.SIGKILL)
    assert eventually(lambda: not any(_alive(pid) for pid in inside), 2)
    kernel.close()
    assert start_kernel().ok("1 + 1").text == "2"
    assert eventually((folder / key).is_dir, 30)
    assert set(folder.iterdir()) == before


@pytest.mark.alone
def test_nothing_outlives_a_kernel_that_was_shut_down(tmp_path: Path) -> None:
    before = _mounts()
    kernel = Kernel(tmp_path / "kernel.log")
    kernel.ok("require('node:child_process').spawn('sleep', ['1000'], { detached: true }).unref()")
    inside = descendants(kernel.outside.pid)
    kernel.close()
    assert eventually(lambda: not any(_alive(pid) for pid in inside), 2)
    assert eventually(lambda: _mounts() <= before, 10)  # Docker's daemon takes its time
