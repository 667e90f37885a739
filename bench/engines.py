"""Checkpoint and restore of a Node by both engines, and by Docker, Podman and runc themselves.

All on one machine in one call, taking turns, with the image's Node and CRIU. A Docker daemon with
experimental features is started for it, with the image's CRIU on its path; so is all that Podman
needs. Theirs run nothing but a timer, ours has an inspector and a worker besides, and rolls files
back. Needs root, and docker.io, podman and runc for the lines that name them.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from importlib.resources import files
from pathlib import Path

from bench.runc import IDLE, Container, write_criu
from bench.sandboxes import booted, execute, heap_code, spare
from bench.table import Table
from crkernel import image
from crkernel.engines import Engine, Sandbox
from crkernel.engines.docker import build, images
from crkernel.errors import EngineError
from crkernel.thinner import SLOW

_NODE = "/image/usr/local/bin/node"
_SECONDS = 60.0
_AIM = "<= 0.067x"  # fifteen times as fast
_TRIES = 3
_HEAP_MB = 208
_PLAIN = ", plain"
"""A heap that no pause has followed: all of it is dumped, and a restore first moves it."""
_MAPPED = ", memory files"
"""What a notebook has from the first pause on: most of the guest's memory is in a memory file."""
_RIVALS = ("docker checkpoint", "podman", "runc")
_NOTE = """\
each in its turn; ratios are ours to theirs
plain: the first dump of a heap, and a rewind to it at once; memory files: all after the next pause
needed: docker checkpoint: an experimental daemon, CRIU on its machine (files are not rolled back);
  podman, runc: root; crkernel local: user namespaces for users; crkernel docker: a daemon"""

Values = defaultdict[str, list[float]]


class Rival:
    """A container that its own program checkpoints and restores, by commands."""

    def __init__(self, name: str, start: list[str], verbs: dict[str, list[str]]) -> None:
        self.name = name
        self.failed = 0  # checkpoints that it did not get
        self._start = start
        self._verbs = verbs

    def start(self) -> None:
        """Run it, and give its Node the time to come up."""
        call(self._start)
        time.sleep(1)

    def checkpoint(self) -> float:
        """Milliseconds; the container ends with it, and where it fails, too. Then a new one is
        tried. Raises EngineError at the third in a row."""
        for _ in range(_TRIES - 1):
            try:
                return call(self._verbs["checkpoint"])
            except EngineError:
                self.failed += 1
                self.delete()
                self.start()
        return call(self._verbs["checkpoint"])

    def restore(self) -> float:
        """Milliseconds."""
        if "prepare" in self._verbs:
            call(self._verbs["prepare"])
        return call(self._verbs["restore"])

    def settle(self) -> None:
        """Make room for the next checkpoint."""
        if "settle" in self._verbs:
            call(self._verbs["settle"])

    def delete(self) -> None:
        """End it, whatever its state is."""
        subprocess.run(self._verbs["delete"], capture_output=True, check=False)


def run(n: int | None) -> list[Table]:
    """n: checkpoints and restores by each, idle and with a big heap."""
    if os.geteuid() != 0:
        table = Table("Engines")
        table.lacks("checkpoint, restore", "all", "needs root")
        return [table]
    return [
        _measure("idle", "", n or 7),
        _measure(f"with {_HEAP_MB} MB", heap_code(_HEAP_MB), n or 5),
    ]


def _measure(title: str, code: str, n: int) -> Table:
    table = Table(f"Engines, Node {title}", _NOTE)
    dumps, restores = Values(list), Values(list)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm")))
        path = f"{folder}:{os.environ['PATH']}"
        write_criu(folder / "criu")
        stack.enter_context(_environment(PATH=path, XDG_RUNTIME_DIR=str(folder)))
        ours = ["local"]
        rivals: list[Rival | Container] = []
        if shutil.which("dockerd"):
            data = stack.enter_context(dockerd())
            ours.append("docker")
            rivals.append(_docker(data, code))
        if shutil.which("podman"):
            rivals.append(_podman(folder, code))
        if shutil.which("runc"):
            runc = Container(folder, "runc", lock=False, script=f"{code}; {IDLE}")
            rivals.append(runc)
        for rival in rivals:
            stack.callback(rival.delete)
            rival.start()
        asyncio.run(_take_turns(ours, rivals, code, n, dumps, restores))
    for name in _RIVALS:
        if name not in dumps:
            table.lacks("checkpoint, restore", name, "not installed")
    for what, values in (("checkpoint", dumps), ("restore", restores)):
        _compare(table, what, values)
    for rival in rivals:
        if isinstance(rival, Rival):
            table.add("checkpoints that failed", rival.name, [rival.failed], "")
    return table


def _compare(table: Table, what: str, values: Values) -> None:
    theirs = [name for name in _RIVALS if name in values]
    for name in theirs:
        table.add(what, name, values[name])
    for name in sorted(values.keys() - set(theirs)):
        table.add(what, name, values[name])
        for rival in theirs:
            aim = "" if rival == "runc" else _AIM
            against = f"{name} / {rival}"
            table.add(what, against, values[name], against=values[rival], aim=aim)


