"""What of this host leads outside: device, name server and cache that a nest is given."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

from crkernel import image
from crkernel.guest import resolver

log = logging.getLogger(__name__)

OPEN_TUN = "run: sudo modprobe tun; sudo chmod 666 /dev/net/tun"


def tun_is_open() -> bool:
    """Whether a user may make the device by which a sandbox gets a network. (Root's nests are
    users as well.)"""
    with suppress(FileNotFoundError):
        device = Path("/dev/net/tun")
        is_ours = os.geteuid() != 0 and os.access(device, os.R_OK | os.W_OK)
        return is_ours or device.stat().st_mode & 0o006 == 0o006
    return False


def nameserver() -> str:
    """The host's, where guests with a network have their questions for names sent to."""
    text = ""
    with suppress(OSError):
        text = Path("/etc/resolv.conf").read_text(errors="replace")
    return resolver.nameserver(text)


def pool_folder() -> Path:
    """Where nests that wait for kernels of this user have their names: a folder of the session's,
    where there is one (after `su` it may be somebody else's). It need not be there."""
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    with suppress(OSError):
        if runtime.is_absolute() and runtime.stat().st_uid == os.geteuid():
            return runtime / "crkernel"
    return Path(os.environ.get("TMPDIR") or "/tmp") / f"crkernel-{os.geteuid()}"


def npm_cache() -> str | None:
    """The folder of npm's cache, for all kernels of this user; None where there can be none."""
    folder = image.cache_home() / "npm"
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(exist_ok=True)
        if os.geteuid() == 0:  # sessions are users of their own; nobody else gets past the parent
            folder.parent.chmod(0o700)
            folder.chmod(0o777)
    except OSError as error:
        log.info("npm has no cache: %s", error)
        return None
    return str(folder)
