"""Magics that measure and look: %time, %timeit, %stack, %who, %whos."""

from __future__ import annotations

import re
import time

import pytest
from driver import Kernel

pytestmark = pytest.mark.e2e

TIME = re.compile(
    r"wall ([\d.]+) (\w+), CPU ([\d.]+) (\w+) \(user [\d.]+ \w+, system [\d.]+ \w+\), "
    r"heap ([\d.]+) → ([\d.]+) MiB"
)
TIMEIT = re.compile(
    r"best ([\d.]+) (\w+), mean [\d.]+ \w+ ± [\d.]+ \w+ \((\d+) runs? of ([\d,]+) calls?\)"
)
SECONDS = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}


def seconds(number: str, unit: str) -> float:
    return float(number) * SECONDS[unit]


# -- %time -------------------------------------------------------------------------------------


def test_time_tells_waiting_from_working(kernel: Kernel) -> None:
    result = kernel.ok("%time await new Promise((r) => setTimeout(r, 200))")
    found = TIME.fullmatch(result.shown)
    assert found, result.shown
    assert 0.19 < seconds(found[1], found[2]) < 5
    assert seconds(found[3], found[4]) < 0.15
    result = kernel.ok(
        "%time { const end = process.cpuUsage().user + 2e5;"
        " while (process.cpuUsage().user < end); }"
    )
    found = TIME.fullmatch(result.shown)
    assert found, result.shown
    assert seconds(found[3], found[4]) > 0.19


def test_time_shows_what_memory_was_taken(kernel: Kernel) -> None:
    found = TIME.fullmatch(kernel.ok("%time const big = Buffer.alloc(50 << 20)").shown)
    assert found
    assert 49 < float(found[6]) - float(found[5]) < 80
    assert kernel.value("big.length") == 50 << 20


def test_the_code_is_a_cell(kernel: Kernel) -> None:
    result = kernel.ok("%%time\nconst n: number = 6\nconsole.log('hi')\nn * await 7")
    assert (result.stdout, result.text) == ("hi\n", "42")
    assert TIME.fullmatch(result.shown)
    result = kernel.ok("%time const n = 7; n")
    assert result.text == "7"
    kernel.rewind(result.count)
    assert kernel.value("n") == 7
    assert kernel.ok("%undo 2\n%time n * 7").text == "42"


def test_what_was_typed_is_at_hand(kernel: Kernel) -> None:
    for cell in ("%time 6 * 7", "%%time\n6 * 7", "%who\n\n6 * 7"):
        count = kernel.ok(cell).count
        assert kernel.value(f"In[{count}]") == cell


def test_line_magics_before_and_code_after(kernel: Kernel) -> None:
    result = kernel.ok("// measure\n%time 'first'\n%time 'second'\n'third'")
    assert [data["text/plain"] for data in result.results] == ["'first'", "'second'", "'third'"]
    assert len(TIME.findall(result.shown)) == 2


@pytest.mark.parametrize(
    ("code", "place"),
    [
        ("%%time\n\nlet a = 1\n  nowhere()", ":4:3"),
        ("%time   nowhere()", ":1:9"),
        ("// first\n\n%time nowhere()", ":3:7"),
        ("%%timeit\nlet a = 1\n  nowhere()", ":3:3"),
        ("%timeit nowhere()", ":1:9"),
        ("%timeit -n 5 nowhere()", ":1:14"),
        ("%timeit await nowhere()", ":1:9"),
        ("%timeit await (1 as number); nowhere()", ":1:30"),
        ("%%timeit\nawait 1; nowhere()", ":2:10"),
    ],
)
def test_errors_point_where_the_code_was_typed(kernel: Kernel, code: str, place: str) -> None:
    result = kernel.fails(code)
    assert result.error == "ReferenceError: nowhere is not defined"
    assert f"cell {result.count}{place}" in result.traceback
    assert "/guest/" not in result.traceback
    line = code.split("\n")[int(place.split(":")[1]) - 1]
    assert result.traceback.split("\n")[1] == line, "the magic is shown, too"
    assert ("wall" in result.shown) == bool(re.search(r"^%%?time\b", code, re.M))


