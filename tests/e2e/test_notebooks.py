"""The notebooks show what they claim: executed, they put out what the text around says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import nbformat
import pytest
from driver import kernel_name, with_network
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

pytestmark = pytest.mark.e2e

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


class Outputs:
    """The outputs of an executed notebook, by the id of the cell."""

    def __init__(self, notebook: Any) -> None:
        self._cells = {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}

    def lines(self, cell: str) -> list[str]:
        """What a cell displays, prints and returns as text, line by line, in this order."""
        texts = [
            output.text if output.output_type == "stream" else output.data["text/plain"]
            for output in self._cells[cell].outputs
        ]
        return [line for text in texts for line in text.splitlines()]

    def result(self, cell: str) -> str:
        """The result of a cell."""
        (result,) = [o for o in self._cells[cell].outputs if o.output_type == "execute_result"]
        return str(result.data["text/plain"])

    def error(self, cell: str) -> str:
        """How a cell failed."""
        (error,) = [o for o in self._cells[cell].outputs if o.output_type == "error"]
        return f"{error.ename}: {error.evalue}"

    def data(self, cell: str) -> dict[str, Any]:
        """The first bundle that a cell shows."""
        return next(dict(o.data) for o in self._cells[cell].outputs if "data" in o)

    def html(self, cell: str) -> str:
        """The HTML that a cell displays."""
        (display,) = [o for o in self._cells[cell].outputs if o.output_type == "display_data"]
        return str(display.data["text/html"])


def executed(name: str) -> Outputs:
    """What a notebook puts out. Only the cells that say so may fail."""
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    client = NotebookClient(
        notebook, kernel_name=kernel_name(), timeout=120, extra_arguments=with_network()
    )
    try:
        client.execute()
    except CellExecutionError as error:
        told = "\n".join(str(cell.get("outputs")) for cell in notebook.cells)
        raise AssertionError(f"{error}\nThe outputs until then:\n{told}") from None
    return Outputs(client.nb)


@pytest.fixture(scope="module")
def tour() -> Outputs:
    """The tour, executed once."""
    return executed("tour")


@pytest.fixture(scope="module")
def language() -> Outputs:
    """The tour of the language, executed once."""
    return executed("language")


@pytest.fixture(scope="module")
def packages() -> Outputs:
    """The notebook about packages, executed once; from the real registry."""
    return executed("packages")


@pytest.fixture(scope="module")
def plots() -> Outputs:
    """The plots, drawn once."""
    return executed("plots")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_kept_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "crkernel"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


def test_state_is_spoiled_and_brought_back(tour: Outputs) -> None:
    assert tour.result("state") == "Map(1) { 'monday' => 3 }"
    assert tour.lines("spoil") == ["oh no Map(0) {}"]
    assert tour.result("rewind") == "[ 'hello', Map(1) { 'monday' => 3 } ]"


def test_a_refusal_after_the_last_cell_is_told(tmp_path: Path) -> None:
    """By then nbconvert listens no more, but what is logged it passes on."""
    code = """const fs = require("fs"); const file = fs.openSync("gone", "w");
    fs.writeSync(file, Buffer.alloc(70 << 20, 1)); fs.unlinkSync("gone")"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    path = tmp_path / "one.ipynb"
    nbformat.write(notebook, path)
    command = ["-m", "nbconvert", "--execute", "--to", "notebook", "--output", "out", str(path)]
    kernel = f"--ExecutePreprocessor.kernel_name={kernel_name()}"
    done = subprocess.run(
        [sys.executable, *command, kernel], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "checkpoint 1 could not be taken: " in done.stderr
    assert done.stderr.count("deleted file") == 1


def test_undo(tour: Outputs) -> None:
    assert tour.result("mistake") == "Map(0) {}"
    assert tour.result("undone") == "Map(1) { 'monday' => 3 }"


def test_a_changed_cell_and_what_depends_on_it(tour: Outputs) -> None:
    assert tour.result("prices") == "[ 105, 263, 84 ]"
    assert tour.lines("total") == ["at 5 % the total is 452"]
    lines = tour.lines("rerun")
    headings = [line for line in lines if re.match(r"In \[\d+\] ← \d+: ", line)]
    assert len(headings) == 3
    assert headings[1].endswith("price * (1 + rate)))")
    assert [line for line in lines if line not in headings] == [
        "[ 120, 300, 96 ]",
        "at 20 % the total is 516",
    ]


def test_the_timer_goes_on_from_where_it_stood(tour: Outputs) -> None:
    assert tour.result("timer-on") == "20"
    match = re.fullmatch(r"it stood at (\d+) and went on to (\d+)", tour.lines("timer-back")[-1])
    assert match is not None
    stood, now = map(int, match.groups())
    assert 3 <= stood < 20
    assert now > stood


def test_the_server_answers_again(tour: Outputs) -> None:
    assert tour.result("server") == "'you are visitor 1'"
    assert tour.result("server-gone") == "'ECONNREFUSED'"
    assert tour.result("server-back") == "'you are visitor 2'"


def test_the_file_is_back(tour: Outputs) -> None:
    assert "draft.txt" in tour.result("file")
    assert tour.result("file-gone") == "[]"
    assert tour.result("file-back") == r"'the only copy\n'"


def test_both_branches_are_in_reach(tour: Outputs) -> None:
    work, swim = "[ 'wake up', 'work' ]", "[ 'wake up', 'swim' ]"
    assert (tour.result("work"), tour.result("swim")) == (work, swim)
    assert (tour.result("workday"), tour.result("holiday")) == (work, swim)


def test_accidents_cost_nothing(tour: Outputs) -> None:
    plan = "[ 'wake up', 'swim' ]"
    assert tour.error("failure") == "Error: no such luck"
    assert tour.result("failure-undone") == plan
    assert tour.error("death").startswith("GuestDied: the guest exited with code 1; ")
    assert tour.result("alive") == plan
    assert tour.result("alive-server") == "'you are visitor 3'"


def test_the_timeline_is_drawn(tour: Outputs) -> None:
    lines = tour.lines("timeline")
    (head,) = [line for line in lines if line.startswith("→")]
    assert "await visit()" in head
    (dead,) = [line for line in lines if "✗" in line]
    assert "the guest exited with code 1" in dead
    labels = {word for line in lines for word in line.split()}
    assert labels >= {"clean", "rate", "ticking", "serving", "morning", "workday", "holiday"}
    assert sum("├─●" in line for line in lines) >= 7, "a branch for each way that was left"
    assert "<table" in tour.html("timeline")


def test_the_status_is_shown(tour: Outputs) -> None:
    assert any("last rewind" in line for line in tour.lines("status"))


def test_the_language_tour_shows_results_and_mutes_them(language: Outputs) -> None:
    results = [language.lines(cell) for cell in ("result", "last", "muted", "after-muted")]
    assert results == [["5"], ["10"], [], ["11"]]


def test_the_language_tour_speaks_typescript_and_modules(language: Outputs) -> None:
    assert language.result("types-later") == "'9 m²'"
    assert language.result("import") == "[ '£6.00', 'work' ]"
    assert language.result("fresh") == "'6 coins'"


def test_the_language_tour_fails_where_it_says(language: Outputs) -> None:
    assert language.error("error") == "Error: no stock list"
    assert language.error("missing").startswith("Error: Cannot find package 'left-pad'")
    assert language.error("decorator").startswith("SyntaxError: decorators are not supported")
    assert language.result("last-error") == "'SyntaxError'"


def test_the_language_tour_goes_back(language: Outputs) -> None:
    assert language.result("spoiled") == "'too much'"
    assert language.result("rewind") == "[ '1 coins', 'ft', 25 ]"


def test_packages_come_and_can_be_used(packages: Outputs) -> None:
    assert packages.result("missing") == "'ERR_MODULE_NOT_FOUND'"
    assert any(line.startswith("added 1 package") for line in packages.lines("install"))
    assert packages.result("use") == "'007'"
    assert any("left-pad@1.3.0" in line for line in packages.lines("ls"))
    assert any("left-pad@1.3.0" in line for line in packages.lines("view"))


def test_packages_go_with_a_rewind(packages: Outputs) -> None:
    assert packages.result("more") == "[ [ 'is-odd', '3.0.1' ], [ 'left-pad', '^1.3.0' ] ]"
    assert packages.result("rewind") == "[ [ 'left-pad' ], ' 7' ]"


def test_packages_that_cannot_be_are_explained(packages: Outputs) -> None:
    assert packages.error("fail").startswith("NpmFailed: No matching version found for left-pad@77")
    assert "is no package of the registry" in packages.error("refused")


def test_scripts_of_packages_run_if_asked_for(packages: Outputs) -> None:
    lines = packages.lines("scripts")
    assert any("postinstall" in line for line in lines)
    assert lines[-1] == "true"


def test_a_chart_needs_no_package(plots: Outputs) -> None:
    table = plots.data("data")
    assert table["text/plain"].startswith("[\n  { month: 'Jan', high: 3, rain: 60 },")
    assert "<th>0</th>" in table["text/html"]
    chart = plots.data("vega")
    assert chart["text/plain"] == "<Vega-Lite: Rain by month>"
    values = chart["application/vnd.vegalite.v5+json"]["data"]["values"]
    assert len(values) == 12


def test_a_package_draws_a_chart(plots: Outputs) -> None:
    svg = plots.data("plot")["image/svg+xml"]
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    bars = [g for g in root.iter() if g.get("aria-label") == "bar"]
    assert [len(list(g)) for g in bars] == [12]


def test_a_chart_changes_in_place_and_across_a_rewind(plots: Outputs) -> None:
    root = ElementTree.fromstring(plots.data("walk")["image/svg+xml"])
    (line,) = [g for g in root.iter() if g.get("aria-label") == "line"]
    (path,) = list(line)
    assert "100% 100/100" in "\n".join(plots.lines("walk"))
    assert plots.result("more") == "200"
    assert plots.result("back") == "101"
    assert path.attrib["d"].count("L") == 100
