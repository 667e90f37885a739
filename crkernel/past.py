"""The checkpoints of one session: takes them, restores them, and records both in the timeline."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from itertools import islice

from crkernel.background import Background
from crkernel.checkpoint import Checkpoint, Cost
from crkernel.comms import Comms
from crkernel.engines.answers import Dump, died
from crkernel.engines.base import Engine
from crkernel.engines.sandbox import Sandbox
from crkernel.errors import CheckpointError, EngineError, SandboxDied, UserError
from crkernel.guest import golden
from crkernel.guest.refusals import STAGING_FULL
from crkernel.outcome import Json
from crkernel.thinner import Thinner
from crkernel.timeline import Timeline
from crkernel.verifier import Verifier

ROOT = "0"


class Past:
    """What can be gone back to. `warn` takes what the user has to know about what cannot,
    `on_rebased` the key of a checkpoint whose memory has moved into a memory file."""

    def __init__(
        self,
        engine: Engine,
        background: Background,
        comms: Comms,
        warn: Callable[[str], None],
        on_rebased: Callable[[str], None],
    ) -> None:
        self.timeline = Timeline()
        self.last: dict[str, float] = {}
        """What the newest checkpoint took, in seconds."""
        self._engine = engine
        self._comms = comms
        self._warn = warn
        self._on_rebased = on_rebased
        self._thinner = Thinner(engine, background)
        self._verifier = Verifier(engine, background, self._thinner.hold, self._on_damage)
        self._names: dict[str, str] = {}  # a checkpoint's key -> its name in staging
        self._damaged: set[str] = set()  # paths of memory files
        self._taken = 0
        self._refusal = ""  # why the newest dump was refused, if it was

    def touch(self) -> None:
        """Something is going on: work that can wait does."""
        self._thinner.touch()
        self._verifier.touch()

    async def settle(self) -> None:
        """Leave no work half done that goes on with checkpoints."""
        await self._thinner.stop()

    async def take(self, draft: Checkpoint, sandbox: Sandbox) -> None:
        """Make a checkpoint of a guest and record it: as `draft` says, with what it cost or why it
        was refused. Raises SandboxDied, and nothing is recorded."""
        self._taken += 1
        name = f"c{self._taken}"
        cost, reason = None, None
        try:
            cost = self._keep(draft.key, name, await self._dump(name, sandbox))
        except SandboxDied:
            raise
        except (CheckpointError, EngineError) as refusal:
            reason = str(refusal)
            self._warn_of_refusal(draft.key, reason)
        self._append(replace(draft, cost=cost, reason=reason))

    async def _dump(self, name: str, sandbox: Sandbox) -> Dump:
        await self._thinner.make_way()
        try:
            return await sandbox.dump(name, self._damaged)
        except CheckpointError as refusal:
            if not str(refusal).startswith(STAGING_FULL) or not await self._thinner.catch_up():
                raise
        return await sandbox.dump(name, self._damaged)

    def take_golden(self, draft: Checkpoint, name: str) -> None:
        """Record a guest that was restored from the golden root `name`, as a checkpoint."""
        self._names[draft.key] = name
        self._append(replace(draft, cost=Cost(0.0, 0.0, 0, 0)))
        self._verifier.add(name)

    async def drop(self, keys: Sequence[str]) -> tuple[list[str], int]:
        """Give up what can be restored of some checkpoints; of which there was something, and bytes
        that are free now. Raises UserError for the one that the guest would come back to, or where
        others need checkpoints for long, and drops none."""
        needed = self.timeline.nearest_restorable(self.timeline.head)
        if needed in keys:
            raise UserError(
                f"checkpoint {needed} stays: the guest would come back there if it died",
                hint="go elsewhere first, e.g. with %undo",
            )
        names = {key: self._names[key] for key in keys if key in self._names}
        names = {key: n for key, n in names.items() if not n.startswith(golden.PREFIX)}
        if not names:
            return [], 0
        async with self._thinner.alone():
            self._verifier.drop(names.values())
            try:
                freed = await self._thinner.drop(names.values())
            finally:  # what was to go may be gone in part, and can be dropped once more
                for key in names:
                    self._comms.kept.pop(key, None)
                    cost = self.timeline.get(key).cost
                    left = cost and replace(cost, memory=0, files=0)
                    self.timeline.amend(key, reason="it was dropped by %forget", cost=left)
        for key in names:
            del self._names[key]
        return list(names), freed

    async def costs(self, count: int) -> dict[str, list[int]]:
        """What the newest `count` checkpoints take of staging, by key: see `Engine.costs`."""
        newest = list(islice(reversed(self._names.items()), count))
        names = {name: key for key, name in newest if not name.startswith(golden.PREFIX)}
        costs = await self._engine.costs(list(names))
        return {key: costs[name] for name, key in names.items() if name in costs}

    def lose(self, draft: Checkpoint, why: str) -> None:
        """Record a cell whose guest died before there was a checkpoint."""
        self.timeline.append(replace(draft, reason=why))

    def lose_all(self, why: str) -> None:
        """Staging is gone: of what there was, only golden roots can be restored."""
        self._thinner.lose_all()
        self._verifier.lose_all()
        for key, name in list(self._names.items()):
            if not name.startswith(golden.PREFIX):
                del self._names[key]
                self.timeline.amend(key, reason=why)

    async def restore(self, key: str, sandbox: Sandbox, *, twin: bool = False) -> None:
        """Bring a checkpoint to life in an empty sandbox, see there. Raises CRKernelError."""
        self.timeline.restorable(key)
        name = self._names[key]
        await self._thinner.hasten(name)
        async with self._thinner.hold(name):
            await sandbox.restore(name, twin=twin)
        self._verifier.add(name)
        if sandbox.death is not None:
            raise died(sandbox.death)

    async def fetch(
        self, keys: Sequence[str], known: Collection[str] = ()
    ) -> AsyncGenerator[bytes, None]:
        """As `Engine.fetch`: until all of it has been taken, these checkpoints are neither made
        smaller nor dropped. Raises UserError for one that cannot be restored or sent."""
        names = [self._names[self.timeline.restorable(key).key] for key in keys]
        if any(name.startswith(golden.PREFIX) for name in names):
            raise UserError("a root that every kernel starts from does not travel")
        async with AsyncExitStack() as stack:
            for name in names:
                await stack.enter_async_context(self._thinner.hold(name))
            stream = await stack.enter_async_context(aclosing(self._engine.fetch(names, known)))
            async for data in stream:
                yield data

    @property
    def is_busy(self) -> bool:
        """Whether a big checkpoint is being made small, or some are dropped."""
        return self._thinner.is_busy

    @property
    def not_made_small(self) -> dict[str, str]:
        """Why checkpoints stay as large as they were dumped, by key."""
        keys = {name: key for key, name in self._names.items()}
        return {keys[name]: why for name, why in self._thinner.failed.items() if name in keys}

    async def rebase(self, key: str) -> bool:
        """Have the memory of a checkpoint in a memory file, now; False if that cannot be."""
        name = self._names.get(key)
        return name is not None and await self._thinner.rebase(name)

    @property
    def before_newest(self) -> str | None:
        """The checkpoint that an undo goes to; None if there is none that can be restored."""
        try:
            return self.timeline.restorable(self.timeline.undo_target()).key
        except UserError:
            return None

    async def settled(self, key: str) -> None:
        """Wait until a checkpoint will not change its form any more."""
        await self._thinner.done_with(self._names[key])

    async def prepare(self, key: str, sandbox: Sandbox) -> bool:
        """Get an empty sandbox ready for `restore`; False if there is no memory for that, or no
        such checkpoint any more. Raises CRKernelError."""
        if (name := self._names.get(key)) is None:
            return False
        async with self._thinner.hold(name):
            return await sandbox.prepare(name)

    def name(self, key: str) -> str:
        """The name in staging of a checkpoint that can be restored."""
        return self._names[key]

    def root_name(self) -> str | None:
        """The name of the root checkpoint in staging; None if it was refused, damaged or golden."""
        name = self._names.get(ROOT)
        if name is None or name.startswith(golden.PREFIX):
            return None
        return name if self.timeline.get(ROOT).reason is None else None

    # -- across a restart

    def to_bytes(self) -> bytes:
        """What a session that follows this one has to know."""
        keys = {
            name.removeprefix(golden.PREFIX)
            for name in self._names.values()
            if name.startswith(golden.PREFIX)
        }
        past: Json = {
            "timeline": self.timeline.to_dict(),
            "names": self._names,
            "bases": self._thinner.bases,
            "pending": self._thinner.pending,
            "taken": self._taken,
            "damaged": sorted(self._damaged),
            "golden": sorted(keys),
            "comms": self._comms.kept,
        }
        return json.dumps(past).encode()

    def inherit(self, state: bytes) -> None:
        """Take over the past of the session before the restart."""
        past = json.loads(state)
        self.timeline = Timeline.from_dict(past["timeline"])
        renamed = self.timeline.adopt()
        self._names = {renamed.get(key, key): name for key, name in past["names"].items()}
        self._taken = int(past["taken"])
        self._damaged = set(past["damaged"])
        self._comms.kept = {renamed.get(key, key): held for key, held in past["comms"].items()}
        for key in past["golden"]:
            self._engine.inherit_golden(key)
        self._thinner.bases.update(past["bases"])
        keys = {name: key for key, name in self._names.items()}
        for name, parent, size in past["pending"]:
            if name in keys:
                self._thinner.add(name, parent, size, self._shrinks(keys[name]))

    # -- one checkpoint

    def _keep(self, key: str, name: str, dump: Dump) -> Cost:
        self._names[key] = name
        self._comms.keep(key)
        self._refusal = ""
        self.last["checkpoint"], self.last["frozen"] = dump.seconds, dump.frozen
        return Cost(dump.seconds, dump.frozen, dump.memory, dump.files)

    def _append(self, checkpoint: Checkpoint) -> None:
        """Into the timeline, and in line to be made small."""
        self.timeline.append(checkpoint)
        key, cost = checkpoint.key, checkpoint.cost
        if cost is not None:
            parent = self._names.get(checkpoint.parent or "")
            self._thinner.add(self._names[key], parent, cost.memory, self._shrinks(key))

    def _shrinks(self, key: str) -> Callable[[int, bool], None]:
        """What the thinner tells of a checkpoint: the bytes that are left of it, and whether the
        others went into a memory file."""

        def amend(left: int, rebased: bool) -> None:
            cost = self.timeline.get(key).cost
            assert cost is not None
            self.timeline.amend(key, cost=replace(cost, memory=left))
            if rebased and key in self._names:
                self._verifier.add(self._names[key])
                self._on_rebased(key)

        return amend

    def _on_damage(self, target: str, needed_by: Sequence[str], what: str) -> None:
        """Nobody goes there any more; and if the guest runs on it, who uses it has to know, and it
        is not taken for good in a checkpoint. The images stay until they are dropped."""
        names = {target, *needed_by}
        if target.startswith("/"):
            self._damaged.add(target)
        needing = [key for key, name in self._names.items() if name in names]
        damaged = [key for key in needing if self.timeline.get(key).reason is None]
        for name in names:
            if name.startswith(golden.PREFIX):
                self._engine.spoil_golden(name.removeprefix(golden.PREFIX))
        self._thinner.distrust(names)
        for key in damaged:
            self.timeline.amend(key, reason=f"it is damaged: {what}")
        if damaged:
            self._warn(
                f"no way leads back to {', '.join(damaged)} any more: {what}. If the guest came "
                "from there, what it holds may be wrong: %reset starts afresh"
            )

    def _warn_of_refusal(self, key: str, reason: str) -> None:
        if reason == self._refusal:
            self._warn(f"checkpoint {key} could not be taken either, for the same reason")
            return
        self._refusal = reason
        self._warn(
            f"checkpoint {key} could not be taken: {reason}. The result stands, but %rewind cannot "
            f"come back here, until what the reason names is mended and another cell has run"
        )