def test_syntax_errors_point_where_the_code_was_typed(kernel: Kernel) -> None:
    result = kernel.fails("%timeit await = = 3")
    assert result.error.startswith("SyntaxError")
    assert f"cell {result.count}:1:15" in result.traceback
    assert result.traceback.split("\n")[1] == "%timeit await = = 3"
    assert (
        kernel.fails("%time let n: number = = 3").traceback.split("\n")[1].startswith("%time let")
    )


def test_a_cell_that_fails_is_measured_too(kernel: Kernel) -> None:
    result = kernel.fails("%time throw new Error('no')")
    assert TIME.fullmatch(result.shown)
    assert kernel.fails("%%time\nlet = = 3").error.startswith("SyntaxError")


def test_an_interrupt_ends_it(kernel: Kernel) -> None:
    kernel.ok("let kept = 1")
    for code in (
        "%%time\nconsole.log('begun'); for (;;);",
        "%%timeit\nconsole.log('begun'); for (;;);",
    ):
        running = kernel.submit(code)
        kernel.messages_until(running, "stream", "begun")
        kernel.interrupt()
        assert kernel.finish(running).reply["ename"] == "Interrupted"
    assert kernel.value("kept") == 1


# -- %timeit -----------------------------------------------------------------------------------


@pytest.mark.alone
def test_timeit_chooses_its_loops(kernel: Kernel) -> None:
    fast = TIMEIT.fullmatch(kernel.ok("%timeit 1 + 1").shown)
    assert fast
    assert seconds(fast[1], fast[2]) < 1e-6
    assert int(fast[4].replace(",", "")) >= 100_000
    began = time.monotonic()
    slow = TIMEIT.fullmatch(
        kernel.ok(
            "%timeit { const end = performance.now() + 50; while (performance.now() < end); }"
        ).shown
    )
    assert slow
    assert 0.049 < seconds(slow[1], slow[2]) < 0.2
    assert (slow[3], slow[4]) in (("7", "2"), ("7", "1"))
    assert time.monotonic() - began < 10


def test_timeit_takes_numbers(kernel: Kernel) -> None:
    kernel.ok("let calls = 0")
    result = kernel.ok("%timeit -n 30 -r 2 calls++")
    assert "(2 runs of 30 calls)" in result.shown
    assert result.results == []
    assert kernel.value("calls") == 60
    assert "(1 run of 1 call)" in kernel.ok("%%timeit -r1 -n1\ncalls++").shown
    assert kernel.value("calls") == 61


def test_timeit_awaits(kernel: Kernel) -> None:
    found = TIMEIT.fullmatch(
        kernel.ok("%timeit -n 3 -r 2 await new Promise((r) => setTimeout(r, 20))").shown
    )
    assert found
    assert seconds(found[1], found[2]) > 0.019


def test_timeit_runs_declarations_and_typescript(kernel: Kernel) -> None:
    code = "%%timeit -n 10 -r 2\nconst x: number = 1\nlet y = x as number\ny++"
    assert TIMEIT.fullmatch(kernel.ok(code).shown)
    assert kernel.value("[typeof x, typeof y]") == ["undefined", "undefined"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("%time", "%time needs code"),
        ("%timeit -n 5", "%timeit needs code"),
        ("%timeit -n x y", "-n takes a positive number, not 'x'"),
        ("%timeit -n 0 y", "-n takes a positive number, not '0'"),
        ("%%timeit x\ny", "%%timeit takes its code below it, not 'x'"),
        ("%%time\n", "%%time needs code below it"),
        ("%who x", "%who takes no argument"),
    ],
)
def test_wrong_uses_are_told(kernel: Kernel, code: str, words: str) -> None:
    result = kernel.fails(code)
    assert result.error == f"BadMagic: {words}"
    assert "usage: %" in result.traceback


def test_an_expression_may_begin_with_a_minus(kernel: Kernel) -> None:
    kernel.ok("let x = 5")
    assert kernel.ok("%time -x").text == "-5"


# -- %stack ------------------------------------------------------------------------------------


