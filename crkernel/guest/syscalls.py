"""Thin wrappers over the system calls that Python lacks; each raises OSError with what it did.

Numbers and constants from the kernel's uapi headers; x86_64 and aarch64 only.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct

_libc = ctypes.CDLL(None, use_errno=True)
# Holds the GIL across the call: what forks must not let another thread in between.
_libc_gil = ctypes.PyDLL(None, use_errno=True)

X86_64 = platform.machine() == "x86_64"
_PIVOT_ROOT, _CLONE, _CAPSET = (155, 56, 126) if X86_64 else (41, 220, 91)
_OPEN_TREE, _MOVE_MOUNT, _OPENAT2, _MOUNT_SETATTR = 428, 429, 437, 442

CLONE_NEWTIME = 0x80
CLONE_NEWNS = 0x20000
CLONE_NEWUTS = 0x4000000
CLONE_NEWIPC = 0x8000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 32, 4096, 16384, 1 << 18
MNT_DETACH = 2

_AT_FDCWD = -100
_AT_EMPTY_PATH, _AT_RECURSIVE, _OPEN_TREE_CLONE = 0x1000, 0x8000, 1
_RENAME_EXCHANGE = 2
_RESOLVE_BENEATH = 0x04 | 0x08  # and NO_SYMLINKS, of linux/openat2.h
_MOVE_FROM_EMPTY, _MOVE_TO_EMPTY = 0x4, 0x40
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP = 1, 4, 24
_PR_SET_SECUREBITS, _PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP = 28, 38, 22
_PR_SET_CHILD_SUBREAPER = 36
_SECUREBITS_NO_ROOT_LOCKED = 0b1111_1111  # every bit of linux/securebits.h and its lock, but...
_SECUREBITS_KEEP_CAPS = 0b0001_0000  # ...KEEP_CAPS itself stays off (its lock on)


def _check(result: int, doing: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{doing}: {os.strerror(code)}")
    return result


def unshare(flags: int) -> None:
    """Put the calling process into new namespaces (PID and time: its children)."""
    _check(_libc.unshare(flags), "unshare")


def enter(descriptor: int, flags: int) -> None:
    """Go into the namespace that a descriptor stands for, or into those of a process."""
    _check(_libc.setns(descriptor, flags), "setns")


def mount(
    source: str, target: str, kind: str | None = None, flags: int = 0, data: str = ""
) -> None:
    """mount(2)."""
    kind_ = kind.encode() if kind else None
    result = _libc.mount(source.encode(), target.encode(), kind_, flags, data.encode())
    _check(result, f"mount {kind or source} on {target}")


def detach(target: str) -> None:
    """Take a mount out of sight at once; it goes for good with its last user."""
    _check(_libc.umount2(target.encode(), MNT_DETACH), f"umount {target}")


def clone_tree(path: str | int, *, recursive: bool = False) -> int:
    """A descriptor of a detached bind mount of `path` (or of what a descriptor stands for)."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | (_AT_RECURSIVE if recursive else 0)
    if isinstance(path, int):
        result = _libc.syscall(_OPEN_TREE, path, b"", flags | _AT_EMPTY_PATH)
    else:
        result = _libc.syscall(_OPEN_TREE, _AT_FDCWD, path.encode(), flags)
    return _check(result, f"open_tree {path}")


def make_readonly(tree: int, *, nodev: bool = True) -> None:
    """Make a detached mount read-only and without set-uid programs (and devices)."""
    attributes = _ATTR_RDONLY | _ATTR_NOSUID | (_ATTR_NODEV if nodev else 0)
    attr = struct.pack("QQQQ", attributes, 0, 0, 0)
    result = _libc.syscall(_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, attr, len(attr))
    _check(result, "mount_setattr")


def attach(tree: int, target: str | int) -> None:
    """Put a detached mount at a path, or on the directory a descriptor stands for."""
    if isinstance(target, int):
        flags = _MOVE_FROM_EMPTY | _MOVE_TO_EMPTY
        result = _libc.syscall(_MOVE_MOUNT, tree, b"", target, b"", flags)
    else:
        flags = _MOVE_FROM_EMPTY
        result = _libc.syscall(_MOVE_MOUNT, tree, b"", _AT_FDCWD, target.encode(), flags)
    _check(result, f"move_mount to {target}")


def pivot_here() -> None:
    """Make the working directory (the root of a mount) the root; the old root is gone after it."""
    _check(_libc.syscall(_PIVOT_ROOT, b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", MNT_DETACH), "umount of the old root")
    os.chdir("/")


def open_beneath(directory: int, path: str) -> int:
    """A descriptor of the directory `path` below another one; no link is followed on the way."""
    how = struct.pack("QQQ", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, 0, _RESOLVE_BENEATH)
    result = _libc.syscall(_OPENAT2, directory, os.fsencode(path), how, len(how))
    return _check(result, f"open {path}")


def exchange(a: str, b: str, a_in: int = _AT_FDCWD, b_in: int = _AT_FDCWD) -> None:
    """Swap two entries of one file system at once: nobody ever sees half of either. Each may be
    given in a directory of its own; links are swapped, not followed."""
    arguments = (a_in, os.fsencode(a), b_in, os.fsencode(b), _RENAME_EXCHANGE)
    _check(_libc.renameat2(*arguments), f"exchange {a} and {b}")


def fork_into(flags: int) -> int:
    """fork(2) into new namespaces: the child comes out as PID 1 of a new PID namespace, as a
    direct child of the caller, which is what its parent-death signal needs."""
    api = ctypes.pythonapi
    api.PyOS_BeforeFork()
    pid = int(_libc_gil.syscall(_CLONE, flags | 17, 0, 0, 0, 0))  # 17: SIGCHLD
    if pid == 0:
        api.PyOS_AfterFork_Child()
    else:
        code = ctypes.get_errno()
        api.PyOS_AfterFork_Parent()
        ctypes.set_errno(code)
    return _check(pid, "clone")


def die_with_parent(signal: int = 9) -> None:
    """Have the kernel send `signal` to this process when its parent ends, however it ends; 0: no
    longer."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal, 0, 0, 0), "prctl PDEATHSIG")


def adopt_orphans() -> None:
    """Become the parent of every descendant that loses its own. (CRIU keeps this.)"""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl CHILD_SUBREAPER")


def set_dumpable() -> None:
    """After a change of user: own one's /proc/self again."""
    _check(_libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0), "prctl DUMPABLE")


def no_new_privileges() -> None:
    """No exec of this process or its descendants gains anything any more."""
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl NO_NEW_PRIVS")


def drop_capabilities() -> None:
    """Lose every capability from every set for good: user id 0 means nothing afterwards."""
    with open("/proc/sys/kernel/cap_last_cap") as file:
        last = int(file.read())
    bits = _SECUREBITS_NO_ROOT_LOCKED & ~_SECUREBITS_KEEP_CAPS
    _check(_libc.prctl(_PR_SET_SECUREBITS, bits, 0, 0, 0), "prctl SECUREBITS")
    for capability in range(last + 1):
        _check(_libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0), "prctl CAPBSET_DROP")
    header = struct.pack("Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    _check(_libc.syscall(_CAPSET, header, bytes(24)), "capset")


def install_seccomp(program: bytes) -> None:
    """Put this process and all its descendants under a BPF filter of `struct sock_filter`s."""
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HP", len(program) // 8, ctypes.addressof(buffer))
    _check(_libc.prctl(_PR_SET_SECCOMP, 2, header, 0, 0), "prctl SECCOMP")
