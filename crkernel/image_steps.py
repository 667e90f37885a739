"""The steps that make the image of a bare Debian: the same on a host and in a `docker build`.

On a host `image_build` goes through them. In a build container, where the Dockerfile has had apt do
its part, `python3 -m crkernel.image_steps` does, in the folder that the Dockerfile has laid out.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from crkernel import image, image_tree
from crkernel.errors import CRKernelError
from crkernel.guest import criu, golden
from crkernel.image_fetch import download, install_package, tarball
from crkernel.image_host import failed

Progress = Callable[[str], None]
Package = dict[str, Any]

ANNOUNCED = "I: "
"""What begins a line of a build's output that is for the user's eyes: mmdebstrap's way."""
_GRACE = 15  # seconds for a command to clean up when it is told to end
TAIL = 6
"""Lines of a failed command's output that are worth showing."""
SHIM_FLAGS = ["-O2", "-shared", "-fPIC", "-nostdlib", "-ffreestanding", "-fno-stack-protector"]
SHIM_FLAGS += ["-Wl,-z,noseparate-code,-z,norelro"]  # two mappings each: every checkpoint has them


def recipe() -> dict[str, Any]:
    """What recipe.toml says."""
    return tomllib.loads(image.RECIPE.read_text())


def packages() -> list[Package]:
    """The recipe's packages of npm for this architecture."""
    here = image.architecture()
    return [package for package in recipe()["npm"] if package.get("arch", here) == here]


def timed(progress: Progress) -> Progress:
    """The same with the seconds since now before each line."""
    started = time.monotonic()
    return lambda text: progress(f"{time.monotonic() - started:6.1f} s  {text}")


class Steps:
    """The steps in the directory `partial`; the tree grows in `partial/root`.

    `inherited` are descriptors that commands get, besides their own three.
    """

    def __init__(self, partial: Path, say: Progress, inherited: Sequence[int] = ()) -> None:
        self.partial = partial
        self.root = partial / "root"
        self.recipe = recipe()
        self.say = say
        self.inherited = inherited

    def finish(self, obtain: Callable[[Package, Progress], bytes] = download) -> None:
        """Make the image of the Debian in `root`; `obtain` gets the tarball of a package of npm."""
        for package in packages():
            self.say(f"{package['package']} {package['version']}")
            install_package(package, self.root, obtain(package, self.say))
        self.say("typings for inspections")
        self.typings()
        self.say("shims, layout, permissions")
        self.shims()
        self.layout()
        self.record()
        self.say("checking that Python, Node and CRIU start")
        self.check()

    def shims(self) -> None:
        for source in sorted(image.SHIMS.glob("*.c")):
            target = self.root / image.NOSECCOMP.lstrip("/")
            target = target.with_name(source.stem if ".so" in source.stem else f"{source.stem}.so")
            target.parent.mkdir(parents=True, exist_ok=True)
            name = f"-Wl,-soname,{target.name}"
            versions = source.with_suffix(".map")
            script = [f"-Wl,--version-script={versions}"] if versions.exists() else []
            self.command(["cc", *SHIM_FLAGS, name, *script, "-o", str(target), str(source)])

    def typings(self) -> None:
        """Have the image's own Node write down what it offers; what that takes goes by `layout`."""
        work, into = (self.recipe["typings"][key] for key in ("work", "into"))
        script = f"{work}/{image.TYPINGS.name}"
        (self.root / script.lstrip("/")).write_bytes(image.TYPINGS.read_bytes())
        self.command([*image.enter_command(self.root), "node", script, into])

    def layout(self) -> None:
        debian = self.recipe["debian"]
        # What is never unpacked may have been there before, in a Debian that others made.
        for pattern in (*(f"{name}/*" for name in debian["empty"]), *debian["exclude"]):
            for entry in list(self.root.glob(pattern.lstrip("/"))):
                if entry.is_dir() and not entry.is_symlink():
                    image_tree.delete(entry)
                else:
                    entry.unlink()
        layout = self.recipe["layout"]
        for name in (*layout["directories"], golden.FOLDER):
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
        version = ["env", f"LD_PRELOAD={criu.DUMP_SHIMS}", "criu", "--version"]
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
        tail: deque[str] = deque(maxlen=TAIL)
        with subprocess.Popen(
            ["setpriv", "--pdeathsig", at_our_death, *command],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            start_new_session=True,
            pass_fds=self.inherited,
            env=self.environment(),
            text=True,
            errors="replace",
        ) as child:
            assert child.stderr is not None
            try:
                for line in child.stderr:
                    if line.startswith(ANNOUNCED) and not line.startswith("I: success"):
                        self.say(line.removeprefix(ANNOUNCED).rstrip().rstrip("."))
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


def _end(child: subprocess.Popen[str]) -> None:
    """Have a command clean up after itself, or make an end of its whole process group."""
    os.killpg(child.pid, signal.SIGTERM)
    try:
        # Reading on: a command that cannot write its last words never ends.
        child.communicate(timeout=_GRACE)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)


def main() -> None:
    """In a build container: `root` is in the current directory, and npm's tarballs in `npm`."""
    here = Path.cwd()
    steps = Steps(here, lambda text: print(ANNOUNCED + text, flush=True))
    try:
        steps.finish(lambda package, _: (here / "npm" / tarball(package)).read_bytes())
    except CRKernelError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