def test_stack_shows_the_last_error_in_full(kernel: Kernel) -> None:
    result = kernel.fails("%stack")
    assert result.error == "UserError: nothing has failed yet"
    defined = kernel.ok(
        "function inner() { JSON.parse('{') }\n"
        "function outer() { try { inner() } catch (cause) {"
        " throw new TypeError('outer', { cause }) } }"
    ).count
    failed = kernel.fails("[1].forEach(outer)")
    assert "node:" not in failed.traceback
    shown = kernel.ok("%stack").shown
    first, second = shown.split("[cause] ")
    assert first.startswith("TypeError: outer\n    at outer ")
    assert f"cell {defined}:2:" in first
    assert "at Array.forEach (<anonymous>)" in first
    assert f"(cell {failed.count}:1:5)" in first or f"at cell {failed.count}:1:5" in first
    assert "at Session.post (node:inspector" in first
    assert "/guest/main.js" in first
    assert second.startswith("SyntaxError: ")
    assert "at JSON.parse (<anonymous>)" in second
    assert f"at inner (cell {defined}:1:" in second


def test_stack_of_callbacks_and_of_what_is_no_error(kernel: Kernel) -> None:
    result = kernel.ok("setTimeout(function late() { throw new RangeError('in a timer') }); 0")
    kernel.messages_until(result, "stream", "in a timer")
    shown = kernel.ok("%stack").shown
    assert "RangeError: in a timer" in shown
    assert "at Timeout.late [as _onTimeout]" in shown
    assert "node:internal/timers" in shown
    kernel.fails("throw { code: 5 }")
    assert kernel.ok("%stack").shown == "{ code: 5 } (no error, so it has no stack)"


def test_stack_survives_a_rewind(kernel: Kernel) -> None:
    failed = kernel.fails("throw new Error('the first')").count
    kernel.fails("throw new Error('the second')")
    kernel.rewind(failed)
    assert "the first" in kernel.ok("%stack").shown


# -- %who and %whos ----------------------------------------------------------------------------


def test_who_lists_what_cells_declared(kernel: Kernel) -> None:
    assert kernel.ok("%who").shown == "no cell has declared a name"
    kernel.ok(
        "let b = 1; const a = 2; class C {}; function d() {}; var e = 3; globalThis.f = 4;"
        " import { readFileSync as g } from 'node:fs'; enum H { X }"
    )
    assert kernel.ok("%who").shown == "C  H  a  b  d  e  f  g"
    kernel.ok("%undo")
    assert kernel.ok("%who").shown == "no cell has declared a name"


def test_whos_shows_types_sizes_and_values(kernel: Kernel) -> None:
    assert kernel.ok("%whos").shown == "no cell has declared a name"
    kernel.ok(
        "const text = 'héllo', list = [1, 'two'], map = new Map([[1, 2]]), set = new Set([1, 2]);"
        " const bytes = new Float64Array(4), buffer = Buffer.from('abc'), none = null, n = 5n;"
        " const object = { a: 1, b: '<i>' }; let undef, num = 4.5, yes = true;"
        " const when = new Date(0); function twice(x) { return 2 * x }"
    )
    result = kernel.ok("%whos")
    rows = {line.split("  ")[0]: re.split(r"\s{2,}", line) for line in result.shown.splitlines()}
    assert rows["name"] == ["name", "type", "size", "value"]
    assert rows["text"][1:] == ["string", "5 characters", '"héllo"']
    assert rows["list"][1:] == ["Array", "2 items", '[1, "two"]']
    assert rows["map"][1:3] == ["Map", "1 entry"]
    assert rows["set"][1:3] == ["Set", "2 entries"]
    assert rows["bytes"][1:3] == ["Float64Array", "32 bytes"]
    assert rows["buffer"][2] == "3 bytes"
    assert rows["none"][1:] == ["null", "null"]
    assert rows["n"][1:] == ["bigint", "5n"]
    assert rows["object"][1:] == ["Object", "2 keys", '{a: 1, b: "<i>"}']
    assert rows["undef"][1:] == ["undefined", "undefined"]
    assert rows["num"][1:] == ["number", "4.5"]
    assert rows["yes"][1:] == ["boolean", "true"]
    assert rows["when"][1] == "Date"
    assert rows["twice"][1] == "function"
    assert "&lt;i&gt;" in result.displays[0]["text/html"]


