"""Attempts of guest code to get out, or to do harm where it is: each is refused, and the kernel
lives on."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import driver
import pytest
from _driver import descendants, eventually, guest_of, python, status, statuses
from driver import Kernel

pytestmark = pytest.mark.e2e
_FS = "require('node:fs')"


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """One kernel for all attempts that are refused without a trace."""
    kernel = Kernel(tmp_path_factory.mktemp("escape") / "kernel.log")
    kernel.ok("let secret = 'still here'")
    yield kernel
    kernel.close()


@pytest.fixture(autouse=True)
def _lives_on(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each attempt the same guest answers, with its state."""
    yield
    if "guest" in request.fixturenames:
        kernel = request.getfixturevalue("guest")
        assert kernel.value("secret") == "still here"


# What each attempt is answered with. EACCES and EPERM differ only in who says no first. None of
# them would do harm if it were let through.
_REFUSED = {
    # namespaces and mounts
    "unshare user": ("call(272, 97, 0x10000000)", "EPERM"),
    "unshare mount": ("call(272, 97, 0x20000)", "EPERM"),
    "unshare time": ("call(272, 97, 0x80)", "EPERM"),
    "clone user": ("call(56, 220, 0x10000000 | 17, 0, 0, 0, 0)", "EPERM"),
    # ENOSYS in Docker, by the filter around ours
    "clone3 user": (
        "call(435, 435, struct.pack('11Q', 0x10000000, *[0]*3, 17, *[0]*6), 88)",
        "ENOSPC EPERM EUSERS ENOSYS",
    ),
    "clone3 mount": (
        "call(435, 435, struct.pack('11Q', 0x20000, *[0]*3, 17, *[0]*6), 88)",
        "EPERM ENOSYS",
    ),
    "setns of a process": ("call(308, 268, call(434, 434, 1, 0), 0x7E020000)", "EPERM"),
    "setns": ("call(308, 268, os.open('/proc/self/ns/net', os.O_RDONLY), 0)", "EPERM"),
    "mount tmpfs": ("call(165, 40, b'none', b'/tmp', b'tmpfs', 0, 0)", "EPERM"),
    "mount proc": ("call(165, 40, b'none', b'/tmp', b'proc', 0, 0)", "EPERM"),
    "remount / writable": ("call(165, 40, b'none', b'/', 0, 32 | 4096, 0)", "EPERM"),
    "umount /tmp": ("call(166, 39, b'/tmp', 2)", "EPERM"),
    "umount /proc": ("call(166, 39, b'/proc', 2)", "EPERM"),
    "open_tree": ("call(428, 428, -100, b'/', 1)", "EPERM"),
    "open_tree_attr": ("call(467, 467, -100, b'/', 1, bytes(32), 32)", "EPERM"),
    "fsopen": ("call(430, 430, b'tmpfs', 0)", "EPERM"),
    "move_mount": ("call(429, 429, -100, b'/tmp', -100, b'/mnt', 0)", "EPERM"),
    "mount_setattr": ("call(442, 442, -100, b'/', 0, bytes(32), 32)", "EPERM"),
    "pivot_root": ("call(155, 41, b'.', b'.')", "EPERM"),
    "chroot": ("call(161, 51, b'/tmp')", "EPERM"),
    "open_by_handle_at": ("call(304, 265, -100, bytes(64), 0)", "EPERM"),
    # the supervisor
    "ptrace 1": ("call(101, 117, 16, 1, 0, 0)", "EPERM"),
    "ptrace seize 1": ("call(101, 117, 0x4206, 1, 0, 0)", "EPERM"),
    "process_vm_readv 1": (
        "(lambda b: call(310, 270, 1, struct.pack('QQ', b, 8), 1, struct.pack('QQ', b, 8), 1, 0))"
        "(ctypes.addressof(ctypes.create_string_buffer(8)))",
        "EPERM",
    ),
    "process_vm_writev 1": (
        "(lambda b: call(311, 271, 1, struct.pack('QQ', b, 8), 1, struct.pack('QQ', b, 8), 1, 0))"
        "(ctypes.addressof(ctypes.create_string_buffer(8)))",
        "EPERM",
    ),
    "process_madvise 1": (
        "call(440, 440, call(434, 434, 1, 0), bytes(16), 1, 4, 0)",
        "EACCES EPERM",
    ),
    "pagemap of 1": ("open('/proc/1/pagemap', 'rb').read(8)", "EACCES EPERM"),
    "pidfd_getfd 1": ("call(438, 438, call(434, 434, 1, 0), 3, 0)", "EPERM"),
    "kcmp 1": ("call(312, 272, 1, os.getpid(), 0, 3, 3)", "EPERM"),
    "prlimit 1": ("call(302, 261, 1, 7, struct.pack('QQ', 0, 0), 0)", "EPERM"),
    "environ of 1": ("open('/proc/1/environ').read()", "EACCES EPERM"),
    "memory of 1": ("open('/proc/1/mem', 'rb').read(1)", "EACCES EPERM"),
    "writing memory of 1": ("open('/proc/1/mem', 'r+b').read(1)", "EACCES EPERM"),
    "maps of 1": ("open('/proc/1/maps').read()", "EACCES EPERM"),
    "auxv of 1": ("open('/proc/1/auxv', 'rb').read()", "EACCES EPERM"),
    "root of 1": ("os.listdir('/proc/1/root/')", "EACCES EPERM"),
    "cwd of 1": ("os.listdir('/proc/1/cwd/')", "EACCES EPERM"),
    "descriptor of 1": ("os.readlink('/proc/1/fd/3')", "EACCES EPERM ENOENT"),
    "opening a descriptor of 1": ("os.open('/proc/1/fd/5', os.O_RDONLY)", "EACCES EPERM ENOENT"),
    "namespace of 1": ("os.open('/proc/1/ns/mnt', os.O_RDONLY)", "EACCES EPERM"),
    # the machine
    "bpf": ("call(321, 280, 0, bytes(128), 128)", "EPERM"),
    "keyctl": ("call(250, 219, 0, -3, 0)", "EPERM"),
    "add_key": ("call(248, 217, b'user', b'x', b'y', 1, -3)", "EPERM"),
    "perf_event_open": ("call(298, 241, bytes(128), 0, -1, -1, 0)", "EPERM"),
    "userfaultfd": ("call(323, 282, 0)", "EPERM"),
    "io_uring_setup": ("call(425, 425, 1, bytes(120))", "ENOSYS"),
    "io_uring_enter": ("call(426, 426, 1, 0, 0, 0, 0, 0)", "ENOSYS"),
    "quotactl_fd": ("call(443, 443, os.open('/tmp', 0), 0x80000700, 0, bytes(64))", "EPERM"),
    "memfd_secret": ("call(447, 447, 0)", "ENOSYS"),
    "mq_open": ("call(240, 180, b'q', os.O_CREAT | os.O_RDWR, 0o600, 0)", "ENOSYS"),
    "landlock": ("call(444, 444, struct.pack('Q', 1), 8, 0)", "ENOSYS"),
    "real time": ("os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))", "EPERM"),
    "a better priority": ("os.setpriority(os.PRIO_PROCESS, 0, -5)", "EACCES EPERM"),
    "x32 table": ("alone(lambda: call(0x40000027, -1))", "ENOSYS SIGSYS"),
    "init_module": ("call(175, 105, b'x', 1, b'')", "EPERM"),
    "kexec_load": ("call(246, 104, 0, 0, 0, 0)", "EPERM"),
    "reboot": ("call(169, 142, 0xfee1dead, 672274793, 0, 0)", "EPERM"),
    "syslog": ("call(103, 116, 3, 0, 0)", "EPERM"),
    "clock_settime": ("call(227, 112, 0, struct.pack('qq', 0, -1))", "EPERM"),
    "sethostname": ("call(170, 161, b'x', 1)", "EPERM"),
    "setuid": ("os.setuid(1)", "EINVAL EPERM"),
    "setgroups": ("os.setgroups([1])", "EPERM"),
    "more memory": ("call(302, 261, 0, 2, struct.pack('QQ', 1 << 50, 1 << 50), 0)", "EPERM"),
    "character device": ("os.mknod('/tmp/mem', 0o20666, os.makedev(1, 1))", "EPERM"),
    "block device": ("os.mknod('/tmp/disk', 0o60666, os.makedev(254, 0))", "EPERM"),
    "/dev/mem": ("os.open('/dev/mem', os.O_RDWR)", "ENOENT"),
    "/dev/kmsg": ("os.open('/dev/kmsg', os.O_RDONLY)", "ENOENT"),
    "/dev/kvm": ("os.open('/dev/kvm', os.O_RDWR)", "ENOENT"),
    "/dev/fuse": ("os.open('/dev/fuse', os.O_RDWR)", "ENOENT"),
    "kcore": ("os.open('/proc/kcore', os.O_RDONLY)", "EACCES EPERM ENOENT"),
    "kmsg": ("os.open('/proc/kmsg', os.O_RDONLY)", "EACCES EPERM"),
    "sysrq": ("os.open('/proc/sysrq-trigger', os.O_WRONLY)", "EACCES EPERM ENOENT"),
    # the image
    "a new file in /usr": ("os.open('/usr/x', os.O_CREAT | os.O_WRONLY)", "EROFS EACCES"),
    "/etc/passwd": ("os.open('/etc/passwd', os.O_WRONLY)", "EROFS EACCES"),
    "node": ("os.open('/usr/local/bin/node', os.O_WRONLY)", "EROFS EACCES ETXTBSY"),
    "the supervisor's code": (
        "os.open('/usr/lib/crkernel/guest/nest.py', os.O_WRONLY)",
        "EROFS EACCES",
    ),
    "a new device file": ("os.open('/dev/x', os.O_CREAT | os.O_WRONLY)", "EROFS EACCES"),
    "chmod of a program": ("os.chmod('/usr/bin/python3', 0o4755)", "EROFS EPERM"),
    # sockets
    "vsock": ("socket.socket(40, socket.SOCK_STREAM)", "EAFNOSUPPORT"),
    "packet": ("socket.socket(17, socket.SOCK_RAW)", "EAFNOSUPPORT"),
    "alg": ("socket.socket(38, socket.SOCK_SEQPACKET)", "EAFNOSUPPORT"),
    "tipc pair": ("call(53, 199, 30, 5, 0, bytes(8))", "EAFNOSUPPORT"),
    "raw by inet": ("socket.socket(socket.AF_INET, socket.SOCK_RAW, 255)", "EPROTONOSUPPORT"),
    "sctp": ("socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132)", "EPROTONOSUPPORT"),
    "mptcp": ("socket.socket(socket.AF_INET6, socket.SOCK_STREAM, 262)", "EPROTONOSUPPORT"),
    "xfrm": ("socket.socket(16, socket.SOCK_RAW, 6)", "EPROTONOSUPPORT"),
    "netfilter": ("socket.socket(16, socket.SOCK_RAW, 12)", "EPROTONOSUPPORT"),
    "raw": ("socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)", "EPERM"),
    "the internet": (
        "socket.create_connection(('192.0.2.1', 80), 2)",
        "ENETUNREACH",
    ),
}
_SYSCTLS = [
    "fs/suid_dumpable",
    "kernel/core_pattern",
    "kernel/hostname",
    "kernel/modprobe",
    "kernel/ns_last_pid",
    "kernel/randomize_va_space",
    "kernel/sysrq",
    "net/ipv4/ip_forward",
    "net/ipv4/ping_group_range",
    "user/max_user_namespaces",
    "vm/drop_caches",
    "vm/overcommit_memory",
]


