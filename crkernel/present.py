"""The present of a session: its live guest, what takes its place, what becomes of it if it dies."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from crkernel.background import Background
from crkernel.boot import Boot
from crkernel.checkpoint import Checkpoint
from crkernel.comms import Comms
from crkernel.engines.answers import died
from crkernel.engines.base import Engine
from crkernel.engines.sandbox import Sandbox
from crkernel.errors import CRKernelError, SandboxDied
from crkernel.listener import Listener
from crkernel.outcome import Json, Language, limit_hint
from crkernel.past import Past
from crkernel.spare import Spare

log = logging.getLogger(__name__)


class Present:
    """The live guest, if there is one. Who calls what changes it excludes everything else then.
    `on_exit` is told when the guest ends by itself."""

    def __init__(
        self,
        engine: Engine,
        language: Language,
        past: Past,
        listener: Listener,
        comms: Comms,
        background: Background,
        on_exit: Callable[[Json], None],
    ) -> None:
        self.live: Sandbox | None = None
        self.reachable = asyncio.Event()
        """Set while the guest can take messages of comms."""
        self.boot = Boot(engine, language, background)
        self.spare = Spare(engine, background)
        self.revived: str | None = None
        """Where a death between cells led, until a cell runs."""
        self.is_left = False
        """For good: nothing takes the place of a guest that is gone."""
        self._engine = engine
        self._language = language
        self._past = past
        self._listener = listener
        self._comms = comms
        self._background = background
        self._on_exit = on_exit

    # -- moving in

    async def root(self, key: str) -> None:
        """Move in with a guest that has run nothing, which is the new root `key`. Raises
        CRKernelError, and nothing is changed."""
        await self._engine.make_room()
        draft = Checkpoint(key, None, None, time.time())
        golden = await self.boot.from_golden(needed=len(self._past.timeline) > 0)
        if golden is not None:
            self.move_in(golden[0])
            self._past.take_golden(draft, golden[1])
            self._close_comms(key)
            return
        sandbox = await self.boot.fresh()
        try:
            await self._past.take(draft, sandbox)
        except CRKernelError:
            self._background.start(sandbox.end())
            raise
        self.move_in(sandbox)
        self._close_comms(key)

    async def restore(self, key: str) -> None:
        """Go to a checkpoint. Raises CRKernelError, and nothing is changed."""
        begin = time.monotonic()
        self.move_in(await self._restored(key))
        self._past.timeline.move(key)
        self._close_comms(key)
        self._past.last["rewind"] = time.monotonic() - begin

    async def swap(self) -> bool:
        """Move in with the guest's twin, the one that the head's checkpoint restores, unless the
        guest has done anything since. Raises CRKernelError, and nothing is changed."""
        assert self.live is not None
        if not await self.live.rested():
            return False
        twin = await self._restored(self._past.timeline.head, twin=True)
        try:
            with contextlib.suppress(SandboxDied):  # whoever uses it next brings it back
                if await self.live.retire():
                    self.move_in(twin)
            return self.live is twin
        finally:
            if self.live is not twin:
                self._background.start(twin.end())

    async def _restored(self, key: str, *, twin: bool = False) -> Sandbox:
        """The guest of a checkpoint, next door. Raises CRKernelError."""
        spare = await self.spare.take()
        try:
            await self._past.restore(key, spare, twin=twin)
        except (CRKernelError, asyncio.CancelledError):
            self._background.start(spare.end())
            raise
        finally:
            self.spare.warm()
        return spare

    def move_in(self, sandbox: Sandbox) -> None:
        """Its guest is the live one from here on; the one before is ended."""
        old, self.live = self.live, sandbox
        sandbox.on_event = self._listener.hear
        sandbox.on_exit = self._on_exit
        if old is not None:
            old.silence()
            self._background.start(old.end())

    def _close_comms(self, key: str) -> None:
        """Of the present and of the state `key`, those that the other does not know. A handler of
        the guest's may take as long as it likes, and nobody waits for it."""
        assert self.live is not None
        for call in self._comms.rewound(key, self._listener.sink):
            self.live.call("comm", delivery=0, **call)

    async def keep_golden(self, key: str) -> bool:
        """Make the golden root `key` of this session's root; False if there is one. Raises
        EngineError."""
        name = self._past.root_name()
        return name is not None and await self.boot.keep_golden(name, key)

    # -- staying reachable

    async def keep(self) -> Sandbox:
        """If the guest went on by itself since the head's checkpoint, keep where it is now."""
        assert self.live is not None
        head = self._past.timeline.head
        try:
            if await self.live.rested() or self.has_run_nothing:
                return self.live
            later = Checkpoint(self._past.timeline.later_key(head), head, None, time.time())
            await self._past.take(later, self.live)
        except SandboxDied:
            if self.live.death is None:
                raise
            await self.revive(self.live.death)
        return self.live

    @property
    def has_run_nothing(self) -> bool:
        """Whether the guest is a root in which no cell has run yet. What it does by itself is the
        runtime's own work, which comes late where processors are short; and of the comms that front
        ends open when they connect it knows none."""
        head = self._past.timeline.get(self._past.timeline.head)
        return head.parent is None and self.live is not None and not self.live.has_run

    async def revive(self, how: Json) -> None:
        """The guest died between cells. If it did so before in the state that was restored then,
        what kills it is part of that state, and the one before is taken."""
        head = self._past.timeline.head
        key = self._past.timeline.get(head).parent if head == self.revived else head
        words = await self.death_words(died(how))
        restored = await self.recover(key)
        self.revived = self._past.timeline.head
        self._listener.warn(f"between cells {words}; {restored}")

    async def recover(self, key: str | None) -> str:
        """Restore the newest state from `key` upward that can be had, and say which one it is."""
        if self.is_left:
            return "this is the session's end"
        if self._engine.lost:
            self.spare.drop()
            self._past.lose_all("it was lost together with all sandboxes")
            await self._engine.start()
        while key is not None:
            checkpoint = self._past.timeline.get(key)
            if checkpoint.reason is None:
                try:
                    await self.restore(key)
                except CRKernelError as error:
                    log.warning("checkpoint %s could not be restored: %s", key, error)
                else:
                    return f"the state before it (checkpoint {key}) is restored"
            key = checkpoint.parent
        self.move_in(await self.boot.fresh())
        return "no earlier state could be restored, so a fresh guest was started"

    async def death_words(self, death: SandboxDied) -> str:
        """How the guest died, with the limit that it hit if it hit one."""
        words = death.crashed and self._language.out_of_memory.search(self._listener.last_words)
        starved = await self._engine.ran_out_of_memory()  # or only a child of the guest, and before
        if words or (starved and death.killed):
            return f"the guest ran out of memory ({limit_hint('memory', self._engine.limits)})"
        return str(death)
