"""What front ends get to see of values, displays and tables, also across a rewind."""

from __future__ import annotations

import nbformat
import pytest
from driver import Kernel


def test_results_have_a_presentation_and_text(kernel: Kernel) -> None:
    (data,) = kernel.ok("[{ a: 1 }, { a: 2 }]").results
    assert data["text/plain"] == "[ { a: 1 }, { a: 2 } ]"
    assert "<th>a</th>" in data["text/html"]
    (data,) = kernel.ok("({ toSvg: async () => '<svg/>' })").results
    assert data["image/svg+xml"] == "<svg/>"
    assert kernel.ok("display('x')").results == []


def test_a_failing_presentation_leaves_the_text(kernel: Kernel) -> None:
    result = kernel.ok("({ toHtml() { throw new Error('boom') } })")
    assert result.text == "{ toHtml: [Function: toHtml] }"
    assert "Error: boom\n    at Object.toHtml (cell" in result.stderr


def test_displays_are_updated_across_cells_and_rewinds(kernel: Kernel) -> None:
    made = kernel.ok("var handle = display.html('<i>one</i>'); handle")
    (shown,) = made.contents("display_data")
    kernel.ok("var more = 1")
    kernel.rewind(made.count)
    updated = kernel.ok("handle.update('<i>two</i>')").contents("update_display_data")
    assert [content["transient"] for content in updated] == [shown["transient"]]
    assert updated[0]["data"]["text/html"] == "<i>two</i>"
    (cleared,) = kernel.ok("handle.clear()").contents("update_display_data")
    assert cleared["data"] == {"text/plain": "", "text/html": ""}


def test_branches_share_no_ids(kernel: Kernel) -> None:
    start = kernel.ok("display('before')").count
    (one,) = kernel.ok("display('one')").contents("display_data")
    kernel.rewind(start)
    (two,) = kernel.ok("display('two')").contents("display_data")
    assert one["transient"]["display_id"] != two["transient"]["display_id"]


def test_console_table_is_a_table(kernel: Kernel) -> None:
    (data,) = kernel.ok("console.table([{ a: 1 }])").displays
    assert "│ 0       │ 1 │" in data["text/plain"]
    assert "<td>1</td>" in data["text/html"]


def test_a_forged_bundle_cannot_break_a_notebook(kernel: Kernel) -> None:
    forged = (
        '{"event":"display","data":{"text/html":5,"no type":"x","application/json":{"a":1},'
        '"text/plain":"fine","image/png":{"a":1}},"metadata":{}}'
    )
    result = kernel.ok(
        f"{{ const body = Buffer.from({forged!r}); const head = Buffer.alloc(4);"
        "head.writeUInt32BE(body.length); require('fs').writeSync(5, Buffer.concat([head, body])) }"
        ";undefined"
    )
    (data,) = result.displays
    assert data == {"application/json": {"a": 1}, "text/plain": "fine"}
    output = nbformat.v4.new_output("display_data", data=data)
    cell = nbformat.v4.new_code_cell("x", outputs=[output])
    nbformat.validate(nbformat.v4.new_notebook(cells=[cell]))


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("display('x', { mime: 'html' })", '"html" is no MIME type; one is "text/html"'),
        ("display.html({})", 'the value of "text/html" must be a string, not of type object'),
        ("const c = {}; c.c = c; display.json(c)", '"application/json" is no JSON: Converting'),
    ],
)
def test_bad_displays_are_errors_of_the_cell(kernel: Kernel, code: str, error: str) -> None:
    assert error in kernel.fails(code).error


@pytest.mark.parametrize("text", ["x", "é", "\U0001f996", 'a "quoted"\n\\line\n'])
def test_ten_megabytes_in_one_display(kernel: Kernel, text: str) -> None:
    count = 10_000_000 // len(text.encode())
    (content,) = kernel.ok(f"display({text!r}.repeat({count}))").contents("display_data")
    assert content["data"] == {"text/plain": text * count}
    assert list(content["transient"]) == ["display_id"]
    assert content["metadata"] == {}
    assert kernel.ok("display('next')").shown == "next"