@pytest.fixture(scope="module")
def answers(guest: Kernel) -> dict[str, object]:
    """What each attempt got; one program makes them all, as a guest would."""
    attempts = [f"found[{what!r}] = attempt(lambda: {how})" for what, (how, _) in _REFUSED.items()]
    found = python(guest, "\n".join(["found = {}", *attempts]))
    assert isinstance(found, dict)
    return found


@pytest.mark.usefixtures("guest")
@pytest.mark.parametrize("what", _REFUSED)
def test_is_refused(answers: dict[str, object], what: str) -> None:
    if what == "x32 table" and os.uname().machine != "x86_64":
        pytest.skip("this machine has one system call table")
    assert answers[what] in _REFUSED[what][1].split()


def test_no_sysctl_can_be_written(guest: Kernel) -> None:
    found = python(
        guest,
        f"""
def rewrite(path):
    "What it holds already; some of them refuse a write only, not an open."
    with open(path, "r+b", 0) as file:
        file.write(file.read())
found = {{s: attempt(lambda: rewrite("/proc/sys/" + s)) for s in {_SYSCTLS}}}
""",
    )
    assert isinstance(found, dict)
    assert {s: e for s, e in found.items() if e not in ("EACCES", "EPERM", "ENOENT")} == {}


def test_32_bit_system_calls_are_absent(guest: Kernel) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("a way in that only x86_64 has")
    # mov eax, 20 (getpid); int 0x80; ret
    program = """
import mmap
page = mmap.mmap(-1, 4096, prot=7)
page.write(bytes([0xb8, 20, 0, 0, 0, 0xcd, 0x80, 0xc3]))
getpid = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
found = alone(getpid)
"""
    # Docker's filter ends who tries.
    assert python(guest, program) == ("SIGSYS" if driver.engine == "docker" else str(-errno.ENOSYS))


