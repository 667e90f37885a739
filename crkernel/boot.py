"""Makes guests that have run nothing yet: of the golden root, or by booting one."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from crkernel import golden_root
from crkernel.background import Background
from crkernel.engines.base import Engine
from crkernel.engines.sandbox import Sandbox
from crkernel.errors import CRKernelError, SandboxDied
from crkernel.outcome import Language

log = logging.getLogger(__name__)

_TAIL = 4096


class Boot:
    """Fresh guests of one engine and language, under the engine's limits as they are then."""

    def __init__(self, engine: Engine, language: Language, background: Background) -> None:
        self.version = ""
        """Of the guest's language, once one has said hello."""
        self._engine = engine
        self._language = language
        self._background = background
        self._keeping = asyncio.Lock()

    async def from_golden(self, *, needed: bool) -> tuple[Sandbox, str] | None:
        """A sandbox with the guest of the golden root, and the name of that checkpoint; None if
        there is none or it does not come up here. Then it goes, so that a new one can be made,
        unless it is needed: there are checkpoints of guests that started from it."""
        return await self._from_golden(self.key, needed=needed)

    async def _from_golden(self, key: str, *, needed: bool) -> tuple[Sandbox, str] | None:
        name = self._engine.golden(key)
        if name is None:
            return None
        try:
            sandbox, restored = await self._engine.start_from(name)
        except CRKernelError as error:
            log.warning("the golden root %s could not be restored: %s", name, error)
            if not needed:
                self._engine.discard_golden(key)
            return None
        self.version = str(restored.hello.get("version", ""))
        return sandbox, name

    async def fresh(self) -> Sandbox:
        """A sandbox with a guest that has just been booted. Raises CRKernelError."""
        sandbox = await self._engine.sandbox()
        try:
            await self._boot(sandbox)
        except CRKernelError:
            self._background.start(sandbox.end())
            raise
        return sandbox

    async def keep_golden(self, name: str, key: str) -> bool:
        """Make the golden root `key` of the root checkpoint `name`, and try it; False if there is
        one already, or it is of no use here. Raises EngineError."""
        async with self._keeping:
            if self._engine.golden(key) is not None:
                return False
            await self._engine.keep_golden(name, key)
            if (tried := await self._from_golden(key, needed=False)) is None:
                return False
            await tried[0].end()
            return True

    @property
    def key(self) -> str:
        """Of the golden root for guests that are started now."""
        return golden_root.key(self._language, self._engine.limits, self._engine.machine)

    async def _boot(self, sandbox: Sandbox) -> None:
        limits = self._engine.limits
        said: list[str] = []
        sandbox.on_event = lambda event: said.append(str(event.get("text", "")))
        command = self._language.command(limits)
        enough = replace(limits, memory=limits.memory + self._language.reserved)
        try:
            hello = await sandbox.boot(command, dict(self._language.environment), enough)
        except SandboxDied as death:
            words = "".join(said).strip()[-_TAIL:]
            raise SandboxDied(f"{death}\n{words}".strip(), hint="run: crkernel doctor") from death
        self.version = str(hello.get("version", ""))
