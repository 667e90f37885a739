"""What may have been meant by a name that there is not: of a checkpoint, of a setting."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable

from crkernel.checkpoint import KEY, KEYWORDS, SEE, Key
from crkernel.errors import UnknownCheckpoint


def unknown(ref: str, keys: Collection[str], labels: Iterable[str]) -> UnknownCheckpoint:
    """The error for a reference that is none of the keys, oldest first, and none of the labels."""
    if not keys:
        return UnknownCheckpoint("there is no checkpoint yet", hint="run a cell first")
    if not ref:
        return UnknownCheckpoint("no checkpoint was named", hint=SEE)
    present = [Key.parse(key).cell for key in keys if "." not in key]
    span = f"checkpoints {min(present)} to {max(present)} exist; " if present else ""
    near = _near(ref, list(keys), labels)
    guess = f"; did you mean {' or '.join(near)}?" if near else ""
    shown = ref if len(ref) <= 40 else ref[:39] + "…"
    return UnknownCheckpoint(f"there is no checkpoint {shown!r}{guess}", hint=span + SEE)


def no_setting(name: str, names: Iterable[str]) -> str:
    """What to say of a name that is none of these."""
    near = difflib.get_close_matches(name, names, 1)
    return f"there is no setting {name}" + (f"; did you mean {near[0]}?" if near else "")


def _near(ref: str, keys: list[str], labels: Iterable[str]) -> list[str]:
    """At most three references that exist and are close to one that does not."""
    if match := KEY.fullmatch(ref):
        cell = int(match[2])
        peers = [key for key in keys if (Key.parse(key).generation or None) == match[1]]
        near = sorted(peers, key=lambda key: (abs(Key.parse(key).cell - cell), key))[:2]
        earlier = [key for key in reversed(keys) if key.endswith(f".{ref}")]
        return near + earlier[:1]
    lower = {name.lower(): name for name in (*KEYWORDS[:2], *labels)}
    return [lower[name] for name in difflib.get_close_matches(ref.lower(), lower, n=2)]
