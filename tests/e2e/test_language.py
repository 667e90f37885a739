"""The language of cells: what the kernel understands, and what it says about what it does not."""

from __future__ import annotations

import time

import pytest
from driver import Kernel

pytestmark = pytest.mark.e2e


# -- interrupts --------------------------------------------------------------------------------


@pytest.mark.parametrize("open_first", [False, True], ids=["open", "read"])
def test_an_interrupt_ends_the_wait_for_a_silent_fifo(kernel: Kernel, open_first: bool) -> None:
    kernel.ok("var kept = 42, fs = require('node:fs')")
    kernel.ok("require('node:child_process').execSync('mkfifo silent')")
    if open_first:
        kernel.ok("var silent = fs.openSync('silent', fs.constants.O_RDWR)")
    cell = kernel.submit("fs.readFileSync('silent')")
    time.sleep(0.3)
    kernel.interrupt()
    assert kernel.finish(cell).reply["ename"] == "Interrupted"
    assert kernel.value("kept") == 42, "nothing was lost"


# -- across a rewind ---------------------------------------------------------------------------


def test_results_of_earlier_cells_come_back(fresh_kernel: Kernel) -> None:
    kernel = fresh_kernel
    kernel.ok("({ kept: 1 })")
    kernel.ok("_.kept + 1")
    kernel.fails("null.x")
    kernel.ok("Out.length = 0")
    kernel.rewind(3)
    assert kernel.value("[_, _1.kept, Out[2], In[2], _error.name]") == [
        2,
        1,
        2,
        "_.kept + 1",
        "TypeError",
    ]


def test_what_was_imported_is_that_of_the_checkpoint(kernel: Kernel) -> None:
    """Modules go back with the files that they came from, and changes are noticed on either way."""
    kernel.ok("const { writeFileSync } = require('node:fs')")
    kernel.ok("writeFileSync('m.ts', 'export enum E { A = 1 }; export const state: any = {}')")
    first = kernel.ok("import { E, state } from './m.ts'; state.count = 1").count
    kernel.ok("writeFileSync('m.ts', 'export enum E { A = 2 }; export const state: any = {}')")
    assert kernel.ok("import { E, state } from './m.ts'; [E.A, state]").text == "[ 2, {} ]"
    kernel.rewind(first)
    again = "import { E, state } from './m.ts'; [E.A, state]"
    assert kernel.ok(again).text == "[ 1, { count: 1 } ]", "not loaded again"
    kernel.ok("writeFileSync('m.ts', 'export enum E { A = 3 }; export const state: any = {}')")
    assert kernel.ok(again).text == "[ 3, {} ]"


def test_errors_point_at_cells_from_before_the_rewind(kernel: Kernel) -> None:
    cell = kernel.ok("enum E { A }\nfunction f(x: any) {\n  return x.y.z\n}").count
    kernel.ok("f = null")
    kernel.rewind(cell)
    traceback = kernel.fails("f({})").reply["traceback"]
    assert traceback[:3] == [f"cell {cell}:3:14", "  return x.y.z", " " * 13 + "^"]


# -- cells with magics -------------------------------------------------------------------------


def test_lines_of_magics_count(kernel: Kernel) -> None:
    failed = kernel.fails("%config\n// a comment\n  let a: number = null.x")
    assert failed.reply["traceback"][:3] == [
        f"cell {failed.count}:3:24",
        "  let a: number = null.x",
        " " * 23 + "^",
    ]
    timed = kernel.fails("\n%%time\n\n  let a: number = null.x")
    assert f"    at cell {timed.count}:4:24" in timed.reply["traceback"]
    again = kernel.fails(f"%%rerun {failed.count}\nnull.y")
    assert f"    at cell {again.count}:2:6" in again.reply["traceback"]
    syntax = kernel.fails("%config\nlet b: number = ;")
    assert syntax.reply["traceback"][0] == f"cell {syntax.count}:2:17"


# -- errors ------------------------------------------------------------------------------------


def test_what_fails_where_it_is_awaited_is_pointed_at(kernel: Kernel) -> None:
    code = "import { readFile } from 'fs/promises'\nconst text = await readFile('none.csv')"
    failed = kernel.fails(code)
    assert failed.reply["traceback"][:3] == [
        f"cell {failed.count}:2:14",
        "const text = await readFile('none.csv')",
        " " * 13 + "^",
    ]


def test_a_name_that_a_failed_import_left_behind(kernel: Kernel) -> None:
    kernel.fails("import left from 'not-there'")
    hint = kernel.fails("let left = 1").reply["traceback"][-1]
    assert hint.startswith("hint: left is a const of a cell that failed, ")
    assert "left" not in kernel.ok("%whos").shown
    kernel.ok("const left = 1")
    assert kernel.value("left") == 1


# -- limits ------------------------------------------------------------------------------------


def test_an_output_that_no_message_can_hold_is_an_error(kernel: Kernel) -> None:
    failed = kernel.fails("var kept = 1; display('x'.repeat(130 * 2 ** 20))")
    assert failed.reply["ename"] == "RangeError"
    assert "the limit is 128 MiB" in failed.reply["evalue"]
    assert kernel.value("kept") == 1, "the guest lives"


def test_a_name_declared_in_another_way_goes_back_with_a_rewind(kernel: Kernel) -> None:
    before = kernel.ok("let way = 1").count
    kernel.ok("const way: number = 2")
    kernel.ok("function way() {}")
    kernel.rewind(before)
    kernel.ok("import way from 'node:os'")
    assert kernel.ok("typeof way.cpus").text == "'function'"


@pytest.mark.parametrize("declares", ["const { display }", "let display", "class display"])
def test_a_cell_that_fails_hides_nothing_of_the_runtime(kernel: Kernel, declares: str) -> None:
    """The name is declared before the cell fails, and nothing is ever assigned to it."""
    fails = " { static x = none() }" if "class" in declares else " = await import('nowhere')"
    kernel.fails(declares + fails)
    assert kernel.value("display === globalThis.display") is True


def test_a_declaration_of_an_earlier_cell_stays_where_a_later_one_fails(
    fresh_kernel: Kernel,
) -> None:
    fresh_kernel.ok("let display = 5")
    fresh_kernel.fails("display; throw new Error('display')")
    assert fresh_kernel.ok("display").text == "5"


GONE = """
big = null; input = null;
const gc = (require('v8').setFlagsFromString('--expose-gc'), require('vm').runInNewContext('gc'));
await new Promise((r) => setTimeout(r, 50)); gc();
await new Promise((r) => setTimeout(r, 50)); gc();
ref.deref() === undefined
"""


def test_a_value_is_not_held_by_who_looked_for_names(fresh_kernel: Kernel) -> None:
    """A name that is declared in another way, and a cell that fails, have the inspector look."""
    kernel = fresh_kernel
    kernel.ok("globalThis.big = {}; globalThis.ref = new WeakRef(big); let input = big, way = 1")
    kernel.ok("const way = 2")
    kernel.fails("input; throw new Error('input')")
    assert kernel.ok(GONE).text == "true"
