"""A restart gives a fresh guest, and the past of before stays reachable."""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Callable

import psutil
import pytest
from _driver import eventually, nest_of
from driver import Kernel

from crkernel.guest import linger

pytestmark = pytest.mark.e2e


def restart(kernel: Kernel) -> None:
    """As a front end does it."""
    kernel.manager.restart_kernel()
    kernel.client.wait_for_ready(timeout=30)


def test_the_past_stays_reachable(fresh_kernel: Kernel) -> None:
    kernel = fresh_kernel
    kernel.ok("globalThis.x = 1; require('fs').writeFileSync('f', 'one')")
    kernel.ok("x = 2; require('fs').writeFileSync('f', 'two')")
    kernel.ok("%checkpoint good")
    restart(kernel)
    assert kernel.ok("typeof x").count == 1
    assert "r1.2" in kernel.ok("%timeline").shown
    kernel.ok("%rewind r1.1")
    assert kernel.value("[x, require('fs').readFileSync('f', 'utf8')]") == [1, "one"]
    kernel.ok("%rewind good")
    assert kernel.value("x") == 2
    restart(kernel)
    assert kernel.ok("typeof x").text == "'undefined'"
    kernel.ok("%rewind good")
    assert kernel.value("x") == 2


def test_after_a_shutdown_nothing_waits(fresh_kernel: Kernel) -> None:
    kernel = fresh_kernel
    kernel.ok("1")
    key = kernel.manager.session.key
    nest = psutil.Process(nest_of(kernel))
    restart(kernel)
    kernel.ok("1")
    assert nest.is_running()  # the one of before, taken over
    kernel.close()
    assert linger.claim(key) is None
    nest.wait(10)


def test_what_was_to_be_made_small_is_made_small_afterwards(
    start_kernel: Callable[..., Kernel],
) -> None:
    kernel = start_kernel("--CRKernel.memory=1G")  # which has no golden root: 20 MB a checkpoint
    for x in range(4):
        kernel.ok(f"globalThis.x = {x}")
    restart(kernel)

    def size() -> float:
        time.sleep(1)  # to ask is to disturb
        (number,) = re.findall(r"([\d.]+) MB", kernel.row("r1.4"))
        return float(number)

    assert eventually(lambda: size() < 5, 20)
    kernel.rewind("r1.4")
    assert kernel.value("x") == 3


def test_a_checkpoint_under_way_is_finished_first(fresh_kernel: Kernel) -> None:
    kernel = fresh_kernel
    kernel.ok("globalThis.big = new Float64Array(100 << 17).map(Math.random); 0")
    restart(kernel)
    kernel.rewind("r1.1")
    assert kernel.value("big.length") == 100 << 17


def test_a_restart_in_an_endless_loop(fresh_kernel: Kernel) -> None:
    kernel = fresh_kernel
    kernel.ok("globalThis.x = 1")
    kernel.submit("while (true) {}")
    restart(kernel)
    kernel.ok("%rewind r1.1")
    assert kernel.value("x") == 1


def test_who_has_the_name_of_a_nest_but_is_another_user_hears_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Anybody can see the name of one, and take it."""
    with linger.listen(linger.address(b"secret")) as listener:
        other = os.geteuid() + 1
        with monkeypatch.context() as patch:
            patch.setattr(os, "geteuid", lambda: other)
            assert linger.claim(b"secret") is None
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(100) == b""


def test_who_does_not_know_the_secret_gets_nothing() -> None:
    listener = linger.listen(linger.address(b"secret"))
    try:
        heirs = []
        thread = threading.Thread(
            target=lambda: heirs.append(linger.await_heir(listener, linger.token(b"secret")))
        )
        thread.start()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
            stranger.connect(linger.address(b"secret"))
            stranger.send(linger.token(b"guess"))
            assert stranger.recv(10) == b""  # shown the door
        right = linger.claim(b"secret")
        assert right is not None
        thread.join(10)
        assert heirs[0] is not None
        heirs[0].close()
        right.close()
    finally:
        listener.close()