def test_programs_that_open_sandboxes_fail(guest: Kernel) -> None:
    commands = [
        "unshare -Ur true",
        "unshare -m true",
        "nsenter -t 1 -a true",
        "nsenter -t 1 -m true",
        "mount -o remount,rw /",
        "umount -l /proc",
        "chroot / true",
        "ip link set lo down",
        "ip addr add 10.0.0.1/8 dev lo",
    ]
    code = (
        f"{json.dumps(commands)}.map((c) => require('node:child_process')"
        ".spawnSync('sh', ['-c', c]).status)"
    )
    assert all(status not in (0, None) for status in guest.value(code))


# -- the host


def test_no_file_of_the_host_can_be_seen(guest: Kernel, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of the host")
    image_folders = Path.home() / ".local"
    paths = [str(tmp_path), str(tmp_path / "secret"), __file__, sys.prefix, str(image_folders)]
    assert guest.value(f"{json.dumps(paths)}.filter((p) => {_FS}.existsSync(p))") == []
    shadow = guest.value(
        f"(() => {{ try {{ return {_FS}.readFileSync('/etc/shadow', 'latin1') }}"
        " catch { return null } })()"
    )
    if os.access("/etc/shadow", os.R_OK):
        assert shadow != Path("/etc/shadow").read_text("latin1")


def test_no_process_of_the_host_can_be_seen(guest: Kernel) -> None:
    with subprocess.Popen(["sleep", "1234.5"]) as process:
        try:
            program = """
found = [open(f"/proc/{p}/cmdline").read() for p in os.listdir("/proc") if p.isdigit()]
"""
            found = python(guest, program)
        finally:
            process.kill()
    assert isinstance(found, list)
    assert 2 < len(found) < 10  # PID 1, the guest, this program
    assert not [line for line in found if "1234.5" in line or "ipykernel" in line]


def test_no_socket_of_the_host_can_be_reached(guest: Kernel) -> None:
    name = f"crkernel-test-{os.getpid()}"
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        abstract.bind(f"\0{name}")
        abstract.listen()
        socket.create_connection(tcp.getsockname()).close()  # from here it works
        found = python(
            guest,
            f"""
def unix():
    with socket.socket(socket.AF_UNIX) as s:
        s.connect("\\0{name}")
found = [attempt(lambda: socket.create_connection(("127.0.0.1", {tcp.getsockname()[1]}), 5)),
    attempt(unix), [name for _, name in socket.if_nameindex()]]
""",
        )
    assert found == ["ECONNREFUSED", "ECONNREFUSED", ["lo"]]


def test_staging_is_nowhere(guest: Kernel) -> None:
    program = """
import glob
def listing(path):
    try:
        return os.listdir(path)
    except OSError as error:
        return name(error.errno)
links = []
for p in glob.glob("/proc/[0-9]*/fd/*") + glob.glob("/proc/[0-9]*/cwd"):
    try:
        links.append(os.readlink(p))
    except OSError:
        pass
mounts = open("/proc/self/mountinfo").read()
found = {
    "run": listing("/run"), "mnt": listing("/mnt"), "staging": listing("/run/staging"),
    "memory": listing("/memory"),
    "links": [l for l in links if "staging" in l or "checkpoint" in l],
    "targets": sorted(line.split()[4] for line in mounts.splitlines()),
}
"""
    found = python(guest, program)
    assert isinstance(found, dict)
    assert found["run"] in ([], "EACCES")
    assert found["mnt"] in ([], "EACCES")
    assert found["staging"] in ("ENOENT", "EACCES")
    assert found["memory"] == "EACCES"
    assert found["links"] == []
    devices = [f"/dev/{name}" for name in ("full", "null", "random", "tty", "urandom", "zero")]
    expected = [
        "/",
        "/dev",
        "/dev/pts",
        "/dev/shm",
        *devices,
        "/home/work",
        "/memory",
        "/memory/images",
        "/proc",
        "/tmp",
    ]
    volume = ["/golden"] if driver.engine == "docker" else []
    assert found["targets"] == sorted([*expected, *volume, "/usr/lib/crkernel"])


def test_no_signal_harms_the_supervisor(guest: Kernel) -> None:
    program = """
before = open("/proc/1/stat").read().split()[21]
for number in range(1, signal.NSIG):
    attempt(lambda: os.kill(1, number))
    if number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGALRM):
        call(129, 138, 1, number, bytes(128))  # rt_sigqueueinfo
handled = [l.split()[1] for l in open("/proc/1/status") if l.startswith("SigCgt")][0]
found = [open("/proc/1/stat").read().split()[21] == before, int(handled, 16) & (1 << 32) - 1]
"""
    same, handlers = python(guest, program)  # type: ignore[misc]
    assert same
    assert handlers == 0


# -- privileges, before and after a restore

_PRIVILEGES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Uid")


def test_privileges_are_gone_and_stay_gone(fresh_kernel: Kernel) -> None:
    kernel = fresh_kernel

    def of_guest() -> list[dict[str, str]]:
        found = python(
            kernel,
            f"""
found = []
for who in ("self", os.getppid()):
    pairs = [line.split(None, 1) for line in open(f"/proc/{{who}}/status")]
    found.append({{p[0][:-1]: p[1].split()[0] for p in pairs if p[0][:-1] in {_PRIVILEGES}}})
""",
        )
        assert isinstance(found, list)
        return found

    expected = dict.fromkeys(_PRIVILEGES, "0" * 16) | {
        "NoNewPrivs": "1",
        "Seccomp": "2",
        "Uid": "0",
    }
    before = of_guest()
    assert before == [expected] * 2
    kernel.rewind(0)
    assert of_guest() == [expected] * 2
    kernel.fails("process.exit()")
    assert of_guest() == [expected] * 2


def test_the_hosts_view_of_the_guest(guest: Kernel) -> None:
    pid = guest_of(guest)
    fields = status(pid)
    assert {fields[name] for name in ("CapPrm", "CapEff", "CapBnd")} == {"0" * 16}
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
    assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "500"
    user = {int(word) for word in fields["Uid"].split()}
    assert len(user) == 1
    if os.geteuid() == 0:
        # Root's user id would own /proc/sys, without a capability.
        below = statuses(descendants(guest.outside.pid))
        assert pid in below
        for fields in below.values():
            assert "0" not in fields["Uid"].split()
    else:
        assert user == {os.getuid()}
    for kind in ("user", "mnt", "pid", "net", "ipc", "uts"):
        inside, outside = (Path(f"/proc/{who}/ns/{kind}").readlink() for who in (pid, "self"))
        assert inside != outside


# -- what a guest can do to itself, or to whoever listens to it


@pytest.mark.parametrize(
    "forged",
    [
        "events(Buffer.from([255, 0, 0, 0, 1]))",
        "events(frame('[1]'))",
        'events(frame(\'{"event":"display","data":{"text/plain":"\\\\uD800\''
        ' + \'x\'.repeat(1 << 16) + \'"},"metadata":{},"transient":{},"update":false}\'))',
        "events(frame('{\"event\":\"display\",\"data\":[' + '[],'.repeat(2e6) + '0]}'))",
        'events(frame(\'{"event":"display","data":{"a":\' + \'[\'.repeat(960) + \'NaN\''
        " + ']'.repeat(960) + '}}'))",
        "replies(frame('{}'))",
        "replies(frame('{\"id\":[]}'))",
        "replies(Buffer.from([127, 255, 255, 255]))",
        "[1, 2, 3, 4, 5].forEach((fd) => fs.closeSync(fd))",
    ],
)
def test_a_forged_frame_costs_the_forger_its_guest(kernel: Kernel, forged: str) -> None:
    kernel.ok(
        "const fs = require('node:fs'); let before = 7;"
        "const frame = (t) => { const b = Buffer.from(t), h = Buffer.alloc(4);"
        " h.writeUInt32BE(b.length); return Buffer.concat([h, b]) };"
        "const events = (b) => fs.writeSync(5, b), replies = (b) => fs.writeSync(4, b)"
    )
    result = kernel.run(f"before = 8; {forged}; await new Promise((r) => setTimeout(r, 300))")
    if result.status == "error":
        assert "is restored" in result.error
    assert kernel.value("before") in (7, 8)
    kernel.ok("%timeline")


def test_events_that_mean_nothing_change_nothing(kernel: Kernel) -> None:
    kernel.ok(
        "const frame = (t) => { const b = Buffer.from(JSON.stringify(t)), h = Buffer.alloc(4);"
        " h.writeUInt32BE(b.length); require('fs').writeSync(5, Buffer.concat([h, b])) };"
        "frame({ event: 'exited', code: 0 }); frame({ id: 0 }); frame({ event: ['x'] });"
        "frame({ event: 'output', name: 'stdout', text: { a: 1 } });"
        "frame({ event: 'display', data: 3 });"
        "frame({ event: 'error', traceback: [{}], name: [] });"
    )
    assert kernel.value("1 + 1") == 2


def test_a_guest_that_stops_itself_is_ended_by_the_second_interrupt(fresh_kernel: Kernel) -> None:
    kernel = fresh_kernel
    kernel.ok("let kept = 1")
    running = kernel.submit("kept = 2; process.kill(process.pid, 'SIGSTOP'); kept")
    assert not eventually(lambda: bool(running.reply), 0.5)
    kernel.interrupt()
    threading.Event().wait(2.2)
    kernel.interrupt()
    assert "checkpoint 1) is restored" in kernel.finish(running).error
    assert kernel.value("kept") == 1


def test_output_without_end_can_be_interrupted(fresh_kernel: Kernel) -> None:
    kernel = fresh_kernel
    running = kernel.submit("require('node:child_process').execSync('yes', { stdio: 'inherit' })")
    kernel.messages_until(running, "stream", "y")
    threading.Event().wait(0.7)
    kernel.interrupt()
    assert kernel.finish(running).status == "error"
    assert kernel.value("1 + 1") == 2
    assert int(status(kernel.pid)["VmRSS"].split()[0]) < 400_000  # kB


def test_names_that_are_no_text_do_no_harm(kernel: Kernel) -> None:
    kernel.ok("process.title = 'ü'.repeat(12)")  # cut in the middle of a character
    kernel.ok("let after = 1")
    kernel.rewind(-1)
    assert kernel.value("typeof after") == "undefined"


def test_a_daemon_stays_in_the_tree(kernel: Kernel) -> None:
    """Its writes in /tmp go on after a rewind: it was in the checkpoint."""
    beat = "sh -c 'while :; do date +%N > /tmp/beat; sleep 0.05; done' >/dev/null 2>&1 &"
    count = kernel.ok(f"require('node:child_process').execSync({json.dumps(beat)}); 1").count
    kernel.ok("2")
    kernel.rewind(count)
    kernel.ok(f"let seen = {_FS}.readFileSync('/tmp/beat', 'utf8')")
    kernel.until(f"{_FS}.readFileSync('/tmp/beat', 'utf8') !== seen")
    assert kernel.run("3").stderr == ""


def test_what_left_the_tree_is_named(kernel: Kernel) -> None:
    """A checkpoint must not be taken while something runs that CRIU does not freeze."""
    program = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 3)
        time.sleep(1000)
    os._exit(0)
