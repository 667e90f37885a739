"""Jupyter's messaging protocol: the public suite, and what it leaves out."""

from __future__ import annotations

import json
import time
from typing import ClassVar

import driver
import jupyter_kernel_test as jkt
import pytest
from driver import Kernel, Result, kernel_name
from jupyter_client.jsonutil import json_default
from jupyter_client.kernelspec import get_kernel_spec

pytestmark = pytest.mark.e2e


class KernelTests(jkt.KernelTests):
    """The suite that Jupyter publishes, all of it."""

    kernel_name = driver.kernel_name()
    language_name = "javascript"
    file_extension = ".js"

    code_hello_world = "console.log('hello, world')"
    code_stderr = "console.error('test')"
    code_page_something = "%rewind?"
    code_generate_error = "throw new TypeError('bad')"
    code_execute_result: ClassVar = [
        {"code": "6 * 7", "result": "42"},
        {"code": "'a' + 'b'", "result": "'ab'"},
        {"code": "[1, 2, 3].map((x) => x * x)", "result": "[ 1, 4, 9 ]"},
        {"code": "await Promise.resolve(5)", "result": "5"},
        {"code": "({ a: 1 })", "result": "{ a: 1 }"},
        {"code": "const n: number = 3; n", "result": "3"},
        {
            "code": "({ [Symbol.for('Jupyter.display')]: () => ({ 'text/html': '<b>x</b>' }) })",
            "mime": "text/html",
            "result": "<b>x</b>",
        },
    ]
    code_display_data: ClassVar = [
        {"code": "display('hi')", "mime": "text/plain"},
        {"code": "display('<b>hi</b>', { mime: 'text/html' })", "mime": "text/html"},
        {
            "code": "display({ [Symbol.for('Jupyter.display')]() {"
            " return { 'image/svg+xml': '<svg/>' } } })",
            "mime": "image/svg+xml",
        },
        {"code": "%timeline", "mime": "text/html"},
    ]
    code_history_pattern = "6 [*] 7"
    supported_history_operations = ("tail", "range", "search")
    code_inspect_sample = "Math.max"
    code_clear_output = "clearOutput()"
    completion_samples: ClassVar = [
        {"text": "Math.atan", "matches": ["atan", "atan2", "atanh"]},
        {"text": "console.lo", "matches": ["log"]},
        {"text": "encodeURIC", "matches": ["encodeURIComponent"]},
        {"text": "%rew", "matches": ["%rewind"]},
        {"text": "thereisnosuchname"},
    ]
    complete_code_samples: ClassVar = [
        "1",
        "let x = 1",
        "function f() { return 1 }",
        "await Promise.resolve(1)",
        "import fs from 'node:fs'",
        "const n: number = 1",
        "%timeline",
        "%rewnd",
    ]
    incomplete_code_samples: ClassVar = [
        "function f() {",
        "[1, 2,",
        "foo(",
        "`open",
        "/* open",
        "%%rerun 1",
    ]
    invalid_code_samples: ClassVar = ["let = = 3", "}", "foo bar", "1 +* 2"]


class IopubWelcomeTests(jkt.IopubWelcomeTests):
    """Subscribers are greeted, so that they miss nothing that follows."""

    kernel_name = driver.kernel_name()
    support_iopub_welcome = True


# -- what the kernel says of itself ------------------------------------------------------------


def test_kernel_info_advertises_only_what_there_is(kernel: Kernel) -> None:
    kernel.ok("0")  # from then on it knows the guest's version
    kernel.client.kernel_info()
    info = kernel.client.get_shell_msg(timeout=10)["content"]
    assert info["status"] == "ok"
    assert info["implementation"] == "crkernel"
    assert info["protocol_version"].startswith("5.")
    assert info["language_info"]["mimetype"] == "text/javascript"
    assert info["language_info"]["version"].startswith("24.")
    assert not info.get("debugger")
    assert not {"debugger", "kernel subshells"} & set(info.get("supported_features", []))


def test_the_kernelspec_interrupts_by_message() -> None:
    spec = get_kernel_spec(kernel_name())
    assert spec.interrupt_mode == "message"
    assert spec.language == "javascript"


def test_subshells_and_the_debugger_are_refused(kernel: Kernel) -> None:
    assert kernel.control("create_subshell_request")["status"] == "error"
    assert kernel.value("1 + 1") == 2


