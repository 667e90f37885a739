"""Whether sandboxes can be made on this machine itself: what Linux it is, and a trial of what they
are made of. The doctor tells the outcome, and `auto` goes by it."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

LINUX_NEEDED = (5, 12)
"""mount_setattr; before it clone3 with set_tid, CAP_CHECKPOINT_RESTORE."""

_NAMED = re.compile(r"--CRKernel\.engine(?!=auto$)")
"""An argument of a kernel that leaves nothing to be chosen."""
_DONE = 0
_LONGEST = 1 << 12  # bytes of what a trial says


def too_old() -> str:
    """Why this Linux will not do; empty if it does."""
    release = os.uname().release
    if numbers(release) >= LINUX_NEEDED:
        return ""
    return f"Linux {release} is older than {'.'.join(map(str, LINUX_NEEDED))}"


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, e.g. (6, 1) of `6.1-rc2`."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, match.group().split("."))) if match else ()


class Trial:
    """A process that makes what a nest and its sandboxes are made of, in the way that they do."""

    def __init__(self) -> None:
        """Begins at once. Raises OSError."""
        self._said, report = os.pipe()
        with warnings.catch_warnings():
            # Of other threads, whose locks the child could find taken: it takes none.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._pid = os.fork()
        if not self._pid:
            _report(report)
        os.close(report)

    def failure(self) -> str:
        """The step that cannot be done, and why; empty if all can. It is asked once."""
        with os.fdopen(self._said, "rb") as said:
            text = said.read().decode()
        status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return text or (f"a trial of sandboxes ended with {status}" if status else "")


_begun: Trial | None = None


def begin(arguments: list[str]) -> None:
    """Have one made for a kernel with these arguments, if it is likely to ask for the outcome. That
    is before its imports, since a trial takes 3 ms then, and three times as long after them: a fork
    copies what a process has mapped."""
    global _begun
    if not any(_NAMED.match(argument) for argument in arguments):
        with suppress(OSError):  # which the one after the imports will tell
            _begun = Trial()


def failure() -> str:
    """As `Trial.failure`, of the one that was begun, if there is one, or of a new one."""
    global _begun
    trial, _begun = _begun, None
    try:
        return (trial or Trial()).failure()
    except OSError as error:
        return f"another process: {error.strerror}"


def _report(report: int) -> None:
    """In the child, which ends here whatever happens."""
    code = 1
    try:
        os.write(report, _failed_step().encode()[:_LONGEST])
        code = _DONE
    finally:
        os._exit(code)


def _failed_step() -> str:
    for step, call in _steps():
        try:
            call()
        except OSError as error:
            return f"{step}: {os.strerror(error.errno or 0)}"
    return ""


def _steps() -> Iterator[tuple[str, Callable[[], None]]]:
    # Here, where they cost the kernel no time.
    from crkernel.guest import enter
    from crkernel.guest import syscalls as sc

    yield "another user than root", enter.step_down
    yield "user namespace", enter.new_user
    for name, flag in (
        ("PID", sc.CLONE_NEWPID),
        ("network", sc.CLONE_NEWNET),
        ("IPC", sc.CLONE_NEWIPC),
        ("UTS", sc.CLONE_NEWUTS),
        ("time", sc.CLONE_NEWTIME),
    ):
        yield f"{name} namespace", partial(sc.unshare, flag)
    yield "private mounts", partial(sc.mount, "none", "/", None, sc.MS_REC | sc.MS_PRIVATE)
    yield "mount of a tmpfs", partial(sc.mount, "none", "/tmp", "tmpfs")
    yield "mount of /proc", _mount_proc


def _mount_proc() -> None:
    """In a child, since the new PID namespace is that of children. Raises OSError."""
    from crkernel.guest import syscalls as sc

    pid = os.fork()
    if not pid:
        code = 1
        try:
            Path("/tmp/proc").mkdir()
            sc.mount("none", "/tmp/proc", "proc")
            code = _DONE
        except OSError as error:
            code = error.errno or code
        finally:
            os._exit(code)
    if code := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        raise OSError(max(code, 0), "mount of /proc")
