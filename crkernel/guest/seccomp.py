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

# name: (x86_64, aarch64), -1 where there is none.
_ABSENT = {
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "landlock_create_ruleset": (444, 444),
    "memfd_secret": (447, 447),
    "modify_ldt": (154, -1),
    "mq_open": (240, 180),
}
"""Answered ENOSYS, as by a Linux that was built without them, which programs are prepared for. CRIU
cannot dump a ring or secret memory, and does not notice the rest, which a restore then lacks: a
process would be out of its Landlock sandbox after a rewind."""

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
    "open_tree_attr": (467, 467),
    "perf_event_open": (298, 241),
    "pivot_root": (155, 41),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
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
"""Answered EPERM."""
_SOCKET, _SOCKETPAIR, _UNSHARE, _CLONE = (41, 53, 272, 56) if X86_64 else (198, 199, 97, 220)
_SETNS = 308 if X86_64 else 268
_FCNTL, _F_SETPIPE_SZ = 72 if X86_64 else 25, 1031
_PRLIMIT = 302 if X86_64 else 261

_SOCKET_FAMILIES = (1, 2, 10, 16)
"""AF_UNIX, AF_INET, AF_INET6, AF_NETLINK. Not AF_VSOCK: no namespace confines it, and it talks
to the hypervisor's host; not AF_ALG, AF_PACKET and the rest: attack surface nobody asked for."""
_PROTOCOLS = {2: (0, 1, 6, 17), 10: (0, 6, 17, 58), 16: (0, 4)}
"""TCP, UDP and ICMP; of netlink what lists interfaces and sockets. SCTP and the like make Linux
load modules; MPTCP, in place of which programs then take TCP, CRIU cannot dump."""

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
    for calls, answer in ((_ABSENT, absent), (_DENIED, refused)):
        for numbers in calls.values():
            if (number := numbers[0 if X86_64 else 1]) >= 0:
                code += [_step(_JUMP_EQ, number, 0, 1), _step(_RETURN, answer)]
    of_family = [_step(_LOAD, _ARG0), *_among(families, errno.EAFNOSUPPORT)]
    code += _when(_SOCKETPAIR, of_family)
    for family in set(families) & set(_PROTOCOLS):
        protocols = _among(_PROTOCOLS[family], errno.EPROTONOSUPPORT)
        of_family += _when(family, [_step(_LOAD, _ARG2), *protocols])
    code += _when(_SOCKET, of_family)
    # A restore needs a time namespace, which needs a capability that the guest does not have.
    into_time = _among((CLONE_NEWTIME,), errno.EPERM)
    code += _when(_UNSHARE, [_step(_LOAD, _ARG0), *into_time])
    code += _when(_SETNS, [_step(_LOAD, _ARG1), *into_time])
    namespaces = [_step(_JUMP_SET, _NEW_NAMESPACES, 0, 1), _step(_RETURN, refused)]
    code += _when(_CLONE, [_step(_LOAD, _ARG0), *namespaces])
    # To set limits of another process the same user id is enough: the supervisor's could be set.
    code += _when(
        _PRLIMIT,
        [
            _step(_LOAD, _ARG0),
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


def _among(values: tuple[int, ...], otherwise: int) -> list[bytes]:
    """Go on if what is loaded is one of the values, else answer with an error."""
    jumps = [_step(_JUMP_EQ, value, len(values) - i, 0) for i, value in enumerate(values)]
    return [*jumps, _step(_RETURN, _ERRNO | otherwise)]


def _when(value: int, checks: list[bytes]) -> list[bytes]:
    """`checks` are for one value of what is loaded alone; falling through allows it."""
    body = [*checks, _step(_RETURN, _ALLOW)]
    return [_step(_JUMP_EQ, value, 0, len(body)), *body]
