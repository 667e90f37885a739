"""What a nest in a container says when it is up, or why it is not."""

from __future__ import annotations

import asyncio

from crkernel.engines.docker.complaints import DOCTOR
from crkernel.engines.docker.stream import Frames
from crkernel.errors import EngineUnavailable
from crkernel.guest import wire

_ALLOW = (
    "on the daemon's machine, allow user namespaces: sudo sysctl -e -w "  # -e: those that there are
    "user.max_user_namespaces=15000 kernel.unprivileged_userns_clone=1 "
    "kernel.apparmor_restrict_unprivileged_userns=0"
)


async def ready(frames: Frames, seconds: float) -> wire.Message:
    """What a nest that is ready says first, within so many seconds. Raises EngineError."""
    try:
        async with asyncio.timeout(seconds):
            hello = await frames.next() or {}
    except TimeoutError as error:
        raise EngineUnavailable("the nest does not come up", hint=DOCTOR) from error
    if hello.get("ready") == wire.PROTOCOL:
        return hello
    reason = f"cannot {hello['failed']}: {hello['reason']}" if "failed" in hello else "it ended"
    hint = _ALLOW if "namespaces" in str(hello.get("failed")) else DOCTOR
    raise EngineUnavailable(f"no sandbox can be made in Docker: {reason}", hint=hint)
