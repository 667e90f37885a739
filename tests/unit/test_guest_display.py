"""What the Node guest shows: presentations that values bring, display() and its family, tables."""

from __future__ import annotations

from typing import Any

import pytest
from test_guest_js import Guest

from crkernel.guest import wire

HEAD = "iVBORw0KGgoAAAANSUhEUgAAAoAAAAHg"  # how a PNG of 640 x 480 begins, as base64
JPEG = "/9j/4AAQ"
HTML = {"text/plain": "<HTML>"}
PNG = "Buffer.from('89504e470d0a1a0a00', 'hex')"
METHOD = "[Symbol.for('Jupyter.display')]"


def result(guest: Guest, code: str) -> Any:
    """The bundle of a cell's result; None if it has none."""
    reply = guest.run(code)
    assert reply["status"] == "ok", reply
    return reply["result"] and reply["result"]["data"]


def displays(guest: Guest, code: str) -> list[Any]:
    """The display events of a cell that has no result."""
    assert result(guest, code) is None
    return [event for event in guest.output() if event["event"] == "display"]


def bundles(guest: Guest, code: str) -> list[Any]:
    """What a cell displays."""
    return [event["data"] for event in displays(guest, code)]


# -- results -----------------------------------------------------------------------------------


def test_a_value_can_bring_its_own_presentation(guest: Guest) -> None:
    bundle = "{'text/html': '<b>', 'application/x+json': {x: 1}, 'image/png': Buffer.from('abc')}"
    data = result(guest, f"({{ {METHOD}() {{ return {bundle} }} }})")
    assert "Jupyter.display" in data.pop("text/plain")
    assert data == {"text/html": "<b>", "application/x+json": {"x": 1}, "image/png": "YWJj"}
    data = result(guest, f"({{ async {METHOD}() {{ return {{'text/plain': 'mine'}} }} }})")
    assert data == {"text/plain": "mine"}
    assert result(guest, f"({{ {METHOD}() {{ return {{}} }} }})") is None


@pytest.mark.parametrize(
    ("name", "returned", "mime", "shown"),
    [
        ("toHtml", "'<b>'", "text/html", "<b>"),
        ("_toHtml", "'<b>'", "text/html", "<b>"),
        ("toSVG", "'<svg/>'", "image/svg+xml", "<svg/>"),
        ("toPng", "new Uint8Array([97, 98, 99])", "image/png", "YWJj"),
        ("toJpeg", "Promise.resolve(Buffer.from('abc'))", "image/jpeg", "YWJj"),
        ("toMarkdown", "'# x'", "text/markdown", "# x"),
        ("toLatex", "'$x$'", "text/latex", "$x$"),
        ("toDataURL", "'data:image/png;base64,YWJj'", "image/png", "YWJj"),
        ("toSpec", "({mark: 'bar'})", "application/vnd.vegalite.v5+json", {"mark": "bar"}),
    ],
)
def test_methods_that_libraries_have(
    guest: Guest, name: str, returned: str, mime: str, shown: object
) -> None:
    data = result(guest, f"({{ {name}() {{ return {returned} }} }})")
    assert data[mime] == shown
    assert data["text/plain"]


def test_what_is_deep_is_refused_here_since_the_kernel_would_end_the_guest(guest: Guest) -> None:
    nest = "let a = 0; for (let i = 0; i < {}; i++) a = i % 2 ? [a] : {{ a }};"
    (data,) = bundles(guest, nest.format(200) + "display.json(a); undefined")
    wire.parse_guests(wire.encode({"event": "display", "data": data, "metadata": {}}))
    for show in ("display.json(a)", "comm.open('t', { a })"):
        error = guest.error(nest.format(201) + show)
        assert "has more than 200 arrays and objects within each other" in error["message"]


