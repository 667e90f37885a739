"""Input: questions of a running cell, over the stdin channel that front ends use."""

from __future__ import annotations

import time
from queue import Empty
from typing import Any

import pytest
from driver import Kernel, Result

pytestmark = pytest.mark.e2e

ASKING = ["await input('name? ')", "prompt('name?')"]


def asked(kernel: Kernel, cell: Result) -> dict[str, Any]:
    """The next input_request, which must answer the request of `cell`."""
    message = kernel.client.get_stdin_msg(timeout=20)
    assert message["msg_type"] == "input_request"
    assert message["parent_header"]["msg_id"] == cell.id
    content: dict[str, Any] = message["content"]
    return content


def answered(kernel: Kernel, code: str, *answers: str) -> Result:
    """Run a cell that asks as often as there are answers."""
    cell = kernel.submit(code)
    for answer in answers:
        asked(kernel, cell)
        kernel.client.input(answer)
    return kernel.finish(cell)


def nobody_is_asked(kernel: Kernel) -> None:
    with pytest.raises(Empty):
        kernel.client.get_stdin_msg(timeout=0.3)


def test_input_is_asynchronous(kernel: Kernel) -> None:
    cell = kernel.submit(
        "let ticks = 0; const timer = setInterval(() => ticks++, 5);"
        " const name = await input('name? '); clearInterval(timer); [name, ticks > 5]"
    )
    assert asked(kernel, cell) == {"prompt": "name? ", "password": False}
    time.sleep(0.2)
    kernel.client.input("Zoë 🍌")
    assert kernel.finish(cell).text == "[ 'Zoë 🍌', true ]"


def test_password(kernel: Kernel) -> None:
    cell = kernel.submit("(await input.password('token: ')).length")
    assert asked(kernel, cell) == {"prompt": "token: ", "password": True}
    kernel.client.input("secret")
    assert kernel.finish(cell).text == "6"


def test_prompt_blocks(kernel: Kernel) -> None:
    cell = kernel.submit("setTimeout(() => console.log('tick')); console.log(prompt('n?')); 'end'")
    assert asked(kernel, cell) == {"prompt": "n? ", "password": False}
    time.sleep(0.1)
    kernel.client.input("7")
    kernel.finish(cell)
    kernel.messages_until(cell, "stream", "tick")
    assert cell.stdout == "7\ntick\n"


@pytest.mark.parametrize(
    ("code", "answer", "result"),
    [
        ("prompt('n?', 'none')", "", "'none'"),
        ("prompt('n?', 'none')", "x", "'x'"),
        ("prompt('n?')", "", "''"),
        ("prompt('n?')", "\x04", "null"),
        ("await input()", "\x04", "null"),
        ("confirm('sure?')", " Yes ", "true"),
        ("confirm('sure?')", "y", "true"),
        ("confirm('sure?')", "no", "false"),
        ("confirm('sure?')", "\x04", "false"),
        ("alert('look'); 1", "", "1"),
    ],
)
def test_answers(kernel: Kernel, code: str, answer: str, result: str) -> None:
    assert answered(kernel, code, answer).text == result


def test_questions_are_asked_one_after_the_other(kernel: Kernel) -> None:
    cell = kernel.submit("await Promise.all([input('a'), input('b'), input('c')])")
    for name in "abc":
        assert asked(kernel, cell)["prompt"] == name
        nobody_is_asked(kernel)
        kernel.client.input(name.upper())
    assert kernel.finish(cell).text == "[ 'A', 'B', 'C' ]"


def test_a_blocking_question_while_another_waits(kernel: Kernel) -> None:
    result = answered(kernel, "const p = input('first'); [prompt('second'), await p]", "1", "2")
    assert result.text == "[ '2', '1' ]"


def test_output_comes_before_the_question(kernel: Kernel) -> None:
    cell = kernel.submit("console.log('before'); await input()")
    kernel.client.get_stdin_msg(timeout=20)
    kernel.messages_until(cell, "stream", "before", timeout=1)
    kernel.client.input("x")
    kernel.finish(cell)


