"""Downloads the npm packages of the recipe and unpacks them into an image under construction.

Plain HTTPS with the hash pinned in the recipe, so that the host needs neither Node nor npm.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import tarfile
import time
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import Any

from crkernel.errors import EngineError
from crkernel.lines import EACH, FOR_NOW

_REGISTRY = "https://registry.npmjs.org"
_TIMEOUT = 60  # seconds without a byte
_BLOCK = 1 << 16  # bytes


def registry() -> str:
    """The npm registry, which npm's own variable may change."""
    # npm reads its variables in either case.
    own = next((v for k, v in os.environ.items() if k.lower() == "npm_config_registry"), None)
    return (own or _REGISTRY).rstrip("/")


def tarball(package: dict[str, Any]) -> str:
    """The file name of one `[[npm]]` entry of the recipe in the registry."""
    return f"{package['package'].rpartition('/')[2]}-{package['version']}.tgz"


def download(package: dict[str, Any], say: Callable[[str], None]) -> bytes:
    """The tarball of one `[[npm]]` entry, unchecked; `EngineError` if it is not to be had.

    `say` gets lines for the moment that tell how much is there.
    """
    url = f"{registry()}/{package['package']}/-/{tarball(package)}"
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer:
            return _read(answer, lambda words: say(f"{package['package']}: {words}{FOR_NOW}"))
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise EngineError(
            f"cannot download {url}: {reason}",
            hint="check the network; a mirror of npm can be named in npm_config_registry",
        ) from error
    except ValueError as error:
        raise EngineError(
            f"npm_config_registry is no address: {registry()}", hint=f"it looks like {_REGISTRY}"
        ) from error


def _read(answer: Any, say: Callable[[str], None]) -> bytes:
    """All of it, or ConnectionError."""
    length = answer.headers.get("Content-Length", "")
    total = int(length) if length.isdecimal() else None
    data, told = bytearray(), time.monotonic()
    while block := answer.read(_BLOCK):
        data += block
        if time.monotonic() - told >= EACH:
            told = time.monotonic()
            say(_of(len(data), total))
    if total is not None and len(data) < total:  # which is no error if it is read in blocks
        raise ConnectionError(f"it broke off after {_of(len(data), total)}")
    return bytes(data)


def _of(size: int, total: int | None) -> str:
    return f"{size / 1e6:.1f} MB" if total is None else f"{size / 1e6:.1f} of {total / 1e6:.1f} MB"


def install_package(package: dict[str, Any], root: Path, data: bytes) -> None:
    """Put one `[[npm]]` entry into the tree; `EngineError` if this is not its tarball."""
    _verify(data, package["integrity"], tarball(package))
    target = root / package["into"].lstrip("/")
    _unpack(data, target, set(package.get("only", ())))
    for link, points_to in package.get("links", {}).items():
        place = root / "usr/local/bin" / link
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(os.path.relpath(target / points_to, place.parent))


def _verify(data: bytes, integrity: str, name: str) -> None:
    """`integrity` is npm's form of a hash: the algorithm, a dash, base64."""
    algorithm, _, expected = integrity.partition("-")
    if base64.b64encode(hashlib.new(algorithm, data).digest()).decode() != expected:
        raise EngineError(
            f"{name} is not the file that the recipe names (its {algorithm} differs)",
            hint="try again, without a proxy or mirror that changes files",
        )


def _unpack(data: bytes, target: Path, only: set[str]) -> None:
    """Write the regular files of an npm tarball, all of them or those in `only`.

    npm puts everything below one folder of the archive and has no links in it.
    """
    written: set[str] = set()
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        for member in archive:
            name = PurePosixPath(*PurePosixPath(member.name).parts[1:])
            if not member.isfile() or (only and str(name) not in only):
                continue
            if ".." in name.parts:
                raise EngineError(f"refused to unpack {member.name}", hint="report this package")
            content = archive.extractfile(member)
            assert content is not None
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.read())
            path.chmod(0o755 if member.mode & 0o100 else 0o644)
            written.add(str(name))
    if missing := only - written:
        raise EngineError(f"missing in an npm package: {', '.join(sorted(missing))}")
