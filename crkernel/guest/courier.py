"""PID 1 of a courier: runs npm for a guest that has no network.

A courier shares the network of the host and sees the image, npm's cache, and a folder of its own
with a copy of the guest's packages. It serves one request: it makes the folder of a checkpoint's
files, runs npm, and leaves what came out as a snapshot in staging, from where the supervisor puts
it into the guest's tree. No code of a package or of the guest runs in here, only npm's own.
"""

from __future__ import annotations

import codecs
import errno
import json
import os
import select
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

from . import eviction, golden, mounts, parcel, process, record, seccomp, wire
from . import syscalls as sc
from .link import Channel
from .parcel import NPMS_OWN
from .refusals import STAGING_FULL
from .tree import Entry, Tree, essence, read_manifest, write_json

_NPM = ("/usr/local/bin/node", "/usr/local/lib/node_modules/npm/bin/npm-cli.js")
_CHUNK = 1 << 16
_NETWORK_FAMILIES = (2, 10, 16)
"""AF_INET, AF_INET6, AF_NETLINK: Unix sockets could reach those of the host by their names."""
_SETTINGS_FD = 3
_ENVIRONMENT = {
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "NO_UPDATE_NOTIFIER": "1",
    # npm's settings. The environment outranks every file of settings.
    "npm_config_userconfig": f"/dev/fd/{_SETTINGS_FD}",
    "npm_config_globalconfig": "/dev/null",
    "npm_config_ignore_scripts": "true",
    "npm_config_allow_directory": "none",
    "npm_config_allow_file": "none",
    "npm_config_allow_git": "none",
    "npm_config_allow_remote": "none",
    "npm_config_audit": "false",
    "npm_config_fund": "false",
    "npm_config_color": "false",
    "npm_config_progress": "false",
    "npm_config_logs_max": "0",
    "npm_config_update_notifier": "false",
}


def main(kernel: Channel, settings: int, disk: int) -> None:
    """Be PID 1 until the request is served or the kernel closes the socket."""
    sc.die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with open(settings, encoding="utf-8") as file:
        file.seek(0)
        host = json.load(file)
    project, staging = mounts.build_courier(disk, host["files"])
    cache = mounts.NPM_CACHE if os.path.isdir(mounts.NPM_CACHE) else "/tmp/cache"
    if cache == mounts.NPM_CACHE and os.stat(cache).st_uid != 0:
        os.umask(0)  # on a root host sessions have a user id each, and share it
    host["environment"]["npm_config_cache"] = cache
    socket.sethostname("crkernel")
    sc.no_new_privileges()
    sc.install_seccomp(seccomp.program(families=_NETWORK_FAMILIES))
    Courier(kernel, project, staging, host).serve()