def test_what_holds_many_values_is_refused_here_too(guest: Guest) -> None:
    guest.value("const list = (n) => new Array(n).fill(0); undefined")
    assert len(displays(guest, "display.json(list(1_999_900))")) == 1
    many = [
        "display.json(list(2_000_001))",
        "display({ 'a/b': 'x'.repeat(3e5), 'application/json': list(2e6) }, { raw: true })",
        "display.vega({ $schema: '/vega-lite/v6', data: list(1e6) })",
        "({ toSpec() { return { data: list(2e6) } } })",
        "comm.open('t', { list: list(2e6).fill([]) })",
    ]
    for show in many:
        error = guest.error(show)
        assert error["name"] == "RangeError"
        assert "more than 2000000 values" in error["message"]
    assert bundles(guest, "display('still here')") == [{"text/plain": "still here"}]


def test_comms_that_the_kernel_would_drop_do_not_open(guest: Guest) -> None:
    guest.value("comm.open('t'.repeat(256)); undefined")
    assert "at most 256" in guest.error("comm.open('t'.repeat(257))")["message"]
    guest.value("for (let i = 1; i < 10_000; i++) comm.open('t'); undefined")
    assert "10000 comms are open" in guest.error("comm.open('t')")["message"]


def test_elements_of_a_dom(guest: Guest) -> None:
    data = {"text/html": "<p>x</p>", "text/plain": "<p>"}
    assert result(guest, "({ outerHTML: '<p>x</p>' })") == data
    svg = result(guest, "({ outerHTML: '<svg width=\"1\"></svg>' })")["image/svg+xml"]
    assert svg == '<svg xmlns="http://www.w3.org/2000/svg" width="1"></svg>'


@pytest.mark.parametrize(
    "value",
    [
        "({ toHtml() { throw new RangeError('boom') } })",
        "({ async toHtml() { throw new RangeError('boom') } })",
        f"({{ {METHOD}() {{ throw new RangeError('boom') }} }})",
    ],
)
def test_a_presentation_that_fails_leaves_the_text(guest: Guest, value: str) -> None:
    assert list(result(guest, value)) == ["text/plain"]
    ((name, text),) = guest.texts()
    assert name == "stderr"
    assert "shown as text" in text
    assert "RangeError: boom\n    at " in text


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        ("5", "a MIME bundle must be an object"),
        ("({'text/html': {}})", '"text/html" must be a string'),
        ("({html: 'x'})", '"html" is no MIME type'),
        ("(() => { const a = {}; a.a = a; return {'application/json': a} })()", "no JSON"),
        ("({'application/json': 5n})", "no JSON: Do not know how to serialize a BigInt"),
    ],
)
def test_bad_bundles_say_what_is_wrong(guest: Guest, returned: str, reason: str) -> None:
    assert list(result(guest, f"({{ {METHOD}() {{ return {returned} }} }})")) == ["text/plain"]
    assert reason in guest.texts()[0][1]
    assert reason in guest.error(f"display({returned}, {{ raw: true }})")["message"]


def test_a_proxy_is_not_taken_at_its_word(guest: Guest) -> None:
    anything = (
        "new Proxy({}, { get: (_, name) => typeof name === 'string' ? () => 'x' : undefined })"
    )
    assert result(guest, anything) == {"text/plain": "{}"}
    bundle = f"new Proxy({{ {METHOD}: () => ({{ 'text/html': 'x' }}) }}, {{}})"
    assert result(guest, bundle)["text/html"] == "x"


@pytest.mark.parametrize(
    ("bytes_", "mime"),
    [
        (PNG, "image/png"),
        (f"new Uint8Array({PNG})", "image/png"),
        (f"Uint8Array.from({PNG}).buffer", "image/png"),
        ("Buffer.from('ffd8ffe0', 'hex')", "image/jpeg"),
        ("Buffer.from('GIF89a......')", "image/gif"),
        ("Buffer.from('RIFF....WEBPVP8 ')", "image/webp"),
        ("Buffer.from('<?xml version=\"1.0\"?>\\n<svg></svg>')", "image/svg+xml"),
    ],
)
def test_bytes_of_an_image_are_an_image(guest: Guest, bytes_: str, mime: str) -> None:
    data = result(guest, bytes_)
    assert mime in data
    assert data["text/plain"]


def test_other_bytes_are_text(guest: Guest) -> None:
    assert result(guest, "Buffer.from('abc')") == {"text/plain": "<Buffer 61 62 63>"}


