"""Magics against a real kernel: every way back and forth, and that nothing is lost on it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
from driver import Kernel, Result

pytestmark = pytest.mark.e2e

Start = Callable[..., Kernel]


@pytest.fixture
def steps(kernel: Kernel) -> list[int]:
    """Three cells that make x 1, 2 and 3; the counts of them."""
    return [kernel.ok(f"globalThis.x = {n}").count for n in (1, 2, 3)]


def row(kernel: Kernel, key: object) -> str:
    """The line of a checkpoint in the timeline, of the newest if several lines show the key."""
    lines = kernel.ok("%timeline --all").shown.splitlines()
    found = [line for line in lines if re.search(rf"[○●] {re.escape(str(key))}(\s|$)", line)]
    assert found, "\n".join(lines)
    return found[-1]


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
    kernel.ok(f"%recall {result.count - 1}")
    recalled = kernel.ok(f"%recall {result.count - 1}").reply["payload"][0]["text"]
    assert recalled == "// changed\nglobalThis.base = 21", "the branch records what really ran"


def test_rerun_stops_at_the_first_error(kernel: Kernel) -> None:
    start = kernel.ok("globalThis.flag = 'good'").count
    kernel.ok("if (flag !== 'good') throw new Error('flag is bad')")
    kernel.ok("globalThis.reached = flag")
    result = kernel.fails(f"%%rerun {start}\nglobalThis.flag = 'bad'")
    assert result.error == "Error: flag is bad"
    assert len([t for t in result.shown.splitlines() if t.startswith("In [")]) == 2
    assert kernel.value("[flag, typeof reached]") == ["bad", "undefined"]


# -- labels, recall, help ----------------------------------------------------------------------


@pytest.mark.parametrize("label", ["7", "head", "a..b", "7up"])
def test_what_cannot_be_a_label(kernel: Kernel, label: str) -> None:
    assert kernel.fails(f"%checkpoint {label}").reply["ename"] == "BadMagic"


def test_recall_puts_the_code_into_the_next_cell(kernel: Kernel) -> None:
    code = "// of two lines\nglobalThis.r = '%undo'"
    count = kernel.ok(code).count
    assert kernel.ok(f"%recall {count}").reply["payload"] == [
        {"source": "set_next_input", "text": code, "replace": False}
    ]


def test_typos_are_understood(kernel: Kernel) -> None:
    result = kernel.fails("%rewnd 1")
    assert result.reply["ename"] == "BadMagic"
    assert "did you mean %rewind?" in result.reply["evalue"]
    assert "%lsmagic" in result.traceback


@pytest.mark.parametrize(
    "cell",
    ["%", "%%", "%rewind", "%undo x", "%undo 0", "%timeline --al", "%%timeline\n1", "%rerun 1.."],
)
def test_wrong_magics_are_explained_and_change_nothing(kernel: Kernel, cell: str) -> None:
    kernel.ok("globalThis.still = 'here'")
    result = kernel.fails(cell)
    assert result.reply["ename"] == "BadMagic"
    assert 1 <= len(result.reply["traceback"]) <= 2
    assert kernel.value("still") == "here"


def test_all_commands_are_checked_before_the_first_is_run(kernel: Kernel) -> None:
    kernel.ok("globalThis.v = 1")
    kernel.ok("v = 2")
    kernel.fails("%undo\n%rewnd 1")
    assert kernel.value("v") == 2


def test_help_goes_to_the_pager(kernel: Kernel) -> None:
    for cell in ("%rewind?", "?%rewind", "%help rewind"):
        (payload,) = kernel.ok(cell).reply["payload"]
        assert payload["source"] == "page"
        assert "before 5" in payload["data"]["text/plain"]
    assert "%timeline" in kernel.ok("%lsmagic").shown


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("let s1 = `\n%rewind 1\n`; s1", "'\\n%rewind 1\\n'"),
        ("'%undo'", "'%undo'"),
        ("/*\n%reset\n*/ 7 \n% 4", "3"),
        ("[`%timeline`, 9\n%\n5].join()", "'%timeline,4'"),
    ],
)
def test_percent_signs_of_javascript(kernel: Kernel, cell: str, expected: str) -> None:
    assert kernel.ok(cell).text == expected


# -- reset, config, status, timeline -----------------------------------------------------------


def test_reset_is_a_state_like_others(kernel: Kernel, steps: list[int]) -> None:
    kernel.ok("require('fs').writeFileSync('here', '')")
    reset = kernel.ok("%reset")
    assert f"checkpoint {reset.count}" in reset.shown
    assert kernel.value("[typeof x, require('fs').readdirSync('.')]") == ["undefined", []]
    kernel.rewind(steps[2])
    assert kernel.value("x") == 3
    kernel.rewind(reset.count)
    assert kernel.value("typeof x") == "undefined"


def test_config_shows_and_sets(kernel: Kernel) -> None:
    everything = kernel.ok("%config").shown
    for name in ("engine", "memory", "max_processes", "file_size", "disk_size", "staging_size"):
        assert re.search(rf"^{name}\s", everything, re.MULTILINE), everything
    kernel.ok("%config file_size = 64M")
    assert kernel.ok("%config file_size").shown.split() == ["file_size", "64M"]
    kernel.ok("%config file_size=4G")


@pytest.mark.parametrize(
    ("setting", "part"),
    [
        ("file_size = lots", "lots"),
        ("file_size = -1", "-1"),
        ("memory = 1M", "memory"),
        ("memry = 1G", "no setting memry"),
        ("engine = docker", "engine"),
    ],
)
def test_bad_settings_are_refused_with_the_reason(kernel: Kernel, setting: str, part: str) -> None:
    before = kernel.ok("%config").shown
    result = kernel.fails(f"%config {setting}")
    assert part in result.reply["evalue"]
    assert len(result.reply["traceback"]) <= 2, result.traceback
    assert kernel.ok("%config").shown == before


def test_settings_from_the_command_line(start_kernel: Start) -> None:
    kernel = start_kernel("--CRKernel.disk_size=100M", "--CRKernel.memory=1GiB")
    assert kernel.ok("%config disk_size").shown.split()[-1] == "100M"
    assert kernel.ok("%config memory").shown.split()[-1] == "1G"
    assert "100 MiB" in kernel.ok("%status").shown


def test_status_tells_what_there_is(kernel: Kernel, steps: list[int]) -> None:
    result = kernel.ok("%status")
    for part in ("local", "v24.", "staging", "last checkpoint", "last frozen", str(steps[2])):
        assert part in result.shown, result.shown
    assert "<table" in result.displays[0]["text/html"]


def test_the_timeline_as_text_and_html(kernel: Kernel, steps: list[int]) -> None:
    kernel.rewind(steps[0])
    kernel.ok("globalThis.x = '<b>'")
    kernel.ok("%checkpoint shown")
    (data,) = kernel.ok("%timeline").displays
    text, html = data["text/plain"], data["text/html"]
    (head,) = [line for line in text.splitlines() if line.startswith("→")]
    assert "shown" in head
    assert "globalThis.x = '<b>'" in head
    assert re.search(r"\d+ ms, \d+", head), "what it cost"
    assert "├─●" in text
    assert "&lt;b&gt;" in html
    assert "'<b>'" not in html


@pytest.mark.usefixtures("steps")
def test_magics_that_change_nothing_make_no_checkpoint(kernel: Kernel) -> None:
    before = kernel.ok("%timeline").shown.count("●")
    for cell in ("%lsmagic", "%status", "%config", "%help undo", "%recall -1"):
        kernel.ok(cell)
    assert kernel.ok("%timeline").shown.count("●") == before


# -- files go back -----------------------------------------------------------------------------

LIST = """
const fs = require('node:fs'), path = require('node:path')
function list(folder = '/home/work') {
  const found = {}
  for (const name of fs.readdirSync(folder).sort()) {
    const file = path.join(folder, name), s = fs.lstatSync(file)
    const kind = s.isDirectory() ? 'd' : s.isSymbolicLink() ? 'l' : 'f'
    const read = { d: () => '', f: () => fs.readFileSync(file, 'utf8'), l: () => fs.readlinkSync(file) }
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
    cell = kernel.ok("globalThis.t = 'at first'; setTimeout(() => { t = 'by itself' }, 400); 0")
    kernel.run("await new Promise((r) => setTimeout(r, 700))", silent=True)  # makes no checkpoint
    kernel.ok("t = 'by the next cell'")
    shown = kernel.ok("%undo").shown
    assert f"checkpoint {cell.count}+1" in shown
    assert kernel.value("t") == "by itself"
    kernel.rewind(cell.count)
    assert kernel.value("t") == "at first"
    assert "by itself" in row(kernel, f"{cell.count}+1")


def test_a_rewind_keeps_what_timers_did(kernel: Kernel) -> None:
    before = kernel.ok("0").count
    cell = kernel.ok(
        "globalThis.u = 0; setTimeout(() => { u = 1; console.log('u ' + 'is set') }, 300)"
    )
    kernel.messages_until(cell, "stream", "u is set")
    kernel.rewind(before)
    kernel.rewind(f"{cell.count}+1")
    assert kernel.value("u") == 1


def test_a_guest_at_rest_makes_no_extra_states(kernel: Kernel, steps: list[int]) -> None:
    kernel.ok("%undo")
    kernel.ok("%redo")
    assert "+1" not in "".join(row(kernel, count) for count in steps)
    shown = kernel.ok("%timeline").shown
    assert not any(f"{count}+1" in shown for count in steps), shown


def test_a_failed_cell_is_a_checkpoint(kernel: Kernel) -> None:
    failed = kernel.fails("globalThis.w = 'set before it failed'; throw new Error('oh')")
    kernel.ok("w = 'other'")
    kernel.rewind(failed.count)
    assert kernel.value("w") == "set before it failed"
    assert "!" in row(kernel, failed.count)


# -- the guest dies ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("process.exit()", "exited with code 0"),
        ("process.exit(3)", "exited with code 3"),
        ("process.exitCode = 9; process.reallyExit(9)", "exited with code 9"),
        ("process.abort()", "SIGABRT"),
        ("process.kill(process.pid, 'SIGKILL'); await new Promise(() => {})", "SIGKILL"),
        ("process.kill(process.pid, 'SIGSEGV'); await new Promise(() => {})", "SIGSEGV"),
        ("setTimeout(() => process.exit(4), 50); await new Promise(() => {})", "code 4"),
    ],
)
def test_the_guest_may_die(kernel: Kernel, code: str, how: str) -> None:
    state = kernel.ok("globalThis.alive = 1; require('fs').writeFileSync('f', 'before'); 0")
    result = kernel.fails(f"alive = 2; require('fs').writeFileSync('f', 'in'); {code}")
    assert result.reply["ename"] == "GuestDied"
    assert how in result.reply["evalue"]
    assert f"checkpoint {state.count}) is restored" in result.reply["evalue"]
    assert "debugger" not in result.stderr, result.stderr
    assert kernel.value("[alive, require('fs').readFileSync('f', 'utf8')]") == [1, "before"]
    assert "✗" in row(kernel, result.count)
    assert kernel.fails(f"%rewind {result.count}").reply["ename"] == "NotRestorable"
    assert kernel.value("alive") == 1


