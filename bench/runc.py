"""`runc checkpoint` and `runc restore` of a Node, and ours, taking turns.

The container's root is the sandbox image, its Node runs nothing but a timer (ours has an inspector
and a worker besides), images lie on a tmpfs, CRIU is the image's, and its cache of what the machine
can do is kept: all as good for runc as can be. Needs root and runc.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from bench.sandboxes import booted, spare
from bench.table import Table
from crkernel import image
from crkernel.errors import EngineError

_NAME = "crkernel-bench"
IDLE = "setInterval(() => {}, 1e9)"
_IO_URING = {"names": ["io_uring_setup"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}
_LOADERS = {"x86_64": "ld-linux-x86-64.so.2", "aarch64": "ld-linux-aarch64.so.1"}
_TMPFS = "/dev/shm"
_AIM = "<= 0.1x"


def run(n: int | None) -> list[Table]:
    """n: checkpoints and restores by each of the two."""
    table = Table("Beside runc", "the same idle Node, images on tmpfs; runc's ends the container")
    if why := _missing():
        for what in ("checkpoint", "restore"):
            table.lacks(what, "runc", why)
        return [table]
    # runc's own choice is to lock the network by iptables while it dumps.
    locked = shutil.which("iptables-restore") is not None
    variants = {"runc, no network lock": False} | ({"runc": True} if locked else {})
    asyncio.run(_compare(table, variants, n or 9))
    return [table]


def _missing() -> str:
    if os.geteuid() != 0:
        return "needs root"
    if shutil.which("runc") is None:
        return "runc is missing: apt-get install runc"
    return ""


async def _compare(table: Table, variants: dict[str, bool], n: int) -> None:
    dumps: defaultdict[str, list[float]] = defaultdict(list)
    restores: defaultdict[str, list[float]] = defaultdict(list)
    answers: list[float] = []
    with tempfile.TemporaryDirectory(dir=_TMPFS, prefix="crkernel-bench-") as folder:
        containers = {
            words: Container(Path(folder), f"{_NAME}-{int(lock)}", lock)
            for words, lock in variants.items()
        }
        try:
            for container in containers.values():
                container.start()
            async with booted() as (engine, guest):
                await guest.dump("first")
                for i in range(n):
                    for words, container in containers.items():
                        dumps[words].append(container.checkpoint())
                        restores[words].append(container.restore())
                    begin = time.perf_counter()
                    await guest.dump(f"d{i}")
                    dumps["crkernel"].append(1e3 * (time.perf_counter() - begin))
                    async with spare(engine) as sandbox:
                        begin = time.perf_counter()
                        restored = await sandbox.restore(f"d{i}")
                        answers.append(1e3 * (time.perf_counter() - begin))
                        restores["crkernel"].append(1e3 * restored.seconds)
        finally:
            for container in containers.values():
                container.delete()
    for what, values in (("checkpoint", dumps), ("restore", restores)):
        for words in variants:
            table.add(what, words, values[words])
        for words in variants:
            against = f"crkernel / {words}"
            table.add(what, against, values["crkernel"], against=values[words], aim=_AIM)
    table.add("  until the guest has answered", "crkernel", answers)


class Container:
    """A runc container below `folder` that runs an idle Node."""

    def __init__(self, folder: Path, name: str, lock: bool, script: str = IDLE) -> None:
        self.name = name
        self._script = script
        self._bundle = folder / name
        self._images = self._bundle / "images"
        programs = folder / "bin"
        programs.mkdir(exist_ok=True)
        self._bundle.mkdir()
        write_criu(programs / "criu")
        self._runc = ["runc", "--root", str(folder / "state")]
        self._environment = os.environ | {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "XDG_RUNTIME_DIR": str(folder),  # CRIU's cache, on a tmpfs
        }
        subprocess.run(["runc", "spec"], cwd=self._bundle, check=True)
        config = self._bundle / "config.json"
        config.write_text(json.dumps(self._configured(json.loads(config.read_text()), lock)))

    def _configured(self, config: dict[str, Any], lock: bool) -> dict[str, Any]:
        config["process"] |= {
            "terminal": False,
            "args": ["/usr/local/bin/node", "-e", self._script],
            "env": ["PATH=/usr/local/bin:/usr/bin:/bin"],
        }
        config["root"] = {"path": str(image.require_image()), "readonly": True}
        # CRIU cannot take io_uring; Node does without when it is told that there is none.
        config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [_IO_URING]}
        if not lock:
            options = self._bundle / "criu.conf"
            options.write_text("network-lock skip\n")
            config["annotations"] = {"org.criu.config": str(options)}
        return config

    def start(self) -> None:
        """Run it, and give its Node the time to come up."""
        self._call("run", "--detach", "--bundle", str(self._bundle))
        time.sleep(0.5)

    def checkpoint(self) -> float:
        """Milliseconds; the container ends with it."""
        shutil.rmtree(self._images, ignore_errors=True)
        self._images.mkdir()
        return self._call("checkpoint", *self._paths())

    def restore(self) -> float:
        """Milliseconds."""
        return self._call("restore", "--detach", "--bundle", str(self._bundle), *self._paths())

    def settle(self) -> None:
        """There is nothing to be done before the next checkpoint."""

    def delete(self) -> None:
        """End it, whatever its state is."""
        self._call("delete", "--force")

    def _paths(self) -> list[str]:
        return ["--image-path", str(self._images), "--work-path", str(self._images)]

    def _call(self, verb: str, *options: str) -> float:
        # The container inherits stdout and stderr, and CRIU must find them in it.
        begin = time.perf_counter()
        done = subprocess.run(
            [*self._runc, "--log", str(self._bundle / "log"), verb, *options, self.name],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        milliseconds = 1e3 * (time.perf_counter() - begin)
        if done.returncode:
            said = (self._bundle / "log").read_text().strip().splitlines()
            raise EngineError(f"runc {verb} failed: {said[-1] if said else done.returncode}")
        return milliseconds


def write_criu(path: Path) -> None:
    """The image's CRIU for the host: with the image's loader and libraries."""
    root = image.require_image()
    machine = platform.machine()
    libraries = root / "usr" / "lib" / f"{machine}-linux-gnu"
    loader = libraries / _LOADERS[machine]
    words = f"{loader} --library-path {libraries} {root}/usr/sbin/criu"
    path.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    path.chmod(0o755)