def test_arrays_of_records_are_tables_too(guest: Guest) -> None:
    data = result(guest, "[{ a: 1, b: '<x>' }, { a: 2, get c() { throw 1 } }]")
    assert data["text/plain"] == "[ { a: 1, b: '<x>' }, { a: 2, c: [Getter] } ]"
    html = data["text/html"]
    assert "<th></th><th>a</th><th>b</th><th>c</th>" in html
    assert "&lt;x&gt;" in html
    assert "[Getter]" in html
    html = result(guest, "Array.from({ length: 2000 }, (_, i) => ({ i }))")["text/html"]
    assert html.count("<tr>") == 21
    assert "the first 20 of 2,000 rows; display.table(Out[7], { rows: 2000 }) shows more" in html
    wide = "[Object.fromEntries(Array.from({ length: 50 }, (_, i) => [`k${i}`, i]))]"
    html = result(guest, wide)["text/html"]
    assert "the first 20 of 50 columns; display.table(Out[7]) shows more" in html
    for plain in (
        "[]",
        "[1, 2]",
        "[{ a: 1 }, 2]",
        "[[1]]",
        "[new Error('x')]",
        "[new Proxy({}, {})]",
    ):
        assert list(result(guest, plain)) == ["text/plain"], plain


def test_typed_arrays_are_tables_too(guest: Guest) -> None:
    data = result(guest, "Float64Array.from({ length: 300 }, (_, i) => i / 2)")
    assert data["text/plain"].startswith("Float64Array(300) [")
    assert "<td>4.5</td></tr>" in data["text/html"]
    assert "the first 200 of 300 elements; display(Out[7]) shows more" in data["text/html"]
    (data,) = bundles(guest, "display(Out[7])")
    assert data["text/plain"].endswith(" 149.5\n]")
    assert data["text/html"].endswith("<td>149.5</td></tr>\n</tbody>\n</table>")
    assert list(result(guest, "new Float64Array()")) == ["text/plain"]


def test_big_results_are_cut_and_displays_are_not(guest: Guest) -> None:
    big = "Array.from({ length: 100 }, () => 'x'.repeat(9000))"
    text = result(guest, big)["text/plain"]
    assert len(text) < 66_000
    assert text.endswith("\n… cut: 64 of 879 KiB; display(Out[7]) shows all")
    (data,) = bundles(guest, f"display({big})")
    assert len(data["text/plain"]) > 900_000
    for long in ("'x'.repeat(10_001)", "[...Array(101).keys()]", "{ a: [...Array(101).keys()] }"):
        text, _, note = result(guest, long)["text/plain"].rpartition("\n… ")
        assert " more " in text
        assert note == "display(Out[7]) shows all"
        (data,) = bundles(guest, "display(Out[7])")
        assert " more " not in data["text/plain"]
    (data,) = bundles(guest, "display(new Uint8Array(10_001))")
    note = "... 1 more item\n]\n… console.dir(…, { maxArrayLength: null }) shows all"
    assert data["text/plain"].endswith(note)
    assert "… " not in result(guest, "[...Array(100).keys()]")["text/plain"]


# -- display() ---------------------------------------------------------------------------------


def test_display_and_clear_output(guest: Guest) -> None:
    guest.value(
        "display({a: 1}); display('<b>', {mime: 'text/html', display_id: 'd', update: true});"
        "clearOutput(true); clear_output(); display.clear({ wait: true })"
    )
    plain, html, *clears = guest.output()
    assert plain["data"] == {"text/plain": "{ a: 1 }"}
    assert (plain["update"], plain["metadata"]) == (False, {})
    assert (html["data"], html["update"]) == (HTML | {"text/html": "<b>"}, True)
    assert html["transient"] == {"display_id": "d"}
    assert [clear["wait"] for clear in clears] == [True, False, True]


