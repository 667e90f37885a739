"""Time that passes only where all wait for it, so that an hour takes none."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest


class Deadlock(BaseException):
    """Everything waits, and nothing is to come."""


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the running loop, of which nothing may wait for the world outside, and for
    `time.monotonic`."""
    loop: Any = asyncio.get_running_loop()
    look, now = loop._selector.select, loop.time()

    def select(timeout: float | None = None) -> list[Any]:
        nonlocal now
        ready: list[Any] = look(0)
        if not ready and timeout is None:
            raise Deadlock
        if not ready:
            now += timeout
        return ready

    monkeypatch.setattr(loop._selector, "select", select)
    monkeypatch.setattr(loop, "time", lambda: now)
    monkeypatch.setattr(time, "monotonic", lambda: now)
