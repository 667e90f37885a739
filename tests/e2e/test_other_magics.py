"""Magics that show and set, and what is said about mistakes in all of them."""

from __future__ import annotations

import re
from collections.abc import Callable

import driver
import pytest
from driver import Kernel

pytestmark = pytest.mark.e2e

Start = Callable[..., Kernel]


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


def test_a_magic_below_code_is_told(kernel: Kernel) -> None:
    result = kernel.fails("let x = 1\n%timeline")
    assert "hint: magics stand above the code: move %timeline up" in result.traceback
    assert "move %rewind up" in kernel.fails("let y = 1\n%rewind 3").traceback
    assert "hint" not in kernel.fails("let y = `\n%timeline\n`; nowhere").traceback
    assert "hint" not in kernel.fails("let y = `\n%status\n`\nJSON.parse('{')").traceback
    assert kernel.ok("let z = `\n%timeline\n`; z").stderr == ""


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
    kernel.ok("%config file_size 4G")
    assert kernel.ok("%config file_size").shown.split() == ["file_size", "4G"]


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


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        pytest.param(
            "--CRKernel.engine=nowhere",
            "EngineUnavailable: there is no engine 'nowhere'",
            marks=pytest.mark.local_only("the kernel crkernel-docker names its engine already"),
        ),
        ("--CRKernel.memory=lots", "UserError: memory cannot be 'lots'"),
        ("--CRKernel.max_processes=1", "UserError: max_processes cannot be '1'"),
        ("--CRKernel.cpus=inf", "UserError: cpus cannot be 'inf': it takes a number, at least 0"),
        (
            "--CRKernel.memry=2G",
            "UserError: there is no setting memry; did you mean memory?",
        ),
    ],
)
def test_a_bad_setting_in_the_command_line_is_told_by_the_first_cell(
    start_kernel: Start, argument: str, says: str
) -> None:
    kernel = start_kernel(argument)
    for cell in ("1 + 1", "%rewind 1"):
        result = kernel.fails(cell)
        assert result.error.startswith(says)
        assert len(result.reply["traceback"]) == 2
    assert kernel.ok("%config").shown
    assert "Traceback" not in kernel.log.read_text()


def test_status_tells_what_there_is(kernel: Kernel, steps: list[int]) -> None:
    result = kernel.ok("%status")
    for part in (driver.engine, "v24.", "staging", "last checkpoint", "last frozen", str(steps[2])):
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


def test_magics_that_make_history_cannot_be_silent(kernel: Kernel) -> None:
    first = kernel.ok("globalThis.x = 1").count
    for magic in (f"%rerun {first}", "%reset", "%undo"):
        result = kernel.run(magic, silent=True)
        assert result.status == "error"
        assert "cannot be silent" in result.reply["evalue"]
    assert kernel.value("x") == 1
