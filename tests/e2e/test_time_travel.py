"""Ways back and forth against a real kernel, and that nothing is lost on them."""

from __future__ import annotations

import pytest
from driver import Kernel

pytestmark = pytest.mark.e2e


# -- references --------------------------------------------------------------------------------


def test_by_id(kernel: Kernel, steps: list[int]) -> None:
    for step, count in [(0, steps[0]), (2, steps[2]), (1, steps[1])]:
        shown = kernel.ok(f"%rewind {count}").shown
        assert f"checkpoint {count}" in shown
        assert f"x = {step + 1}" in shown
        assert kernel.value("x") == step + 1


def test_by_label(kernel: Kernel, steps: list[int]) -> None:
    kernel.ok(f"%rewind {steps[1]}")
    assert "second" in kernel.ok("%checkpoint second").shown
    kernel.ok("x = 50")
    kernel.rewind("second")
    assert kernel.value("x") == 2
    kernel.ok("x = 60")
    kernel.ok("%checkpoint second")
    kernel.rewind(steps[0])
    kernel.rewind("second")
    assert kernel.value("x") == 60, "the label has moved"
    assert "second" in kernel.ok("%timeline").shown


@pytest.mark.usefixtures("steps")
def test_by_distance(kernel: Kernel) -> None:
    kernel.rewind("-2")
    assert kernel.value("x") == 1


def test_head_is_where_the_last_cell_ended(kernel: Kernel, steps: list[int]) -> None:
    kernel.rewind(steps[1])
    kernel.rewind("head")
    assert kernel.value("x") == 2


def test_before(kernel: Kernel, steps: list[int]) -> None:
    kernel.rewind(f"before {steps[1]}")
    assert kernel.value("x") == 1
    kernel.rewind(f"before before {steps[2]}")
    assert kernel.value("x") == 1


def test_root_can_be_reached_and_left(fresh_kernel: Kernel) -> None:
    fresh_kernel.ok("globalThis.y = 1")
    fresh_kernel.rewind("root")
    assert fresh_kernel.ok("typeof y").text == "'undefined'"
    fresh_kernel.rewind("1")
    assert fresh_kernel.value("y") == 1
    fresh_kernel.rewind("0")
    assert fresh_kernel.ok("typeof y").text == "'undefined'"


def test_magics_and_code_in_one_cell(kernel: Kernel, steps: list[int]) -> None:
    result = kernel.ok(f"// go back, then on\n%rewind {steps[0]}\n%checkpoint begin\n\nx += 10; x")
    assert result.text == "11"
    kernel.rewind("begin")
    assert kernel.value("x") == 1


# -- undo and redo -----------------------------------------------------------------------------


@pytest.mark.usefixtures("steps")
def test_undo_and_redo(kernel: Kernel) -> None:
    kernel.ok("%undo")
    assert kernel.ok("%status").status == "ok"
    kernel.ok("%redo")
    assert kernel.ok("x").text == "3"
    kernel.ok("%undo 3")  # the cell above and two of the steps
    assert kernel.ok("%redo 1").shown
    assert kernel.value("x") == 2


def test_undo_shows_where_it_went(kernel: Kernel, steps: list[int]) -> None:
    assert f"checkpoint {steps[0]}: globalThis.x = 1" in kernel.ok("%undo 2").shown
    assert f"checkpoint {steps[1]}" in kernel.ok("%redo").shown
    assert f"checkpoint {steps[2]}" in kernel.ok("%redo").shown
    assert kernel.value("x") == 3


def test_nothing_to_redo_or_undo(fresh_kernel: Kernel) -> None:
    fresh_kernel.ok("globalThis.z = 1")
    assert fresh_kernel.fails("%redo").reply["ename"] == "UserError"
    assert fresh_kernel.fails("%undo 99").reply["ename"] == "UserError"
    assert fresh_kernel.value("z") == 1


def test_branch_and_return(kernel: Kernel, steps: list[int]) -> None:
    kernel.rewind(steps[1])
    branch = kernel.ok("x *= 100; x")
    assert branch.text == "200"
    kernel.rewind(steps[2])
    assert kernel.value("x") == 3
    kernel.rewind(branch.count)
    assert kernel.value("x") == 200


# -- rerun -------------------------------------------------------------------------------------