# -- process.stdin -----------------------------------------------------------------------------


def test_readline_question(kernel: Kernel) -> None:
    result = answered(
        kernel,
        "import { createInterface } from 'node:readline/promises';"
        " const rl = createInterface({ input: process.stdin, output: process.stdout });"
        " const first = await rl.question('first? '); const second = await rl.question('second? ');"
        " rl.close(); [first, second]",
        "1",
        "2",
    )
    assert result.text == "[ '1', '2' ]"
    assert result.stdout == "first? second? "
    nobody_is_asked(kernel)


def test_readline_with_a_callback_in_a_later_cell(kernel: Kernel) -> None:
    kernel.ok("const rl = require('readline').createInterface({ input: process.stdin })")
    nobody_is_asked(kernel)
    code = "await new Promise((answer) => rl.question('', answer))"
    assert answered(kernel, code, "late").text == "'late'"
    assert kernel.ok("rl.close(); 0").text == "0"


def test_lines_until_the_end_of_input(kernel: Kernel) -> None:
    code = (
        "const rl = require('readline').createInterface({ input: process.stdin });"
        " const lines = []; for await (const line of rl) lines.push(line); lines"
    )
    assert answered(kernel, code, "a", "b", "\x04").text == "[ 'a', 'b' ]"
    assert answered(kernel, code, "c", "\x04").text == "[ 'c' ]"


def test_stdin_is_a_stream(kernel: Kernel) -> None:
    code = "for await (const chunk of process.stdin) { console.log([`${chunk}`]); break } 0"
    assert answered(kernel, code, "x").stdout == "[ 'x\\n' ]\n"
    code = "await new Promise((r) => process.stdin.once('data', (d) => r(d.toString())))"
    assert answered(kernel, f"const y = {code}; process.stdin.pause(); y", "y").text == "'y\\n'"
    kernel.ok("await new Promise((r) => setTimeout(r, 100))")
    nobody_is_asked(kernel)


# -- where nobody can be asked -----------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        *ASKING,
        "await input.password('x')",
        "confirm('x')",
        "const rl = require('readline').createInterface({ input: process.stdin });"
        " await new Promise((r) => rl.question('x', r))",
        "for await (const line of process.stdin) { }",
    ],
)
def test_a_front_end_without_stdin(kernel: Kernel, code: str) -> None:
    kernel.ok("let kept = 1")
    result = kernel.run(code, allow_stdin=False)
    assert result.error.startswith("StdinNotImplementedError: this front end allows no input: ")
    assert "front end" in result.traceback
    assert "/guest/" not in result.traceback
    assert kernel.value("kept") == 1


@pytest.mark.parametrize(
    "read",
    [
        "for await (const line of require('readline').createInterface({ input: process.stdin }))"
        " { got = line; break }",
        "const rl = require('readline/promises').createInterface({ input: process.stdin });"
        " got = await rl.question(''); rl.close()",
        "import { stdin } from 'node:process';"
        " import { createInterface } from 'node:readline/promises';"
        " const rl = createInterface({ input: stdin }); got = await rl.question(''); rl.close()",
        "await new Promise((r) => process.stdin.resume().once('data', r)).then((d) => {"
        " got = `${d}`.trim() }); process.stdin.pause()",
        "for await (const chunk of process.stdin) { got = `${chunk}`.trim(); break }",
    ],
)
def test_the_error_comes_each_time_and_leaves_stdin_of_use(kernel: Kernel, read: str) -> None:
    kernel.ok("let got = 'nothing'; let runs = 0")
    for _ in range(3):
        result = kernel.run(f"{read}; runs++", allow_stdin=False)
        assert result.error.startswith("StdinNotImplementedError: ")
    pause = "await new Promise((r) => setTimeout(r, 50))"
    assert kernel.run(pause, allow_stdin=False).status == "ok"
    kernel.ok(pause)
    nobody_is_asked(kernel)  # who was refused asks no more
    assert answered(kernel, f"{read}; runs++; [got, runs]", "a line").text == "[ 'a line', 1 ]"
    assert kernel.run(f"{read}; runs++", allow_stdin=False).error.startswith("StdinNot")


