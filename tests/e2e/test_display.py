"""What front ends get to see of values, displays and tables, also across a rewind."""

from __future__ import annotations

import nbformat
import pytest
import zmq
from _driver import eventually
from driver import SECONDS, Json, Kernel, Result


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


# -- who looks ---------------------------------------------------------------------------------


def run_for(kernel: Kernel, code: str, metadata: Json, *, can_answer: bool) -> Result:
    """Run a cell as a front end of some kind would."""
    kernel.cells += 1
    content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}}
    content |= {"allow_stdin": can_answer, "stop_on_error": True}
    message = kernel.client.session.msg("execute_request", content, metadata=metadata)
    kernel.client.shell_channel.send(message)
    return kernel.finish(kernel.expect(code, message["header"]["msg_id"]))


def test_a_notebook_has_colours_and_bars(kernel: Kernel) -> None:
    code = "for (const x of progress([1, 2])); ({ a: 1 })"
    notebook = run_for(kernel, code, {"cellId": "c"}, can_answer=True)
    assert notebook.text == "{ a: \x1b[33m1\x1b[39m }"
    assert "<progress" in notebook.displays[0]["text/html"]
    program = run_for(kernel, code, {}, can_answer=True)
    assert program.text == "{ a: 1 }"
    kernel.client.is_complete("f(")  # somebody types there
    console = run_for(kernel, code, {}, can_answer=True)
    assert console.text == notebook.text
    assert console.stdout.startswith("\r")
    assert console.stdout.endswith("\n")
    unattended = run_for(kernel, code, {}, can_answer=False)
    assert unattended.text == "{ a: 1 }"
    assert list(unattended.displays[0]) == ["text/plain"]


def test_packages_that_ask_whether_to_colour_are_told(kernel: Kernel) -> None:
    code = (
        "const { styleText } = require('util'), { stdout } = process;"
        "[styleText('red', 'a').length, stdout.getColorDepth(), stdout.hasColors(),"
        " stdout.hasColors({ NO_COLOR: '1' }), stdout.hasColors({ FORCE_COLOR: '1' }),"
        " !!stdout.isTTY].join()"
    )
    notebook = run_for(kernel, code, {"cellId": "c"}, can_answer=True)
    assert "11,24,true,false,true,false" in notebook.text
    unattended = run_for(kernel, code, {}, can_answer=False)
    assert "1,1,false,false,true,false" in unattended.text


def test_packages_that_look_for_a_terminal_find_colours(kernel: Kernel) -> None:
    """As chalk and picocolors do; children, other streams and those who list it find nothing."""
    code = (
        "const file = require('fs').createWriteStream('/tmp/colours');"
        "const { env } = process, child = ['-e', 'console.log([1])'];"
        "[env.FORCE_COLOR, 'FORCE_COLOR' in env, 'FORCE_COLOR' in { ...env },"
        " require('child_process').execFileSync(process.execPath, child).length,"
        " require('util').styleText('red', 'a', { stream: file }).length].join()"
    )
    assert "'3,true,false,6,1'" in run_for(kernel, code, {"cellId": "c"}, can_answer=True).text
    assert "',false,false,6,1'" in run_for(kernel, code, {}, can_answer=False).text
    mine = "process.env.FORCE_COLOR = '0'; require('util').styleText('red', 'a')"
    assert "'a'" in run_for(kernel, mine, {"cellId": "c"}, can_answer=True).text
    back = "delete process.env.FORCE_COLOR; process.env.FORCE_COLOR"
    assert "'3'" in run_for(kernel, back, {"cellId": "c"}, can_answer=True).text


def test_colours_can_be_set(kernel: Kernel) -> None:
    assert "from the next cell on" in kernel.ok("%config colors = always").shown
    assert kernel.ok("1").text == "\x1b[33m1\x1b[39m"
    kernel.ok("%config colors = never")
    assert "\x1b[" not in kernel.fails("throw { a: 1 }").traceback
    assert run_for(kernel, "1", {"cellId": "c"}, can_answer=True).text == "1"
    assert "auto" in kernel.fails("%config colors = blue").error
    kernel.ok("%config colors = auto")


def test_progress_goes_on_after_a_rewind(kernel: Kernel) -> None:
    began = kernel.run("var bar = display.progress(4); bar.tick()", allow_stdin=False)
    (shown,) = began.contents("display_data")
    kernel.run("bar.tick(2)", allow_stdin=False)
    kernel.rewind(began.count)
    # before it may come what the tick of the first cell was too early for
    *_, last = kernel.run("bar.done()", allow_stdin=False).contents("update_display_data")
    assert last["transient"] == shown["transient"]
    assert "4/4" in last["data"]["text/plain"]


def test_a_flood_of_output_is_cut(kernel: Kernel) -> None:
    kernel.ok("%config output_size = 1M")
    code = "for (let i = 0; i < 3000; i++) console.log('x'.repeat(999)); console.log('end')"
    result = kernel.ok(code)
    assert len(result.stdout) == 1 << 20
    assert result.stderr.count("the rest of this cell's output is not shown") == 1
    assert kernel.ok("console.log('next')").stdout == "next\n"
    kernel.ok("%config output_size = 16M")


def test_displays_and_comms_are_cut_where_a_client_is_slow(kernel: Kernel) -> None:
    """By bytes, which wait in our memory; not so what both sides have to know of comms."""
    kernel.ok("%config output_size = 64K")
    count = 500  # what does not wait for the client to take it fills sockets, some 10 MiB
    with zmq.Context() as context, context.socket(zmq.SUB) as slow:
        slow.rcvhwm, slow.rcvtimeo = 1, int(1000 * SECONDS)
        slow.connect(kernel.client._make_url("iopub"))
        slow.subscribe(b"")
        slow.subscribe(b"slow")  # a topic that nobody else has is welcome
        slow.recv_multipart()  # and it takes no more
        result = kernel.ok(
            "const long = 'x'.repeat(1 << 16), id = { display_id: 'd' };"
            f"for (let i = 0; i < {count}; i++) display(long, {{ ...id, update: i > 0 }});"
            "const c = comm.open('t'); c.send('late'); c.close(); console.log('end')"
        )
    assert 16 <= len(result.contents("update_display_data")) < count - 1
    assert [len(result.contents(f"comm_{kind}")) for kind in ("open", "msg", "close")] == [1, 0, 1]
    assert result.stdout == "end\n"
    assert result.stderr.count("raise %config output_size") == 1
    assert eventually(lambda: not kernel.ok("display('next')").stderr, SECONDS), "it has gone"
    result = kernel.ok("for (let i = 0; i < 40; i++) display(long); comm.open('t').send('on')")
    assert (len(result.contents("display_data")), result.stderr) == (40, "")
    assert result.contents("comm_msg")
    kernel.ok("%config output_size = 16M")


def test_many_displays_all_come_to_a_client_that_is_slow(kernel: Kernel) -> None:
    """ZMQ drops what it has no room for, also the end of the cell."""
    count = 20_000
    cell = kernel.submit(f"for (let i = 0; i < {count}; i++) display(String(i))")
    assert eventually(kernel.client.shell_channel.msg_ready, SECONDS)  # and nothing taken till then
    shown = kernel.finish(cell).contents("display_data")
    assert [one["data"]["text/plain"] for one in shown] == [str(i) for i in range(count)]
