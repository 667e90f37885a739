"""The documents name all there is to use, and what they say can be followed."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from crkernel.cli import cli
from crkernel.engines import limits
from crkernel.guest import enter, linger
from crkernel.magic_syntax import parse
from crkernel.magic_table import MAGICS
from crkernel.settings import Settings

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md"))]
SETTINGS = sorted(Settings.class_own_traits(config=True))


def text(name: str) -> str:
    """A document of the repository."""
    return (ROOT / name).read_text(encoding="utf-8")


def section(document: str, title: str) -> str:
    """What stands below a heading, to the next one of the same level."""
    level = title.split()[0]
    match = re.search(rf"^{re.escape(title)}\n(.*?)(?=^{level} |\Z)", document, re.M | re.S)
    assert match is not None, f"no section {title!r}"
    return match[1]


def verbs(command: click.Command, path: str = "crkernel") -> Iterator[str]:
    """Each verb of the command line, as it is typed."""
    if not isinstance(command, click.Group):
        yield path
        return
    for name, verb in command.commands.items():
        yield from verbs(verb, f"{path} {name}")


# -- all is named ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAGICS)
def test_each_magic_is_documented(name: str) -> None:
    magic = MAGICS[name]
    described = section(text("docs/magics.md"), f"## %{name}")
    assert f"    {magic.usage}\n" in described
    assert f"%{name}" in "".join(re.findall(r"^```\n(.*?)^```", described, re.M | re.S)), "example"
    for option in magic.options:
        assert f"`{option}`" in described
    assert f"`%{name}" in section(text("README.md"), "## Magics")


@pytest.mark.parametrize("verb", list(verbs(cli)))
def test_each_verb_is_documented(verb: str) -> None:
    assert f"`{verb}" in section(text("README.md"), "## The `crkernel` command")


@pytest.mark.parametrize("name", SETTINGS)
def test_each_setting_is_documented(name: str) -> None:
    assert f"| `{name}` |" in section(text("README.md"), "## Settings")


def test_what_is_to_be_made_exists() -> None:
    for path in DOCUMENTS:
        for target in re.findall(
            r"`make (\w+)|^make (\w+)", path.read_text(encoding="utf-8"), re.M
        ):
            assert re.search(rf"^{''.join(target)}:", text("Makefile"), re.M), (path.name, target)


def test_the_layers_are_those_that_are_enforced() -> None:
    project = tomllib.loads(text("pyproject.toml"))
    contract = project["tool"]["importlinter"]["contracts"][0]
    enforced = [re.findall(r"\w+", layer) for layer in contract["layers"]]
    table = re.findall(r"^\| (`.*?) \|", section(text("docs/design.md"), "## Layers"), re.M)
    assert [re.findall(r"\w+", row) for row in table] == enforced


@pytest.mark.parametrize(
    ("source", "pattern"),
    [
        ("crkernel/guest/supervisor.py", r'^            "(\w+)": self\._'),
        ("crkernel/guest/nest.py", r'\["op"\] == "(\w+)"'),
        ("crkernel/guest/chores.py", r'^    "(\w+)": '),
        ("crkernel/guest/worker.js", r"^  (\w+)(?=,$|: \(.*=>)"),
    ],
)
def test_each_operation_of_the_wire_is_documented(source: str, pattern: str) -> None:
    operations = re.findall(pattern, text(source), re.M)
    assert len(operations) >= 2
    for operation in operations:
        assert f"`{operation}`" in text("docs/protocol.md"), operation


def rows(document: str) -> list[list[str]]:
    """The cells of all rows of a document's tables, their headings and rules left out."""
    lines = re.findall(r"^\|(.*)\|$", document, re.M)
    table = [[cell.strip() for cell in line.split(" | ")] for line in lines]
    return [row for row in table if row[0] != "feature" and not row[0].startswith("---")]


@pytest.mark.parametrize("row", rows(text("docs/peers.md")), ids=lambda row: row[0])
def test_what_is_claimed_beside_other_kernels_is_tested(row: list[str]) -> None:
    claim, evidence = row[-2:]
    named = re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", evidence)
    assert named or not claim.startswith("yes"), "a claim without a test"
    for file, name in named:
        source = text(f"tests/{file}")
        assert not name or re.search(rf"^(async )?def {name}\(", source, re.M), name


# -- what is said is so ------------------------------------------------------------------------


def test_numbers_of_the_security_document_are_those_of_the_code() -> None:
    said = " ".join(text("docs/security.md").split())
    assert f"is {enter.UNPRIVILEGED_IDS.start} plus the nest's process id" in said
    assert f"waits up to {linger.SECONDS:.0f} s for the next kernel" in said
    assert f"{limits._OVERHEAD >> 20} MiB for crkernel's own processes" in said
    assert limits._SANDBOXES == 3
    assert "`pids.max` is three times `max_processes`" in said


def examples() -> list[str]:
    """The cells that docs/magics.md shows."""
    return re.findall(r"^```\n(.*?)^```", text("docs/magics.md"), re.M | re.S)


@pytest.mark.parametrize("cell", examples())
def test_examples_of_magics_are_right(cell: str) -> None:
    commands = parse(cell).commands
    assert commands
    for command in commands:
        if command.name == "config" and command.args:
            assert command.args[0] in SETTINGS


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def links(path: Path) -> list[str]:
    """The relative links of a document, code left out."""
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", path.read_text(encoding="utf-8"), flags=re.S)
    found = re.findall(r"\]\(([^)\s]+)\)", prose)
    return [link for link in found if not re.match(r"[a-z]+:", link)]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for link in links(path):
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.M)
            assert anchor in map(slug, headings), link


def test_the_doctor_is_asked_about_docker_when_its_kernel_is_registered() -> None:
    text = (Path(__file__).parents[2] / "docs/deploy.md").read_text()
    assert text.index("install --engine docker") < text.index("doctor --engine docker")
