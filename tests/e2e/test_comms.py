"""Comms: messages between the front end and the code of cells, in both directions."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from _driver import eventually
from driver import SECONDS, Json, Kernel, Result

pytestmark = pytest.mark.e2e

SLIDER = Path(__file__).with_name("slider.js").read_text(encoding="utf-8")


class FrontEnd:
    """The front end's side: sends comm messages and collects what IOPub brings of them."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.messages: list[Json] = []

    def send(
        self,
        kind: str,
        comm: str,
        data: Any = None,
        *,
        buffers: list[bytes] | None = None,
        **more: Any,
    ) -> str:
        """A message on the shell channel; its id."""
        session = self.kernel.client.session
        content = {"comm_id": comm, "data": {} if data is None else data, **more}
        message = session.msg(f"comm_{kind}", content)
        session.send(self.kernel.client.shell_channel.socket, message, buffers=buffers)
        return str(message["header"]["msg_id"])

    def take(self, kind: str, *, parent: str | None = None) -> Json:
        """Wait for an IOPub message of that type, with that parent if one is given."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            for messages in (self.messages, *(r.messages for r in self.kernel._results.values())):
                for message in messages:
                    from_there = parent in (None, message["parent_header"].get("msg_id"))
                    if message["msg_type"] == kind and from_there:
                        messages.remove(message)
                        return message
            got = self.kernel.client.get_iopub_msg(timeout=SECONDS)
            self.messages.append(got)
            if got["msg_type"] == "status" and got["content"]["execution_state"] == "idle":
                self.kernel._idle.add(got["parent_header"].get("msg_id"))
        raise AssertionError(f"no {kind} among {self.messages}")

    def run(self, code: str) -> Result:
        """A cell that must not fail."""
        return self.kernel.ok(code)

    def info(self, **content: Any) -> dict[str, Any]:
        """The comms of a comm_info_reply."""
        self.kernel.client.comm_info(**content)
        reply = self.kernel.reply("comm_info_reply")
        assert reply["status"] == "ok"
        comms: dict[str, Any] = reply["comms"]
        return comms


@pytest.fixture
def front(kernel: Kernel) -> FrontEnd:
    for result in kernel._results.values():  # of earlier tests, whose comms the reset has closed
        result.messages.clear()
    return FrontEnd(kernel)


def opened(front: FrontEnd, more: str = "") -> tuple[str, Result]:
    """A comm that a cell opens, as `c`; what it gets is in `got`."""
    cell = front.run(
        "const got = []; const c = comm.open('board', { size: 8 }, { metadata: { v: 1 } })"
        f".onMsg((m) => got.push(m.data)).onClose(() => got.push('closed')); {more}; 0"
    )
    message = front.take("comm_open")
    assert message["parent_header"]["msg_id"] == cell.id
    assert message["content"]["target_name"] == "board"
    assert message["content"]["data"] == {"size": 8}
    assert message["metadata"] == {"v": 1}
    return message["content"]["comm_id"], cell


def test_a_cell_opens_sends_and_closes(front: FrontEnd) -> None:
    number, _ = opened(front)
    assert front.info() == {number: {"target_name": "board"}}
    assert front.info(target_name="other") == {}
    cell = front.run("c.send({ move: 'e4' }, { buffers: [new Uint8Array([1, 2, 255])] }); 0")
    message = front.take("comm_msg")
    assert message["content"] == {"comm_id": number, "data": {"move": "e4"}}
    assert message["parent_header"]["msg_id"] == cell.id
    assert [bytes(part) for part in message["buffers"]] == [b"\x01\x02\xff"]
    front.run("c.close({ why: 'done' }); 0")
    assert front.take("comm_close")["content"] == {"comm_id": number, "data": {"why": "done"}}
    assert front.info() == {}
    assert front.kernel.ok("c.isOpen").text == "false"
    assert "is closed" in front.kernel.fails("c.send({})").error


def test_messages_reach_the_guest_between_cells(front: FrontEnd) -> None:
    number, _ = opened(front, "let parts; c.onMsg((m) => { got.push(m.data); parts = m.buffers })")
    sent = front.send("msg", number, {"move": "e5"}, buffers=[b"\x00\xfe", b""])
    front.take("status", parent=sent)
    assert front.kernel.ok("got").text == "[ { move: 'e5' } ]"
    assert front.kernel.ok("parts").text == "[ <Buffer 00 fe>, <Buffer > ]"
    front.send("close", number)
    assert front.kernel.value("got.at(-1)") == "closed"
    assert front.info() == {}


def test_what_a_handler_shows_answers_the_message(front: FrontEnd) -> None:
    number, cell = opened(
        front,
        "c.onMsg(async (m) => { console.log('got', m.data.n); c.send({ twice: 2 * m.data.n });"
        " await null; display('shown') })",
    )
    sent = front.send("msg", number, {"n": 4})
    assert front.take("stream", parent=sent)["content"]["text"] == "got 4\n"
    assert front.take("comm_msg", parent=sent)["content"]["data"] == {"twice": 8}
    shown = front.take("display_data", parent=sent)
    assert shown["content"]["data"]["text/plain"] == "shown"
    idle = front.take("status", parent=sent)
    assert idle["content"]["execution_state"] == "busy"
    # what the cell's own timers print is still the cell's
    front.run("setTimeout(() => console.log('later'), 50); 0")
    assert front.take("stream")["parent_header"]["msg_id"] not in (sent, cell.id)


def test_a_front_end_opens_what_a_cell_has_registered(front: FrontEnd) -> None:
    front.run(
        "let seen; comm.target('chart', (c, m) => { seen = [c.target, m.data.n]; c.onMsg((m) =>"
        " c.send(m.data)) })"
    )
    number = uuid.uuid4().hex
    front.send("open", number, {"n": 3}, target_name="chart")
    assert front.kernel.ok("seen").text == "[ 'chart', 3 ]"
    opened = {number: {"target_name": "chart"}}
    assert eventually(lambda: front.info() == opened, 5)  # one of an earlier test may just go
    front.send("msg", number, {"echo": [1, None, "ü"]})
    assert front.take("comm_msg")["content"]["data"] == {"echo": [1, None, "ü"]}


def test_what_nobody_knows_is_closed(front: FrontEnd) -> None:
    number = uuid.uuid4().hex
    front.send("open", number, target_name="no such target")
    assert front.take("comm_close")["content"]["comm_id"] == number
    front.send("msg", number, {"x": 1})
    assert front.take("comm_close")["content"]["comm_id"] == number
    front.send("close", number)
    assert front.info() == {}
    front.run("comm.target('picky', () => { throw new Error('not ' + 'you') })")
    sent = front.send("open", number, target_name="picky")
    assert front.take("comm_close")["content"]["comm_id"] == number
    assert "not you" in front.take("stream", parent=sent)["content"]["text"]
    assert front.info() == {}


def test_messages_arrive_while_a_cell_awaits(front: FrontEnd) -> None:
    number, _ = opened(front)
    cell = front.kernel.submit("while (got.length < 2) await new Promise(setImmediate); got")
    front.send("msg", number, 1)
    front.send("msg", number, 2)
    assert front.kernel.finish(cell).text == "[ 1, 2 ]"


def test_messages_wait_while_a_cell_spins(front: FrontEnd) -> None:
    number, _ = opened(front)
    cell = front.kernel.submit(
        "console.log('begun'); const e = Date.now() + 300; while (Date.now() < e); got"
    )
    front.kernel.messages_until(cell, "stream", "begun")
    front.send("msg", number, 1)
    assert front.kernel.finish(cell).text == "[]"
    assert front.kernel.value("got") == [1]


def test_errors_of_handlers_are_told_and_survived(front: FrontEnd) -> None:
    number, _ = opened(front, "c.onMsg(() => { throw new RangeError('off ' + 'board') })")
    sent = front.send("msg", number, {})
    text = front.take("stream", parent=sent)["content"]["text"]
    assert "RangeError: off board" in text
    assert "/guest/" not in text
    assert front.kernel.ok("c.isOpen").text == "true"


def test_a_handler_that_spins_can_be_interrupted(front: FrontEnd) -> None:
    number, _ = opened(front, "c.onMsg(() => { console.log('spins'); for (;;); })")
    sent = front.send("msg", number, {})
    front.take("stream", parent=sent)
    assert front.kernel.interrupt()["status"] == "ok"
    result = front.kernel.run("c.isOpen", 10)
    assert result.text == "true"
    assert front.kernel.row(result.count)  # and checkpoints are taken as before


def test_wrong_uses_are_type_errors(front: FrontEnd) -> None:
    for code in (
        "comm.open(5)",
        "comm.open('t', 5)",
        "comm.open('t', null)",
        "comm.open('t', {}, { buffers: 5 })",
        "comm.open('t', { big: 1n })",
        "comm.target('t', 5)",
        "comm.open('t').onMsg('no')",
    ):
        assert front.kernel.fails(code).error.startswith("TypeError"), code


# -- time travel -------------------------------------------------------------------------------


def test_what_a_message_changed_is_a_state_of_its_own(front: FrontEnd) -> None:
    number, cell = opened(front)
    front.send("msg", number, 5)
    assert front.kernel.value("got") == [5]
    front.kernel.rewind(cell.count)
    assert front.kernel.value("got") == []
    assert front.info() == {number: {"target_name": "board"}}
    front.kernel.rewind(f"{cell.count}+1")
    assert front.kernel.value("got") == [5]
    front.send("msg", number, 6)
    assert front.kernel.value("got") == [5, 6]


def test_a_rewind_closes_what_was_opened_since(front: FrontEnd) -> None:
    before = front.run("0").count
    number, _ = opened(front)
    front.run(f"%rewind {before}")
    assert front.take("comm_close")["content"]["comm_id"] == number
    assert front.info() == {}
    front.send("msg", number, 1)
    assert front.take("comm_close")["content"]["comm_id"] == number


def test_a_rewind_tells_the_guest_what_was_closed_since(front: FrontEnd) -> None:
    number, cell = opened(front)
    front.send("close", number)
    assert front.kernel.value("got") == ["closed"]
    front.kernel.rewind(cell.count)
    assert front.kernel.value("[got, c.isOpen]") == [["closed"], False]
    assert front.info() == {}


def test_a_reset_closes_all(front: FrontEnd) -> None:
    number, _ = opened(front)
    front.run("%reset")
    assert front.take("comm_close")["content"]["comm_id"] == number


def test_after_a_restart_comms_of_the_past_are_closed(fresh_kernel: Kernel) -> None:
    fresh_kernel.ok("let why = null; const c = comm.open('board').onClose(() => { why = 'gone' })")
    fresh_kernel.manager.restart_kernel()
    fresh_kernel.client.wait_for_ready(timeout=30)
    assert FrontEnd(fresh_kernel).info() == {}
    fresh_kernel.rewind("r1.1")
    assert fresh_kernel.value("[c.isOpen, why]") == [False, "gone"]


# -- a widget ----------------------------------------------------------------------------------


def test_a_cell_drives_a_widget(front: FrontEnd) -> None:
    front.run(SLIDER)
    cell = front.run(
        "const s = slider({ value: 3, max: 10 }); const seen = [];"
        " s.onChange((v) => seen.push(v)); s"
    )
    layout, model = front.take("comm_open"), front.take("comm_open")
    assert layout["content"]["target_name"] == model["content"]["target_name"] == "jupyter.widget"
    assert model["metadata"] == {"version": "2.1.0"}
    state = model["content"]["data"]["state"]
    assert state["_model_name"] == "IntSliderModel"
    assert (state["value"], state["max"]) == (3, 10)
    assert state["layout"] == f"IPY_MODEL_{layout['content']['comm_id']}"
    number = model["content"]["comm_id"]
    (view,) = (data["application/vnd.jupyter.widget-view+json"] for data in cell.results)
    assert view == {"model_id": number, "version_major": 2, "version_minor": 0}

    update = {"method": "update", "state": {"value": 7}, "buffer_paths": []}
    front.send("msg", number, update)
    assert front.kernel.value("[s.value, seen]") == [7, [7]]
    front.run("s.value = 9; 0")
    assert front.take("comm_msg")["content"]["data"] == update | {"state": {"value": 9}}
    front.kernel.rewind(cell.count)
    assert front.kernel.value("[s.value, seen]") == [3, []]
    front.send("msg", number, {"method": "request_state"})
    assert front.take("comm_msg")["content"]["data"]["state"]["value"] == 3