os.wait()  # nobody can take this session's leader over, so a restore loses its child
"""
    count = kernel.ok(
        f"require('node:child_process').execFileSync('python3', ['-c', {json.dumps(program)}]); 1"
    ).count
    kernel.ok("2")
    kernel.rewind(count)
    kernel.ok("3")
    assert "left the guest's process tree" in kernel.run("4").stderr


@pytest.mark.parametrize(
    "make",
    [
        "call(29, 194, 0, 1 << 20, 0o1600)",
        "call(64, 190, 0, 1, 0o1600)",
        "call(68, 186, 0, 0o1600)",
    ],
    ids=["memory", "semaphores", "messages"],
)
def test_what_no_process_needs_to_hold_is_noticed(fresh_kernel: Kernel, make: str) -> None:
    """System V's IPC stays when its maker ends, and a restore would lack it."""
    kernel = fresh_kernel
    assert isinstance(python(kernel, f"found = {make}"), int)
    assert "System V" in kernel.run("2").stderr
    kernel.ok("require('node:child_process').execSync('ipcrm --all')")
    count = kernel.ok("let here = 4").count
    kernel.ok("here = 5")
    kernel.rewind(count)
    assert kernel.value("here") == 4


def test_a_process_that_is_traced_is_named(kernel: Kernel) -> None:
    program = """
import ctypes, os
libc = ctypes.CDLL(None)
if os.fork() == 0:
    libc.ptrace(0, 0, 0, 0)
    os.kill(os.getpid(), 19)
os.wait3(os.WUNTRACED)
print(flush=True)
os.read(0, 1)
"""
    kernel.ok(
        f"const tracer = require('node:child_process').spawn('python3', ['-c', `{program}`]);"
        " await new Promise((r) => tracer.stdout.once('data', r))"
    )
    assert "is being traced" in kernel.run("2").stderr
    kernel.ok("tracer.stdin.end(); await new Promise((r) => tracer.once('exit', r))")
    assert kernel.run("3").stderr == ""


