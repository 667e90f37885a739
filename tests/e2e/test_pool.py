"""Containers that wait for kernels: who gets one, and that none is left over."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Callable, Iterator
from typing import Any

import containers
import docker
import pytest
from _driver import wait_until
from click.testing import CliRunner
from driver import SECONDS, Kernel
from test_network import Server, get, own_address

import crkernel.engines.pool
from crkernel import cli, golden_root
from crkernel.engines import Limits
from crkernel.engines.docker import DockerEngine, checks, container, images, pool
from crkernel.engines.docker.daemon import Daemon
from crkernel.engines.pool import PATIENCE, Waiting
from crkernel.errors import EngineUnavailable
from crkernel.javascript import JAVASCRIPT

pytestmark = [pytest.mark.e2e, pytest.mark.docker]

ONE, TWO = "--CRKernel.pool=1", "--CRKernel.pool=2"
OLD = f"{images.REPOSITORY}:0123456789ab-0123456789ab"
"""A tag as that of another version of crkernel."""


def waiting() -> list[Any]:
    """The containers that wait for a kernel."""
    found = containers.client().containers.list(ignore_removed=True)
    return [one for one in found if one.name.startswith("crkernel-pool-")]


def is_gone(identity: str) -> bool:
    """Whether there is no such container any more."""
    try:
        containers.client().containers.get(identity)
    except docker.errors.NotFound:
        return True
    return False


def gates(of: Any) -> str:
    """What the gates in a container say."""
    rows = of.top(ps_args="-ww -eo pid,args")["Processes"]
    return "".join(args for _, args in rows if "gate.py" in args)


def guests(of: Any) -> list[int]:
    """Processes of guests in a container, as this machine sees them."""
    rows = of.top(ps_args="-ww -eo pid,args")["Processes"]
    return [int(pid) for pid, args in rows if args.endswith("/guest/main.js")]


def has_guest(of: Any) -> bool:
    """Whether one waits there as well."""
    return bool(guests(of))


def kill_guest(of: Any) -> None:
    """End the one that waits there."""
    (guest,) = guests(of)
    os.kill(guest, signal.SIGKILL)


def container_of(kernel: Kernel) -> str:
    """The beginning of its container's id."""
    found = re.search(r"container (\w{12})", kernel.ok("%status").shown)
    assert found is not None
    return found[1]


@pytest.fixture(autouse=True)
def _drained() -> Iterator[None]:
    yield
    drain()


def drain() -> None:
    """End those that wait, also those of tests that failed."""
    for one in waiting():
        one.remove(force=True)


@pytest.fixture
def old_image() -> Iterator[str]:
    """An image under the tag of another version."""
    client = containers.client()
    repository, tag = OLD.split(":")
    client.images.get(images.code_tag()).tag(repository, tag)
    yield OLD
    drain()
    if any(OLD in image.tags for image in client.images.list()):
        client.images.remove(OLD)
    for volume in client.volumes.list(filters={"name": container.golden_volume(OLD)}):
        volume.remove()


async def put(image: str, *, patience: float = PATIENCE) -> str:
    """Have a container of the pool wait; its id."""
    return await container.create(
        await Daemon.connect(),
        image,
        Limits.default(),
        "crkernel-pool-test-0",
        patience=patience,
        labels={"crkernel.pool": "test"},
    )


def test_a_pool_is_filled_claimed_and_filled_again(start_kernel: Callable[..., Kernel]) -> None:
    start_kernel(TWO).ok("1")
    wait_until(lambda: len(waiting()) == 2)
    before = {one.id for one in waiting()}
    kernels = [start_kernel(TWO) for _ in range(3)]
    for number, kernel in enumerate(kernels):
        kernel.ok(f"let mine = {number}")
    for number, kernel in enumerate(kernels):
        assert kernel.ok("mine").text == str(number)
    wait_until(lambda: len(waiting()) == 2)
    claimed = {container_of(kernel) for kernel in kernels}
    assert len(claimed) == 3, "each has its own"
    assert claimed & {identity[:12] for identity in before}
    assert not {one.id for one in waiting()} & before


DRAW = "[Math.random(), require('crypto').randomUUID()]"


def test_one_that_waited_gets_a_network(start_kernel: Callable[..., Kernel]) -> None:
    """It has waited without a guest, which cannot come up before there is an annex."""
    full = (ONE, "--CRKernel.network=full")
    start_kernel(*full).ok("1")
    wait_until(lambda: len(waiting()) == 1)
    (one,) = waiting()
    assert not has_guest(one)
    server = Server(own_address())
    try:
        kernel = start_kernel(*full)
        there = kernel.ok("globalThis.x = 1").count
        assert kernel.value(get(server)) == "hello"
        assert container_of(kernel) == one.id[:12]
        kernel.rewind(there)
        assert kernel.value(get(server)) == "hello"
    finally:
        server.close()


def start_of(kernel: Kernel) -> str:
    """What %status says of a kernel's start."""
    lines = kernel.ok("%status").shown.splitlines()
    return next(line.split(maxsplit=1)[1] for line in lines if line.split()[:1] == ["start"])


