"""Checks every prerequisite of crkernel, one line each, and ends with a real dump and restore.

A check returns what it saw, or raises the error that a kernel would raise, with the remedy as hint.
"""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from crkernel import image
from crkernel.errors import CRKernelError, EngineUnavailable, ImageMissing, RestoreFailed

if TYPE_CHECKING:
    from crkernel.engines import Sandbox
    from crkernel.settings import Settings

_PYTHON_NEEDED = (3, 11)
_MEMORY_NEEDED = 512  # MiB, for a kernel with its spare and some checkpoints
_PATIENCE = 60  # seconds for the proof, which takes one
_ENGINES = {"local": "", "docker": " --engine docker"}
"""What names them on our command line."""
_REBUILD = (
    "{build} --force, then {doctor}; if it fails again, report it with the "
    "output of: uname -a; sudo dmesg | tail"
)

# What can forbid user namespaces: sysctl, the value that does, the value that allows them.
_SYSCTLS = (
    ("user.max_user_namespaces", "0", "15000"),
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
)

_FORBIDDEN = f"user namespace: {os.strerror(errno.EPERM)}"


def examine(say: Callable[[str], None], engine: str = "local") -> bool:
    """Run all checks for an engine, saying a line for each; True if all of them pass.

    What ails several of them, a daemon that does not answer say, is told once.
    """
    told: set[str] = set()
    failed: set[Callable[[], str]] = set()
    for name, check in docker_checks() if engine == "docker" else CHECKS:
        if failed & _FIRST.get(check, set()):
            continue
        try:
            if check in (proof, prove_docker) and failed - _APART:
                mend = f"mend what failed above, then run: {_doctor(engine)}"
                raise EngineUnavailable("not tried, since a check above failed", hint=mend)
            seen = check()
        except CRKernelError as error:
            failed.add(check)
            if error.message in told:
                continue
            told.add(error.message)
            fix = f" \N{EM DASH} fix: {error.hint.removeprefix('run: ')}" if error.hint else ""
            say(f"FAIL {name}: {error.message}{fix}")
        else:
            say(f"ok   {name}: {seen}")
    return not told


def _doctor(engine: str) -> str:
    return f"crkernel doctor{_ENGINES[engine]}"


def check_platform() -> str:
    if sys.platform != "linux":
        raise EngineUnavailable(
            f"crkernel needs Linux, this is {sys.platform}", hint="use a Linux machine"
        )
    return f"Linux on {image.architecture()}"


def check_python() -> str:
    if sys.version_info < _PYTHON_NEEDED:
        raise EngineUnavailable(
            f"Python {sys.version.split()[0]} is too old",
            hint=f"install Python {_PYTHON_NEEDED[0]}.{_PYTHON_NEEDED[1]} or newer",
        )
    return sys.version.split()[0]


def check_kernel() -> str:
    from crkernel.engines import trial

    if why := trial.too_old():
        needed = ".".join(map(str, trial.LINUX_NEEDED))
        raise EngineUnavailable(why, hint=f"boot Linux {needed} or newer")
    return f"Linux {os.uname().release}"


def check_namespaces() -> str:
    from crkernel.engines import trial

    failed = trial.failure()
    if not failed:
        return "user, mount, PID, network, IPC, UTS, time"
    failed = failed.replace("No space left on device", "no more of them are allowed")  # ENOSPC
    raise EngineUnavailable(failed, hint=namespaces_fix(failed, _sysctl, filtered=_is_filtered()))


def _is_filtered() -> bool:
    """Whether a filter of system calls applies to this process, as in most containers."""
    try:
        return "\nSeccomp:\t2" in Path("/proc/self/status").read_text()
    except OSError:
        return False  # there is no /proc, which says enough


def namespaces_fix(failed: str, sysctl: Callable[[str], str | None], *, filtered: bool) -> str:
    """The command that allows what failed: a sysctl, if one forbids it, or an option of the
    container whose filter of system calls applies to us, if we are `filtered`."""
    if failed.startswith("another user"):
        return "run Jupyter as an ordinary user, or as a root that may change its user id"
    for name, forbidding, allowing in _SYSCTLS:
        if sysctl(name) == forbidding:
            return f"sudo sysctl -w {name}={allowing}"
    if failed == _FORBIDDEN and not filtered:
        return "where this is a chroot Linux allows none: enter it with bwrap or systemd-nspawn"
    if "/proc" in failed:
        return "in Docker, run the container with --security-opt systempaths=unconfined"
    if "namespace" in failed or "mount" in failed:
        return "in Docker, run the container with --security-opt seccomp=unconfined"
    return "ask who runs this machine to allow user namespaces"


def check_memory() -> str:
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(fields["MemAvailable"].split()[0]) // 1024
    if available < _MEMORY_NEEDED:
        raise EngineUnavailable(
            f"{available} MiB available, {_MEMORY_NEEDED} are needed",
            hint="end what takes most of it, see: ps -eo pid,rss,args --sort=-rss | head -5",
        )
    return f"{available} MiB available"


def check_image() -> str:
    """Present and current; where it is not, also whether it can be built."""
    try:
        path = image.require_image()
    except ImageMissing:
        from crkernel.image_host import check_host

        check_host(image.data_home())
        raise
    (info,) = (info for info in image.images() if info.path == path)
    if info.damaged:
        raise EngineUnavailable(
            f"{path} is damaged: it lacks its record", hint=f"{image.BUILD_COMMAND} --force"
        )
    return f"{path} ({info.size / 1e6:.0f} MB)"