def test_usage_is_told(kernel: Kernel) -> None:
    """What JupyterLab's kernel usage panel asks for."""
    usage = kernel.control("usage_request", timeout=10)
    assert usage["kernel_memory"] > 0
    assert usage["pid"] == kernel.pid


def test_the_heart_beats_while_a_cell_spins(kernel: Kernel) -> None:
    channel = kernel.client.hb_channel
    channel.unpause()
    running = kernel.submit("console.log('begun'); while (true) {}")
    kernel.messages_until(running, "stream", "begun")
    deadline = time.monotonic() + 10
    while not channel.is_beating() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert channel.is_beating()
    kernel.interrupt()
    assert kernel.finish(running).status == "error"


def test_completion_and_inspection_answer_while_a_cell_awaits(kernel: Kernel) -> None:
    """They come on the shell channel, which the cell holds; they must work right after it."""
    kernel.ok("const answer = { deep: { thought: 42 } }")
    kernel.client.inspect("answer.deep", 11)
    content = kernel.client.get_shell_msg(timeout=10)["content"]
    assert content["found"]
    assert "thought" in content["data"]["text/plain"]


@pytest.mark.parametrize(("before", "name"), [("'😀'; ", "zählt"), ("'𝒳𝒴𝒵é'; ", "straße")])
def test_cursor_positions_count_code_points(kernel: Kernel, before: str, name: str) -> None:
    kernel.ok(f"const {name} = {{ first: 1, second: 2 }}")
    code = f"{before}{name}.fir + 1"
    cursor = len(f"{before}{name}.fir")
    kernel.client.complete(code, cursor)
    content = kernel.client.get_shell_msg(timeout=10)["content"]
    assert content["matches"] == ["first"]
    assert (content["cursor_start"], content["cursor_end"]) == (cursor - 3, cursor)
    kernel.client.inspect(code, len(before) + 2)
    content = kernel.client.get_shell_msg(timeout=10)["content"]
    assert content["found"], content
    assert "second" in content["data"]["text/plain"]


def test_text_of_all_kinds_arrives_whole(kernel: Kernel) -> None:
    result = kernel.ok("console.log('zß水🍌\\u0000\\ud83d'); '🍌'")
    assert result.stdout.startswith("zß水🍌\0")
    assert result.text == "'🍌'"
    assert len(kernel.ok("console.log('🍌'.repeat(400000))").stdout) == 400_001


# -- execute -----------------------------------------------------------------------------------


def test_the_order_of_messages_and_their_parents(kernel: Kernel) -> None:
    message = kernel.client.execute("console.log('a'); display('b'); console.error('c'); 'd'")
    kinds: list[str] = []
    while True:
        got = kernel.client.get_iopub_msg(timeout=10)
        if got["parent_header"].get("msg_id") != message:
            continue
        content = got["content"]
        kinds.append(content.get("execution_state") or content.get("name") or got["msg_type"])
        if kinds[-1] == "idle":
            break
    assert kinds == [
        "busy",
        "execute_input",
        "stdout",
        "display_data",
        "stderr",
        "execute_result",
        "idle",
    ]
    reply = kernel.client.get_shell_msg(timeout=10)
    assert reply["parent_header"]["msg_id"] == message
    assert reply["content"]["status"] == "ok"


def test_output_keeps_its_order_with_that_of_children(kernel: Kernel) -> None:
    result = kernel.ok(
        "console.log(1); require('child_process').execSync('echo 2', { stdio: 'inherit' });"
        "console.log(3); process.stdout.write('4\\n')"
    )
    assert result.stdout == "1\n2\n3\n4\n"


def test_late_output_belongs_to_its_cell(kernel: Kernel) -> None:
    result = kernel.ok("setTimeout(() => console.log('lat' + 'er'), 300); 'now'")
    assert "later" not in result.stdout
    kernel.messages_until(result, "stream", "later")


def test_errors_in_callbacks_are_told_and_survived(kernel: Kernel) -> None:
    kernel.ok("let kept = 1")
    result = kernel.ok("setTimeout(() => { throw new RangeError('from a timer') }, 50); 0")
    kernel.messages_until(result, "stream", "from a timer")
    assert "RangeError" in result.stderr
    result = kernel.ok("Promise.reject(new Error('nobody ' + 'waits')); 0")
    kernel.messages_until(result, "stream", "nobody waits")
    assert kernel.value("kept") == 1


