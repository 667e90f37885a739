"""The way into a sandbox's world: from the host's Python to the image's.

Started by an engine as `python3 enter.py CONFIG DESCRIPTOR` with the nest's control socket, or as
the main process of a container without one, it makes a user and a mount namespace, takes the image
as its root and becomes `nest`; or, for a kernel that is to come, `waiting_nest`, and then outlives
whoever started it. Nothing of the host stays in reach but a few device nodes and a view of /proc
that the sandboxes' own needs to be allowed (and that each sandbox takes down).

On a host where this runs as root it becomes an unprivileged user first, so that the guest's user
id 0 is never the host's: /proc/sys trusts that one without asking for a capability.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys

if __package__:
    from . import gate, wire
    from . import syscalls as sc
else:  # run as a script, by the host's Python, without the package around it
    import gate  # type: ignore[import-not-found,no-redef]
    import syscalls as sc  # type: ignore[import-not-found,no-redef]
    import wire  # type: ignore[import-not-found,no-redef]

CONTROL_FD = 3
UNPRIVILEGED_IDS = range(900_000_000, 904_194_304)
"""User and group ids on a root host, one for each nest by its process id, so that sessions do not
share what the kernel counts by user. Outside of every range that /etc/subuid hands out."""

MEMORY_EVENTS_FD = 4
"""In a container: where its control group counts what Linux ended for want of memory."""
SIGNALLED = 128
STARVED = 86
"""Exit code of a container whose nest was ended by Linux for want of memory."""
_MEMORY_EVENTS = ("memory.events", "memory/memory.oom_control")  # of version 2 and 1

CODE_FOLDER = "/usr/lib/crkernel"
GOLDEN = "/run/golden"
"""Where the nest keeps golden roots that are not of the image's own tree."""
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
_START = f"import sys; sys.path.insert(0, {CODE_FOLDER!r}); from guest.MODULE import main; main()"


def main() -> None:
    """Enter, or tell over the control socket which step was refused, and why."""
    in_container = len(sys.argv) == 2
    config = json.loads(sys.argv[1])
    waits = "patience" in config  # for a kernel to come
    if waits and (child := os.fork()):
        sys.exit(_wait_for(child) if in_container else 0)
    os.dup2(gate.listen().detach() if in_container else int(sys.argv[2]), CONTROL_FD)
    os.closerange(CONTROL_FD + 1, 1 << 16)
    if in_container:
        _open_memory_events()
    os.setsid()
    nest = "container_nest" if in_container else "waiting_nest" if waits else "nest"
    step = "open the image"
    try:
        code = _read_folder(os.path.dirname(os.path.abspath(__file__)))
        os.chdir(config["image"])  # the one place that is carried over into the new namespace
        step = "take npm's cache along"
        # Root's own files are out of reach for the user that it becomes.
        cache = _cache(config.get("cache")) if os.geteuid() == 0 else None
        step = "become another user than root"
        step_down()
        step = "make user and mount namespaces"
        new_user()
        step = "build the mounts"
        cache = cache or _cache(config.get("cache"))
        _mounts(code, int(config["staging"]), cache, config.get("golden"))
        step = "start the image's Python"
        os.execve(
            "/usr/bin/python3",
            [
                *("python3", "-I", "-S", "-c"),
                _START.replace("MODULE", nest),
                sys.argv[1],
            ],
            {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
        )
    except OSError as error:
        failure = {"failed": step, "reason": str(error)}
        with socket.socket(fileno=CONTROL_FD) as control:
            if in_container:
                _tell(control, failure, config["patience"])
            elif not waits:
                control.send(json.dumps(failure).encode())
        sys.exit(1)


def _tell(listener: socket.socket, failure: dict[str, str], patience: float) -> None:
    """The kernel, if it comes in time; the gate of its first sandbox may be faster."""
    listener.settimeout(patience)
    with contextlib.suppress(OSError):
        while True:
            arrival = gate.Arrival(listener)
            os.write(arrival.writer, wire.pack(failure))
            if arrival.greeting["link"] == "kernel":
                return


def _wait_for(nest: int) -> int:
    """Be the container's PID 1, whose namespaces `docker exec` enters: so they stay as they are.
    Its exit code: that of the nest, SIGNALLED and the number of the signal that ended it, or
    STARVED."""
    _open_memory_events()
    before = oom_kills()
    while True:
        pid, status = os.wait()
        if pid == nest:
            code = os.waitstatus_to_exitcode(status)
            if code == -signal.SIGKILL and oom_kills() > before:
                return STARVED
            return code if code >= 0 else SIGNALLED - code


def oom_kills() -> int:
    """How many processes of this container Linux has ended for want of memory."""
    lines = os.pread(MEMORY_EVENTS_FD, 4096, 0).decode().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def _open_memory_events() -> None:
    """While the control group can be seen; the null device where there is none."""
    paths = [f"/sys/fs/cgroup/{name}" for name in _MEMORY_EVENTS]
    found = [path for path in paths if os.path.exists(path)]
    descriptor = os.open(found[0] if found else os.devnull, os.O_RDONLY)
    if descriptor != MEMORY_EVENTS_FD:
        os.dup2(descriptor, MEMORY_EVENTS_FD)
        os.close(descriptor)
    os.set_inheritable(MEMORY_EVENTS_FD, True)


def step_down() -> None:
    """Root no longer, if this is root. The doctor calls it too."""
    if os.geteuid() != 0:
        return
    os.setgroups([])
    number = UNPRIVILEGED_IDS[os.getpid()]
    os.setresgid(number, number, number)
    os.setresuid(number, number, number)
    sc.set_dumpable()


def new_user() -> None:
    """Into a user and a mount namespace, root there. The doctor calls it too."""
    user, group = os.geteuid(), os.getegid()
    sc.unshare(sc.CLONE_NEWUSER | sc.CLONE_NEWNS)
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"0 {user} 1")
    _write("/proc/self/gid_map", f"0 {group} 1")
    # Nobody in here makes further user namespaces, the classic first step out of a sandbox.
    _write("/proc/sys/user/max_user_namespaces", "0")