@pytest.mark.parametrize(
    ("call", "data"),
    [
        ("display.html('<b>')", HTML | {"text/html": "<b>"}),
        ("display.html`<b>${1 + 1}</b>`", HTML | {"text/html": "<b>2</b>"}),
        ("display.markdown('*x*')", {"text/markdown": "*x*", "text/plain": "*x*"}),
        ("display.md`*${'x'}*`", {"text/markdown": "*x*", "text/plain": "*x*"}),
        ("display.latex('$x$')", {"text/latex": "$x$", "text/plain": "$x$"}),
        (
            "display.svg('<svg xmlns=\"x\"/>')",
            {"image/svg+xml": '<svg xmlns="x"/>', "text/plain": "<SVG>"},
        ),
        (
            "display.svg(new TextEncoder().encode('<svg/>'))",
            {"image/svg+xml": '<svg xmlns="http://www.w3.org/2000/svg"/>', "text/plain": "<SVG>"},
        ),
        (f"display.png({PNG})", {"image/png": "iVBORw0KGgoA", "text/plain": "<PNG>"}),
        (
            f"display.png('data:image/png;base64,{HEAD}')",
            {"image/png": HEAD, "text/plain": "<PNG 640x480>"},
        ),
        (f"display.jpeg('{JPEG}')", {"image/jpeg": JPEG, "text/plain": "<JPEG>"}),
        (
            "display.javascript('1')",
            {"application/javascript": "1", "text/plain": "<JavaScript>"},
        ),
        (
            "display('*x*', { mime: 'text/markdown' })",
            {"text/markdown": "*x*", "text/plain": "*x*"},
        ),
        ("display('a', { mime: 'text/x' })", {"text/x": "a", "text/plain": "<text/x>"}),
        (
            "display([1], { mime: 'application/x+json' })",
            {"application/x+json": [1], "text/plain": "[ 1 ]"},
        ),
        ("display.text({ a: 1 })", {"text/plain": "{ a: 1 }"}),
        ("display.json({ a: 1 })", {"application/json": {"a": 1}, "text/plain": "{ a: 1 }"}),
        ("display.json(null)", {"application/json": None, "text/plain": "null"}),
        ("display({ 'text/html': 'x' }, { raw: true })", {"text/html": "x"}),
        ("display(5, { mime: 'text/plain' })", {"text/plain": "5"}),
        (
            "display.vega({ title: 'T', mark: 'bar' })",
            {
                "application/vnd.vegalite.v5+json": {"title": "T", "mark": "bar"},
                "text/plain": "<Vega-Lite: T>",
            },
        ),
        (
            "display.vega({ $schema: 'https://vega.github.io/schema/vega/v6.json' })",
            {
                "application/vnd.vega.v6+json": {
                    "$schema": "https://vega.github.io/schema/vega/v6.json"
                },
                "application/vnd.vega.v5+json": {
                    "$schema": "https://vega.github.io/schema/vega/v6.json"
                },
                "text/plain": "<Vega>",
            },
        ),
    ],
)
def test_the_family_of_display(guest: Guest, call: str, data: object) -> None:
    assert bundles(guest, call) == [data]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("display.png('hello')", 'the value of "image/png" must be a PNG image as bytes or base64'),
        ("display.png(5)", 'the value of "image/png" must be a PNG image as bytes or base64'),
        (
            f"display.png('{JPEG}')",
            'the value of "image/png" must be a PNG image as bytes or base64, and is image/jpeg',
        ),
        ("display.jpeg(123)", 'the value of "image/jpeg" must be a JPEG image as bytes or base64'),
        (
            "display('abc', { mime: 'image/png' })",
            'the value of "image/png" must be a PNG image as bytes or base64',
        ),
        (
            "display.svg('hello')",
            'the value of "image/svg+xml" must be the markup of an <svg> element',
        ),
        (
            "display('x', 'text/html')",
            'the options of display must be an object like { mime: "text/html" }, not string',
        ),
        (
            "display.html('x', null)",
            'the options of display must be an object like { mime: "text/html" }, not null',
        ),
        (
            "display('x').update('y', 'text/html')",
            'the options of display must be an object like { mime: "text/html" }, not string',
        ),
    ],
)
def test_what_no_front_end_can_draw_is_refused(shared: Guest, call: str, message: str) -> None:
    error = shared.error(call)
    assert (error["name"], error["message"]) == ("TypeError", message)


