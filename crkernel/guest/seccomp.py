"""The seccomp filter that a whole sandbox lives under, its supervisor and CRIU included.

It shuts what a notebook never needs and what has been a way out of sandboxes before. What CRIU
and its parasite need (ptrace, process_vm_readv, kcmp, ...) has to stay open; the guest cannot use
it against the supervisor, because it holds no capability.
"""

from __future__ import annotations

import errno
import struct

from .syscalls import CLONE_NEWTIME, X86_64

_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_AUDIT_ARCH = 0xC000003E if X86_64 else 0xC00000B7
_X32_BIT = 0x40000000
_LOAD, _JUMP_EQ, _JUMP_GE, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NR, _ARCH, _ARG0, _ARG1, _ARG2 = (
    0,
    4,
    16,
    24,
    32,
)  # in struct seccomp_data, little-endian

_IO_URING = (425, 426, 427)
"""Answered ENOSYS, so that libuv falls back to epoll: CRIU cannot dump a ring."""

# name: (x86_64, aarch64), -1 where there is none. Answered EPERM.
_DENIED = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "adjtimex": (159, 171),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "clock_adjtime": (305, 266),
    "clock_settime": (227, 112),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "init_module": (175, 105),
    "ioperm": (173, -1),
    "iopl": (172, -1),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "lookup_dcookie": (212, 18),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "pivot_root": (155, 41),
    "quotactl": (179, 60),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "settimeofday": (164, 170),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "userfaultfd": (323, 282),
    "vhangup": (153, 58),
}
_SOCKET, _SOCKETPAIR, _UNSHARE, _CLONE = (41, 53, 272, 56) if X86_64 else (198, 199, 97, 220)
_SETNS = 308 if X86_64 else 268
_FCNTL, _F_SETPIPE_SZ = 72 if X86_64 else 25, 1031
_PRLIMIT = 302 if X86_64 else 261

_SOCKET_FAMILIES = (1, 2, 10, 16)
"""AF_UNIX, AF_INET, AF_INET6, AF_NETLINK. Not AF_VSOCK: no namespace confines it, and it talks
to the hypervisor's host; not AF_ALG, AF_PACKET and the rest: attack surface nobody asked for."""

_NEW_NAMESPACES = 0x7E020000
"""CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET."""


def program(families: tuple[int, ...] = _SOCKET_FAMILIES) -> bytes:
    """The filter as an array of `struct sock_filter`, for `syscalls.install_seccomp`; it
    leaves sockets of these families."""
    refused = _ERRNO | errno.EPERM
    absent = _ERRNO | errno.ENOSYS
    code = [
        _step(_LOAD, _ARCH),
        _step(_JUMP_EQ, _AUDIT_ARCH, 1, 0),
        _step(_RETURN, absent),
        _step(_LOAD, _NR),
        _step(_JUMP_GE, _X32_BIT, 0, 1),
        _step(_RETURN, absent),
    ]
    for number in _IO_URING:
        code += [_step(_JUMP_EQ, number, 0, 1), _step(_RETURN, absent)]
    for numbers in _DENIED.values():
        if (number := numbers[0 if X86_64 else 1]) >= 0:
            code += [_step(_JUMP_EQ, number, 0, 1), _step(_RETURN, refused)]
    allowed = [_step(_JUMP_EQ, f, len(families) - i, 0) for i, f in enumerate(families)]
    for call in (_SOCKET, _SOCKETPAIR):
        code += _when(call, [*allowed, _step(_RETURN, _ERRNO | errno.EAFNOSUPPORT)])
    # A restore needs a time namespace, which needs a capability that the guest does not have.
    code += _when(_UNSHARE, [_step(_JUMP_EQ, CLONE_NEWTIME, 1, 0), _step(_RETURN, refused)])
    into_time = [_step(_LOAD, _ARG1), _step(_JUMP_EQ, CLONE_NEWTIME, 1, 0), _step(_RETURN, refused)]
    code += _when(_SETNS, into_time)
    code += _when(_CLONE, [_step(_JUMP_SET, _NEW_NAMESPACES, 0, 1), _step(_RETURN, refused)])
    # To set limits of another process the same user id is enough: the supervisor's could be set.
    code += _when(
        _PRLIMIT,
        [
            _step(_JUMP_EQ, 0, 5, 0),  # one's own
            _step(_LOAD, _ARG2),
            _step(_JUMP_EQ, 0, 0, 2),
            _step(_LOAD, _ARG2 + 4),
            _step(_JUMP_EQ, 0, 1, 0),  # a null pointer: only asks
            _step(_RETURN, refused),
        ],
    )
    return b"".join([*code, _step(_RETURN, _ALLOW)])


def small_pipes() -> bytes:
    """A filter under which pipes keep the size that they are made with."""
    return b"".join(
        [
            _step(_LOAD, _NR),
            _step(_JUMP_EQ, _FCNTL, 0, 3),
            _step(_LOAD, _ARG1),
            _step(_JUMP_EQ, _F_SETPIPE_SZ, 0, 1),
            _step(_RETURN, _ERRNO | errno.EPERM),
            _step(_RETURN, _ALLOW),
        ]
    )


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)


def _when(number: int, checks: list[bytes]) -> list[bytes]:
    """`checks` see the first argument, of that system call only; falling through allows it."""
    body = [_step(_LOAD, _ARG0), *checks, _step(_RETURN, _ALLOW)]
    return [_step(_JUMP_EQ, number, 0, len(body)), *body]
