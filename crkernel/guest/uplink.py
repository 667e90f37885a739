"""The way to the network of a sandbox that may have one: pasta, run beside it by the nest, or in
an annex.

pasta (https://passt.top) takes what a sandbox sends into a tap device and makes ordinary sockets of
the host's user of it, so it needs no privilege. It reaches what the host reaches but for the
host's loopback, and nothing reaches in.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from . import seccomp
from . import syscalls as sc

TUN = "/run/tun"
"""Where `enter` or an annex puts the device; sandboxes do not see it."""
RESOLVER = "10.0.2.3"
ADDRESS = "10.0.2.100"
"""Always the same, so that a socket that was bound to it can be restored."""
_SYSCTLS = "/proc/sys/net/ipv4"
_TCP = {
    "tcp_frto": "0",  # nothing new to find out whether a timeout was needed: it would be dropped
    "tcp_reordering": "1",  # a tap device keeps the order, so one repeated answer tells of a loss
    "tcp_rto_max_ms": "1000",  # since Linux 6.15
}
_START_SECONDS = 5.0
_FLEETING_SECONDS = 2.0  # one that ended so soon has no successor: that would do no better
_TICK_SECONDS = 0.005


class Uplinks:
    """Of sandboxes, one each from `start` to `end`; what ends before is replaced."""

    def __init__(self, fork: Callable[[Callable[[], None]], int]) -> None:
        """`fork` has something done by a child of ours; its process id."""
        self._fork = fork
        self._links: dict[int, tuple[int, str, float]] = {}  # by their process ids

    def start(self, sandbox: int, nameserver: str) -> None:
        """Connect the sandbox with this PID 1; its questions for names are sent there."""
        link = self._fork(partial(run, sandbox, nameserver))
        self._links[link] = sandbox, nameserver, time.monotonic()

    def end(self, sandbox: int) -> None:
        """Disconnect it. Who has waited for a child of ours has told `ended` so."""
        for link in [link for link, (of, *_) in self._links.items() if of == sandbox]:
            del self._links[link]
            os.kill(link, signal.SIGKILL)

    def ended(self, link: int, status: int) -> dict[str, Any] | None:
        """A child of ours has ended with this wait status; what there is to tell of it."""
        if link not in self._links:
            return None
        sandbox, nameserver, began = self._links.pop(link)
        if not _lives(sandbox):  # they end with the network that they are the way to
            return None
        again = time.monotonic() - began > _FLEETING_SECONDS
        if again:
            self.start(sandbox, nameserver)
        code = os.waitstatus_to_exitcode(status)
        how = (
            f"pasta ended with status {code}" if code >= 0 else f"pasta was ended by signal {-code}"
        )
        return {"unlinked": sandbox, "why": how, "again": again}


def _lives(pid: int) -> bool:
    """Whether a process has not ended, be it waited for or not."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        return not select.select([process], [], [], 0)[0]
    finally:
        os.close(process)


def run(pid: int, nameserver: str) -> None:
    """Become the pasta of the sandbox whose PID 1 is `pid`, until it is killed or we are."""
    sc.die_with_parent()
    sc.unshare(sc.CLONE_NEWNS)
    sc.mount("tmpfs", "/dev/net", "tmpfs", sc.MS_NOSUID, "mode=755,size=4k")
    os.close(os.open("/dev/net/tun", os.O_CREAT | os.O_WRONLY))
    sc.mount(TUN, "/dev/net/tun", flags=sc.MS_BIND)
    sc.no_new_privileges()
    # It would keep half of what Linux lets a user have of pipes' buffers, for its pool; then CRIU
    # could not restore those of a guest.
    sc.install_seccomp(seccomp.small_pipes())
    options = {
        "netns": f"/proc/{pid}/ns/net",
        "ns-ifname": "tap0",
        "address": ADDRESS,
        "netmask": "24",
        "gateway": "10.0.2.2",
        "dns-forward": RESOLVER,
        "dns-host": nameserver,
        "dns": RESOLVER,
        "map-host-loopback": "none",
        # By default ports that are bound on one side are forwarded from the other.
        "tcp-ports": "none",
        "udp-ports": "none",
        "tcp-ns": "none",
        "udp-ns": "none",
    }
    flags = ("foreground", "quiet", "netns-only", "config-net", "ipv4-only")
    words = [f"--{flag}" for flag in flags]
    for name, value in options.items():
        words += [f"--{name}", value]
    for descriptor in (0, 1):
        os.dup2(os.open("/dev/null", os.O_RDWR), descriptor)
    os.closerange(3, 1 << 16)
    os.execve("/usr/bin/pasta", ["pasta", *words], {"PATH": "/usr/bin:/bin"})


def tune() -> None:
    """Have this network namespace's TCP take pasta as it is: that keeps nothing which comes out of
    order, and drops what its own socket has no room for while the other side does not read. What
    is lost is sent again soon, in order, before anything new."""
    for name, value in _TCP.items():
        with contextlib.suppress(OSError), open(f"{_SYSCTLS}/{name}", "w") as file:
            file.write(value)


def is_up(seconds: float = _START_SECONDS) -> bool:
    """Whether this network namespace gets a way out in that time."""
    end = time.monotonic() + seconds
    while True:
        with open("/proc/net/route") as routes:
            if any(line.split()[1] == "00000000" for line in routes.readlines()[1:]):
                return True
        if time.monotonic() > end:
            return False
        time.sleep(_TICK_SECONDS)
