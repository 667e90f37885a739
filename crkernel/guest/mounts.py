"""The mounts of one sandbox, made by its PID 1 over those of the nest."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Mapping

from . import memory, process
from . import syscalls as sc

STAGING = "/run/staging"
MEMORY_IMAGES = f"{STAGING}/.images"
"""Where the nest reaches memory files that were images of pages."""
NPM_CACHE = "/run/npm"
"""Where `enter` puts the user's npm cache, if there is one; sandboxes do not see it."""
_WRITABLE = {"work": process.WORK, "tmp": "/tmp", "shm": "/dev/shm"}
"""Directories of the writable tree, and where the guest sees them: one tmpfs, one limit."""
RESOLV_CONF = "/run/resolv.conf"
"""For sandboxes with a network, made by the nest."""
HOST_FILES = "/tmp/host"
_CONNECTIONS = "/proc/sys/net/ipv4/tcp_child_ehash_entries"
_BUCKETS = 1024
_PASSING_BYTES = 1 << 20
_PLAIN = sc.MS_NOSUID | sc.MS_NODEV


def build(disk: int, *, network: bool) -> tuple[int, int, int]:
    """Make them and return descriptors of the writable tree (at most `disk` bytes), of staging and
    of a place for what the supervisor and CRIU write in passing, which goes with the sandbox.

    Staging and that place are in no mount of the sandbox afterwards: nobody gets there but through
    a descriptor, which the guest cannot reach.
    """
    staging = _take(STAGING)
    _new_proc()
    if network:
        sc.mount(RESOLV_CONF, "/etc/resolv.conf", flags=sc.MS_BIND)
    sc.detach("/run")
    for folder in (memory.FOLDER, memory.IMAGES):
        sc.mount("none", folder, flags=sc.MS_REMOUNT | sc.MS_BIND | sc.MS_RDONLY | _PLAIN)
    options = "newinstance,ptmxmode=0666,mode=620"
    sc.mount("devpts", "/dev/pts", "devpts", sc.MS_NOSUID | sc.MS_NOEXEC, options)
    _new_tree(disk, _WRITABLE)
    tree = _take("/mnt")
    sc.mount("tmpfs", "/mnt", "tmpfs", _PLAIN, f"mode=700,size={_PASSING_BYTES}")
    return tree, staging, _take("/mnt")


def build_courier(disk: int, files: Mapping[str, str]) -> tuple[int, int]:
    """Make those of a courier, with texts for `files` in HOST_FILES, and return descriptors of its
    working folder and of staging."""
    staging = _take(STAGING)
    sc.detach(memory.FOLDER)
    _new_proc()
    _new_tree(disk, {name: _WRITABLE[name] for name in ("work", "tmp")})
    sc.detach("/mnt")
    os.mkdir(HOST_FILES)
    for name, text in files.items():
        with open(f"{HOST_FILES}/{name}", "w", encoding="utf-8") as file:
            file.write(text)
        if name in ("hosts", "resolv.conf"):
            sc.mount(f"{HOST_FILES}/{name}", f"/etc/{name}", flags=sc.MS_BIND)
    return os.open(process.WORK, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), staging


def _take(mount: str) -> int:
    """Out of sight, to be reached by a descriptor alone."""
    descriptor = os.open(mount, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    sc.detach(mount)
    return descriptor


def _new_proc() -> None:
    """In place of the host's, in sight until here because a new one needs that."""
    sc.mount("proc", "/mnt", "proc", _PLAIN | sc.MS_NOEXEC)
    proc = sc.clone_tree("/mnt")
    sc.detach("/mnt")
    sc.detach("/proc")
    sc.attach(proc, "/proc")
    os.close(proc)


def _new_tree(disk: int, targets: Mapping[str, str]) -> None:
    """A tmpfs on /mnt, and its directories at their targets."""
    # An empty file costs memory too, which `size` does not count.
    sc.mount("tmpfs", "/mnt", "tmpfs", _PLAIN, f"mode=755,size={disk},nr_inodes={disk >> 12}")
    for name, target in targets.items():
        os.mkdir(f"/mnt/{name}")
        os.chmod(f"/mnt/{name}", 0o755 if name == "work" else 0o1777)
        sc.mount(f"/mnt/{name}", target, flags=sc.MS_BIND)


def own_connections() -> None:
    """Go on in a network namespace whose TCP connections are in a table of their own.

    CRIU asks the kernel twice for all of them while the guest stands frozen. In the table that a
    namespace shares with its host the kernel looks into each of some 100,000 buckets: 3 ms.
    """
    try:
        with open(_CONNECTIONS, "w") as file:
            file.write(str(_BUCKETS))  # of the namespaces that are made from this one
    except OSError:  # before Linux 6.1, or read-only
        return
    sc.unshare(sc.CLONE_NEWNET)


def loopback_up() -> None:
    """Bring up `lo`, as a rule the only network of the sandbox; CRIU does not start without it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sH22x", b"lo", 0x1 | 0x40)  # IFF_UP | IFF_RUNNING
        fcntl.ioctl(sock, 0x8914, request)  # SIOCSIFFLAGS