def test_output_before_death_is_shown(kernel: Kernel) -> None:
    result = kernel.fails("console.log('last words'); process.exit(1)")
    assert result.stdout == "last words\n"


def test_the_guest_runs_out_of_memory(start_kernel: Start) -> None:
    kernel = start_kernel("--CRKernel.memory=300M")
    kernel.ok("globalThis.alive = 1")
    result = kernel.fails(
        "const hoard = []; for (;;) hoard.push(new Array(1000).fill(hoard.length))"
    )
    assert result.reply["ename"] == "GuestDied"
    assert "ran out of memory (limit memory = 300 MiB" in result.reply["evalue"]
    assert kernel.value("alive") == 1


def test_the_guest_dies_between_cells(kernel: Kernel) -> None:
    kernel.ok("globalThis.left = 'all right'; const child = require('child_process')")
    cell = kernel.ok("child.spawn('sh', ['-c', 'sleep 0.4; kill -9 $PPID']); 0")
    kernel.messages_until(cell, "stream", "between cells the guest was ended by SIGKILL")
    assert kernel.ok("left").text == "'all right'"


def test_a_deadly_timer_does_not_kill_for_ever(kernel: Kernel) -> None:
    """It is part of the state that comes back and strikes again: then it must be left behind."""
    before = kernel.ok("globalThis.left = 'all right'").count
    cell = kernel.ok("setTimeout(() => process.exit(5), 150); 0")
    kernel.messages_until(cell, "stream", "between cells the guest exited with code 5")
    kernel.messages_until(cell, "stream", f"checkpoint {before}) is restored")
    deaths = cell.stderr.count("exited with code 5")
    assert deaths <= 3, cell.stderr
    assert kernel.ok("left").text == "'all right'"
    quiet = kernel.ok("await new Promise((r) => setTimeout(r, 600))")
    assert "exited" not in quiet.stderr
    assert cell.stderr.count("exited with code 5") == deaths


