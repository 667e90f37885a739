"""Whether what somebody else has written is what it should be. Raises ValueError."""

from __future__ import annotations

import os

MOST = 1 << 62
"""No size, count or time is bigger."""


def number(value: object, least: int = 0, most: int = MOST - 1) -> int:
    """A whole number between these."""
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{value!r} is not between {least} and {most}")
    return value


def text(value: object) -> str:
    """A text that can be a name of a file."""
    if not isinstance(value, str) or b"\0" in os.fsencode(value):
        raise ValueError(f"{value!r} is no name")
    return value