def test_the_error_can_be_caught(kernel: Kernel) -> None:
    code = "let n; try { n = prompt('n?') } catch (e) { n = e.name } n"
    assert kernel.run(code, allow_stdin=False).text == "'StdinNotImplementedError'"


def test_only_a_running_cell_may_ask(kernel: Kernel) -> None:
    result = kernel.ok(
        "setTimeout(() => { try { prompt('x') } catch (e) { console.log(`${e}`) } })"
    )
    kernel.messages_until(result, "stream", "InputError: no cell is running")
    result = kernel.ok("setTimeout(() => input('x').catch((e) => console.log(`${e}`))); 0")
    kernel.messages_until(result, "stream", "InputError: no cell is running")


def test_a_question_that_nobody_awaits_ends_with_its_cell(kernel: Kernel) -> None:
    result = kernel.ok("globalThis.p = input('x').catch((e) => e.message); 0")
    assert "await it" in kernel.value("p")
    kernel.client.get_stdin_msg(timeout=20)  # it was asked nevertheless
    kernel.client.input("too late")
    result = answered(kernel, "await input('y')", "right")
    assert result.text == "'right'"


# -- interrupts and rewinds --------------------------------------------------------------------


@pytest.mark.alone
@pytest.mark.parametrize("code", [*ASKING, "for await (const chunk of process.stdin) {}"])
def test_an_interrupt_ends_the_wait(kernel: Kernel, code: str) -> None:
    kernel.ok("let kept = 1; let caught = 0")
    times = []
    for _ in range(3):  # the machine may be busy with something else just then
        cell = kernel.submit(f"try {{ {code} }} finally {{ caught += 1 }}")
        asked(kernel, cell)
        began = time.monotonic()
        assert kernel.interrupt()["status"] == "ok"
        assert kernel.finish(cell).reply["ename"] == "Interrupted"
        times.append(time.monotonic() - began)
        if times[-1] < 0.2:
            break
    assert min(times) < 0.2, times
    kernel.client.input("for nobody")
    time.sleep(0.05)
    assert kernel.value("[kept, caught]") == [1, 0]
    assert answered(kernel, "await input()", "again").text == "'again'"


@pytest.mark.parametrize("code", ASKING)
def test_a_rewind_while_a_question_waits(kernel: Kernel, code: str) -> None:
    before = kernel.ok("let steps = 1").count
    waiting = kernel.submit(f"steps = 2; {code}")
    asked(kernel, waiting)
    kernel.interrupt()
    assert kernel.finish(waiting).status == "error"
    kernel.rewind(before)
    kernel.client.input("for nobody")
    assert kernel.value("steps") == 1
    assert answered(kernel, code, "new").text == "'new'"
    # and forward again, to the state in which the question was open
    kernel.rewind(waiting.count)
    assert kernel.value("steps") == 2
    assert answered(kernel, code, "newer").text == "'newer'"


def test_a_cell_that_asked_is_a_checkpoint(kernel: Kernel) -> None:
    first = answered(kernel, "let name = await input('name? ')", "Ada")
    answered(kernel, "name = prompt('name?')", "Bob")
    kernel.rewind(first.count)
    assert kernel.value("name") == "Ada"
    assert answered(kernel, "name = prompt('name?')", "Eve").text == "'Eve'"


def test_a_guest_that_dies_while_it_asks(kernel: Kernel) -> None:
    kernel.ok("let kept = 1")
    cell = kernel.submit("setTimeout(() => process.exit(3), 50); await input()")
    asked(kernel, cell)
    assert kernel.finish(cell).reply["ename"] == "GuestDied"
    kernel.client.input("for nobody")
    assert answered(kernel, "[kept, await input()]", "yes").text == "[ 1, 'yes' ]"
