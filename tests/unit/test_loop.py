"""A loop that is looked at from outside says what the program itself would say of it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
from test_guest_js import find_node

from crkernel.guest import loop

PROGRAM = """
const { stdin, stdout } = process;
stdin.on('data', () => stdout.write(`${performance.nodeTiming.uvMetricsInfo.loopCount}\\n`));
stdout.write('ready\\n');
"""


@pytest.fixture
def program() -> Iterator[subprocess.Popen[bytes]]:
    command = [find_node(), "-e", PROGRAM]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process
        process.kill()


def _wait(watched: loop.Loop) -> None:
    for _ in range(10_000):
        if watched.waits():
            return
    raise AssertionError("it never came to wait")


def test_turns_are_those_that_libuv_counts(program: subprocess.Popen[bytes]) -> None:
    assert program.stdin
    assert program.stdout
    program.stdout.readline()
    address = loop.address_in(find_node())
    assert address is not None
    watched = loop.Loop(program.pid, address)
    _wait(watched)
    before = watched.turns()
    assert before is not None
    assert watched.turns() == before
    program.stdin.write(b"\n")
    program.stdin.flush()
    assert int(program.stdout.readline()) == before  # it was in this turn that it answered
    _wait(watched)
    after = watched.turns()
    assert after is not None
    assert after > before


def test_one_that_does_not_wait_is_seen() -> None:
    command = [find_node(), "-e", "console.log(1); for (;;);"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        address = loop.address_in(find_node())
        assert address is not None
        watched = loop.Loop(process.pid, address)
        assert not watched.waits()
        process.kill()
    assert not watched.waits()
    assert watched.turns() is None


def test_a_program_without_one_has_none() -> None:
    with subprocess.Popen(["/bin/sleep", "100"]) as process:
        assert loop.of(process.pid) is None
        process.kill()
    assert loop.of(process.pid) is None