def test_rerun_runs_the_rest_of_the_path_again(kernel: Kernel) -> None:
    first = kernel.ok("globalThis.runs = [1]; runs.length").count
    second = kernel.ok("runs.push(2); console.log('pushed', 2); runs.length").count
    kernel.ok("runs.push(3); runs.length")
    result = kernel.ok(f"%rerun {second}")
    headings = [text for text in result.shown.splitlines() if text.startswith("In [")]
    assert headings == [
        f"In [{result.count - 1}] ← {second}: runs.push(2); console.log('pushed', 2); runs.length",
        f"In [{result.count}] ← {second + 1}: runs.push(3); runs.length",
    ]
    assert result.stdout == "pushed 2\n"
    assert [data["text/plain"] for data in result.results] == ["2", "3"]
    assert kernel.value("runs") == [1, 2, 3]
    kernel.rewind(second + 1)
    assert kernel.value("runs") == [1, 2, 3], "the first run's states stay"
    kernel.rewind(first)
    assert kernel.value("runs") == [1]


def test_rerun_a_range(kernel: Kernel) -> None:
    a, b, c = [kernel.ok(f"globalThis.log ??= []; log.push('{n}')").count for n in "abc"]
    kernel.ok(f"%rerun {a}..{b}")
    assert kernel.value("log") == ["a", "b"]
    assert kernel.fails(f"%rerun {c}..{a}").reply["ename"] == "UserError"


def test_rerun_with_another_body(kernel: Kernel) -> None:
    start = kernel.ok("globalThis.base = 1").count
    kernel.ok("globalThis.double = base * 2; double")
    result = kernel.ok(f"%%rerun {start}\n// changed\nglobalThis.base = 21")
    assert [data["text/plain"] for data in result.results][-1] == "42"
    assert f"In [{result.count - 1}] ← {start}: // changed\n" in result.shown
    kernel.ok(f"%recall {result.count - 1}")
    recalled = kernel.ok(f"%recall {result.count - 1}").reply["payload"][0]["text"]
    assert recalled == "// changed\nglobalThis.base = 21", "the branch records what really ran"


def test_a_body_with_other_magics_is_refused_before_anything_is_done(kernel: Kernel) -> None:
    start = kernel.ok("globalThis.base = 1").count
    kernel.ok("base = 2")
    result = kernel.fails(f"%%rerun {start}\n%time globalThis.base = 21")
    assert result.error == "BadMagic: %%rerun runs code, or one %npm, not %time"
    assert kernel.value("base") == 2


def test_rerun_stops_at_the_first_error(kernel: Kernel) -> None:
    start = kernel.ok("globalThis.flag = 'good'").count
    kernel.ok("if (flag !== 'good') throw new Error('flag is bad')")
    kernel.ok("globalThis.reached = flag")
    result = kernel.fails(f"%%rerun {start}\nglobalThis.flag = 'bad'")
    assert result.error == "Error: flag is bad"
    assert len([t for t in result.shown.splitlines() if t.startswith("In [")]) == 2
    assert kernel.value("[flag, typeof reached]") == ["bad", "undefined"]


# -- files go back -----------------------------------------------------------------------------

LIST = """
const fs = require('node:fs'), path = require('node:path')
function list(folder = '/home/work') {
  const found = {}
  for (const name of fs.readdirSync(folder).sort()) {
    const file = path.join(folder, name), s = fs.lstatSync(file)
    const kind = s.isDirectory() ? 'd' : s.isSymbolicLink() ? 'l' : 'f'
    const text = () => fs.readFileSync(file, 'utf8')
    const read = { d: () => '', f: text, l: () => fs.readlinkSync(file) }
    const changed = kind === 'd' ? 0 : s.mtimeMs
    found[file] = [kind, (s.mode & 0o7777).toString(8), s.nlink, changed, read[kind]()]
    if (kind === 'd') Object.assign(found, list(file))
  }
  return found
}
"""


def test_files_go_back_and_forth(kernel: Kernel) -> None:
    kernel.ok(LIST)
    first = kernel.ok(
        "fs.mkdirSync('a/b/c', { recursive: true }); fs.writeFileSync('a/one', '1');"
        "fs.writeFileSync('a/b/two', 'two'); fs.symlinkSync('../one', 'a/b/link');"
        "fs.linkSync('a/one', 'a/same'); fs.chmodSync('a/one', 0o640);"
        "fs.chmodSync('a/b/c', 0o700);"
        "fs.utimesSync('a/one', 1e9, 1e9); fs.writeFileSync('a/ü 😀', 'n'); list()"
    ).count
    before = kernel.value("list()")
    second = kernel.ok(
        "fs.rmSync('a/b/c', { recursive: true }); fs.appendFileSync('a/one', '+'); fs.unlinkSync("
        "'a/b/link'); fs.symlinkSync('nowhere', 'a/b/link'); fs.renameSync('a/b/two', 'a/moved');"
        "fs.writeFileSync('a/b/c', 'a file now'); fs.writeFileSync('new', '');"
        "fs.chmodSync('a/one', 0o755);"
        "fs.rmSync('a/ü 😀')"
    ).count
    after = kernel.value("list()")
    assert after != before
    kernel.rewind(first)
    assert kernel.value("list()") == before
    assert kernel.value("fs.statSync('a/one').ino === fs.statSync('a/same').ino")
    kernel.rewind(second)
    assert kernel.value("list()") == after