def check_criu() -> str:
    path = image.require_image()
    result = subprocess.run(
        [*image.enter_command(path), "criu", "--version"],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise EngineUnavailable(
            f"CRIU does not start: {result.stderr.strip()}", hint=f"{image.BUILD_COMMAND} --force"
        )
    return f"CRIU {image.check_criu(result.stdout, f'{image.BUILD_COMMAND} --force')}"


def check_network() -> str:
    """Never fails: by default guests have none. If they are set to have one, the proof tries it."""
    from crkernel.engines import outside

    if outside.tun_is_open():
        return "guests can have one (network=full)"
    return f"guests can have none; for network=full {outside.OPEN_TUN}"


def check_pool() -> str:
    """Never fails: one that is of no use leaves starts cold."""
    from crkernel.engines import local_pool
    from crkernel.engines.pool import told

    try:
        count = len(asyncio.run(local_pool.listed()))
    except (CRKernelError, OSError) as error:
        return f"starts are cold, whatever is set: {error}"
    return told(count, "nest")


def check_kernelspec(engine: str = "local") -> str:
    from crkernel import registration

    command = "crkernel install" + (" --engine docker" if engine == "docker" else "")
    found = registration.find(registration.name_for(engine))
    if found is None:
        raise EngineUnavailable("not registered with Jupyter", hint=command)
    found.require_python()
    return str(found.folder)


def check_docker_kernelspec() -> str:
    """As `check_kernelspec`, of the kernel in Docker."""
    return check_kernelspec("docker")


def docker_checks() -> tuple[tuple[str, Callable[[], str]], ...]:
    """Those for the engine docker."""
    from crkernel.engines.docker import checks

    return (
        ("Python", check_python),
        *checks.CHECKS,
        ("kernelspec", check_docker_kernelspec),
        ("dump and restore", prove_docker),
    )


def prove_docker() -> str:
    """As `proof`, in a container."""
    return proof("docker")


def proof(engine: str = "local") -> str:
    """Boot a guest, dump it, restore it in a second sandbox and find its state there."""
    try:
        settings = _settings(engine)
        took = asyncio.run(asyncio.wait_for(_prove(engine, settings), _PATIENCE))
    except TimeoutError as error:
        raise EngineUnavailable(
            f"not done within {_PATIENCE} s",
            hint="end what keeps the processors busy, see: ps -eo pid,pcpu,args --sort=-pcpu | "
            f"head -5, then run: {_doctor(engine)}",
        ) from error
    except CRKernelError as error:
        # What a kernel says is to run the doctor, who is here already.
        hint = error.hint
        if not hint or "crkernel doctor" in hint:
            rebuild = f"{image.BUILD_COMMAND}{_ENGINES[engine]}"
            hint = _REBUILD.format(build=rebuild, doctor=_doctor(engine))
        raise EngineUnavailable(error.message, hint=hint) from error
    network = ", with a network" if settings.network == "full" else ""
    return ", ".join(f"{step} {seconds * 1000:.0f} ms" for step, seconds in took.items()) + network


def _settings(engine: str) -> Settings:
    """Those of the kernels that are registered with an engine, the defaults without any. Raises
    UserError for bad ones."""
    from crkernel import registration
    from crkernel.settings import Settings

    found = registration.find(registration.name_for(engine))
    settings = Settings.of(found.arguments if found else ())
    if settings.misconfigured:
        raise settings.misconfigured
    return settings


async def _prove(name: str, settings: Settings) -> dict[str, float]:
    """The seconds that each step took; raises what a kernel with these settings would raise."""
    from crkernel.background import Background
    from crkernel.boot import Boot
    from crkernel.engines import open_engine
    from crkernel.javascript import JAVASCRIPT

    engine = open_engine(name, settings.limits())
    engine.network, engine.docker_network = settings.network, settings.docker_network
    try:
        await engine.start()
        second = await engine.sandbox()
        await second.warm()
        begin = time.monotonic()
        first = await Boot(engine, JAVASCRIPT, Background()).fresh()
        booted = time.monotonic()
        await _evaluate(first, "globalThis.x = 42")
        dump = await first.dump("proof")
        await _evaluate(first, "globalThis.x = 0")
        restored = await second.restore("proof")
        if (found := await _evaluate(second, "x")) != "42":
            raise RestoreFailed(f"the guest came back with {found} in place of 42")
    finally:
        await engine.close()
    return {"boot": booted - begin, "dump": dump.seconds, "restore": restored.seconds}


async def _evaluate(sandbox: Sandbox, code: str) -> str:
    """The value of a piece of JavaScript in a guest, as text."""
    reply = await sandbox.call("execute", code=code, cell="1", silent=False, user_expressions={})
    return str((reply.get("result") or {}).get("data", {}).get("text/plain"))


CHECKS: tuple[tuple[str, Callable[[], str]], ...] = (
    ("platform", check_platform),
    ("Python", check_python),
    ("kernel", check_kernel),
    ("namespaces", check_namespaces),
    ("memory", check_memory),
    ("image", check_image),
    ("CRIU", check_criu),
    ("network", check_network),
    ("pool", check_pool),
    ("kernelspec", check_kernelspec),
    ("dump and restore", proof),
)

_FIRST: dict[Callable[[], str], set[Callable[[], str]]] = {check_criu: {check_namespaces}}
"""What has to be well before another check can tell anything."""

_APART = {check_kernelspec, check_docker_kernelspec}
"""What a dump and a restore do not need."""


def _sysctl(name: str) -> str | None:
    try:
        return Path("/proc/sys", *name.split(".")).read_text().strip()
    except OSError:
        return None  # this kernel does not have it