def test_many_names_are_listed_and_some_of_them_shown(kernel: Kernel) -> None:
    kernel.ok("for (let i = 0; i < 1e5; i++) globalThis[`n${i}`] = i")
    assert len(kernel.ok("%who").shown.split("  ")) == 100_000
    shown = kernel.ok("%whos").shown
    assert "99,000 more: %who names them all" in shown
    assert re.search(r"^n0 +number +0$", shown, re.M)


def test_looking_runs_no_code_of_the_user(kernel: Kernel) -> None:
    kernel.ok(
        "let runs = 0; const o = { get x() { return runs++ }, [Symbol.toStringTag]: 'T' };"
        " const p = new Proxy({}, { get() { runs++ }, ownKeys() { runs++; return [] },"
        " getOwnPropertyDescriptor() { runs++ } });"
        " Object.defineProperty(globalThis, 'g', { enumerable: true, configurable: true,"
        " get() { return runs++ } }); function never() { runs++ }"
    )
    count = kernel.ok("0").count
    shown = kernel.ok("%whos").shown
    assert re.search(r"^p +Proxy", shown, re.M)
    assert re.search(r"^g +unknown", shown, re.M)
    assert kernel.value("runs") == 0
    assert f"{count}+1" not in kernel.ok("%timeline").shown


# -- help --------------------------------------------------------------------------------------


def test_help_and_completion(kernel: Kernel) -> None:
    kernel.client.complete("%%tim", 5)
    assert kernel.reply("complete_reply")["matches"] == ["%%time", "%%timeit"]
    kernel.client.complete("%timeit ", 8)
    assert kernel.reply("complete_reply")["matches"] == ["-n", "-r"]
    for code, status in (
        ("%time 1", "complete"),
        ("%%time", "incomplete"),
        ("%%time\n1\n", "complete"),
        ("%%time\nif (x) {\n", "incomplete"),
        ("%%time\nif (x) {\n}", "incomplete"),
        ("%%time\nif (x) {\n}\n", "complete"),
        ("%time foo(", "invalid"),  # the next line would not belong to it
        ("%time foo()\nbar(", "incomplete"),
        ("%status\nif (x) {", "incomplete"),
    ):
        kernel.client.is_complete(code)
        assert kernel.reply("is_complete_reply")["status"] == status, code
    (payload,) = kernel.ok("%timeit?").reply["payload"]
    assert "-n LOOPS" in payload["data"]["text/plain"]


# -- name? -------------------------------------------------------------------------------------


def test_a_name_with_a_question_mark_is_explained_in_the_pager(kernel: Kernel) -> None:
    kernel.ok(
        "var $el = 5; function area(w, h) {\n  return w * h\n}\nconst shape = { sides: { n: 4 } }"
    )
    count = kernel.ok("0").count
    result = kernel.ok("area?")
    (payload,) = result.reply["payload"]
    assert payload["source"] == "page"
    assert "area(w, h)" in payload["data"]["text/plain"]
    assert "return w * h" not in payload["data"]["text/plain"]
    (payload,) = kernel.ok(" area?? ").reply["payload"]
    assert "return w * h" in payload["data"]["text/plain"]
    (payload,) = kernel.ok("shape.sides?").reply["payload"]
    assert "n: 4" in payload["data"]["text/plain"]
    (payload,) = kernel.ok("$el?").reply["payload"]
    assert payload["data"]["text/plain"] == "$el: number\n5"
    assert result.messages[1:] == []
    assert f"○ {count + 1}" not in kernel.ok("%timeline").shown
    assert kernel.fails("nowhere?").error == "UserError: there is nothing to say of nowhere"


@pytest.mark.parametrize("code", ["1 ? 2 : 3", "area ?? 5", "'area?'", "area?.length"])
def test_questions_that_are_javascript_are_run(kernel: Kernel, code: str) -> None:
    kernel.ok("var area = null")
    assert kernel.ok(code).reply["payload"] == []


def test_a_question_about_a_name_is_complete(kernel: Kernel) -> None:
    for code in ("Math.max?", "$?", "$el?", "jQuery.$fn??"):
        kernel.client.is_complete(code)
        assert kernel.reply("is_complete_reply")["status"] == "complete"
