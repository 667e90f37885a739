"""The annex: a container with a network beside that of a kernel, which has none.

It shares the process ids of the other one, and its main process becomes one of the nest's there,
but for the network; see `crkernel.guest.annex`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crkernel.engines.docker import container
from crkernel.engines.docker.daemon import Daemon
from crkernel.engines.docker.ending import Ending
from crkernel.engines.docker.stream import Stream
from crkernel.engines.limits import Limits
from crkernel.engines.sandbox import Sandbox
from crkernel.errors import DaemonRefused, EngineError

_NETWORKS = "docker_network names one of: docker network ls"


@dataclass(frozen=True)
class Neighbour:
    """What an annex is beside: a kernel's container and the process id of its nest. The network is
    one of Docker's."""

    daemon: Daemon
    container: str
    nest: int
    limits: Limits
    network: str


class Annex:
    """One that works; `stream` leads to it. It ends with that, or with the kernel's container."""

    def __init__(self, daemon: Daemon, container_id: str, stream: Stream) -> None:
        self._daemon = daemon
        self._container = container_id
        self._ending: Ending | None = None
        self.stream = stream

    @classmethod
    async def beside(cls, of: Neighbour, work: Mapping[str, Any], options: dict[str, Any]) -> Annex:
        """Have this work (see `crkernel.guest.annex`) done in one, which is made with some options
        of its own. Raises EngineError."""
        daemon = of.daemon
        kernels = await daemon.find("inspect_container", of.container) if of.container else None
        if kernels is None:
            raise EngineError("its container was removed", hint="try again")
        info = await daemon.info()
        said = json.dumps({**work, "nest": of.nest})
        body = container.annex_body(kernels, of.network, said, info, options, podman=daemon.podman)
        name = f"crkernel-annex-{secrets.token_hex(16)}"
        created = str((await daemon.ask("create_container_from_config", body, name))["Id"])
        try:
            annex = cls(daemon, created, await daemon.attach(created))
        except BaseException:
            await container.remove(daemon, created)
            raise
        try:
            await daemon.ask("start", created)
            annex._ending = Ending(daemon, created)
        except BaseException as error:
            await annex.end()
            if isinstance(error, DaemonRefused):
                error.hint = _NETWORKS
            raise
        return annex

    async def why(self) -> str:
        """What became of it, when nothing more comes."""
        assert self._ending is not None
        return await self._ending.why()

    async def end(self) -> None:
        """With all that runs in it."""
        self.stream.writer.close()
        if self._ending is not None:
            await self._ending.forget()
        await container.remove(self._daemon, self._container)


async def courier(beside: Neighbour, host: bytes, at_work: set[Sandbox]) -> Sandbox:
    """See `Engine.courier`; it has an annex for itself, and is `at_work` until its end."""
    work = {
        "work": "courier",
        "brings": container.NPM_CACHE,
        "disk": beside.limits.disk_size,
        "settings": len(host),
    }
    annex = await Annex.beside(beside, work, container.for_courier(beside.limits))
    annex.stream.writer.write(host)

    async def end() -> None:
        at_work.discard(sandbox)
        await annex.end()

    sandbox = Sandbox(annex.stream, annex.stream.writer, end, annex.why)
    at_work.add(sandbox)
    return sandbox