async def _take_turns(
    ours: list[str],
    rivals: list[Rival | Container],
    code: str,
    n: int,
    dumps: Values,
    restores: Values,
) -> None:
    async with AsyncExitStack() as stack:
        guests: dict[str, tuple[Engine, Sandbox]] = {}
        for name in ours:
            engine, guest = await stack.enter_async_context(booted(name))
            if not code:
                guests[f"crkernel {name}"] = engine, guest
                continue
            twin = await stack.enter_async_context(spare(engine))
            await execute(guest, code)
            await guest.dump("mapped")
            await engine.rebase("mapped", None)
            await twin.restore("mapped")
            guests[f"crkernel {name}{_PLAIN}"] = engine, guest
            guests[f"crkernel {name}{_MAPPED}"] = engine, twin
        for of, (_, guest) in guests.items():
            await guest.dump(f"{of}, first")
        for i in range(n):
            for of, (engine, guest) in guests.items():
                dump, restore = await _our_turn(engine, guest, f"{of}, {i}")
                dumps[of].append(dump)
                restores[of].append(restore)
            for rival in rivals:
                await asyncio.to_thread(_one_turn, rival, dumps, restores)


async def _our_turn(engine: Engine, guest: Sandbox, checkpoint: str) -> tuple[float, float]:
    """Milliseconds for a checkpoint, which the guest survives, and for a restore of that: as a
    session does it, with a big one's memory moved into a memory file first."""
    begin = time.perf_counter()
    size = (await guest.dump(checkpoint)).memory
    dump = time.perf_counter() - begin
    async with spare(engine) as sandbox:
        begin = time.perf_counter()
        if size >= SLOW:
            await engine.rebase(checkpoint, None, urgent=True)
        await sandbox.restore(checkpoint)  # until the guest has answered
        restore = time.perf_counter() - begin
    return 1e3 * dump, 1e3 * restore


def _one_turn(rival: Rival | Container, dumps: Values, restores: Values) -> None:
    dumps[rival.name].append(rival.checkpoint())
    restores[rival.name].append(rival.restore())
    rival.settle()


def _docker(data: Path, code: str) -> Rival:
    """Its daemon gives a checkpoint back to containerd, and fails ("already exists") where that has
    not forgotten it since it made it. With another time of a file it is another one; but making it
    fails so now and then, too (moby#42900)."""
    found = ["find", str(data / "containers"), "-path", "*/checkpoints/one/inventory.img"]
    profile = files("crkernel.engines.docker").joinpath("seccomp.json")  # without io_uring
    tag, name = images.base_tag(), "crkernel-bench"
    options = ["--detach", "--name", name, "--network", "none", "--security-opt"]
    script = f"{code}; {IDLE}"
    return Rival(
        "docker checkpoint",
        ["docker", "run", *options, f"seccomp={profile}", tag, _NODE, "-e", script],
        {
            "checkpoint": ["docker", "checkpoint", "create", name, "one"],
            "prepare": [*found, "-exec", "touch", "--date=@0", "{}", "+"],
            "restore": ["docker", "start", "--checkpoint", "one", name],
            "settle": ["docker", "checkpoint", "rm", name, "one"],
            "delete": ["docker", "rm", "--force", name],
        },
    )


def _podman(folder: Path, code: str) -> Rival:
    name = "crkernel-bench"
    profile = files("crkernel.engines.docker").joinpath("seccomp.json")
    podman = ["podman", "--root", f"{folder}/root", "--runroot", f"{folder}/run"]
    podman += ["--cgroup-manager", "cgroupfs", "--runtime", "runc", "--storage-driver", "vfs"]
    options = ["--detach", "--name", name, "--network", "none", "--read-only"]
    options += ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]  # not above our own
    options += ["--security-opt", f"seccomp={profile}", "--rootfs", f"{image.require_image()}:O"]
    return Rival(
        "podman",
        [*podman, "run", *options, "/usr/local/bin/node", "-e", f"{code}; {IDLE}"],
        {
            "checkpoint": [*podman, "container", "checkpoint", name],
            "restore": [*podman, "container", "restore", name],
            "delete": [*podman, "rm", "--force", name],
        },
    )


@contextmanager
def dockerd() -> Iterator[Path]:
    """An experimental daemon of our own, with the image; the folder of its data."""
    with tempfile.TemporaryDirectory() as folder:
        host = f"unix://{folder}/docker.sock"
        command = ["dockerd", "--experimental", "--data-root", f"{folder}/data", "--host", host]
        command += ["--exec-root", f"{folder}/run", "--pidfile", f"{folder}/pid"]
        command += ["--bridge", "none", "--iptables=false", "--ip6tables=false"]
        with (
            Path(folder, "log").open("wb") as log,
            subprocess.Popen(command, stdout=log, stderr=log) as daemon,
        ):
            try:
                with _environment(DOCKER_HOST=host):
                    deadline = time.monotonic() + _SECONDS
                    while not Path(folder, "docker.sock").exists():
                        if time.monotonic() > deadline or daemon.poll() is not None:
                            said = Path(folder, "log").read_text(errors="replace").strip()
                            raise EngineError(f"dockerd did not start: {said[-300:]}")
                        time.sleep(0.05)
                    build.build(lambda _: None, from_tree=True)
                    yield Path(folder, "data")
            finally:
                daemon.terminate()


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def call(command: list[str]) -> float:
    """Milliseconds that a command takes, which must not fail."""
    begin = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode:
        raise EngineError(f"{' '.join(command[:4])}... failed: {done.stderr.strip()[-300:]}")
    return 1e3 * (time.perf_counter() - begin)


def our_command(*words: str) -> float:
    """The same for our own command, of the environment that this Python is of."""
    return call([str(Path(sys.executable).with_name("crkernel")), *words])
