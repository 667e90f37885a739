"""Builds the image and deletes images: everything that writes below `images_dir()`.

A build works in `<images>/.<digest>.<pid>.partial`, holding the lock file `.<digest>.lock`; the
rename to `<images>/<digest>` is the commit point. Its child processes inherit the lock, so a lock
that can be taken proves that no builder of that digest lives, not even an orphaned child of one:
any partial tree of it is then litter, and the next build or removal sweeps it away.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import threading
import time
import tomllib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from crkernel import image, image_tree
from crkernel.errors import EngineError, NoSpace, UserError
from crkernel.guest import criu
from crkernel.guest.syscalls import exchange
from crkernel.image_fetch import install_package
from crkernel.image_host import check_host, explained, failed, make_folder

Progress = Callable[[str], None]

_GRACE = 15  # seconds for a command to clean up when it is told to end
_TAIL = 6  # lines of a failed command's output that are worth showing
_SHIM_FLAGS = ["-O2", "-shared", "-fPIC", "-nostdlib", "-ffreestanding", "-fno-stack-protector"]
_SHIM_FLAGS += ["-Wl,-z,noseparate-code,-z,norelro"]  # two mappings each: every checkpoint has them


def build(progress: Progress, *, force: bool = False) -> Path:
    """Build the image of the current recipe unless it is there; `force` builds it anew.

    `progress` gets one line per step. An interrupted build leaves nothing behind; of two builds at
    once the second waits for the first. Raises `EngineError` or `NoSpace` with the remedy.
    """
    final = image.images_dir() / image.recipe_digest()
    make_folder(final.parent)
    with _terminable(), _locked(final, progress) as (lock, waited):
        if final.is_dir() and (waited or not force):
            progress(f"image {final.name} is {'finished by the other' if waited else 'up to date'}")
            return final
        _sweep(final.parent, holding=final.name)
        check_host(final.parent)
        with _partial(final) as partial:
            try:
                Build(partial, lock, progress).run()
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
    with _terminable(), _locked(final, lambda _: None), _partial(final) as partial:
        with image.unheld(final) as unused:
            if not unused:
                hint = "shut down the kernels that run from it first"
                raise UserError(f"image {final.name} is in use", hint=hint)
            final.rename(partial / "root")
        _sweep(final.parent, holding=final.name)


class Build:
    """The steps of one build in the directory `partial`; the tree grows in `partial/root`."""

    def __init__(self, partial: Path, lock: int, progress: Progress) -> None:
        self.partial = partial
        self.root = partial / "root"
        self.recipe: dict[str, Any] = tomllib.loads(image.RECIPE.read_text())
        self.lock = lock
        self.started = time.monotonic()
        self.progress = progress

    def say(self, text: str) -> None:
        self.progress(f"{time.monotonic() - self.started:6.1f} s  {text}")

    def run(self) -> None:
        packages = [
            package
            for package in self.recipe["npm"]
            if package.get("arch", image.architecture()) == image.architecture()
        ]
        self.debian()
        for package in packages:
            self.say(f"{package['package']} {package['version']} from the npm registry")
            install_package(package, self.root)
        self.say("typings for inspections")
        self.typings()
        self.say("shims, layout, permissions")
        self.shims()
        self.layout()
        self.record()
        self.say("checking that Python, Node and CRIU start")
        self.check()

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
            # However it ends, its mounts and processes end with it.
            command = [
                "unshare",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
                *command,
            ]
        self.say(f"Debian {debian['suite']} with {', '.join(debian['packages'])}")
        if as_root:
            self.command(command)
            return
        self.root.mkdir()
        # tar would leave at the first end mark, and mmdebstrap fail as it writes what follows.
        unpack = [
            "tar",
            "-x",
            "--ignore-zeros",
            "--no-same-owner",
            "--exclude=./dev/*",
            "-C",
            str(self.root),
        ]
        failure: EngineError | NoSpace | None = None
        with (
            (self.partial / "tar.log").open("w+") as log,
            subprocess.Popen(
                unpack, stdin=subprocess.PIPE, stderr=log, pass_fds=[self.lock]
            ) as tar,
        ):
            assert tar.stdin is not None
            try:
                self.command(command, stdout=tar.stdin.fileno())
            except (EngineError, NoSpace) as error:
                failure = error  # perhaps no more than the consequence of tar's own
            tar.communicate()
            log.seek(0)
            if tar.returncode:
                raise failed("tar", log.read().splitlines()[-_TAIL:])
        if failure:
            raise failure

    def shims(self) -> None:
        for source in sorted(image.SHIMS.glob("*.c")):
            target = self.root / image.NOSECCOMP.lstrip("/")
            target = target.with_name(source.stem if ".so" in source.stem else f"{source.stem}.so")
            target.parent.mkdir(parents=True, exist_ok=True)
            name = f"-Wl,-soname,{target.name}"
            versions = source.with_suffix(".map")
            script = [f"-Wl,--version-script={versions}"] if versions.exists() else []
            self.command(["cc", *_SHIM_FLAGS, name, *script, "-o", str(target), str(source)])

    def typings(self) -> None:
        """Have the image's own Node write down what it offers; what that takes goes by `layout`."""
        work, into = (self.recipe["typings"][key] for key in ("work", "into"))
        script = f"{work}/{image.TYPINGS.name}"
        (self.root / script.lstrip("/")).write_bytes(image.TYPINGS.read_bytes())
        self.command([*image.enter_command(self.root), "node", script, into])

    def layout(self) -> None:
        for name in self.recipe["debian"]["empty"]:
            for entry in (self.root / name.lstrip("/")).iterdir():
                if entry.is_dir() and not entry.is_symlink():
                    image_tree.delete(entry)
                else:
                    entry.unlink()
        layout = self.recipe["layout"]
        for name in layout["directories"]:
            (self.root / name.lstrip("/")).mkdir(parents=True, exist_ok=True)
        for name, text in layout["files"].items():
            path = self.root / name.lstrip("/")
            path.unlink(missing_ok=True)  # may be a symlink that leads out of the tree
            path.write_text(text.lstrip("\n"))

    def record(self) -> None:
        size = image_tree.normalise(self.root)
        record = {"digest": image.recipe_digest(), "size": size, "created": time.time()}
        (self.root / image.RECORD).write_text(json.dumps(record) + "\n")

    def check(self) -> None:
        """Run what a kernel will run, in the tree. An image that cannot is never committed."""
        for command in (
            ["python3", "-c", "import ctypes, json, pycriu, selectors, socket"],
            ["node", "-e", "0"],
        ):
            self.command([*image.enter_command(self.root), *command])
        version = ["env", f"LD_PRELOAD={criu.SHIMS}", "criu", "--version"]
        with (self.partial / "criu.log").open("w+") as file:
            self.command([*image.enter_command(self.root), *version], stdout=file.fileno())
            file.seek(0)
            hint = f"name a newer Debian as `suite` in {image.RECIPE}"
            self.say(f"CRIU {image.check_criu(file.read(), hint)}")

    def command(self, command: Sequence[str], stdout: int = subprocess.DEVNULL) -> None:
        """Run one command to its end, passing on what mmdebstrap announces.

        A session of its own keeps the terminal's Ctrl-C from it; its group gets a SIGTERM from us
        instead, upon which it cleans up. If we die without a word the kernel signals it: as root
        nothing outlives its namespaces, else mmdebstrap has to be let clean up behind itself.
        """
        at_our_death = "KILL" if os.geteuid() == 0 else "TERM"
        tail: deque[str] = deque(maxlen=_TAIL)
        with subprocess.Popen(
            ["setpriv", "--pdeathsig", at_our_death, *command],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            start_new_session=True,
            pass_fds=[self.lock],
            env=self.environment(),
            text=True,
            errors="replace",
        ) as child:
            assert child.stderr is not None
            try:
                for line in child.stderr:
                    if line.startswith("I: ") and not line.startswith("I: success"):
                        self.say(line[3:].rstrip().rstrip("."))
                    elif line.strip():
                        tail.append(line.rstrip())
            except BaseException:
                _end(child)
                raise
        if child.returncode:
            raise failed("mmdebstrap" if "mmdebstrap" in command else command[0], tail)

    def environment(self) -> dict[str, str]:
        """Ours, but root's temporary files go with the build; an ordinary user's must be in a
        folder that mmdebstrap's subordinate ids can reach, so they stay where they are."""
        if os.geteuid() != 0:
            return dict(os.environ)
        scratch = self.partial / "tmp"
        scratch.mkdir(exist_ok=True)
        return {**os.environ, "TMPDIR": str(scratch)}


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM unwind the stack, as SIGINT does, so that what is half-made is removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _locked(final: Path, progress: Progress) -> Iterator[tuple[int, bool]]:
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


def _end(child: subprocess.Popen[str]) -> None:
    """Have a command clean up after itself, or make an end of its whole process group."""
    os.killpg(child.pid, signal.SIGTERM)
    try:
        # Reading on: a command that cannot write its last words never ends.
        child.communicate(timeout=_GRACE)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
