"""What the hostile tests share: programs that run in the guest, and a look at it from the host."""

from __future__ import annotations

import contextlib
import json
import re
import stat
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import docker
import psutil
from driver import SECONDS, Kernel

_PRELUDE = """
import ctypes, errno, os, platform, signal, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
X86 = platform.machine() == "x86_64"

def name(code):
    return errno.errorcode.get(code, str(code))

def call(x86, arm, *args):
    "A raw system call; the name of its error, or what it returned."
    args = [ctypes.c_char_p(a) if isinstance(a, bytes) else ctypes.c_long(a) for a in args]
    result = libc.syscall(ctypes.c_long(x86 if X86 else arm), *args)
    return name(ctypes.get_errno()) if result < 0 else result

def attempt(do):
    try:
        return do()
    except OSError as error:
        return name(error.errno)

def alone(do):
    "The same in a child process, or the signal that ended it."
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writer, str(attempt(do)).encode())
        os._exit(0)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return os.read(reader, 100).decode()
"""


def python(kernel: Kernel, program: str, timeout: int = 20) -> object:
    """Run a Python program in the guest; it leaves what it found in `found`, as JSON.

    The names of `_PRELUDE` are there for it.
    """
    whole = f"{_PRELUDE}\n{program}\nimport json\nprint('\\n' + json.dumps(found))"
    (line,) = kernel.value(
        "(() => { const { spawnSync } = require('node:child_process');"
        f" const r = spawnSync('python3', ['-c', {json.dumps(whole)}],"
        f" {{ encoding: 'utf8', timeout: {timeout * 1000} }});"
        " if (r.status !== 0) throw new Error(`${r.status} ${r.signal} ${r.stderr}`);"
        " return [r.stdout.trim().split('\\n').pop()]; })()"
    )
    return json.loads(line)


def status(pid: int) -> dict[str, str]:
    """The fields of a process's status, as the host sees it."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def statuses(pids: Iterable[int]) -> dict[int, dict[str, str]]:
    """`status` of each of these processes, but for those that have ended by now."""
    found = {}
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found[pid] = status(pid)
    return found


def descendants(pid: int) -> list[int]:
    """All processes below `pid`, parents before their children."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                stat = (folder / "stat").read_text(errors="replace")
            except OSError:
                continue  # it has just ended
            parent = int(stat.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(folder.name))
    found, todo = [], [pid]
    while todo:
        below = children.get(todo.pop(0), [])
        found += below
        todo += below
    return found


def _children(pid: int) -> list[int]:
    below = statuses(descendants(pid))
    return [child for child, fields in below.items() if fields["PPid"] == str(pid)]


def nest_of(kernel: Kernel) -> int:
    """The process id of a kernel's nest."""
    (pid,) = _children(kernel.outside.pid)
    return pid


def supervisors_of(kernel: Kernel) -> list[int]:
    """PID 1 of each sandbox of a kernel: the live one's and the spare's, in no order."""
    return _children(nest_of(kernel))


def guests_of(kernel: Kernel) -> list[int]:
    """The root process of each guest of a kernel: two while a sandbox is just being left."""
    roots = statuses(child for one in supervisors_of(kernel) for child in _children(one))
    return [
        pid
        for pid, fields in roots.items()
        if fields["NSpid"].split()[-1] == "5000" and fields["State"][0] != "Z"
    ]


def _has_one_guest(kernel: Kernel) -> bool:
    try:
        return len(guests_of(kernel)) == 1
    except (docker.errors.NotFound, psutil.NoSuchProcess, ValueError):
        return False  # its container is just being made, or the nest there


def guest_of(kernel: Kernel) -> int:
    """The root process of the one guest, once the sandbox before it has gone."""
    assert eventually(lambda: _has_one_guest(kernel), SECONDS)
    (pid,) = guests_of(kernel)
    return pid


def eventually(condition: Callable[[], object], seconds: float) -> bool:
    """Whether a condition comes true in that time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def wait_until(condition: Callable[[], object]) -> None:
    """Wait for what happens outside of the kernel."""
    assert eventually(condition, SECONDS), "it never came true"


def travels(kernel: Kernel, host: str) -> None:
    """A kernel works whose sandboxes live at that address."""
    kernel.ok("let x = 'y'.repeat(3e6); console.log(x)")
    kernel.ok("x = 2")
    kernel.rewind(1)
    assert kernel.ok("x.length").text == "3000000"
    assert host in kernel.ok("%status").shown


def _closed_above(path: Path) -> Path | None:
    """The topmost folder on the way to `path` that others cannot pass, as root's home."""
    for folder in reversed(path.parents):
        if not folder.stat().st_mode & stat.S_IXOTH:
            return folder
    return None


def open_up(paths: list[Path], keep: Path) -> list[str]:
    """Shell commands that, in a mount namespace of their own, put in place of each closed folder
    one that shows nothing but `paths`. `keep` is an empty folder to hold the originals."""
    commands = []
    closed = {folder for path in paths if (folder := _closed_above(path))}
    for number, folder in enumerate(sorted(closed)):
        original = keep / str(number)
        commands += [
            f"mkdir -p {original}",
            f"mount --rbind {folder} {original}",
            f"mount -t tmpfs -o mode=755 tmpfs {folder}",
        ]
        for path in paths:
            if path.is_relative_to(folder):
                source = original / path.relative_to(folder)
                commands += [f"mkdir -p {path}", f"mount --bind {source} {path}"]
    return commands


def ready_for(kernel: Kernel) -> str:
    """The checkpoint for which the spare is ready. To ask is an operation, so ask rarely."""
    found = re.search(r"spare is ready for\s+(no checkpoint|\S+)", kernel.ok("%status").shown)
    assert found
    return found[1]


def await_ready(kernel: Kernel, key: str) -> None:
    """Wait until the spare is ready for a checkpoint."""

    def is_ready() -> bool:
        time.sleep(1.0)
        return ready_for(kernel) == key

    assert eventually(is_ready, SECONDS)
