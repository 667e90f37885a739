"""What a command says while it works: lines that stay, and lines that hold for the moment."""

from __future__ import annotations

import os
import shutil
import sys
import time

FOR_NOW = "\r"
"""What a line ends with that holds for the moment only."""
EACH = 1.0
"""Seconds from one such line to the next."""
_SPARSE = 10  # seconds: what nobody watches has one as seldom
_MORE = "\N{HORIZONTAL ELLIPSIS}"


class Lines:
    """Says lines on stderr: stdout is for what a script takes.

    At a terminal the next line takes the place of one for the moment; elsewhere there are few.
    """

    def __init__(self) -> None:
        self._open = False
        """Whether the last line was one for the moment."""
        self._told = 0.0
        """When one of these was said last, or could have been for the first time."""

    def say(self, line: str) -> None:
        """One more."""
        if sys.stderr is None:  # closed by who called us
            return
        passing, was_open = line.endswith(FOR_NOW), self._open
        self._open = passing
        line = f"{line.rstrip(FOR_NOW)} {_MORE}" if passing else line
        if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            clear = "\r\x1b[K" if was_open else ""
            self._write(clear + (_cut(line) if passing else f"{line}\n"))
        elif not passing:
            self._write(f"{line}\n")
        elif not was_open:
            self._told = time.monotonic()
        elif time.monotonic() - self._told >= _SPARSE:
            self._told = time.monotonic()
            self._write(f"{line}\n")

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


def _cut(line: str) -> str:
    """To what a terminal shows in one line."""
    width = shutil.get_terminal_size().columns - 1
    return line if len(line) <= width else line[: width - 1] + _MORE