def test_the_size_of_an_image(guest: Guest) -> None:
    (event,) = displays(guest, f"display.png('{HEAD}', {{ width: 30, height: 20 }})")
    assert event["metadata"] == {"image/png": {"width": 30, "height": 20}}


def test_tables_that_were_asked_for(guest: Guest) -> None:
    (data,) = bundles(guest, "display.table([{ a: 1, b: 2 }, 5], { columns: ['b'] })")
    assert "│ 0       │ 2 │" in data["text/plain"]
    assert "<th>b</th></tr>" in data["text/html"]
    (data,) = bundles(guest, "display.table({ x: { a: 1 }, y: 7 })")
    assert "<th>a</th><th>Values</th>" in data["text/html"]
    assert "<tr><th>y</th>" in data["text/html"]
    for rows in (
        "new Array(30).fill(5)",
        "new Map(Array.from({ length: 30 }, (_, i) => [i, 5]))",
        "new Set(Array(30).keys())",
        "{ ...Array(30).fill(1) }",
        "new Uint8Array(30)",
    ):
        (data,) = bundles(guest, f"display.table({rows}, {{ rows: 10 }})")
        assert data["text/plain"].count("\n") == 14, data
        assert data["text/plain"].endswith("┘\n… the first 10 of 30 rows")
    columns = "Array.from({ length: 120 }, (_, i) => `k${i}`)"
    wide = f"[Object.fromEntries({columns}.map((k) => [k, 1]))]"
    (data,) = bundles(guest, f"display.table({wide}, {{ columns: {columns} }})")
    assert data["text/html"].count("<td>") == 120
    (data,) = bundles(guest, f"display.table({wide})")
    note = "the first 100 of 120 columns; display.table(…, { columns: [names] }) shows more"
    assert note in data["text/html"]
    (data,) = bundles(guest, "display.table(new Array(2000).fill({ a: 1 }))")
    assert data["text/plain"].endswith("\n… the first 1,000 of 2,000 rows")
    note = "the first 1,000 of 2,000 rows; display.table(…, { rows: 2000 }) shows more"
    assert note in data["text/html"]
    (data,) = bundles(guest, "display.table(new Array(30).fill({ a: 1 }), { rows: 10 })")
    assert "the first 10 of 30 rows" in data["text/html"]
    (data,) = bundles(guest, "display.table(new Map([['k', { a: 1 }]]))")
    assert "<th>k</th><td>1</td>" in data["text/html"]


def test_handles_update_and_clear(guest: Guest) -> None:
    first, second, third = displays(
        guest, "const handle = display.html('one'); handle.update('two'); handle.clear(); handle"
    )
    assert [e["update"] for e in (first, second, third)] == [False, True, True]
    assert second["data"] == HTML | {"text/html": "two"}
    assert third["data"] == {"text/plain": "", "text/html": ""}
    ids = [e["transient"]["display_id"] for e in (first, second, third)]
    assert len(set(ids)) == 1
    (other,) = displays(guest, "display(1)")
    assert other["transient"]["display_id"] not in ids
    (named,) = displays(guest, "display(1, { display_id: 'mine' })")
    assert named["transient"] == {"display_id": "mine"}


def test_a_presentation_may_take_its_time(guest: Guest) -> None:
    slow = (
        f"({{ async {METHOD}() {{ await new Promise((r) => setTimeout(r, 30));"
        " return { 'text/html': 'slow' } } })"
    )
    guest.value(f"await display({slow}); console.log('after')")
    assert [event["event"] for event in guest.output()] == ["display", "stream"]
    guest.value(f"display({slow}); console.log('before')")
    assert [event["event"] for event in guest.output()] == ["stream", "display"]


def test_ids_differ_after_a_restore(guest: Guest) -> None:
    (before,) = displays(guest, "display(1)")
    assert guest.call("hello", restored=True, fresh=False)["main"]
    (after,) = displays(guest, "display(1)")
    ids = [event["transient"]["display_id"] for event in (before, after)]
    assert ids[0].rpartition("-")[0] != ids[1].rpartition("-")[0]