def test_an_error_shows_the_users_frames_only(kernel: Kernel) -> None:
    kernel.ok("function inner() {\n  throw new TypeError('deep')\n}")
    defined = kernel.ok("0").count - 1
    result = kernel.fails("\ninner()")
    assert result.error == "TypeError: deep"
    assert f"cell {defined}:2:9" in result.traceback
    assert f"cell {result.count}:2:1" in result.traceback
    assert "node:" not in result.traceback
    assert "/guest/" not in result.traceback
    assert result.errors == [
        {key: result.reply[key] for key in ("ename", "evalue", "traceback")},
    ]


def test_silent_shows_nothing_and_takes_no_count(kernel: Kernel) -> None:
    count = kernel.ok("let quiet = 1").count
    result = kernel.run("console.log('x'); quiet = 2; quiet", silent=True)
    assert result.status == "ok"
    assert result.messages == []
    assert result.reply["execution_count"] == count
    after = kernel.ok("quiet")
    assert (after.count, after.text) == (count + 1, "2")
    kernel.rewind(after.count)
    assert kernel.value("quiet") == 2


def test_silent_errors_are_in_the_reply_alone(kernel: Kernel) -> None:
    result = kernel.run("throw new Error('hush')", silent=True)
    assert result.error == "Error: hush"
    assert result.messages == []


def test_a_cell_that_is_not_stored_still_runs_and_can_be_returned_to(kernel: Kernel) -> None:
    kernel.ok("let step = 0")
    first = kernel.run("step = 1; step", store_history=False)
    assert first.text == "1"
    second = kernel.run("step = 2; step", store_history=False)
    assert second.text == "2"
    kernel.ok("step = 3")
    kernel.ok("%undo")
    assert kernel.value("step") == 2


def test_user_expressions(kernel: Kernel) -> None:
    result = kernel.run("let u = 20", user_expressions={"twice": "u * 2", "bad": "nowhere.x"})
    found = result.reply["user_expressions"]
    assert found["twice"]["status"] == "ok"
    assert found["twice"]["data"]["text/plain"] == "40"
    assert found["bad"]["status"] == "error"
    assert found["bad"]["ename"] == "ReferenceError"
    assert result.messages[1:] == []


def test_user_expressions_of_a_cell_of_magics_alone(kernel: Kernel) -> None:
    kernel.ok("let u = 20")
    for cell in ("%who", "%time u + 1"):
        result = kernel.run(cell, user_expressions={"twice": "u * 2"})
        assert result.reply["user_expressions"]["twice"]["data"]["text/plain"] == "40"


def _in_ascii(message: object) -> bytes:
    return json.dumps(message, default=json_default).encode()


def test_a_request_that_cannot_be_answered_is_answered(kernel: Kernel) -> None:
    """JavaScript has texts that UTF-8 has no bytes for, and a front end sends them as JSON does."""
    session = kernel.client.session
    first = kernel.submit(
        "await new Promise((go) => { comm.target('go', go); console.log('asks') })"
    )
    kernel.messages_until(first, "stream", "asks")
    pack, session.pack = session.pack, _in_ascii
    try:
        failing = kernel.submit("'\ud800'")
        queued = kernel.submit("1")
    finally:
        session.pack = pack
    go = session.msg("comm_open", {"comm_id": "go", "target_name": "go", "data": {}})
    session.send(kernel.client.shell_channel.socket, go)  # read behind both
    assert kernel.finish(first).status == "ok"
    assert "surrogates not allowed" in kernel.finish(failing).error
    assert failing.errors[0]["evalue"] == failing.reply["evalue"]
    assert kernel.finish(queued).status == "aborted"
    assert kernel.value("1 + 1") == 2


def test_stop_on_error_aborts_what_is_queued(kernel: Kernel) -> None:
    kernel.ok("let ran = false")
    failing = kernel.submit("await new Promise((r) => setTimeout(r, 300)); throw new Error('stop')")
    queued = [kernel.submit("ran = true"), kernel.submit("%undo")]
    assert kernel.finish(failing).status == "error"
    assert [kernel.finish(cell).status for cell in queued] == ["aborted", "aborted"]
    assert kernel.value("ran") is False


def test_without_stop_on_error_the_queue_goes_on(kernel: Kernel) -> None:
    kernel.ok("let ran = false")
    failing = kernel.submit("throw new Error('go on')", stop_on_error=False)
    queued = kernel.submit("ran = true")
    assert kernel.finish(failing).status == "error"
    assert kernel.finish(queued).status == "ok"
    assert kernel.value("ran") is True