@pytest.mark.parametrize("cell", ["%reset", "%rewind here", "%undo", "%rerun here", "%checkpoint"])
def test_a_death_during_a_magic(kernel: Kernel, cell: str) -> None:
    """However the two fall together, the kernel goes on, and its present is what it says."""
    kernel.ok("globalThis.n = 1")
    kernel.ok("%checkpoint here")
    for pause in (0.0, 0.02, 0.06, 0.1):
        kernel.rewind("here")
        kernel.ok("n = 2")
        running = kernel.submit(cell)
        time.sleep(pause)
        kernel.kill_guest()
        kernel.finish(running)
        kernel.run("0")  # may fall into the same death
        kernel.ok("globalThis.n = 40")
        assert kernel.ok("n + 2").text == "42"
        kernel.ok("%undo")
        assert kernel.ok("n").text == "40"


# -- what cannot be ----------------------------------------------------------------------------


@pytest.mark.usefixtures("steps")
def test_an_unknown_checkpoint_changes_nothing(kernel: Kernel) -> None:
    for cell in (
        "%rewind 99999",
        "%rewind nowhere",
        "%rerun 99999",
        "%recall 99999",
        "%rewind 1+7",
    ):
        result = kernel.fails(cell)
        assert result.reply["ename"] == "UnknownCheckpoint", cell
        assert len(result.reply["traceback"]) <= 2
    assert kernel.value("x") == 3