class Courier:
    """Serves one kernel over the channel `kernel`. `project` is npm's working folder and `staging`
    where checkpoints lie, both descriptors; `host` is what the kernel knows of the host's npm."""

    def __init__(self, kernel: Channel, project: int, staging: int, host: dict[str, Any]) -> None:
        self._kernel = kernel
        self._project = project
        self._staging = staging
        self._host = host
        self._tree = Tree(project, staging)

    def serve(self) -> None:
        """One request; then there is nothing to be done but to be ended."""
        decoder = wire.Decoder()
        while data := self._kernel.recv(_CHUNK):
            for body in decoder.feed(data):
                request = wire.parse(body)
                try:
                    answer = self._npm(request)
                except (OSError, parcel.NotAProject) as error:
                    full = isinstance(error, OSError) and error.errno == errno.ENOSPC
                    message = STAGING_FULL if full else str(error)
                    answer = {"error": {"kind": "NpmFailed", "message": message}}
                self._kernel.sendall(wire.pack({"id": request["id"]} | answer))

    def _npm(self, request: wire.Message) -> wire.Message:
        before = parcel.pack(self._files(request["checkpoint"]), request["folder"])
        self._tree.fill(before)
        self._check_lock()
        code = self._run(request["arguments"])
        if code or request["name"] is None:
            return {"code": code, "files": None}
        eviction.mark(request["name"], make=True, within=self._staging)
        files = self._tree.snapshot(request["name"]).name
        after = read_manifest(self._staging, files)
        self._recognise(before, after)
        os.unlink(files, dir_fd=self._staging)
        if not _differ(before, after):
            self._tree.take_back(request["name"])
            return {"code": code, "files": None}
        write_json(self._staging, files, after)
        return {"code": code, "files": files}

    def _recognise(self, before: dict[str, Entry], after: dict[str, Entry]) -> None:
        """Have files that npm only touched be what they were: it sets the mode of each program,
        and a program that runs must not be replaced by its like."""
        for path, entry in after.items():
            old = before.get(path, entry)
            if (
                entry["kind"] == old["kind"] == "file"
                and entry["content"] != old["content"]
                and entry["size"] == old["size"]
                and self._same(entry["content"], old["content"])
            ):
                os.unlink(entry["content"], dir_fd=self._staging)
                entry["content"] = old["content"]

    def _same(self, *contents: str) -> bool:
        with ExitStack() as opened:
            paths = [os.open(name, os.O_RDONLY, dir_fd=self._staging) for name in contents]
            files = [opened.enter_context(open(path, "rb")) for path in paths]
            pieces = zip(*(iter(partial(file.read, _CHUNK), b"") for file in files), strict=True)
            return all(one == other for one, other in pieces)

    def _files(self, checkpoint: str) -> dict[str, Entry]:
        """The manifest of a checkpoint."""
        if checkpoint.startswith(golden.PREFIX):
            return {}
        with record.opened(checkpoint, self._staging) as directory:
            return read_manifest(self._staging, record.read(directory)["files"])

    def _check_lock(self) -> None:
        try:
            path = os.open(parcel.LOCK, os.O_RDWR, dir_fd=self._project)
        except FileNotFoundError:
            return
        with open(path, "r+", encoding="utf-8", errors="replace") as file:
            try:
                text = parcel.only_from(self._host["registries"], file.read())
            except ValueError:
                return  # npm takes it for no lock either
            file.seek(0)
            file.truncate()
            file.write(text)

    def _run(self, arguments: list[str]) -> int:
        """npm, to its end; what it says goes to the kernel meanwhile."""
        pipes = {name: os.pipe() for name in ("stdout", "stderr")}
        pid = os.fork()
        if pid == 0:
            try:
                self._become([*_NPM, *arguments], [pipes["stdout"][1], pipes["stderr"][1]])
            finally:
                os._exit(127)
        for _, theirs in pipes.values():
            os.close(theirs)
        decoder = codecs.getincrementaldecoder("utf-8")
        decoders = {name: decoder("replace") for name in pipes}
        for name, data in _read({ours: name for name, (ours, _) in pipes.items()}, self._kernel):
            event = {"event": "output", "name": name, "text": decoders[name].decode(data)}
            self._kernel.sendall(wire.pack(event))
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def _become(self, command: list[str], outputs: list[int]) -> None:
        reader, writer = os.pipe()  # so that no file ever holds what may be a token
        os.write(writer, self._host["npmrc"].encode())
        sources = [os.open("/dev/null", os.O_RDWR), *outputs, reader]
        for number, source in enumerate(sources):
            os.dup2(source, 100 + number)
        for number in range(len(sources)):
            os.dup2(100 + number, number)
        os.closerange(len(sources), 1 << 16)
        os.chdir(process.WORK)
        sc.drop_capabilities()
        environment: Mapping[str, str] = _ENVIRONMENT | self._host["environment"]
        os.execve(command[0], command, dict(environment))


def _read(names: dict[int, str], kernel: Channel) -> Iterator[tuple[str, bytes]]:
    """What arrives on some pipes, by their names, until all are closed. Ends this process, and so
    the whole courier, if the kernel hangs up first."""
    poll = select.poll()
    for descriptor in (*names, kernel.fileno()):
        poll.register(descriptor, select.POLLIN)
    while names:
        for descriptor, _ in poll.poll():
            if descriptor == kernel.fileno():
                os._exit(0)
            if data := os.read(descriptor, _CHUNK):
                yield names[descriptor], data
            else:
                poll.unregister(descriptor)
                os.close(descriptor)
                del names[descriptor]


def _differ(before: dict[str, Entry], after: dict[str, Entry]) -> bool:
    """Whether npm did anything. It touches directories in any case."""
    old, new = ({p: essence(e) for p, e in m.items() if p != NPMS_OWN} for m in (before, after))
    return old != new