def test_empty_cells_are_fine(kernel: Kernel) -> None:
    for code in ("", "  \n", "// a comment"):
        assert kernel.ok(code).results == []


def test_update_display_and_clear_output(kernel: Kernel) -> None:
    result = kernel.ok(
        "display('one', { display_id: 'd' }); display('two', { display_id: 'd', update: true });"
        "clearOutput(true)"
    )
    (shown,) = result.contents("display_data")
    (updated,) = result.contents("update_display_data")
    assert shown["transient"] == updated["transient"] == {"display_id": "d"}
    assert updated["data"]["text/plain"] == "two"
    assert result.contents("clear_output") == [{"wait": True}]


# -- interrupt ---------------------------------------------------------------------------------


def _interrupted(kernel: Kernel, code: str) -> tuple[Result, float]:
    """Interrupt a cell that has said 'begun'; seconds from the request until idle."""
    running = kernel.submit(f"console.log('begun'); {code}")
    kernel.messages_until(running, "stream", "begun")
    time.sleep(0.05)
    began = time.monotonic()
    assert kernel.interrupt()["status"] == "ok"
    return kernel.finish(running), time.monotonic() - began


@pytest.mark.alone
@pytest.mark.parametrize(
    "code",
    [
        "while (true) {}",
        "for (;;) { try { null.x } catch {} }",
        "await new Promise(() => {})",
        "await new Promise((r) => setTimeout(r, 1e6))",
        "(() => { function f() { for (;;) /(a+)+$/.test('aaaaaaaaaaaa!') } f() })()",
        "require('child_process').execSync('sleep 100')",
        "Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)",
    ],
)
def test_interrupt_is_quick_and_keeps_the_state(kernel: Kernel, code: str) -> None:
    kernel.ok("let state = [1, 2]; let ticks = 0; setInterval(() => ticks++, 10)")
    times = []
    for _ in range(3):  # the machine may be busy with something else just then
        result, seconds = _interrupted(kernel, code)
        assert result.status == "error"
        assert result.reply["ename"] in ("Interrupted", "Error"), result.error
        times.append(seconds)
        if seconds < 0.2:
            break
    assert min(times) < 0.2, times
    assert kernel.value("state") == [1, 2]
    seen = kernel.value("ticks")
    kernel.until(f"ticks > {seen + 2}")


def test_interrupt_reaches_a_cell_that_waits_for_the_checkpoint_before_it(kernel: Kernel) -> None:
    kernel.ok("let calm = 5")
    kernel.ok("const big = Buffer.alloc(600 << 20, 'x'); 0")  # its checkpoint takes a while
    running = kernel.submit("while (true) {}")
    kernel.take_until(lambda: running.contents("execute_input"))
    assert kernel.interrupt()["status"] == "ok"
    assert kernel.finish(running, 10).status == "error"
    assert kernel.value("calm") == 5


def test_interrupting_an_idle_kernel_does_nothing(kernel: Kernel) -> None:
    kernel.ok("let calm = 5")
    assert kernel.interrupt()["status"] == "ok"
    assert kernel.value("calm") == 5


def test_an_interrupted_cell_is_a_checkpoint(kernel: Kernel) -> None:
    result, _ = _interrupted(kernel, "globalThis.half = 1; await new Promise(() => {})")
    kernel.ok("half = 2")
    kernel.rewind(result.count)
    assert kernel.value("half") == 1


# -- shutdown and restart ----------------------------------------------------------------------


def test_shutdown_is_quick_and_quiet(start_kernel) -> None:  # type: ignore[no-untyped-def]
    kernel = start_kernel()
    kernel.ok("setInterval(() => {}, 5)")
    began = time.monotonic()
    assert kernel.control("shutdown_request", {"restart": False})["status"] == "ok"
    process = kernel.manager.provisioner.process
    assert process.wait(timeout=10) == 0
    assert time.monotonic() - began < 5
    log = kernel.log.read_text()
    assert "Traceback" not in log, log
    assert "ERROR" not in log, log


def test_restart_gives_a_fresh_guest(fresh_kernel: Kernel) -> None:
    fresh_kernel.ok("globalThis.before = 1")
    fresh_kernel.client.stop_channels()
    fresh_kernel.manager.restart_kernel()
    fresh_kernel.client = fresh_kernel.manager.blocking_client()
    fresh_kernel.client.start_channels()
    fresh_kernel.client.wait_for_ready(timeout=30)
    result = fresh_kernel.ok("typeof before")
    assert (result.count, result.text) == (1, "'undefined'")
