"""What `crkernel doctor --engine docker` looks at before it tries a dump and a restore.

Each check returns what it saw, or raises the error that a kernel would raise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from crkernel.engines import pool, trial
from crkernel.engines.docker import images
from crkernel.engines.docker import pool as docker_pool
from crkernel.engines.docker.daemon import Daemon
from crkernel.errors import EngineUnavailable

_LIMITS = {"MemoryLimit": "memory", "PidsLimit": "max_processes", "CpuCfsQuota": "cpus"}


def check_daemon() -> str:
    """One answers, we may use it, and it is new enough."""
    return asyncio.run(_check_daemon())


async def _check_daemon() -> str:
    daemon = await Daemon.connect()
    version = await daemon.ask("version")
    whose = "Podman " if daemon.podman else ""
    return f"{whose}{version['Version']} at {daemon.endpoint.url}"


def check_machine() -> str:
    """The daemon's machine can run the image, and enforce what a container is made with."""
    return asyncio.run(_check_machine())


async def _check_machine() -> str:
    daemon = await Daemon.connect()
    architecture = await images.check_architecture(daemon)
    info = await daemon.info()
    release = str(info["KernelVersion"])
    if trial.numbers(release) < trial.LINUX_NEEDED:
        needed = ".".join(map(str, trial.LINUX_NEEDED))
        raise EngineUnavailable(
            f"the daemon's machine runs Linux {release}, older than {needed}",
            hint=f"boot Linux {needed} or newer there",
        )
    if "name=seccomp" not in " ".join(info.get("SecurityOptions") or []):
        raise EngineUnavailable(
            "the daemon has no seccomp, and would run containers without a filter",
            hint="use a daemon and a Linux with seccomp",
        )
    # Rootless Podman says that it limits what it cannot without cgroup v2.
    boasts = info.get("Rootless") is True and str(info.get("CgroupVersion")) == "1"
    missing = [ours for theirs, ours in _LIMITS.items() if boasts or info.get(theirs) is False]
    ignored = f"; it cannot limit {', '.join(missing)}" if missing else ""
    return f"Linux {release} on {architecture}{ignored}"


def check_image() -> str:
    """Present and current."""
    return asyncio.run(_check_image())


async def _check_image() -> str:
    return await images.require(await Daemon.connect())


def check_pool() -> str:
    """Nothing is wrong with it; it takes memory."""
    count = len(asyncio.run(docker_pool.listed()))
    return pool.told(count, "container")


CHECKS: tuple[tuple[str, Callable[[], str]], ...] = (
    ("Docker daemon", check_daemon),
    ("its machine", check_machine),
    ("image", check_image),
    ("pool", check_pool),
)