def test_a_guest_waits_in_each(start_kernel: Callable[..., Kernel]) -> None:
    first = start_kernel(TWO)
    first.ok("1")
    assert start_of(first) == "cold"
    wait_until(lambda: len([one for one in waiting() if has_guest(one)]) == 2)
    kernels = [start_kernel(TWO) for _ in range(2)]
    for kernel in kernels:
        kernel.ok("globalThis.x = 1")
        assert start_of(kernel) == "warm: a nest with a guest had waited"
    drawn = [str(value) for kernel in (first, *kernels) for value in kernel.value(DRAW)]
    assert len(set(drawn)) == 6, "each has its own numbers"
    kernel = kernels[0]
    kernel.ok("x = 2; require('fs').writeFileSync('f', 'two'); console.log('y'.repeat(3e6))")
    kernel.ok("%undo")
    assert kernel.value("[x, require('fs').existsSync('f')]") == [1, False]
    kernel.rewind(0)
    assert kernel.value("typeof x") == "undefined"
    assert "0+1" not in kernel.ok("%timeline --all").shown, "it rested while it waited"


def test_one_whose_guest_died_is_taken_without(start_kernel: Callable[..., Kernel]) -> None:
    start_kernel(ONE).ok("1")
    wait_until(lambda: [one for one in waiting() if has_guest(one)])
    (wanted,) = waiting()
    kill_guest(wanted)
    kernel = start_kernel(ONE)
    assert kernel.ok("1 + 1").text == "2"
    assert start_of(kernel).startswith("warm: ")  # it may just have been replaced
    assert container_of(kernel) == wanted.id[:12]