def test_a_hostile_tree_of_files_is_taken_as_it_is(kernel: Kernel) -> None:
    make = r"""
os.chdir("/tmp")
os.mkfifo("fifo")
os.symlink("/proc/1/root", "to-root"); os.symlink("loop", "loop"); os.symlink("..", "up")
open(b"\xff\n\xfe", "w").write("odd"); os.symlink(b"\xff\n\xfe", "to-odd")
open("a", "w").write("one"); os.link("a", "b"); os.link("to-root", "hard", follow_symlinks=False)
os.mkdir("locked"); open("locked/in", "w").write("x"); os.chmod("locked", 0)
open("suid", "w"); os.chmod("suid", 0o6755)
f = open("holes", "wb"); f.truncate(1 << 30); f.seek(1 << 29); f.write(b"x"); f.close()
deep = "d/" * 300; os.makedirs(deep); open(deep + "end", "w").write("deep")
found = 1
"""
    look = r"""
os.chdir("/tmp")
found = [
    sorted(os.fsencode(n).decode("latin1") for n in os.listdir(".")),
    open(b"\xff\n\xfe").read(), os.readlink("to-root"), os.stat("a").st_ino == os.stat("b").st_ino,
    oct(os.stat("locked").st_mode), oct(os.stat("suid").st_mode), os.stat("holes").st_size,
    os.stat("holes").st_blocks < 10_000, open("d/" * 300 + "end").read(),
]
"""
    assert python(kernel, make) == 1
    count = kernel.ok("1").count
    before = python(kernel, look)
    kernel.ok("require('node:child_process').execSync('chmod 700 /tmp/locked; rm -rf /tmp/*')")
    kernel.rewind(count)
    assert python(kernel, look) == before