@pytest.mark.parametrize(
    "text",
    [
        "'x'.repeat(300_000)",
        "'\\u{1f996}'.repeat(100_000)",
        "'a' + '\\u{1f996}'.repeat(100_000)",
        "'\\n\"\\\\\\u0001é漢'.repeat(30_000)",
        "'x'.repeat(65535) + '\\ud83e' + 'y'.repeat(65535)",
    ],
)
def test_long_displays_arrive_whole(guest: Guest, text: str) -> None:
    guest.value(f"var text = {text}; undefined")
    code = "display({ 'text/html': text, 'text/plain': 'x' }, { raw: true })"
    (event,) = displays(guest, code)
    (expected,) = bundles(guest, "display.json(Array.from(text.match(/[^]{1,50000}/gu)))")
    assert event["data"]["text/html"] == "".join(expected["application/json"])
    assert (event["metadata"], event["update"]) == ({}, False)
    assert event["data"]["text/plain"] == "x"


def test_what_is_too_long_for_the_wire_is_an_error(guest: Guest) -> None:
    error = guest.error("display('x'.repeat(140 * 1024 * 1024))")
    assert error["name"] == "RangeError"
    assert "the limit is 128 MiB" in error["message"]
    assert bundles(guest, "display('still here')") == [{"text/plain": "still here"}]


# -- console -----------------------------------------------------------------------------------


def test_console_table(guest: Guest) -> None:
    (event,) = displays(guest, "console.table([{ a: 1 }, { a: 'x' }])")
    assert event["data"]["text/plain"] == (
        "┌─────────┬─────┐\n"
        "│ (index) │ a   │\n"
        "├─────────┼─────┤\n"
        "│ 0       │ 1   │\n"
        "│ 1       │ 'x' │\n"
        "└─────────┴─────┘"
    )
    assert "<td>1</td>" in event["data"]["text/html"]
    guest.value("console.table('no table')")
    assert guest.texts() == [("stdout", "no table\n")]
    assert "must be an instance of Array" in guest.error("console.table([], 5)")["message"]


def test_console_table_is_indented_in_a_group(guest: Guest) -> None:
    code = "console.group('g'); console.group(); console.table([5]); console.groupEnd();"
    (event,) = displays(guest, f"{code} console.groupEnd(); console.groupEnd()")
    lines = event["data"]["text/plain"].split("\n")
    assert len(lines) == 5
    assert all(line.startswith(("    ┌", "    │", "    ├", "    └")) for line in lines)
    assert event["data"]["text/html"].startswith('<div style="margin-left: 4ch">\n<table>')
    (event,) = displays(guest, "console.table([5])")
    assert event["data"]["text/plain"].startswith("┌")
    guest.value("console.log('whole')")
    assert guest.texts() == [("stdout", "whole\n")]


def test_console_methods_print_as_in_node(guest: Guest) -> None:
    guest.value(
        "console.group('outer'); console.log('in\\nside'); console.groupEnd();"
        "console.dir({ a: { b: {} } }, { depth: 0 }); console.assert(1 > 2, 'no %s', 'way');"
        "console.assert(true, 'fine'); console.count(); console.count(); console.countReset();"
        "console.count(); console.log('%c%i%%', 'color: red', '42')"
    )
    out = "".join(text for name, text in guest.texts() if name == "stdout")
    assert out == (
        "outer\n  in\n  side\n{ a: [Object] }\ndefault: 1\ndefault: 2\ndefault: 1\n42%\n"
    )
    guest.value("console.assert(1 > 2, 'no %s', 'way')")
    assert guest.texts() == [("stderr", "Assertion failed: no way\n")]
    guest.value("console.time('t'); console.timeLog('t', { x: 1 }); console.timeEnd('t')")
    log, end = (text for _, text in guest.texts())
    assert log.startswith("t: ")
    assert log.endswith("s { x: 1 }\n")
    assert end.startswith("t: ")
    guest.value("function f() { console.trace('here %d', 1) } f()")
    (trace,) = (text for _, text in guest.texts())
    assert trace == "Trace: here 1\n    at f (cell 7:1:24)\n    at cell 7:1:46\n"


