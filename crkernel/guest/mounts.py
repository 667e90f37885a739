"""The mounts of one sandbox, made by its PID 1 over those of the nest."""

from __future__ import annotations

import fcntl
import os
import socket
import struct

from . import process
from . import syscalls as sc

STAGING = "/run/staging"
_WRITABLE = {"work": process.WORK, "tmp": "/tmp", "shm": "/dev/shm"}
"""Directories of the writable tree, and where the guest sees them: one tmpfs, one limit."""


def build(disk: int) -> tuple[int, int]:
    """Make them and return descriptors of the writable tree (at most `disk` bytes) and of staging.

    Staging is in no mount of the sandbox afterwards: nobody gets there but through that descriptor,
    which the guest cannot reach.
    """
    staging = os.open(STAGING, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    flags = sc.MS_NOSUID | sc.MS_NODEV
    sc.mount("proc", "/mnt", "proc", flags | sc.MS_NOEXEC)
    proc = sc.clone_tree("/mnt")
    for path in ("/mnt", "/proc", STAGING, "/run"):
        sc.detach(path)  # /proc: the host's, in sight until here because a new one needs that
    sc.attach(proc, "/proc")
    os.close(proc)
    options = "newinstance,ptmxmode=0666,mode=620"
    sc.mount("devpts", "/dev/pts", "devpts", sc.MS_NOSUID | sc.MS_NOEXEC, options)
    # An empty file costs memory too, which `size` does not count.
    sc.mount("tmpfs", "/mnt", "tmpfs", flags, f"mode=755,size={disk},nr_inodes={disk >> 12}")
    for name, target in _WRITABLE.items():
        os.mkdir(f"/mnt/{name}")
        os.chmod(f"/mnt/{name}", 0o755 if name == "work" else 0o1777)
        sc.mount(f"/mnt/{name}", target, flags=sc.MS_BIND)
    tree = os.open("/mnt", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    sc.detach("/mnt")
    return tree, staging


def loopback_up() -> None:
    """Bring up `lo`, the only network of the sandbox; CRIU does not start without it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sH22x", b"lo", 0x1 | 0x40)  # IFF_UP | IFF_RUNNING
        fcntl.ioctl(sock, 0x8914, request)  # SIOCSIFFLAGS