def test_a_path_that_is_too_long_is_named(kernel: Kernel) -> None:
    """4096 bytes are Linux's limit for a path; relative ones have none."""
    deep = 'for i in range(30): os.mkdir("x" * 200); os.chdir("x" * 200)'
    assert python(kernel, f'os.chdir("/tmp")\n{deep}\nfound = 1') == 1
    note = kernel.run("1").stderr
    assert "could not be taken: File name too long" in note
    assert len(note) < 1000
    kernel.ok("require('node:child_process').execSync('rm -rf /tmp/x*')")
    count = kernel.ok("2").count
    kernel.rewind(count)


@pytest.mark.parametrize("number", ["SIGSTOP", "SIGKILL"])
def test_criu_may_be_hit_and_the_kernel_goes_on(fresh_kernel: Kernel, number: str) -> None:
    """It has the guest's user id, so signals get through to it until the guest is frozen."""
    kernel = fresh_kernel
    program = f"""
import os, signal, time
end = time.monotonic() + 20
while time.monotonic() < end:
    for p in os.listdir("/proc"):
        try:
            if p.isdigit() and open(f"/proc/{{p}}/comm").read().strip() == "criu":
                os.kill(int(p), signal.{number})
        except OSError:
            pass
"""
    kernel.ok("let x = 1")
    kernel.ok(
        f"require('node:child_process').spawn('python3', ['-c', `{program}`]"
        ", { stdio: 'ignore' }); x = 2; await new Promise((r) => setTimeout(r, 200))"
    )
    notes = "".join(kernel.run(f"{i}").stderr for i in range(2))
    if number == "SIGKILL":
        assert "could not be taken: CRIU " in notes
    kernel.rewind(1)
    assert kernel.value("x") == 1
    kernel.ok("x = 3")
    kernel.rewind(1)