def test_tmp_goes_back_as_well(kernel: Kernel) -> None:
    at = kernel.ok(
        "require('fs').writeFileSync('/tmp/t', '1'); require('fs').mkdirSync('/dev/shm/s')"
    ).count
    kernel.ok("require('fs').rmSync('/tmp/t'); require('fs').rmdirSync('/dev/shm/s')")
    kernel.rewind(at)
    assert kernel.value("['/tmp/t', '/dev/shm/s'].map((f) => require('fs').existsSync(f))") == [
        True,
        True,
    ]


def test_a_program_changed_by_a_child_goes_back(kernel: Kernel) -> None:
    at = kernel.ok(
        "require('child_process').execSync('mkdir p; echo 1 > p/f; ln -s f p/l'); 0"
    ).count
    kernel.ok("require('child_process').execSync('rm -r p; touch q'); 0")
    kernel.rewind(at)
    assert (
        kernel.value("require('child_process').execSync('cat p/l; ls', {encoding:'utf8'})")
        == "1\np\n"
    )


# -- what the guest does by itself -------------------------------------------------------------


def test_what_timers_did_is_not_lost(kernel: Kernel) -> None:
    # The timer starts when the checkpoint has been taken, however long that takes.
    cell = kernel.ok(
        "globalThis.t = 'at first'; new Promise((resolve) => { globalThis.go = resolve })"
        ".then(() => setTimeout(() => { t = 'by itself' }, 1)); 0"
    )
    waits = "while (t === 'at first') await new Promise((r) => setTimeout(r, 5))"
    kernel.run(f"go(); {waits}", silent=True)  # makes no checkpoint
    kernel.ok("t = 'by the next cell'")
    shown = kernel.ok("%undo").shown
    assert f"checkpoint {cell.count}+1" in shown
    assert kernel.value("t") == "by itself"
    kernel.rewind(cell.count)
    assert kernel.value("t") == "at first"
    assert "by itself" in kernel.row(f"{cell.count}+1")


def test_a_rewind_keeps_what_timers_did(kernel: Kernel) -> None:
    before = kernel.ok("0").count
    cell = kernel.ok(
        "globalThis.u = 0; setTimeout(() => { u = 1; console.log('u ' + 'is set') }, 1500)"
    )
    kernel.messages_until(cell, "stream", "u is set")
    kernel.rewind(before)
    kernel.rewind(f"{cell.count}+1")
    assert kernel.value("u") == 1


def test_a_guest_at_rest_makes_no_extra_states(kernel: Kernel, steps: list[int]) -> None:
    kernel.ok("%undo")
    kernel.ok("%redo")
    assert "+1" not in "".join(kernel.row(count) for count in steps)
    shown = kernel.ok("%timeline").shown
    assert not any(f"{count}+1" in shown for count in steps), shown


def test_a_failed_cell_is_a_checkpoint(kernel: Kernel) -> None:
    failed = kernel.fails("globalThis.w = 'set before it failed'; throw new Error('oh')")
    kernel.ok("w = 'other'")
    kernel.rewind(failed.count)
    assert kernel.value("w") == "set before it failed"
    assert "!" in kernel.row(failed.count)


# -- many --------------------------------------------------------------------------------------


def test_cells_queued_behind_a_rewind_run_in_its_past(kernel: Kernel, steps: list[int]) -> None:
    queued = [kernel.submit(cell) for cell in (f"%rewind {steps[0]}", "x += 10; x", "%undo", "x")]
    results = [kernel.finish(cell) for cell in queued]
    assert [result.status for result in results] == ["ok"] * 4
    assert (results[1].text, results[3].text) == ("11", "1")


def test_a_hundred_rewinds_leave_two_sandboxes(kernel: Kernel, steps: list[int]) -> None:
    queued = [kernel.submit(f"%rewind {steps[n % 3]}") for n in range(30)]
    assert {kernel.finish(cell).status for cell in queued} == {"ok"}
    assert kernel.value("x") == 3
