"""What sandboxes and engines answer, and what is raised for a guest that does not."""

from __future__ import annotations

import contextlib
import signal
from dataclasses import dataclass
from typing import NamedTuple

from crkernel.errors import SandboxDied
from crkernel.guest.wire import Message

_SIGNALLED = 128
"""What a shell adds to the number of the signal that ended a program."""


@dataclass(frozen=True, slots=True)
class Dump:
    """What a dump cost: seconds, and bytes that it added."""

    seconds: float
    frozen: float
    memory: int
    files: int


@dataclass(frozen=True, slots=True)
class Restored:
    """A guest that came back: its hello, and seconds until its processes ran again."""

    hello: Message
    seconds: float

    @classmethod
    def of(cls, answer: Message) -> Restored:
        """As a supervisor tells it."""
        return cls(dict(answer["hello"]), float(answer["seconds"]))


class Findings(NamedTuple):
    """What reading a checkpoint or a memory file through has shown: what is damaged, in words; what
    it `needs`, memory files by their paths and the checkpoint that it is a difference to; the
    checkpoints by which it is needed."""

    damage: str | None
    needs: list[str]
    needed_by: list[str]


class Moved(Exception):
    """The guest has gone on since its newest checkpoint, and was not called."""


def died(how: Message) -> SandboxDied:
    """The error for a guest that ended, in words."""
    words, crashed = f"the guest is gone: {how.get('reason', how)}", False
    killed = how.get("signal") == signal.SIGKILL
    if "code" in how:
        code = int(how["code"])
        words, crashed = f"the guest exited with code {code}", code > _SIGNALLED
    elif "signal" in how:
        number = int(how["signal"])
        with contextlib.suppress(ValueError):
            name = signal.Signals(number).name
            words = f"the guest was ended by {name} ({signal.strsignal(number)})"
        crashed = True
    death = SandboxDied(words)
    death.crashed, death.killed = crashed, killed
    return death