def test_presentation_survives_user_patches(guest: Guest) -> None:
    guest.value(
        "for (const f of ['map', 'filter', 'concat', 'join', 'slice', 'find'])"
        "  Array.prototype[f] = null;"
        "for (const f of Object.getOwnPropertyNames(String.prototype))"
        "  if (!['constructor', 'length', 'toString'].includes(f)) String.prototype[f] = null;"
        "RegExp.prototype.exec = null; Buffer.from = null; JSON.stringify = null;"
        "Reflect.ownKeys = null; globalThis.Promise = null; undefined"
    )
    data = result(guest, "({ async toHtml() { return '<b>' } })")
    assert data["text/html"] == "<b>"
    assert "<table>" in result(guest, "[{ a: 1 }]")["text/html"]
    assert bundles(guest, "display.html('x')") == [HTML | {"text/html": "x"}]


# -- progress ----------------------------------------------------------------------------------


def progress_of(guest: Guest, code: str, at: str) -> list[Any]:
    """The events of a cell that somebody at such a place sees."""
    reply = guest.run(code, audience=at)
    assert reply["status"] == "ok", reply
    assert reply["result"] is None
    return guest.output()


SLOW = (
    "for (const x of progress([1, 2, 3], { label: 'work <1>' }))"
    " await new Promise((r) => setTimeout(r, 60)); undefined"
)


def test_progress_is_a_bar_in_a_notebook(guest: Guest) -> None:
    first, *updates = progress_of(guest, SLOW, "notebook")
    assert [event["update"] for event in updates] == [True] * len(updates)
    assert 1 <= len(updates) <= 3
    assert len({event["transient"]["display_id"] for event in (first, *updates)}) == 1
    html = updates[-1]["data"]["text/html"]
    assert html.startswith('work &lt;1&gt; <progress value="3" max="3"></progress> 100% 3/3, 0.')
    assert updates[-1]["data"]["text/plain"].startswith("work <1> ████████████████████ 100% 3/3")


def test_progress_is_a_line_at_a_console(guest: Guest) -> None:
    events = progress_of(guest, SLOW, "console")
    assert {event["name"] for event in events} == {"stdout"}
    text = "".join(event["text"] for event in events)
    assert text.startswith("\rwork <1> ░░░░░░░░░░░░░░░░░░░░ 0% 0/3, 0.0 s\r")
    assert text.endswith("\n")
    assert text.count("\n") == 1
    assert "100% 3/3" in text.rpartition("\r")[2]


@pytest.mark.parametrize("code", ["null.x", "1", "await 1", "foo(); import 'fs'"])
def test_a_line_at_a_console_ends_with_its_cell(guest: Guest, code: str) -> None:
    guest.run(f"var p = progress(9); p.tick(); p.update(5); {code};", audience="console")
    text = "".join(event["text"] for event in guest.output())
    assert "5/9" in text.rpartition("\r")[2], "it shows what it has come to"
    assert text.endswith("\n")
    guest.run("p.done(); undefined", audience="console")
    text = "".join(event["text"] for event in guest.output())
    assert (text[0], text[-1], text.count("\n")) == ("\r", "\n", 1)


@pytest.mark.parametrize("wait", ["for (;;);", "await new Promise(() => {})"])
def test_a_line_at_a_console_ends_with_an_interrupt(guest: Guest, wait: str) -> None:
    code = f"for (const x of progress(9)) {{ if (x === 2) {{ console.log('!'); {wait} }} }}"
    cell = guest.start(code, audience="console")
    while guest.events.get(timeout=30)["text"] != "!\n":
        pass
    guest.interrupt()
    assert guest.reply(cell)["error"]["interrupted"]
    text = "".join(event["text"] for event in guest.output())
    assert "2/9" in text.rpartition("\r")[2], "it shows what it has come to"
    assert text.endswith("\n")


