"""How our containers are made. Each option is explained in docs/security.md."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import random
import resource
import secrets
import socket
from functools import partial
from importlib.resources import files
from typing import Any

from crkernel.engines import pool
from crkernel.engines.docker.daemon import Daemon
from crkernel.engines.limits import Limits
from crkernel.errors import DaemonRefused, EngineError
from crkernel.guest.enter import UNPRIVILEGED_IDS

log = logging.getLogger(__name__)

Json = dict[str, Any]

_REFUSED = "change the setting that it is about, or the daemon's; our options: docs/security.md"
_PAUSES = (0.2, 1.0, 0.0)  # seconds between tries to remove one, which a busy Podman may refuse
_PATIENCE = 60.0  # seconds that a nest waits for its kernel
CODE = "/crkernel"
"""Where the guest's code lies in a container."""
_PYTHON = ["python3", "-E", "-s", "-S"]
NPM_CACHE = f"{CODE}/npm"
TUN = "/dev/net/tun"
GATE = [*_PYTHON, f"{CODE}/guest/gate.py"]
_TREE = "/image"
"""The image's tree is not the container's root: nothing that Docker mounts is then in the way of
what sandboxes see."""
GOLDEN = "/golden"
_COURIER_MEMORY = 256 << 20
"""Bytes for who works in an annex, beside what npm may use."""
SCRATCH = "crkernel-scratch-"
_UPLINKS_MEMORY = 512 << 20
_MASKED = ["/sys/firmware", "/sys/devices/virtual/powercap", "/sys/dev/block", "/sys/fs/selinux"]
_MASKED_OF_CPU = "/sys/devices/system/cpu/cpu{}/thermal_throttle"
_PROFILE = files("crkernel.engines.docker").joinpath("seccomp.json")
_MAPPED_IDS = range(10_000, 60_000)
"""Where the daemon maps user ids, it has few of them."""


def golden_volume(image: str) -> str:
    """The volume with the golden roots of an image with the guest's code, by its tag."""
    return image.replace(":", "-golden-")


def npm_volume() -> str:
    """The volume with npm's cache, of all kernels of the user for whom containers are made."""
    return "-".join(["crkernel-npm", *owner().values()])


def scratch_name() -> str:
    """Of a container in which an image is made for this user. It tells whose it is in place of
    labels, which would be the image's as well."""
    return f"{SCRATCH}{'-'.join(owner().values())}-{secrets.token_hex(8)}"


def short(tag: str) -> str:
    """A tag as we and Docker write it; Podman names the registry too."""
    return tag.removeprefix("docker.io/library/")


def owner() -> dict[str, str]:
    """Labels that name the user for whom a container is made."""
    return {"crkernel.host": socket.gethostname(), "crkernel.user": str(os.getuid())}


async def create(
    daemon: Daemon,
    image: str,
    limits: Limits,
    name: str,
    *,
    patience: float,
    labels: dict[str, str] | None = None,
    warm: Json | None = None,
) -> str:
    """Have one started under this name, see `body`; its id. Raises DaemonRefused, with the status
    409 if the name is taken."""
    maker = owner() | {"crkernel.pid": str(os.getpid())}
    options = body(
        image,
        limits,
        golden=golden_volume(image),
        labels=maker | (labels or {}),
        info=await daemon.info(),
        podman=daemon.podman,
        patience=patience,
        warm=warm,
    )
    created = await daemon.ask("create_container_from_config", options, name)
    await daemon.ask("start", created["Id"])
    return str(created["Id"])


async def succeed(daemon: Daemon, image: str, limits: Limits, name: str) -> str:
    """Have one started for a kernel alone, in place of who has its name; its id. Raises
    EngineError."""
    make = partial(create, daemon, image, limits, name, patience=_PATIENCE)
    try:
        return await make()
    except DaemonRefused as refused:
        if refused.status != 409:
            refused.hint = _REFUSED
            raise
    # The kernel that was killed and is restarted as this one has it, or the container that was lost
    # and is just going.
    await remove(daemon, name)
    await daemon.find("wait", name, condition="removed")
    return await make()


async def remove(daemon: Daemon, container: str) -> None:
    """Have one go, whatever it does; a daemon that is gone itself has none left."""
    with contextlib.suppress(EngineError):
        for pause in _PAUSES:
            try:
                await daemon.find("remove_container", container, force=True)
            except DaemonRefused as refused:
                if refused.status == 409:
                    return  # it is just going
                log.warning("a container could not be removed: %s", refused)
                await asyncio.sleep(pause)
            else:
                return


async def enlarge(daemon: Daemon, container: str, limits: Limits) -> None:
    """Have one hold guests under these limits, and those of before. Raises EngineError."""
    found = await daemon.ask("inspect_container", container)
    host, room = found["HostConfig"], limits.room()
    memory = host["Memory"] and max(host["Memory"], room.memory)  # 0: there is no limit
    processes = max(host["PidsLimit"] or 0, room.processes)
    if (memory, processes) != (host["Memory"], host["PidsLimit"] or processes):
        wanted = {"Memory": memory, "MemorySwap": memory, "PidsLimit": processes}
        try:
            await daemon.post(f"containers/{container}/update", wanted)
        except DaemonRefused as refused:
            if not daemon.podman or refused.status != 404:
                raise
            raise EngineError("this version of Podman cannot change them") from refused


