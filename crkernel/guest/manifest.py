"""Manifests of the writable tree as they travel, with numbers for the contents of files.

`Tree.fill` walks paths as they come. So in a manifest that somebody else wrote each has to lie in
real directories of the manifest itself, and each content has to be one that came along.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from . import claims
from .tree import Entry

_MODE = 0o7777
_ATTRIBUTES = ("user.", "system.posix_acl_")


def write(entries: Mapping[str, Entry], numbers: Mapping[str, int]) -> bytes:
    """The text for entries whose contents have `numbers`, by name. Attributes that the machine
    gave a file stay behind."""

    def travelling(entry: Entry) -> Entry:
        if entry["kind"] != "file":
            return entry
        attributes = entry.get("attributes", {}).items()
        kept = {name: value for name, value in attributes if name.startswith(_ATTRIBUTES)}
        return entry | {"content": numbers[entry["content"]], "attributes": kept}

    return json.dumps({path: travelling(e) for path, e in entries.items()}).encode()


def read(text: bytes, contents: Sequence[tuple[str, int]]) -> dict[str, Entry]:
    """A manifest whose entries name their contents by number, with the names and sizes of
    `contents` in place of that. Raises ValueError, KeyError, TypeError for any other text."""
    found: dict[str, Entry] = {}
    for path, entry in json.loads(text).items():
        _check_path(path, found)
        checked = {
            "mode": claims.number(entry["mode"], 0, _MODE),
            "mtime": claims.number(entry["mtime"], -claims.MOST, claims.MOST),
            "kind": entry["kind"],
        }
        found[path] = checked | _of_kind(entry, found, contents)
    if "" not in found:
        raise ValueError("a manifest has no root")
    return found


def _check_path(path: str, found: dict[str, Entry]) -> None:
    claims.text(path)
    if path in found or (path == "") != (not found):
        raise ValueError(f"{path!r} comes twice, or before its root")
    folder, slash, leaf = path.rpartition("/")
    if path and (leaf in ("", ".", "..") or (slash and not folder)):
        raise ValueError(f"{path!r} is no path of a file")
    if path and found.get(folder, {}).get("kind") != "directory":
        raise ValueError(f"{path!r} lies in no directory")


def _of_kind(
    entry: Entry, found: dict[str, Entry], contents: Sequence[tuple[str, int]]
) -> dict[str, object]:
    kind = entry["kind"]
    if kind == "directory" or (kind == "fifo" and found):
        return {}
    if kind == "symlink" and found:
        return {"target": claims.text(entry["target"])}
    if kind == "hardlink" and found.get(entry["target"], {}).get("kind") == "file":
        return {"target": entry["target"]}
    if kind != "file" or not found:
        raise ValueError(f"a manifest has an entry of the kind {kind!r} in the wrong place")
    name, size = contents[claims.number(entry["content"], 0, len(contents) - 1)]
    attributes = {_attribute(n): bytes.fromhex(v).hex() for n, v in entry["attributes"].items()}
    return {"size": size, "content": name} | ({"attributes": attributes} if attributes else {})


def _attribute(name: str) -> str:
    if not claims.text(name).startswith(_ATTRIBUTES):
        raise ValueError(f"{name!r} is no attribute of a user's file")
    return name
