"""How a container comes to its end.

One that goes with its process (`AutoRemove`) may be gone before who lost it can ask. So Docker is
asked from the start, and answers at the end.
"""

from __future__ import annotations

import asyncio
import signal

from crkernel.engines.docker.daemon import Daemon
from crkernel.errors import EngineError, EngineUnavailable
from crkernel.guest.enter import SIGNALLED, STARVED

_LAST_SECONDS = 3.0
_PODMAN_SECONDS = 10.0
"""Podman clears up by a process of its own before it says how a container ended."""


class Ending:
    """That of one container, which runs."""

    def __init__(self, daemon: Daemon, container: str) -> None:
        self._daemon = daemon
        self._container = container
        # Podman has to be asked again and again, so not before its end.
        self._asked = None if daemon.podman else asyncio.create_task(self._ask())

    async def why(self) -> str:
        """What became of it, in words, when nothing more comes from it."""
        try:
            async with asyncio.timeout(_LAST_SECONDS if self._asked else _PODMAN_SECONDS):
                said = await self._asked if self._asked else await self._ask()
                if self._asked and isinstance(said, EngineError):
                    said = await self._ask()  # that connection was lost, too
        except TimeoutError:
            return _CUT
        if isinstance(said, EngineUnavailable):
            return f"its container is out of reach: {said}"
        return _CUT if isinstance(said, EngineError) else _words(said)

    async def forget(self) -> None:
        """It is of no interest any more."""
        if self._asked is not None:
            self._asked.cancel()
            await asyncio.wait([self._asked])

    async def _ask(self) -> int | EngineError | None:
        try:
            return await self._daemon.exit_code(self._container)
        except EngineError as error:
            return error


_CUT = "the connection to its container was cut"


def _words(code: int | None) -> str:
    if code is None:
        return "its container was removed"
    if code == STARVED:
        return "its container ran out of memory (limits memory, disk_size and staging_size)"
    number = code - SIGNALLED
    if number == signal.SIGKILL:
        return "its container was killed"
    if number in signal.valid_signals():
        return f"its container was ended by {signal.Signals(number).name}"
    return f"its container ended (code {code})"