def _unrestorable(kernel: Kernel) -> Result:
    """A cell whose state CRIU refuses: a deleted file that is open and bigger than 64 MiB."""
    return kernel.ok(
        "globalThis.fs = require('node:fs'); globalThis.f = fs.openSync('huge', 'w+');"
        "fs.unlinkSync('huge');"
        "for (let i = 0; i < 70; i++) fs.writeSync(f, Buffer.alloc(1 << 20, 1));"
        "'the result stands'"
    )


def test_a_state_that_cannot_be_taken(kernel: Kernel) -> None:
    good = kernel.ok("globalThis.y = 'good'").count
    bad = _unrestorable(kernel)
    assert bad.text == "'the result stands'"
    follower = kernel.ok("y = 'still runs'")
    told = bad.stderr + follower.stderr
    assert f"checkpoint {bad.count} could not be taken" in told
    assert "deleted file" in told
    assert "✗" in row(kernel, bad.count)
    refused = kernel.fails(f"%rewind {bad.count}")
    assert refused.reply["ename"] == "NotRestorable"
    assert "deleted file" in refused.traceback
    assert kernel.value("y") == "still runs", "the refusal changed nothing"
    healed = kernel.ok("fs.closeSync(f); y = 'healed'").count
    kernel.ok("y = 'later'")
    kernel.rewind(healed)
    assert kernel.value("y") == "healed"
    kernel.rewind(good)
    assert kernel.value("y") == "good"


def test_the_warning_comes_even_if_no_cell_follows(kernel: Kernel) -> None:
    bad = _unrestorable(kernel)
    kernel.messages_until(bad, "stream", "could not be taken")


def test_a_death_in_an_unrestorable_state_goes_back_further(kernel: Kernel) -> None:
    good = kernel.ok("globalThis.y = 'good'").count
    _unrestorable(kernel)
    result = kernel.fails("process.exit(1)")
    assert f"checkpoint {good}) is restored" in result.reply["evalue"]
    assert kernel.value("y") == "good"


def test_a_full_staging_says_so(start_kernel: Start) -> None:
    kernel = start_kernel("--CRKernel.staging_size=128M")
    kernel.ok("globalThis.n = 0")
    told = ""
    for _ in range(20):
        told += kernel.ok("n++").stderr
        if told:
            break
    assert "staging_size" in told
    assert kernel.value("n") > 0


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