def body(
    image: str,
    limits: Limits,
    *,
    golden: str,
    labels: dict[str, str],
    info: Json,
    patience: float,
    podman: bool = False,
    warm: Json | None = None,
) -> Json:
    """What creates a container, in the words of Docker's REST API. `golden` is the volume of the
    image's golden roots, `info` what the daemon says of itself; the nest waits `patience` seconds
    for a kernel, and has the sandbox ready for which that will send the request `warm`."""
    config = {
        "image": _TREE,
        "staging": limits.staging_size,
        "golden": GOLDEN,
        "patience": patience,
        "tending": pool.TENDING,
        "warm": warm,
    }
    said = _security_of(info)
    mapped = "name=rootless" in said or "name=userns" in said or info.get("Rootless", False)
    user = random.SystemRandom().choice(_MAPPED_IDS if mapped else UNPRIVILEGED_IDS)
    return {
        "Image": image,
        "Cmd": [*_PYTHON, f"{CODE}/guest/enter.py", json.dumps(config)],
        "User": f"{user}:{user}",
        "Labels": labels,
        "StopSignal": "SIGKILL",
        "HostConfig": _confinement(info, *limits.room(), podman=podman)
        | {
            "Mounts": [{"Type": "volume", "Source": golden, "Target": GOLDEN}],
            "NanoCpus": int(limits.cpus * 1e9),
            "NetworkMode": "none",
        },
    }


def annex_body(
    kernels: Json, network: str, work: str, info: Json, options: Json, *, podman: bool
) -> Json:
    """As `body`, for an annex that does `work` (see `crkernel.guest.annex`) with a network of
    Docker's and `options` of its own, beside the container of a kernel, which `kernels` describes.
    """
    config = kernels["Config"]
    memory, processes = options["Memory"], options["PidsLimit"]
    return {
        "Image": config["Image"],
        "Cmd": [*_PYTHON, f"{CODE}/guest/annex.py", work],
        "User": config["User"],
        "Labels": owner() | {"crkernel.pid": str(os.getpid())},
        "StopSignal": "SIGKILL",
        "OpenStdin": True,
        "StdinOnce": True,
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "HostConfig": _confinement(info, memory, processes, podman=podman)
        | {"NetworkMode": network, "PidMode": f"container:{kernels['Id']}"}
        | options,
    }


def for_courier(limits: Limits) -> Json:
    """What an annex has in which npm runs."""
    return {
        "Memory": limits.memory + limits.disk_size + _COURIER_MEMORY,
        "PidsLimit": limits.max_processes,
        "Mounts": [{"Type": "volume", "Source": npm_volume(), "Target": NPM_CACHE}],
    }


def for_uplinks(limits: Limits) -> Json:
    """What an annex has in which the uplinks of sandboxes run."""
    return {
        "Memory": _UPLINKS_MEMORY,
        "PidsLimit": limits.max_processes,
        "Devices": [{"PathOnHost": TUN, "PathInContainer": TUN, "CgroupPermissions": "rw"}],
    }


def _security_of(info: Json) -> str:
    return " ".join(info.get("SecurityOptions") or [])


def _masked(info: Json) -> list[str]:
    """What Docker or Podman covers below /sys, whichever it is."""
    return [*_MASKED, *(_MASKED_OF_CPU.format(n) for n in range(info.get("NCPU", 0)))]


def _confinement(info: Json, memory: int, processes: int, *, podman: bool) -> Json:
    """What holds for all of our containers."""
    security = ["no-new-privileges", f"seccomp={_profile()}"]
    masked = _masked(info)
    ulimits = []
    if podman:
        # It takes the profile as a file of its machine, and knows neither MaskedPaths nor
        # ReadonlyPaths. Its own limits are more than what root in a container may set.
        security = ["no-new-privileges", f"seccomp={_PROFILE}"]
        security += ["unmask=ALL", f"mask={':'.join(masked)}"]
        _, files_open = resource.getrlimit(resource.RLIMIT_NOFILE)
        ulimits = [
            {"Name": name, "Soft": value, "Hard": value}
            for name, value in (("nofile", files_open), ("nproc", processes))
        ]
    if "name=apparmor" in _security_of(info):
        security.append("apparmor=unconfined")  # Docker's own profile refuses every mount
    return {
        "AutoRemove": True,
        "CapDrop": ["ALL"],
        "IpcMode": "private",
        "LogConfig": {"Type": "none"},
        "MaskedPaths": masked,
        "Memory": memory,
        "MemorySwap": memory,
        "PidsLimit": processes,
        "ReadonlyPaths": [],
        "ReadonlyRootfs": True,
        "SecurityOpt": security,
        "Ulimits": ulimits,
    }


def _profile() -> str:
    return json.dumps(json.loads(_PROFILE.read_text()), separators=(",", ":"))
