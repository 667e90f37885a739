"""Docker daemons of a test's own, beside the one that all tests have."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from driver import SECONDS


@contextlib.contextmanager
def daemon(*options: str, within: tuple[str, ...] = ()) -> Iterator[str]:
    """The address of one that knows nothing yet. It is started by the command `within`, in a mount
    namespace that takes along what it leaves behind."""
    folder = Path(tempfile.mkdtemp(prefix="dockerd-"))  # a short one: a socket's path is limited
    address = f"unix://{folder}/sock"
    places = [f"--{name}={folder / name}" for name in ("data-root", "exec-root", "pidfile")]
    command = [*within, "unshare", "--mount", "--propagation=private"]
    command += ["dockerd", *places, f"--host={address}", *options]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + SECONDS
        while not (folder / "sock").is_socket():
            said = (folder / "log").read_text()
            assert process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.05)
        yield address
    finally:
        process.terminate()
        process.wait(SECONDS)
        shutil.rmtree(folder)
