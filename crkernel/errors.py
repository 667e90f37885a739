"""Every error that crkernel raises on purpose, in one tree.

    CRKernelError             hint: what to do next; exit_code
    ├ UserError               UnknownCheckpoint, BadMagic, NotRestorable, NpmFailed
    ├ StoreError              Corrupt, Locked, FormatVersion, NoSpace
    ├ EngineError             EngineUnavailable, ImageMissing, DaemonRefused, SandboxDied
    └ CheckpointError         DumpRefused, RestoreFailed

The kernel turns one into an error reply, the CLI into an exit code: `CRKernelError.exit_code` is
distinct per branch. A message says what is wrong, a hint what to do about it; both are short.
Anything else that is raised (`ValueError`, `TypeError`, ...) is a bug of crkernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class CRKernelError(Exception):
    """The common base; code that wants to handle all of crkernel's errors catches this one."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """The message alone; who shows the error decides where the hint goes."""
        return self.message

    @property
    def ename(self) -> str:
        """The name under which front ends show the error."""
        return type(self).__name__


class UserError(CRKernelError):
    """What was asked for makes no sense here; nothing was changed."""

    exit_code = 2


class UnknownCheckpoint(UserError):
    """A reference names no checkpoint of this timeline."""


class BadMagic(UserError):
    """A magic is misspelled or has wrong arguments."""


class NotRestorable(UserError):
    """The checkpoint exists as a record only: CRIU could not take that state."""


class NpmFailed(UserError):
    """npm could not do what it was asked; the guest's packages are as they were."""


class StoreError(CRKernelError):
    """The durable store cannot do what was asked."""

    exit_code = 3


class Corrupt(StoreError):
    """Stored data does not match its hash or has no valid form."""


class Locked(StoreError):
    """Another process holds the store or the session."""


class FormatVersion(StoreError):
    """The data was written by a version of crkernel with another format."""


class NoSpace(StoreError):
    """The disk, or the limit set for the store, is full."""


class EngineError(CRKernelError):
    """Sandboxes cannot be made or one of them misbehaved."""

    exit_code = 4


class EngineUnavailable(EngineError):
    """The engine cannot work on this host, e.g. for want of user namespaces."""


class ImageMissing(EngineError):
    """There is no image for sandboxes, or it is older than its recipe."""


class DaemonRefused(EngineError):
    """The daemon that runs the sandboxes' container said no.

    `status` is HTTP's: 404 there is no such thing, 409 the name is taken or it goes on already.
    """

    status = 0


class SandboxDied(EngineError):
    """The guest or its whole sandbox has ended without being asked to.

    `crashed` tells that a signal ended it, not an exit of its own; `killed`, that it was SIGKILL.
    """

    crashed = False
    killed = False


class CheckpointError(CRKernelError):
    """CRIU failed; the present state of the guest is untouched."""

    exit_code = 5


class DumpRefused(CheckpointError):
    """The state holds something that CRIU cannot take."""


class RestoreFailed(CheckpointError):
    """A checkpoint could not be brought back to life."""


def _tree(root: type[CRKernelError]) -> dict[str, type[CRKernelError]]:
    kinds = {root.__name__: root}
    for child in root.__subclasses__():
        kinds |= _tree(child)
    return kinds


_KINDS = _tree(CRKernelError)


def from_wire(error: Mapping[str, object]) -> CRKernelError:
    """The error for a failure that crossed the wire as `{"kind", "message", "hint"}`.

    Never raises: a guest may have sent anything. Unknown or missing kinds become `EngineError`.
    """
    kind = error.get("kind")
    message = error.get("message")
    hint = error.get("hint")
    known = _KINDS.get(kind) if isinstance(kind, str) else None
    if not isinstance(message, str) or not message.strip():
        message = "the sandbox reported a failure without saying which"
    if known is None and isinstance(kind, str) and kind:
        message = f"{kind}: {message}"
    return (known or EngineError)(message, hint=hint if isinstance(hint, str) and hint else None)
