"""What the session knows of an engine, whatever it is."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Collection, Sequence
from importlib.metadata import entry_points
from typing import Any, ClassVar

from crkernel.engines.answers import Findings, Restored
from crkernel.engines.limits import Limits
from crkernel.engines.sandbox import Sandbox, restored
from crkernel.errors import EngineUnavailable
from crkernel.guest import processor

log = logging.getLogger(__name__)

ENTRY_POINTS = "crkernel.engines"


class Engine(ABC):
    """Makes the sandboxes of one session. Found by entry point, named by the trait `engine`."""

    name: str
    networks: ClassVar[tuple[str, ...]] = ("none",)
    """What `network` can be."""

    def __init__(self, limits: Limits, secret: bytes | None = None) -> None:
        self.limits = limits
        self.pool = 0
        """How many places for sandboxes are kept ready for kernels to come."""
        self.docker_network = "default"
        """The network of Docker's that what has to have one gets there."""
        self.network = "none"
        """What guests reach outside of their sandbox, for sandboxes to come: one of `networks`."""
        self.tell: Callable[[str], None] = log.warning
        """Takes, in words for the user, what has happened to sandboxes that live on."""
        self.network_lost = ""
        """How guests lost their way to the network last, for %status."""
        self.secret = secret
        """What this kernel shares with the one that is started in its place at a restart."""

    @abstractmethod
    async def start(self) -> bytes | None:
        """Make ready; what the kernel before this one gave to `linger`, if it did. Raises
        EngineUnavailable or ImageMissing with the remedy."""

    @property
    def lost(self) -> bool:
        """Whether all sandboxes and checkpoints are gone at once; then `start` begins anew."""
        return False

    @abstractmethod
    async def linger(self, state: bytes) -> None:
        """End the sandboxes but keep staging for a while, for the kernel that starts next."""

    async def make_room(self) -> None:  # noqa: B027
        """Have what limits all sandboxes together hold guests under the limits as they are now.
        Raises EngineError."""

    @abstractmethod
    async def sandbox(self) -> Sandbox:
        """A fresh one, without a guest."""

    async def start_from(self, name: str) -> tuple[Sandbox, Restored]:
        """A sandbox with the guest of a golden root, by the name that `golden` gave. Raises
        CRKernelError."""
        sandbox = await self.sandbox()
        return sandbox, await restored(sandbox, name)

    @abstractmethod
    async def courier(self, host: bytes) -> Sandbox:
        """One without a guest but with the network, to run npm in under the settings `host`."""

    @abstractmethod
    async def thin(self, name: str, base: str) -> tuple[int, int]:
        """Rewrite a checkpoint as the difference to a full one; bytes before and after."""

    @abstractmethod
    async def rebase(self, name: str, near: str | None, *, urgent: bool = False) -> tuple[int, int]:
        """Move a checkpoint's memory into memory files, if it can be those of the rebased one
        `near`; bytes before and after. It is `urgent` if somebody waits for it."""

    @abstractmethod
    async def drop(self, names: Sequence[str]) -> int:
        """Take checkpoints out of staging, and what no other needs of what they brought; bytes that
        are free now. Not the one that the live guest was dumped to or restored from last."""

    @abstractmethod
    async def costs(self, names: Sequence[str]) -> dict[str, list[int]]:
        """What some checkpoints take, in bytes: of images; of more that no other checkpoint needs,
        as memory files; of what others need too; of files, the contents that it brought."""

    @abstractmethod
    async def verify(self, target: str) -> Findings:
        """Read the images of a checkpoint through, or a memory file, by its path."""

    @abstractmethod
    def fetch(
        self, names: Sequence[str], known: Collection[str] = ()
    ) -> AsyncGenerator[bytes, None]:
        """Some checkpoints with all that they need, as one stream for `push`, read only as fast as
        it is asked for. Memory of golden roots that is `known` to the receiver, by its `digests`,
        stays out of it. They must not be dropped or made smaller meanwhile. Raises EngineError or,
        for what is damaged, Corrupt; the stream is of no use then."""

    @abstractmethod
    async def push(
        self, stream: AsyncIterable[bytes], progress: Callable[[int], None] = lambda _: None
    ) -> dict[str, str]:
        """Take in what `fetch` of an engine gave: the checkpoints' names here, by those there.
        `progress` is told how many bytes have gone. Raises Corrupt, FormatVersion, NoSpace or
        EngineError, and nothing of it is there."""

    @abstractmethod
    async def digests(self) -> list[str]:
        """Of the memory of golden roots that are here, for the `fetch` of another engine."""

    @property
    def machine(self) -> list[str]:
        """What of the machine where sandboxes run its checkpoints depend on."""
        return processor.identity()

    def golden(self, key: str) -> str | None:  # noqa: ARG002
        """The name under which `Sandbox.restore` takes the golden root `key`; None without one."""
        return None

    def inherit_golden(self, key: str) -> None:  # noqa: B027
        """Checkpoints of before a restart need the golden root `key`, damaged or not: hold it."""

    def discard_golden(self, key: str) -> None:  # noqa: B027
        """A golden root that `golden` gave could not be restored: have it made anew some time."""

    def spoil_golden(self, key: str) -> None:  # noqa: B027
        """A golden root that `golden` gave is damaged: nobody is to start from it any more. It is
        held on, for what runs on it."""

    async def keep_golden(self, name: str, key: str) -> None:  # noqa: ARG002
        """Make the golden root `key` of a root checkpoint. Raises EngineError."""
        raise EngineUnavailable(f"the engine {self.name} keeps no golden roots")

    @abstractmethod
    async def status(self) -> dict[str, Any]:
        """For %status: what it is, which image, how full staging is."""

    async def ran_out_of_memory(self) -> bool:
        """Whether the machine has ended a process of ours for the memory of all together since this
        was last asked."""
        return False

    @abstractmethod
    async def close(self) -> None:
        """End all sandboxes; nothing remains."""


def open_engine(name: str, limits: Limits, secret: bytes | None = None) -> Engine:
    """The engine called `name`; `auto` stands for one that can work. Raises EngineUnavailable."""
    if name == "auto":
        from crkernel.engines.choice import choose

        name = choose()
    if name == "local":  # ours, without a search through all that is installed
        from crkernel.engines.local import LocalEngine

        return LocalEngine(limits, secret)
    from crkernel.engines.nest_process import drop_ahead

    drop_ahead()
    found = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name not in found:
        known = ", ".join(["auto", "local", *sorted(found)])
        raise EngineUnavailable(f"there is no engine {name!r}", hint=f"engines: {known}")
    engine: type[Engine] = found[name].load()
    return engine(limits, secret)
