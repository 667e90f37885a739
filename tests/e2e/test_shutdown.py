"""The end of a kernel's process, with its threads held up where they once waited for each other."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from driver import Kernel

pytestmark = pytest.mark.e2e
Start = Callable[..., Kernel]


@pytest.fixture
def start_held_up(
    start_kernel: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Kernel]:
    """Starts a kernel in which a piece of Python runs first."""

    def start(code: str) -> Kernel:
        imports = "import asyncio, time\nfrom crkernel import kernel\n"
        (tmp_path / "sitecustomize.py").write_text(imports + textwrap.dedent(code))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        return start_kernel()

    return start


def shut_down(kernel: Kernel, restart: bool = False) -> tuple[int, str]:
    """Ask for it; the exit status and the log."""
    assert kernel.control("shutdown_request", {"restart": restart})["status"] == "ok"
    process = kernel.manager.provisioner.process  # type: ignore[union-attr]
    return process.wait(timeout=10), kernel.log.read_text()


@pytest.mark.parametrize("restart", [False, True])
def test_a_late_control_thread_still_has_its_last_word(
    start_held_up: Callable[[str], Kernel], restart: bool
) -> None:
    kernel = start_held_up("""
        say = kernel.CRKernel._publish_status

        def late(self, status, channel, parent=None):
            if channel == "control" and status == "idle" and self._shutdown_message is not None:
                time.sleep(0.5)  # the main thread is long at its end
            say(self, status, channel, parent)

        kernel.CRKernel._publish_status = late
    """)
    kernel.ok("6 * 7")
    code, log = shut_down(kernel, restart)
    assert code == 0
    assert "Traceback" not in log
    while True:
        message = kernel.client.get_iopub_msg(timeout=5)
        parent = message["parent_header"].get("msg_type")
        if parent == "shutdown_request" and message["content"] == {"execution_state": "idle"}:
            break


@pytest.mark.parametrize(
    "failure", ["ValueError('no way')", "asyncio.CancelledError()", "kernel.UserError('no way')"]
)
def test_a_session_that_fails_to_close_holds_up_nothing(
    start_held_up: Callable[[str], Kernel], failure: str
) -> None:
    kernel = start_held_up(f"""
        async def close(self, restart):
            raise {failure}

        kernel.CRKernel._close = close
    """)
    code, log = shut_down(kernel)
    assert code == 0
    assert "the session did not end as it should" in log


def test_a_thread_that_hangs_is_told_in_the_log_and_ends_with_the_process(
    start_held_up: Callable[[str], Kernel],
) -> None:
    kernel = start_held_up("""
        def hang():
            time.sleep(60)

        async def close(self, restart):
            await asyncio.to_thread(hang)

        kernel.CRKernel._close = close
        kernel._CLOSE_SECONDS = 0.2
        kernel._EXIT_SECONDS = 1.0
    """)
    code, log = shut_down(kernel)
    assert code == 1
    assert "the sandboxes took too long to end" in log
    assert "in hang" in log


def test_a_kernel_whose_port_is_taken_ends(tmp_path: Path) -> None:
    """Whoever has started it can see that, and take another port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = dict.fromkeys(("shell_port", "stdin_port", "hb_port", "control_port"), 0)
        ports["iopub_port"] = taken.getsockname()[1]
        where = {
            "ip": "127.0.0.1",
            "transport": "tcp",
            "key": "",
            "signature_scheme": "hmac-sha256",
        }
        (tmp_path / "connection.json").write_text(json.dumps(ports | where))
        command = [sys.executable, "-m", "crkernel", "-f", str(tmp_path / "connection.json")]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1
    assert "Address already in use" in ended.stderr
