"""Messages as VS Code and JupyterLab send them, and what all front ends count on in answers."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

import pytest
from driver import SECONDS, Json, Kernel

pytestmark = pytest.mark.e2e

VSCODE_CELL = "vscode-notebook-cell:/home/ada/notes.ipynb#W2sZmlsZQ%3D%3D"
JUPYTERLAB = {
    "cellId": "0f5f0b6e-6f07-4a3c-9d0e-9f6d7a3b8c11",
    "deletedCells": ["a4b1c2d3", "e5f60718"],
    "recordTiming": True,
    "trusted": True,
    "tags": ["raises-exception"],
}


class Exchange:
    """One request on the shell channel, and all that answers it."""

    _sent: ClassVar[dict[str, Exchange]] = {}

    def __init__(self, kernel: Kernel, kind: str, content: Json, metadata: Json | None = None):
        self._kernel = kernel
        self.request = kernel.client.session.msg(kind, content, metadata=metadata or {})
        self.reply: Json = {}
        self.iopub: list[Json] = []
        self._sent[self.request["header"]["msg_id"]] = self
        kernel.client.shell_channel.send(self.request)

    def finish(self) -> Json:
        """Wait for idle and for the reply; the reply."""
        client = self._kernel.client
        while self.states[-1:] != ["idle"]:
            message = client.get_iopub_msg(timeout=SECONDS)
            if exchange := self._sent.get(message["parent_header"].get("msg_id")):
                exchange.iopub.append(message)
        while not self.reply:
            message = client.get_shell_msg(timeout=SECONDS)
            if exchange := self._sent.get(message["parent_header"].get("msg_id")):
                exchange.reply = message
        return self.reply

    @property
    def states(self) -> list[str]:
        """The execution states that were told."""
        return [m["content"]["execution_state"] for m in self.iopub if m["msg_type"] == "status"]

    @property
    def kinds(self) -> list[str]:
        """The types of what was published."""
        return [message["msg_type"] for message in self.iopub]


def execute(kernel: Kernel, code: str, metadata: Json, **content: Any) -> Exchange:
    """An execute_request with all that the protocol asks for."""
    whole = {
        "code": code,
        "silent": False,
        "store_history": True,
        "user_expressions": {},
        "allow_stdin": True,
        "stop_on_error": True,
    }
    return Exchange(kernel, "execute_request", whole | content, metadata)


def vscode(kernel: Kernel, code: str) -> Exchange:
    """A cell as VS Code runs it."""
    return execute(kernel, code, {"cellId": VSCODE_CELL}, stop_on_error=False)


def test_vscode_runs_on_after_an_error(kernel: Kernel) -> None:
    cells = [
        vscode(kernel, code)
        for code in (
            "let seen = ['first']",
            "seen.push('second'); throw new RangeError('no matter')",
            "seen.push('third'); seen",
        )
    ]
    replies = [cell.finish()["content"] for cell in cells]
    assert [reply["status"] for reply in replies] == ["ok", "error", "ok"]
    assert replies[1]["ename"] == "RangeError"
    assert cells[1].kinds == ["status", "execute_input", "error", "status"]
    (result,) = [m["content"] for m in cells[2].iopub if m["msg_type"] == "execute_result"]
    coloured = "[ {0}'first'{1}, {0}'second'{1}, {0}'third'{1} ]".format("\x1b[32m", "\x1b[39m")
    assert result["data"]["text/plain"] == coloured
    assert result["execution_count"] == replies[2]["execution_count"]


def test_vscode_runs_a_cell_again_and_rewinds_it(kernel: Kernel) -> None:
    """The id of a cell stays, its execution count, which names the checkpoint, does not."""
    vscode(kernel, "let n = 0").finish()
    first = vscode(kernel, "++n").finish()["content"]["execution_count"]
    second = vscode(kernel, "++n").finish()["content"]["execution_count"]
    assert second == first + 1
    assert vscode(kernel, f"%rewind {first}").finish()["content"]["status"] == "ok"
    assert kernel.value("n") == 1


def test_vscode_asks_while_a_cell_runs(kernel: Kernel) -> None:
    """Its language server and its variable view send requests whenever they like."""
    running = vscode(kernel, "await new Promise((r) => setTimeout(r, 300)); 'done'")
    asked = [
        Exchange(kernel, "kernel_info_request", {}),
        Exchange(kernel, "comm_info_request", {}),
        Exchange(kernel, "complete_request", {"code": "Math.ab", "cursor_pos": 7}),
        Exchange(kernel, "inspect_request", {"code": "Math", "cursor_pos": 4, "detail_level": 0}),
    ]
    assert running.finish()["content"]["status"] == "ok"
    replies = [request.finish()["content"] for request in asked]
    assert all(reply["status"] == "ok" for reply in replies)
    assert replies[1]["comms"] == {}
    assert replies[2]["matches"] == ["abs"]
    assert replies[3]["found"]


def test_jupyterlab_learns_when_a_cell_began(kernel: Kernel) -> None:
    cell = execute(kernel, "6 * 7", JUPYTERLAB)
    reply = cell.finish()
    assert reply["content"]["status"] == "ok"
    sent, ended = cell.request["header"]["date"], reply["header"]["date"]
    assert sent <= datetime.fromisoformat(reply["metadata"]["started"]) <= ended


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("execute_request", {"code": "console.log(1); display(2); 3", "silent": False}),
        ("execute_request", {"code": "throw new Error('x')", "silent": False}),
        ("execute_request", {"code": "%timeline", "silent": False}),
        ("complete_request", {"code": "Ma", "cursor_pos": 2}),
        ("inspect_request", {"code": "Math", "cursor_pos": 2, "detail_level": 1}),
        ("is_complete_request", {"code": "f("}),
        ("history_request", {"hist_access_type": "tail", "n": 1, "raw": True, "output": False}),
        ("comm_info_request", {"target_name": "none"}),
        ("kernel_info_request", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_answers_a_request_says_so(kernel: Kernel, kind: str, content: Json) -> None:
    """Busy first, idle last, and the whole header of the request as the parent of each message."""
    exchange = Exchange(kernel, kind, content)
    reply = exchange.finish()
    assert reply["msg_type"] == kind.replace("request", "reply")
    assert exchange.states == ["busy", "idle"]
    assert (exchange.kinds[0], exchange.kinds[-1]) == ("status", "status")
    sent = exchange.request["header"]
    for message in (reply, *exchange.iopub):
        assert message["parent_header"]["msg_id"] == sent["msg_id"]
        assert message["parent_header"]["session"] == sent["session"]
        assert message["parent_header"]["msg_type"] == kind
        assert message["header"]["msg_type"] == message["msg_type"]
    published = [message["header"]["msg_id"] for message in exchange.iopub]
    assert len({*published, reply["header"]["msg_id"]}) == len(published) + 1


def test_requests_on_the_control_channel_are_answered_beside_a_cell(kernel: Kernel) -> None:
    running = kernel.submit("console.log('begun'); await new Promise((r) => setTimeout(r, 1e6))")
    kernel.messages_until(running, "stream", "begun")
    assert kernel.control("kernel_info_request")["implementation"] == "crkernel"
    assert kernel.control("usage_request")["pid"] == kernel.pid
    assert kernel.interrupt()["status"] == "ok"
    assert kernel.finish(running).status == "error"


def test_late_output_belongs_to_the_cell_that_began_last(kernel: Kernel) -> None:
    """There is nowhere else where a front end could show it: the earlier cell's output is done."""
    first = kernel.ok("setTimeout(() => console.log('la' + 'te'), 400); 0")
    second = kernel.ok("'now'")
    kernel.messages_until(second, "stream", "late")
    assert first.stdout == ""


def test_a_request_of_an_unknown_type_is_survived(kernel: Kernel) -> None:
    message = kernel.client.session.msg("paint_request", {"colour": "mauve"})
    kernel.client.shell_channel.send(message)
    assert kernel.value("1 + 1") == 2