async def test_a_guest_that_dies_while_it_waits_is_replaced(
    start_kernel: Callable[..., Kernel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crkernel.engines.pool, "TENDING", 0.2)
    wanted = {"disk": Limits.default().disk_size, "network": None, "golden": await golden_name()}
    keeper = pool.DockerPool(
        await Daemon.connect(), images.code_tag(), Limits.default(), "none", 1, lambda: wanted
    )
    await keeper.fill()
    (one,) = waiting()
    wait_until(lambda: has_guest(one))
    before = guests(one)
    kill_guest(one)
    wait_until(lambda: has_guest(one) and guests(one) != before)
    kernel = start_kernel(ONE)
    assert start_of(kernel) == "warm: a nest with a guest had waited"
    assert container_of(kernel) == one.id[:12]


async def golden_name() -> str:
    """What kernels with the usual limits start from in this daemon."""
    engine = DockerEngine(Limits.default())
    try:
        await engine.start()
        return f"@{golden_root.key(JAVASCRIPT, engine.limits, engine.machine)}"
    finally:
        await engine.close()


def test_it_goes_with_the_kernel_that_took_it(start_kernel: Callable[..., Kernel]) -> None:
    """But not with the one that made it; and one that was killed is not missed."""
    first = start_kernel(ONE)
    first.ok("1")
    wait_until(waiting)
    os.kill(first.pid, signal.SIGKILL)
    wait_until(lambda: not containers.of(first.pid) or containers.of(first.pid) == waiting())
    (left,) = waiting()
    second = start_kernel(ONE)
    second.ok("1")
    assert container_of(second) == left.id[:12]
    wait_until(waiting)
    os.kill(second.pid, signal.SIGKILL)
    wait_until(lambda: is_gone(left.id))
    (other,) = waiting()
    other.kill()
    wait_until(lambda: is_gone(other.id))
    third = start_kernel(ONE)
    assert third.ok("1 + 1").text == "2"
    assert start_of(third) == "cold"


@pytest.mark.parametrize(
    "argument", ["--CRKernel.memory=1G", "--CRKernel.disk_size=64M", "--CRKernel.cpus=1"]
)
async def test_one_with_other_limits_is_not_taken(
    start_kernel: Callable[..., Kernel], argument: str
) -> None:
    keeper = pool.DockerPool(await Daemon.connect(), images.code_tag(), Limits.default(), "none", 1)
    await keeper.fill()
    (left,) = waiting()
    kernel = start_kernel(ONE, argument)
    assert kernel.ok("1 + 1").text == "2"
    assert start_of(kernel) == "cold"
    assert not is_gone(left.id)


async def test_of_two_kernels_that_come_at_once_one_gets_it() -> None:
    keeper = pool.DockerPool(await Daemon.connect(), images.code_tag(), Limits.default(), "none", 1)
    await keeper.fill()
    (wanted,) = waiting()
    engines = [DockerEngine(Limits.default()) for _ in range(2)]
    for engine in engines:
        engine.pool = 1
    await asyncio.gather(*(engine.start() for engine in engines))
    found = {(await engine.status())["cgroup"] for engine in engines}
    assert len(found) == 2
    assert f"container {wanted.id[:12]}" in found
    for engine in engines:
        await (await engine.sandbox()).warm()
    await asyncio.gather(*(engine.close() for engine in engines))


def test_a_claimed_container_survives_a_restart(start_kernel: Callable[..., Kernel]) -> None:
    start_kernel(TWO).ok("1")
    wait_until(lambda: len(waiting()) == 2)
    kernel = start_kernel(TWO)
    kernel.ok("let x = 'before'")
    kernel.manager.restart_kernel()
    kernel.client.wait_for_ready(timeout=SECONDS)
    kernel.rewind("r1.1")
    assert kernel.ok("x").text == "'before'"


async def test_a_container_serves_one_kernel(start_kernel: Callable[..., Kernel]) -> None:
    """Another one that comes to it is sent away, with all that it brought."""
    kernel = start_kernel()
    kernel.ok("let x = 1")
    (taken,) = containers.of(kernel.pid)
    late = DockerEngine(Limits.default())
    late._daemon, late._container = await Daemon.connect(), taken.id
    with pytest.raises(EngineUnavailable, match="it ended"):
        await late._connect()
    wait_until(lambda: late._token not in (said := gates(taken)) and '"sandbox"' in said)
    late._container = ""
    await late.close()
    assert kernel.ok("x").text == "1"


async def test_to_dismiss_is_to_be_faster_than_a_kernel(
    start_kernel: Callable[..., Kernel],
) -> None:
    kernel = start_kernel()
    kernel.ok("let x = 1")
    (taken,) = containers.of(kernel.pid)
    left = await put(images.code_tag())
    daemon = await Daemon.connect()
    assert not await pool.dismiss(daemon, Waiting(taken.id, taken.name, "", 0))
    assert await pool.dismiss(daemon, Waiting(left, "", "", 0))
    assert kernel.ok("x").text == "1"
    assert is_gone(left)


async def test_one_for_which_nobody_comes_ends_by_itself() -> None:
    left = await put(images.code_tag(), patience=0.5)
    wait_until(lambda: is_gone(left))


async def test_one_of_another_version_is_not_taken_and_goes_with_its_image(
    start_kernel: Callable[..., Kernel], old_image: str
) -> None:
    old = await put(old_image)
    kernel = start_kernel("--CRKernel.pool=1")
    assert container_of(kernel) != old[:12]
    wait_until(lambda: len(waiting()) == 2)  # swept before it was filled
    assert not is_gone(old)
    containers.client().images.remove(old_image)
    keeper = pool.DockerPool(await Daemon.connect(), images.code_tag(), Limits.default(), "none", 0)
    await keeper.sweep()
    assert is_gone(old)
    assert len(waiting()) == 1


def but_never(method: str, ask: Any) -> Any:
    """Asks a daemon for anything but that."""

    async def some(daemon: Daemon, asked: str, *arguments: Any, **options: Any) -> Any:
        return None if asked == method else await ask(daemon, asked, *arguments, **options)

    return some


@pytest.mark.parametrize("what", ["for a kernel", "for an image"])
async def test_one_that_was_made_but_never_started_is_removed(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever made it was killed at that instant."""
    client = containers.client()
    if what == "for a kernel":
        stillborn = client.containers.create(images.code_tag(), ["true"], labels=container.owner())
    else:
        made = container.scratch_name()
        monkeypatch.setattr(images, "scratch_name", lambda: made)
        monkeypatch.setattr(images.archive, "whole", lambda _: 1 / 0)
        monkeypatch.setattr(Daemon, "ask", but_never("remove_container", Daemon.ask))
        with pytest.raises(ZeroDivisionError):
            await images.add_code(await Daemon.connect())
        monkeypatch.undo()
        stillborn = client.containers.get(made)
    keeper = pool.DockerPool(await Daemon.connect(), images.code_tag(), Limits.default(), "none", 0)
    await keeper.sweep()
    assert not is_gone(stillborn.id), "somebody may be just about to start it"
    monkeypatch.setattr(pool, "_STILLBORN", 0.0)
    await keeper.sweep()
    assert is_gone(stillborn.id)


async def test_an_image_is_removed_with_those_that_wait(old_image: str) -> None:
    left = await put(old_image)
    assert await images.remove(old_image) == ([old_image], [])
    assert is_gone(left)


def test_the_command_lists_and_ends_them(start_kernel: Callable[..., Kernel]) -> None:
    start_kernel(TWO).ok("1")
    wait_until(lambda: len(waiting()) == 2)
    assert checks.check_pool() == "2 containers wait for kernels (crkernel pool)"
    listed = CliRunner().invoke(cli.cli, ["pool", "--engine", "docker"]).stdout.splitlines()
    assert sorted(line.split()[0] for line in listed) == sorted(one.name for one in waiting())
    ended = (
        CliRunner().invoke(cli.cli, ["pool", "--engine", "docker", "--empty"]).stdout.splitlines()
    )
    assert [line.split()[-1] for line in ended] == ["ended", "ended"]
    assert waiting() == []
    assert checks.check_pool() == "empty, starts are cold"
