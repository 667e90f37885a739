"""The nest: one process per kernel session that owns staging and forks sandboxes.

It runs on the image's Python, in the user and mount namespace that `enter` made. Sandboxes are
forked from it, with all modules loaded, so that a new one costs milliseconds. Staging is a tmpfs
of its mount namespace: when the nest ends, however it ends, nothing is left of it.

Requests come as datagrams of JSON on descriptor 3; `sandbox` brings a socket along.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
from typing import Any

from . import supervisor, wire
from . import syscalls as sc
from .enter import CONTROL_FD
from .mounts import STAGING

_NAMESPACES = sc.CLONE_NEWPID | sc.CLONE_NEWNS | sc.CLONE_NEWNET | sc.CLONE_NEWIPC | sc.CLONE_NEWUTS
_MAX_REQUEST = 1 << 16


def main() -> None:
    """Serve until the engine closes the socket or dies."""
    sc.die_with_parent()
    os.mkdir(f"{STAGING}/runtime", 0o700)
    control = socket.socket(fileno=CONTROL_FD)
    control.send(json.dumps({"ready": wire.PROTOCOL}).encode())
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, _MAX_REQUEST, 1)
        if not data:
            return
        request = json.loads(data)
        try:
            answer = _serve(request, descriptors, control)
        except OSError as error:
            answer = {"error": {"kind": "EngineError", "message": f"{request['op']}: {error}"}}
        for descriptor in descriptors:
            os.close(descriptor)
        control.send(json.dumps({"id": request["id"]} | answer).encode())


def _serve(
    request: dict[str, Any], descriptors: list[int], control: socket.socket
) -> dict[str, Any]:
    if request["op"] == "sandbox":
        return {"pid": _sandbox(request, descriptors[0], control)}
    if request["op"] == "end":
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(request["pid"], signal.SIGKILL)
            os.waitpid(request["pid"], 0)
        return {}
    status = os.statvfs(STAGING)
    return {
        "used": (status.f_blocks - status.f_bfree) * status.f_frsize,
        "size": status.f_blocks * status.f_frsize,
    }


def _sandbox(request: dict[str, Any], descriptor: int, control: socket.socket) -> int:
    """Fork one; its PID 1 never returns from here."""
    pid = sc.fork_into(_NAMESPACES)
    if pid == 0:
        try:
            control.close()
            supervisor.main(socket.socket(fileno=descriptor), int(request["disk"]))
        except BaseException as error:  # noqa: BLE001  the child must not go on as a nest
            print(f"crkernel supervisor: {type(error).__name__}: {error}", file=sys.stderr)
            if not isinstance(error, (OSError, wire.WireError)):
                sys.excepthook(type(error), error, error.__traceback__)
        finally:
            os._exit(1)
    return pid
