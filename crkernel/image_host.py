"""What a host has to have for a build of the image, and what went wrong there in words."""

from __future__ import annotations

import errno
import os
import pwd
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from crkernel import image
from crkernel.errors import EngineError, NoSpace

_SPACE_NEEDED = 1 << 30  # bytes: about half of it for the tree, the rest for apt's work
_IDS = 65536  # subordinate ids that mmdebstrap maps
_RANGE = re.compile(r"^([^:\n]+):(\d+):(\d+)$", re.M)  # a line of theirs
_FULL = (errno.ENOSPC, errno.EDQUOT)
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
"""Debian's keys, as the recipe names them. Debian has them; others have a package of that name."""
_UNTRUSTED = ("NO_PUBKEY", "Missing key", "is not signed")  # as apt's verifiers put it


def make_folder(folder: Path) -> None:
    """Have a folder that can be written to; `EngineError` if there can be none."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()  # rights alone do not tell of a read-only disk
    except OSError as error:
        if error.errno in _FULL:
            raise explained(error) from error
        raise EngineError(
            f"cannot write to {folder}: {error.strerror}",
            hint="set CRKERNEL_DATA to a folder that you can write to",
        ) from error


def failed(program: str, tail: Sequence[str]) -> EngineError | NoSpace:
    """The error for a command that failed, with the likeliest remedy."""
    text = "\n".join(tail)
    shown = "\n".join(f"    {line}" for line in tail)
    if "No space left" in text:
        return explained(OSError(28, "No space left on device"))
    message = f"{program} failed:\n{shown}" if shown else f"{program} failed"
    if "resolv" in text or "Could not connect" in text or "Unable to connect" in text:
        return EngineError(message, hint="the network is needed: is deb.debian.org reachable?")
    if any(words in text for words in _UNTRUSTED):
        hint = "Debian's keys are missing or too old: sudo apt-get install debian-archive-keyring"
        return EngineError(message, hint=hint)
    if "newuidmap" in text or "unshare" in text:
        return EngineError(message, hint="run: crkernel doctor")
    return EngineError(message, hint="try again; nothing half-made was left behind")


def explained(error: OSError) -> EngineError | NoSpace:
    if error.errno in _FULL:
        return NoSpace(
            f"the disk of {image.images_dir()} is full",
            hint="free 1 GB there, or set CRKERNEL_DATA to a folder on another disk",
        )
    return EngineError(f"the image could not be built: {error}", hint="see the message above")


def check_host(folder: Path) -> None:
    """Refuse early what cannot succeed; each message names its remedy."""
    packages = {"mmdebstrap": "mmdebstrap", "cc": "gcc", "setpriv": "util-linux", "tar": "tar"}
    if os.geteuid() != 0:
        packages |= {"newuidmap": "uidmap"}
    missing = [package for program, package in packages.items() if not shutil.which(program)]
    if not KEYRING.exists():
        missing.append("debian-archive-keyring")
    if missing:
        raise EngineError(
            f"building the image needs {', '.join(missing)}",
            hint=f"run: sudo apt-get install {' '.join(missing)}",
        )
    if os.geteuid() != 0:
        _check_subordinate_ids()
    while not folder.exists():
        folder = folder.parent
    if shutil.disk_usage(folder).free < _SPACE_NEEDED:
        raise explained(OSError(28, ""))


def _check_subordinate_ids() -> None:
    """mmdebstrap maps 65,536 subordinate ids of an ordinary user; raise when there are none."""
    number = os.getuid()
    try:
        user = pwd.getpwuid(number).pw_name
    except KeyError as error:
        raise EngineError(
            f"user id {number} has no name in /etc/passwd, and so no subordinate ids",
            hint="have root build the image, or build it in Docker: add --engine docker",
        ) from error
    files = {name: _subordinate_ids(Path(name)) for name in ("/etc/subuid", "/etc/subgid")}
    free = max([100000, *(start + count for file in files.values() for _, start, count in file)])
    for name, ranges in files.items():
        if not any(owner in (user, str(number)) and n >= _IDS for owner, _, n in ranges):
            span = f"{free}-{free + _IDS - 1}"
            raise EngineError(
                f"{user} has no range of subordinate ids in {name}",
                hint=f"run: sudo usermod --add-subuids {span} --add-subgids {span} {user}",
            )


def _subordinate_ids(file: Path) -> list[tuple[str, int, int]]:
    """The ranges in /etc/subuid or /etc/subgid: owner, first id, count."""
    try:
        text = file.read_text(errors="replace")
    except FileNotFoundError:
        return []
    return [(owner, int(start), int(count)) for owner, start, count in _RANGE.findall(text)]
