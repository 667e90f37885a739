"""Which engine `auto` stands for, found out in a millisecond where all is well."""

from __future__ import annotations

import logging
import subprocess
from pathlib import Path

from crkernel import image
from crkernel.errors import CRKernelError

log = logging.getLogger(__name__)

_PROBE = [
    *("unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork"),
    *("--mount-proc", "true"),
]
_HARMLESS = "/proc/sys/fs/binfmt_misc"
"""Always empty but for what is mounted there, which Linux therefore has nothing against."""
_FORBIDDEN = {
    "user/max_user_namespaces": "0",
    "kernel/unprivileged_userns_clone": "0",
    "kernel/apparmor_restrict_unprivileged_userns": "1",
}


def choose() -> str:
    """`local` where that can work, else `docker` if a daemon is there to be used; else `local`,
    whose own complaint names what to mend."""
    obstacle = _obstacle()
    if obstacle and _docker_answers():
        log.info("sandboxes run in Docker, since %s", obstacle)
        return "docker"
    return "local"


def _obstacle() -> str:
    """Why there can be no sandboxes on this machine itself; empty if they can be."""
    if image.image_path() is None:
        return "there is no sandbox image outside of it"
    for name, forbidding in _FORBIDDEN.items():
        if _read(Path("/proc/sys", name)).strip() == forbidding:
            return f"/proc/sys/{name} is {forbidding}"
    if _confined() and subprocess.run(_PROBE, capture_output=True, check=False).returncode:
        return "sandboxes cannot be made here, as in most containers"
    return ""


def is_filtered() -> bool:
    """Whether a filter of system calls applies to this process, as in most containers."""
    return "\nSeccomp:\t2" in _read(Path("/proc/self/status"))


def _confined() -> bool:
    """Whether it has to be tried, which takes some milliseconds: under a filter of system calls, or
    where something covers a part of /proc, since Linux then mounts no other one."""
    if is_filtered():
        return True
    places = [line.split(" ", 5)[4] for line in _read(Path("/proc/self/mountinfo")).splitlines()]
    return any(place.startswith("/proc/") and place != _HARMLESS for place in places)


def _docker_answers() -> bool:
    try:
        from crkernel.engines.docker.endpoint import Endpoint

        Endpoint.find().knock()
    except (CRKernelError, ImportError, OSError, ValueError):
        return False
    return True


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
