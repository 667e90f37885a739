"""The annex: a container with a network beside that of a kernel, which has none.

It shares the process ids of the other one, and its main process becomes one of the nest's there,
but for the network; see `crkernel.guest.annex`.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Mapping
from typing import Any

from crkernel.engines.docker import container
from crkernel.engines.docker.daemon import Daemon
from crkernel.engines.docker.stream import Stream
from crkernel.engines.limits import Limits
from crkernel.errors import DaemonRefused, EngineError

_NETWORKS = "docker_network names one of: docker network ls"


class Annex:
    """One that works; `stream` leads to it. It ends with that, or with the kernel's container."""

    def __init__(self, daemon: Daemon, container_id: str, stream: Stream) -> None:
        self._daemon = daemon
        self._container = container_id
        self.stream = stream

    @classmethod
    async def beside(
        cls,
        daemon: Daemon,
        kernels: str,
        limits: Limits,
        network: str,
        work: Mapping[str, Any],
    ) -> Annex:
        """Have this work (see `crkernel.guest.annex`) done in one, with a network of Docker's,
        beside the container `kernels`. Raises EngineError."""
        neighbour = await daemon.find("inspect_container", kernels) if kernels else None
        if neighbour is None:
            raise EngineError("its container was removed", hint="try again")
        info = await daemon.ask("info")
        body = container.annex_body(
            neighbour, limits, network, json.dumps(work), info, podman=daemon.podman
        )
        name = f"crkernel-annex-{secrets.token_hex(16)}"
        created = str((await daemon.ask("create_container_from_config", body, name))["Id"])
        try:
            stream = await daemon.attach(created)
            await daemon.ask("start", created)
        except BaseException as error:
            with contextlib.suppress(EngineError):  # it has gone
                await daemon.ask("remove_container", created, force=True)
            if isinstance(error, DaemonRefused):
                error.hint = _NETWORKS
            raise
        return cls(daemon, created, stream)

    async def end(self) -> None:
        """With all that runs in it."""
        self.stream.writer.close()
        with contextlib.suppress(EngineError):  # it has gone, or the daemon has
            await self._daemon.ask("remove_container", self._container, force=True)
