"""What engines with a nest have in common: the nest keeps the checkpoints, and works on them."""

from __future__ import annotations

from collections.abc import Sequence

from crkernel.engines.base import Engine, Findings, Limits
from crkernel.engines.requests import Requests


class NestEngine(Engine):
    """Its checkpoints lie where its nest is, whose children work on them at low priority."""

    def __init__(self, limits: Limits, secret: bytes | None = None) -> None:
        super().__init__(limits, secret)
        self._nest = Requests()

    async def thin(self, name: str, base: str) -> tuple[int, int]:
        """See `Engine.thin`."""
        return await self._shrink("thin", name, base)

    async def rebase(self, name: str, near: str | None, *, urgent: bool = False) -> tuple[int, int]:
        """See `Engine.rebase`."""
        return await self._shrink("rebase", name, near, urgent=urgent)

    async def _shrink(
        self, op: str, name: str, base: str | None, *, urgent: bool = False
    ) -> tuple[int, int]:
        answer = await self._nest.ask(op, name=name, base=base, urgent=urgent)
        return int(answer["before"]), int(answer["after"])

    async def drop(self, names: Sequence[str]) -> int:
        """See `Engine.drop`."""
        return int((await self._nest.ask("drop", names=list(names)))["freed"])

    async def costs(self, names: Sequence[str]) -> dict[str, list[int]]:
        """See `Engine.costs`."""
        costs: dict[str, list[int]] = (await self._nest.ask("costs", names=list(names)))["costs"]
        return costs

    async def verify(self, target: str) -> Findings:
        """See `Engine.verify`."""
        answer = await self._nest.ask("verify", target=target)
        return Findings(answer["damage"], answer["needs"], answer["needed_by"])