def _read_folder(folder: str) -> dict[str, bytes]:
    """This package's files: sandboxes get a copy, so that an upgrade meanwhile cannot mix two."""
    files = {}
    for entry in os.scandir(folder):
        if entry.name.endswith((".py", ".js")):
            with open(entry.path, "rb") as file:
                files[entry.name] = file.read()
    return files


def _cache(path: str | None) -> int | None:
    """A detached mount of npm's cache, if one can be had: a root without CAP_SYS_ADMIN, as in a
    container, can take nothing along, and npm can do without."""
    with contextlib.suppress(PermissionError):
        return sc.clone_tree(path) if path else None
    return None


def _mounts(code: dict[str, bytes], staging: int, cache: int | None, golden: str | None) -> None:
    """The image (the working directory) as root, read-only; the code of this folder; /dev; under
    /run, for the nest alone, staging and npm's cache. The folder `golden`, if there is one, takes
    the place of the image's own, and lies below /run for the nest to write to."""
    sc.mount("none", "/", flags=sc.MS_REC | sc.MS_PRIVATE)
    root = sc.clone_tree(".")
    host_proc = sc.clone_tree("/proc", recursive=True)
    tun = sc.clone_tree("/dev/net/tun") if os.path.exists("/dev/net/tun") else None
    devices = {name: sc.clone_tree(f"/dev/{name}") for name in _DEVICES}
    kept, seen = (sc.clone_tree(golden), sc.clone_tree(golden)) if golden else (None, None)
    sc.make_readonly(root)
    sc.attach(root, ".")
    os.fchdir(root)
    flags = sc.MS_NOSUID | sc.MS_NODEV
    sc.mount("tmpfs", f".{CODE_FOLDER}", "tmpfs", flags, "mode=755,size=4m")
    os.mkdir(f".{CODE_FOLDER}/guest")
    for name, data in code.items():
        with open(f".{CODE_FOLDER}/guest/{name}", "wb") as file:
            file.write(data)
    _remount_readonly(f".{CODE_FOLDER}")
    sc.attach(host_proc, "./proc")
    sc.mount("tmpfs", "./dev", "tmpfs", sc.MS_NOSUID, "mode=755,size=64k")
    for name, tree in devices.items():
        os.close(os.open(f"./dev/{name}", os.O_CREAT | os.O_WRONLY))
        sc.attach(tree, f"./dev/{name}")
    for name, target in _DEVICE_LINKS.items():
        os.symlink(target, f"./dev/{name}")
    for name in ("pts", "shm", "net"):
        os.mkdir(f"./dev/{name}")
    _remount_readonly("./dev")
    sc.mount("tmpfs", "./run", "tmpfs", flags, "mode=700,size=1m")
    if kept is not None and seen is not None:
        os.mkdir(f".{GOLDEN}")
        sc.attach(kept, f".{GOLDEN}")
        sc.make_readonly(seen)
        sc.attach(seen, "./golden")
    os.mkdir("./run/staging")
    options = f"mode=700,size={staging}"
    try:
        # Big writes get big pages: halves the time that a dump's memory takes to be written.
        sc.mount("tmpfs", "./run/staging", "tmpfs", flags, f"{options},huge=within_size")
    except OSError:  # a kernel without transparent huge pages
        sc.mount("tmpfs", "./run/staging", "tmpfs", flags, options)
    # Memory files have holes, which big pages would fill. Their room is staging's (rebase.py). Who
    # has no capability, a guest, cannot get in.
    sc.mount("tmpfs", "./memory", "tmpfs", flags, f"mode=000,size={staging}")
    # But for images that become such files (memory.py), which stay on staging's file system.
    for folder in ("./run/staging/.images", "./memory/images"):
        os.mkdir(folder)
    sc.mount("./run/staging/.images", "./memory/images", flags=sc.MS_BIND)
    if tun is not None:
        os.close(os.open("./run/tun", os.O_CREAT | os.O_WRONLY))
        sc.attach(tun, "./run/tun")
    if cache is not None:
        os.mkdir("./run/npm")
        sc.attach(cache, "./run/npm")
    sc.pivot_here()


def _remount_readonly(path: str) -> None:
    sc.mount("none", path, flags=sc.MS_REMOUNT | sc.MS_BIND | sc.MS_RDONLY | sc.MS_NOSUID)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


if __name__ == "__main__":
    main()