def test_progress_is_text_when_it_runs_unattended(guest: Guest) -> None:
    events = progress_of(guest, SLOW, "unattended")
    assert all(list(event["data"]) == ["text/plain"] for event in events)


def test_progress_is_shown_at_intervals_and_to_its_end(guest: Guest) -> None:
    many = "for (const x of progress(Array.from({ length: 200000 }))); undefined"
    events = progress_of(guest, many, "notebook")
    assert len(events) < 200  # of 200,000; one for each 100 ms that it takes
    assert "200000/200000" in events[-1]["data"]["text/plain"]
    late = "const p = display.progress(9); p.tick(); p.update(5)"
    events = progress_of(
        guest, f"{late}; await new Promise((r) => setTimeout(r, 160)); 0;undefined", "notebook"
    )
    assert "5/9" in events[-1]["data"]["text/plain"]
    (event,) = progress_of(guest, "p.done(); p.done()", "notebook")
    assert "9/9" in event["data"]["text/plain"]


def test_progress_of_a_total_counts_up_to_it(guest: Guest) -> None:
    code = "var seen = []; for (const x of progress(3)) seen.push(x); undefined"
    assert "3/3" in progress_of(guest, code, "unattended")[-1]["data"]["text/plain"]
    assert guest.value("seen.join()") == "'0,1,2'"
    code = "for (const x of progress(3)) break; undefined"
    assert "0/3" in progress_of(guest, code, "unattended")[-1]["data"]["text/plain"]
    assert "no total" in guest.error("for (const x of progress());")["message"]


def test_a_member_of_the_family_wants_a_value(shared: Guest) -> None:
    error = shared.error("display.html()")
    assert (error["name"], error["message"]) == (
        "TypeError",
        "display.html(value, options) wants a value",
    )
    assert shared.error("display.table()")["message"].startswith("display.table(value")


def test_progress_of_unknown_size_counts(guest: Guest) -> None:
    code = (
        "async function* two() { yield 1; yield 2; yield 3 }"
        "for await (const x of progress(two())) if (x === 3) break; undefined"
    )
    first, *_, last = progress_of(guest, code, "notebook")
    assert first["data"]["text/html"].startswith("<progress></progress> 0, ")
    assert last["data"]["text/html"].startswith("2, ")
    sized = "for (const x of progress(new Set([1, 2]))); undefined"
    assert "2/2" in progress_of(guest, sized, "unattended")[-1]["data"]["text/plain"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("progress({})", "takes a total or something to iterate"),
        ("progress(5n)", "takes a total or something to iterate"),
        ("progress(-1)", "a total is a number from 0 on, not -1"),
        ("display.progress(3).update('x')", "progress is a number, not string"),
    ],
)
def test_bad_progress_is_an_error(guest: Guest, call: str, message: str) -> None:
    assert message in guest.error(call)["message"]


# -- colours -----------------------------------------------------------------------------------


def test_colours_of_values(guest: Guest) -> None:
    code = "console.log({ a: 1 }); display({ a: 1 }); ({ a: 1 })"
    for colors, one in (("all", "\x1b[33m1\x1b[39m"), ("errors", "1"), ("none", "1")):
        reply = guest.run(code, colors=colors, user_expressions={"x": "1"})
        assert reply["result"]["data"]["text/plain"] == f"{{ a: {one} }}"
        assert reply["user_expressions"]["x"]["data"] == {"text/plain": "1"}
        stream, display = guest.output()
        assert stream["text"] == f"{{ a: {one} }}\n"
        assert display["data"] == {"text/plain": f"{{ a: {one} }}"}
    wide = "Array.from({ length: 100 }, () => 'x'.repeat(9000))"
    text = guest.run(wide, colors="all")["result"]["data"]["text/plain"]
    assert "\x1b[0m\n… cut: 64 of" in text


def test_colours_of_errors(guest: Guest) -> None:
    def traceback(colors: str) -> str:
        return "".join(guest.run("throw { a: 1 }", colors=colors)["error"]["traceback"])

    assert "\x1b[" in traceback("all")
    assert "\x1b[" in traceback("errors")
    assert "\x1b[" not in traceback("none")
