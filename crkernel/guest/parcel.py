"""What of a guest's files a courier gets to see, and what it may bring back.

The guest made those files, and the courier reads them with a network and the user's registry
settings at hand. So it gets three entries of the working folder, and of them no link that leads
out of that folder and no address but the registry's.
"""

from __future__ import annotations

import json
import posixpath
from typing import Any

from .tree import Entry

LEAVES = ("node_modules", "package.json", "package-lock.json")
"""The directory first: if it cannot be moved in, the files that describe it are not either."""
LOCK = "package-lock.json"
_KINDS = {"node_modules": "directory", "package.json": "file", LOCK: "file"}
NPMS_OWN = "node_modules/.package-lock.json"
"""A copy of the lock, which npm makes anew of what it finds."""


class NotAProject(ValueError):
    """The guest has something else where npm's files belong."""


def pack(manifest: dict[str, Entry], folder: str) -> dict[str, Entry]:
    """The entries for a courier, with paths as seen from `folder`. Raises NotAProject."""
    taken: dict[str, Entry] = {"": {"kind": "directory", "mode": 0o755, "mtime": 0}}
    for path, entry in manifest.items():
        name = path.removeprefix(f"{folder}/")
        leaf = name.partition("/")[0]
        if name in (path, NPMS_OWN) or leaf not in _KINDS:
            continue
        if entry["kind"] == "hardlink":
            target = entry["target"].removeprefix(f"{folder}/")
            outside = target not in taken  # then its content once more
            entry = manifest[entry["target"]] if outside else entry | {"target": target}
        if name == leaf and entry["kind"] != _KINDS[leaf]:
            raise NotAProject(f"{leaf} is no {_KINDS[leaf]}")
        if entry["kind"] != "fifo" and not _leads_out(name, entry):
            taken[name] = entry
    return taken


def _leads_out(name: str, entry: Entry) -> bool:
    """Whether a link goes outside. `..` is counted from the directory that the link really is in,
    and allowed only in front, where no other link can have changed what it means."""
    if entry["kind"] != "symlink":
        return False
    parts = entry["target"].split("/")
    up = 0
    while parts[up : up + 1] == [".."]:
        up += 1
    return parts[0] == "" or ".." in parts[up:] or up > posixpath.dirname(name).count("/") + 1


def only_from(registries: list[str], lock: str) -> str:
    """A lock file without the addresses, which the guest may have written, that begin with none of
    `registries`: npm then asks the registry for the same version. Raises ValueError."""

    def check(entry: dict[str, Any]) -> dict[str, Any]:
        resolved = entry.get("resolved")
        if resolved is not None and not str(resolved).startswith(tuple(registries)):
            del entry["resolved"]
        return entry

    try:
        return json.dumps(json.loads(lock, object_hook=check), indent=2) + "\n"
    except RecursionError as error:
        raise ValueError("too deep") from error
