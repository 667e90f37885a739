"""Builds the image and deletes images: everything that writes below `images_dir()`.

A build works in `<images>/.<digest>.<pid>.partial`, holding the lock file `.<digest>.lock`; the
rename to `<images>/<digest>` is the commit point. Its child processes inherit the lock, so a lock
that can be taken proves that no builder of that digest lives, not even an orphaned child of one:
any partial tree of it is then litter, and the next build or removal sweeps it away.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from crkernel import image, image_tree
from crkernel.errors import EngineError, NoSpace, UserError
from crkernel.guest.syscalls import exchange
from crkernel.image_host import check_host, explained, failed, make_folder
from crkernel.image_steps import TAIL, Progress, Steps, timed

_CUT_SHORT = ("does not look like a tar archive", "Unexpected EOF")
"""What tar says of an archive that breaks off."""


def build(progress: Progress, *, force: bool = False) -> Path:
    """Build the image of the current recipe unless it is there; `force` builds it anew.

    `progress` gets one line per step. An interrupted build leaves nothing behind; of two builds at
    once the second waits for the first. Raises `EngineError` or `NoSpace` with the remedy.
    """
    final = image.images_dir() / image.recipe_digest()
    make_folder(final.parent)
    with terminable(), locked(final, progress) as (lock, waited):
        if final.is_dir() and (waited or not force):
            progress(f"image {final.name} is {'finished by the other' if waited else 'up to date'}")
            return final
        _sweep(final.parent, holding=final.name)
        check_host(final.parent)
        with _partial(final) as partial:
            try:
                Build(partial, timed(progress), [lock]).run()
                _commit(partial / "root", final)
            except OSError as error:
                raise explained(error) from error
    return final


def remove(digest: str) -> None:
    """Delete one image; `UserError` when there is no such image or a running kernel uses it.

    The name goes first, so that no half of an image is ever found.
    """
    if all(info.digest != digest for info in image.images()):
        raise UserError(f"there is no image {digest}", hint="see: crkernel image list")
    final = image.images_dir() / digest
    make_folder(final.parent)
    with terminable(), locked(final, lambda _: None), _partial(final) as partial:
        with image.unheld(final) as unused:
            if not unused:
                hint = "shut down the kernels that run from it first"
                raise UserError(f"image {final.name} is in use", hint=hint)
            final.rename(partial / "root")
        _sweep(final.parent, holding=final.name)


class Build(Steps):
    """The steps of one build, on a host."""

    def run(self) -> None:
        self.debian()
        self.finish()

    def debian(self) -> None:
        """Unpack Debian: straight into the tree as root, else by a tar stream out of a namespace.

        The latter so that the files belong to the user and not to one of their subordinate ids.
        """
        debian = self.recipe["debian"]
        as_root = os.geteuid() == 0
        command = [
            "mmdebstrap",
            f"--mode={'root' if as_root else 'unshare'}",
            f"--format={'directory' if as_root else 'tar'}",
            f"--variant={debian['variant']}",
            f"--include={','.join(debian['packages'])}",
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in debian["exclude"]),
            debian["suite"],
            str(self.root) if as_root else "-",
            debian["source"],
        ]
        if as_root:
            command = [*_namespaces(), *command]
        self.say(f"Debian {debian['suite']} with {', '.join(debian['packages'])}")
        if as_root:
            self.command(command)
            return
        self.root.mkdir()
        self._unpack(command)

    def _unpack(self, command: list[str]) -> None:
        """Have a tar take apart what a command writes."""
        # It would leave at the first end mark, and mmdebstrap fail as it writes what follows.
        tar = ["tar", "-x", "--ignore-zeros", "--no-same-owner", "--exclude=./dev/*"]
        tar += ["-C", str(self.root)]
        failure: EngineError | NoSpace | None = None
        with (
            (self.partial / "tar.log").open("w+") as log,
            subprocess.Popen(
                tar, stdin=subprocess.PIPE, stderr=log, pass_fds=self.inherited
            ) as unpacking,
        ):
            assert unpacking.stdin is not None
            try:
                self.command(command, stdout=unpacking.stdin.fileno())
            except (EngineError, NoSpace) as error:
                failure = error
            unpacking.communicate()
            log.seek(0)
            said = log.read()
        if failure and any(words in said for words in _CUT_SHORT):
            raise failure
        if unpacking.returncode:  # then a failure of the command's is no more than a consequence
            raise failed("tar", said.splitlines()[-TAIL:])
        if failure:
            raise failure


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP, unless it is ignored, unwind the stack as SIGINT does, so that what
    is half-made is removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    numbers = (signal.SIGTERM, signal.SIGHUP)
    heard = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, leave) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def locked(final: Path, progress: Progress) -> Iterator[tuple[int, bool]]:
    """Hold the lock of one image's name: its descriptor, and whether we had to wait for it."""
    descriptor = os.open(final.with_name(f".{final.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        waited = False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"image {final.name} is being built by another process: waiting for it")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            waited = True
        yield descriptor, waited
    finally:
        os.close(descriptor)


@contextmanager
def _partial(final: Path) -> Iterator[Path]:
    """A work directory beside the image; what is left in it at the end goes, unless in use."""
    partial = final.with_name(f".{final.name}.{os.getpid()}.partial")
    partial.mkdir(mode=0o700)
    try:
        yield partial
    finally:
        _discard(partial)


def _sweep(folder: Path, holding: str) -> None:
    """Remove the litter of builds and removals that were killed; `holding` names our own lock."""
    for litter in folder.glob(".*.*.partial"):
        _, digest, pid, _ = litter.name.split(".")
        if digest == holding:
            if pid != str(os.getpid()):
                _discard(litter)
            continue
        descriptor = os.open(folder / f".{digest}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _discard(litter)
        except BlockingIOError:
            continue  # its builder lives
        finally:
            os.close(descriptor)


def _commit(tree: Path, final: Path) -> None:
    """Give the finished tree its name; an image that had it takes the tree's place."""
    tree.parent.chmod(0o755)
    subprocess.run(["sync", "--file-system", str(tree)], check=True)
    if not final.exists():
        tree.rename(final)
        return
    exchange(str(tree), str(final))


def _discard(partial: Path) -> None:
    """Delete a work directory, except that a tree which kernels still run from is left alone."""
    tree = partial / "root"
    if not tree.exists():
        image_tree.delete(partial)
        return
    with image.unheld(tree) as unused:
        if unused:
            image_tree.delete(partial)


def _namespaces() -> list[str]:
    """Words before a command of root's: however that ends, its mounts and processes end with it.

    While a container image is built nobody may make namespaces; then the end of that step does it.
    """
    words = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    tried = subprocess.run([*words, "true"], capture_output=True, check=False)
    return [] if tried.returncode else words
