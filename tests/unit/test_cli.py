"""The command line: verbs, exit codes, messages, registration, the doctor's verdicts."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import nbformat
import pytest

from crkernel import (
    __version__,
    cli,
    doctor,
    golden_root,
    image,
    image_build,
    registration,
    unattended,
)
from crkernel.engines import Limits, trial
from crkernel.errors import (
    CRKernelError,
    EngineUnavailable,
    ImageMissing,
    NoSpace,
    RestoreFailed,
    UserError,
)
from crkernel.guest import processor
from crkernel.javascript import JAVASCRIPT


@pytest.fixture(autouse=True)
def jupyter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Jupyter's user folder and crkernel's data, away from the real ones."""
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")  # what is registered in ours comes last
    monkeypatch.setenv("CRKERNEL_DATA", str(tmp_path / "data"))
    return tmp_path / "jupyter"


def call(*arguments: str) -> int:
    """Run the command in this process; its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["crkernel", *arguments])
        patch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
        with pytest.raises(SystemExit) as end:
            cli.main()
    return int(end.value.code or 0)


def verbs(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found += verbs(command, (*path, name))
        else:
            found.append((*path, name))
    return found


# Shape


def test_without_arguments_there_is_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert call() == 0
    said = capsys.readouterr().out
    assert "Usage: crkernel" in said
    assert "..." not in said.split("\n", 1)[1]  # each summary has room for itself


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--version") == 0
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize("verb", verbs(cli.cli), ids=" ".join)
def test_every_verb_has_help(verb: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*verb, "--help") == 0
    said = capsys.readouterr().out
    assert said.splitlines()[2].strip().endswith("."), said


def test_wrong_usage_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("frobnicate") == 2
    assert "No such command" in capsys.readouterr().err


def test_errors_are_two_lines_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ImageMissing("there is no image", hint="run: crkernel image build")

    monkeypatch.setattr(image_build, "build", missing)
    assert call("image", "build") == ImageMissing.exit_code
    error = capsys.readouterr().err
    assert error == "crkernel: there is no image\n  hint: run: crkernel image build\n"


def test_a_full_disk_behind_stdout_is_told() -> None:
    with Path("/dev/full").open("w") as full:
        command = [
            sys.executable,
            "-c",
            "from crkernel import cli; cli.main()",
            "completion",
            "zsh",
        ]
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == NoSpace.exit_code
    assert ended.stderr.splitlines()[-2:] == [
        "crkernel: cannot write the output: No space left on device",
        "  hint: free some space there",
    ]


def test_ctrl_c_is_exit_code_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(image_build, "build", stop)
    assert call("image", "build") == 130


def test_starting_loads_nothing_heavy() -> None:
    script = "import sys, crkernel.cli; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout.split()
    assert not {"ipykernel", "jupyter_client", "nbclient", "zmq", "asyncio"} & set(loaded)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("completion", shell) == 0
    assert "_CRKERNEL_COMPLETE" in capsys.readouterr().out


def test_completion_knows_the_verbs() -> None:
    env = {
        "COMP_WORDS": "crkernel image ",
        "COMP_CWORD": "2",
        "_CRKERNEL_COMPLETE": "bash_complete",
    }
    script = "from crkernel import cli; cli.main()"
    said = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True)
    assert said.stdout.split() == ["plain,build", "plain,context", "plain,list", "plain,rm"]


def test_bash_completes_words_options_and_names(
    jupyter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the script, in the function that it gives to bash."""
    registration.register(user=True, name="mine")
    broken_spec(jupyter, "{")
    assert call("completion", "bash") == 0
    script = tmp_path / "script"
    script.write_text(
        capsys.readouterr().out
        + """
        ask() {
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
            _crkernel_completion crkernel
            echo "${COMPREPLY[@]}"
        }
        ask crkernel un
        ask crkernel image b
        ask crkernel image build --f
        ask crkernel uninstall --name m
        ask crkernel install --engine d
        """
    )
    places = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    said = subprocess.run(
        ["bash", "--norc", script],
        env=os.environ | {"PATH": places},
        capture_output=True,
        text=True,
    )
    assert said.stderr == ""
    assert said.stdout.split() == ["uninstall", "build", "--force", "--from-tree", "mine", "docker"]


# install, uninstall


def spec(folder: Path) -> dict[str, object]:
    loaded: dict[str, object] = json.loads((folder / "kernel.json").read_text())
    return loaded


def test_install_for_the_user_and_uninstall(
    jupyter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("install", "--user", "--name", "mine", "--display-name", "Mine") == 0
    folder = Path(capsys.readouterr().out.strip())
    assert folder == jupyter / "kernels/mine"
    assert spec(folder) == {
        "argv": [sys.executable, "-m", "crkernel", "-f", "{connection_file}"],
        "display_name": "Mine",
        "language": "javascript",
        "interrupt_mode": "message",
        "kernel_protocol_version": "5.5",
        "metadata": {"debugger": False, "supported_encryption": ["curve"]},
    }
    assert {path.name for path in folder.iterdir()} == {
        "kernel.json",
        "logo-32x32.png",
        "logo-64x64.png",
        "logo-svg.svg",
    }
    assert registration.find("mine") is not None
    assert call("uninstall", "--name", "mine") == 0
    assert str(folder) in capsys.readouterr().out
    assert not folder.exists()
    assert call("uninstall", "--name", "mine") == 2
    assert "no kernel of crkernel" in capsys.readouterr().err


def test_install_below_a_prefix_with_an_engine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("install", "--prefix", str(tmp_path), "--engine", "local") == 0
    folder = Path(capsys.readouterr().out.strip())
    assert folder == tmp_path / "share/jupyter/kernels/crkernel"
    argv = spec(folder)["argv"]
    assert isinstance(argv, list)
    assert argv[-1] == "--CRKernel.engine=local"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--user", "--sys-prefix"], "more than one place"),
        (["--user", "--engine", "abacus"], "no engine 'abacus'"),
        (["--user", "--name", "not a name"], "cannot be a kernel's name"),
        (["--prefix", "/proc/nowhere"], "cannot write"),
    ],
)
def test_install_refuses(
    arguments: list[str], message: str, jupyter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("install", *arguments) > 1
    error = capsys.readouterr().err
    assert message in error
    assert "hint:" in error
    assert not jupyter.exists()


def test_install_on_a_full_disk(tmp_path: Path) -> None:
    """A small tmpfs, where only this command sees it."""
    script = (
        'mount -t tmpfs -o size=4k none "$1" && exec "$0" -c'
        ' "from crkernel import cli; cli.main()" install --prefix "$1"'
    )
    own = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    ended = subprocess.run([*own, sys.executable, tmp_path], capture_output=True, text=True)
    assert ended.returncode == 2
    first, second = ended.stderr.splitlines()
    assert first.startswith(f"crkernel: cannot write to {tmp_path}/share/jupyter/kernels/crkernel/")
    assert "No space left on device" in first
    assert "--prefix PATH" in second


def test_kernels_of_others_are_not_touched(
    jupyter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = jupyter / "kernels/theirs"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(
        json.dumps({"argv": ["deno", "jupyter"], "display_name": "Deno", "language": "javascript"})
    )
    assert call("uninstall", "--name", "theirs") == 2
    assert folder.is_dir()
    assert "no kernel of crkernel" in capsys.readouterr().err


def test_uninstall_takes_the_place_that_is_named(
    jupyter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = tmp_path / "env"
    assert call("install", "--user", "--name", "mine") == 0
    assert call("install", "--prefix", str(prefix), "--name", "mine") == 0
    mine, other = jupyter / "kernels/mine", prefix / "share/jupyter/kernels/mine"
    assert call("uninstall", "--name", "mine", "--user", "--sys-prefix") == 2
    capsys.readouterr()
    assert call("uninstall", "--name", "mine", "--prefix", str(prefix)) == 0
    said = capsys.readouterr()
    assert said.out == f"removed {other}\n"
    assert said.err == f"another registration of mine is left: {mine}\n"
    assert mine.is_dir()
    assert call("uninstall", "--name", "mine", "--prefix", str(prefix)) == 2
    assert "registered there" in capsys.readouterr().err
    assert call("uninstall", "--name", "mine", "--user") == 0
    assert not mine.exists()


def test_uninstall_without_a_place_takes_the_first_found(
    jupyter: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "env/share/jupyter"))
    assert call("install", "--user", "--name", "mine") == 0
    assert call("install", "--prefix", str(tmp_path / "env"), "--name", "mine") == 0
    capsys.readouterr()
    removed = []
    for _ in range(2):
        assert call("uninstall", "--name", "mine") == 0
        removed.append(Path(capsys.readouterr().out.removeprefix("removed ").strip()))
    assert removed == [tmp_path / "env/share/jupyter/kernels/mine", jupyter / "kernels/mine"]


# image


def test_an_empty_image_list_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("image", "list") == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert "no images in" in said.err
    assert image.BUILD_COMMAND in said.err


def test_data_that_cannot_be_written_is_an_error_of_two_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CRKERNEL_DATA", "/proc/foo")
    assert call("image", "build") == 4
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("crkernel: cannot write to /proc/foo/images: ")
    assert "set CRKERNEL_DATA" in second


def test_a_golden_root_that_is_there_takes_no_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = []

    async def make(_engine: str) -> bool:
        made.append(1)
        return True

    monkeypatch.setattr(cli, "_make_golden_root", make)
    monkeypatch.setattr(image_build, "build", lambda *_, **__: tmp_path)
    assert call("image", "build") == 0
    assert made == [1]
    key = golden_root.key(JAVASCRIPT, Limits.default(), processor.identity())
    (tmp_path / "golden" / key).mkdir(parents=True)
    assert call("image", "build") == 0
    assert made == [1]
    assert capsys.readouterr().out == f"{tmp_path}\n" * 2


def test_image_list_and_rm(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    infos = [
        image.ImageInfo("a" * 12, Path("/i/a"), 398_000_000, time.time(), current=True),
        image.ImageInfo("b" * 12, Path("/i/b"), 1_000_000, 0.0, current=False),
    ]
    removed: list[str] = []
    monkeypatch.setattr(image, "images", lambda: infos)
    monkeypatch.setattr(image_build, "remove", removed.append)
    assert call("image", "list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["a" * 12, "b" * 12]
    assert "398 MB" in lines[0]
    assert "current" in lines[0]
    assert call("image", "rm", "--all-old") == 0
    assert removed == ["b" * 12]
    assert call("image", "rm") == 2
    assert call("image", "rm", "c" * 12, "--all-old") == 2
    assert removed == ["b" * 12]


def test_an_image_in_use_does_not_keep_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    for created, digest in enumerate(("a" * 12, "b" * 12, "c" * 12)):
        place = image.images_dir() / digest / image.RECORD
        place.parent.mkdir(parents=True)
        place.write_text(json.dumps({"size": 1, "created": created}))
    held = image.hold(image.images_dir() / ("b" * 12))
    try:
        assert call("image", "rm", "--all-old") == 2
    finally:
        os.close(held)
    assert [info.digest for info in image.images()] == ["b" * 12]
    said = capsys.readouterr()
    assert said.out == f"removed {'c' * 12}\nremoved {'a' * 12}\n"
    assert "bbbb is in use" in said.err


def test_a_damaged_image_is_listed_and_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It can be removed like any other."""
    record = image.images_dir() / image.recipe_digest() / image.RECORD
    record.parent.mkdir(parents=True)
    for text in ("", "{}", '{"size": null, "created": 0}'):
        record.write_text(text)
        assert call("image", "list", "--engine", "local") == 0
        assert "damaged" in capsys.readouterr().out
    monkeypatch.setattr(doctor, "CHECKS", (("image", doctor.check_image),))
    assert call("doctor") == 1
    assert "is damaged" in capsys.readouterr().out
    assert call("image", "rm", image.recipe_digest()) == 0
    assert not image.images()


def test_the_options_of_dockers_build_are_dockers(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("image", "build", "--from-tree") == 2
    assert "add --engine docker" in capsys.readouterr().err


# run


def notebook(path: Path, kernel: str, language: str = "javascript") -> Path:
    content = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell("# words"), nbformat.v4.new_code_cell("1 + 1")],
        metadata={"kernelspec": {"name": kernel, "display_name": kernel, "language": language}},
    )
    nbformat.write(content, path)
    return path


class FakeClient:
    """Stands in for nbclient; the real one is driven by the e2e tests."""

    used = ""
    failure: Exception | None = None

    def __init__(self, content: object, **options: object) -> None:
        self.content = content
        self.options = options
        self.up = False
        FakeClient.used = str(options["kernel_name"])

    async def async_execute(self) -> None:
        self.up = True
        cell = self.content.cells[-1]  # type: ignore[attr-defined]
        self.options["on_cell_execute"](cell=cell, cell_index=0)  # type: ignore[operator]
        if self.failure:
            raise self.failure
        reply = {"content": {"status": "ok", "execution_count": 7}}
        executed = self.options["on_cell_executed"]
        executed(cell=cell, cell_index=1, execute_reply=reply)  # type: ignore[operator]


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> type[FakeClient]:
    monkeypatch.setattr(unattended, "_Client", FakeClient)
    monkeypatch.setattr(FakeClient, "failure", None)
    return FakeClient


def test_run_writes_beside_the_notebook(
    tmp_path: Path, client: type[FakeClient], capsys: pytest.CaptureFixture[str]
) -> None:
    registration.register(user=True)
    path = notebook(tmp_path / "a.ipynb", "python3")
    before = path.read_bytes()
    assert call("run", str(path)) == 0
    assert client.used == "crkernel"
    assert "[1/1]" in capsys.readouterr().err
    assert (tmp_path / "a.executed.ipynb").exists()
    assert path.read_bytes() == before


def test_run_uses_the_notebooks_own_crkernel(tmp_path: Path, client: type[FakeClient]) -> None:
    registration.register(user=True, name="mine")
    out = tmp_path / "new/out.ipynb"
    assert call("run", str(notebook(tmp_path / "a.ipynb", "mine")), "-o", str(out)) == 0
    assert client.used == "mine"
    assert out.exists()


def test_run_stops_at_an_error_and_still_writes(
    tmp_path: Path,
    client: type[FakeClient],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    failure = unattended.CellExecutionError("trace", "TypeError", "x is not a function")
    monkeypatch.setattr(client, "failure", failure)
    registration.register(user=True)
    assert call("run", str(notebook(tmp_path / "a.ipynb", "crkernel"))) == 1
    assert "cell 1 failed: TypeError: x is not a function" in capsys.readouterr().err
    assert (tmp_path / "a.executed.ipynb").exists()


def test_a_run_that_loses_its_terminal_writes_what_there_is(
    tmp_path: Path, client: type[FakeClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang_up(fake: FakeClient) -> None:
        fake.up = True
        signal.raise_signal(signal.SIGHUP)
        await asyncio.Event().wait()

    monkeypatch.setattr(client, "async_execute", hang_up)
    registration.register(user=True)
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        assert call("run", str(notebook(tmp_path / "a.ipynb", "crkernel"))) == 128 + signal.SIGHUP
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (tmp_path / "a.executed.ipynb").exists()


def test_run_refuses_what_is_no_notebook(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.ipynb").write_text("hello")
    assert call("run", str(tmp_path / "text.ipynb")) == 2
    assert "not a notebook" in capsys.readouterr().err
    assert call("run", str(tmp_path / "none.ipynb")) == 2
    assert "No such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[]", ""),
        ("null", ""),
        ('{"nbformat": 9}', ": Unsupported nbformat version 9"),
        ('{"nbformat": 4}', ": The notebook is invalid and is missing an expected key: cells"),
        ('{"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": [5]}', ""),
        (
            '{"nbformat": 4, "nbformat_minor": 4, "metadata": {},'
            ' "cells": [{"cell_type": "code", "metadata": {}}]}',
            "",
        ),
        ('{"nbformat": 4, "nbformat_minor": 4, "metadata": {"kernelspec": 5}, "cells": []}', ""),
    ],
)
def test_run_refuses_other_json(
    text: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.ipynb"
    path.write_text(text)
    assert call("run", str(path)) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"crkernel: {path} is not a notebook{why}"
    assert second == "  hint: notebooks are .ipynb files"


@pytest.mark.usefixtures("client")
def test_run_counts_the_cells_that_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    registration.register(user=True)
    new = nbformat.v4.new_code_cell
    skipped = new("0", metadata={"tags": ["skip-execution"]})
    cells = [new(""), new(" \n"), skipped, new("// one\t\x1b\u2026\r\n1")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "a.ipynb")
    assert call("run", str(tmp_path / "a.ipynb")) == 0
    (line,) = capsys.readouterr().err.splitlines()[:-1]
    assert line.startswith("[1/1]")
    assert line.endswith(" s  // one  \u2026")


def broken_spec(folder: Path, text: str) -> Path:
    """A kernel.json with this text, which the user mended."""
    path = folder / "kernels/crkernel/kernel.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize("text", ["{'argv': []}", "[]", '{"argv": 5}', "\xff"])
@pytest.mark.parametrize("verb", ["run", "uninstall", "doctor"])
def test_a_kernel_json_that_is_none(
    text: str,
    verb: str,
    jupyter: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(doctor, "CHECKS", (("kernelspec", doctor.check_kernelspec),))
    path = broken_spec(jupyter, text)
    more = [str(notebook(tmp_path / "a.ipynb", "crkernel"))] if verb == "run" else []
    assert call(verb, *more) == (1 if verb == "doctor" else 2)
    said = capsys.readouterr()
    assert f"{path} cannot be read: " in said.err + said.out
    assert "run: crkernel install" in said.err + said.out
    assert path.exists()


def test_a_kernel_that_does_not_start(
    jupyter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What an earlier run has written stays."""
    argv = ["/no/python", "-m", "crkernel", "-f", "{connection_file}"]
    spec = {"argv": argv, "display_name": "x", "language": "javascript"}
    path = broken_spec(jupyter, json.dumps(spec))
    result = tmp_path / "a.executed.ipynb"
    result.write_text("older")
    words = ("run", str(notebook(tmp_path / "a.ipynb", "crkernel")))
    assert call(*words) == 4
    said = capsys.readouterr().err
    assert said == (
        f"crkernel: {path.parent} names a Python that is gone: /no/python\n"
        "  hint: run: crkernel install\n"
    )
    spec["argv"] = ["/bin/false", "-m", "crkernel", "-f", "{connection_file}"]
    path.write_text(json.dumps(spec))
    assert call(*words) == 4
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "crkernel: the kernel did not start: Kernel died before replying to kernel_info",
        "  hint: run: crkernel doctor",
    ]
    assert result.read_text() == "older"


@pytest.mark.parametrize("place", ["/proc/x/y.ipynb", "/proc/y.ipynb", ".", "x" * 300])
def test_run_checks_the_output_before_it_executes(
    place: str, tmp_path: Path, client: type[FakeClient], capsys: pytest.CaptureFixture[str]
) -> None:
    registration.register(user=True)
    client.used = ""
    output = str(tmp_path / place)
    assert call("run", str(notebook(tmp_path / "a.ipynb", "crkernel")), "-o", output) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 2
    assert "hint:" in error
    assert client.used == ""


@pytest.mark.usefixtures("client")
def test_run_leaves_an_older_result_as_it_is_until_the_end(tmp_path: Path) -> None:
    registration.register(user=True)
    out = tmp_path / "out.ipynb"
    unattended._make_room(out)
    assert not out.exists()
    out.write_text("older")
    unattended._make_room(out)
    assert out.read_text() == "older"
    assert call("run", str(notebook(tmp_path / "a.ipynb", "crkernel")), "-o", str(out)) == 0
    assert out.read_text() != "older"


def test_a_result_that_cannot_be_written_after_all_is_an_error(
    client: type[FakeClient], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registration.register(user=True)
    path = notebook(tmp_path / "a.ipynb", "crkernel")
    assert call("run", str(path), "-o", "/dev/full") == 3
    assert client.used == "crkernel"
    assert "No space left on device\n  hint: free" in capsys.readouterr().err


@pytest.mark.usefixtures("client")
def test_a_full_disk_costs_no_older_result(tmp_path: Path) -> None:
    """RLIMIT_FSIZE stands for the disk: who ignores its signal gets an error."""
    registration.register(user=True)
    path = notebook(tmp_path / "a.ipynb", "crkernel")
    path.write_text(path.read_text().replace("words", "words " * 100_000))
    (tmp_path / "a.executed.ipynb").write_text("older")
    number, before = resource.RLIMIT_FSIZE, resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(number, (100_000, before[1]))
        code = call("run", str(path))
    finally:
        resource.setrlimit(number, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert code == 2
    assert {file.name: file.stat().st_size for file in tmp_path.iterdir() if file.is_file()} == {
        "a.ipynb": path.stat().st_size,
        "a.executed.ipynb": len("older"),
    }


@pytest.mark.usefixtures("client")
def test_a_result_goes_where_a_link_leads_and_keeps_its_mode(tmp_path: Path) -> None:
    registration.register(user=True)
    real, link = tmp_path / "real.ipynb", tmp_path / "link.ipynb"
    real.write_text("older")
    real.chmod(0o600)
    link.symlink_to(real)
    assert call("run", str(notebook(tmp_path / "a.ipynb", "crkernel")), "-o", str(link)) == 0
    assert link.is_symlink()
    assert real.read_text() != "older"
    assert real.stat().st_mode & 0o777 == 0o600


@pytest.mark.usefixtures("client")
def test_a_result_goes_into_a_file_that_is_mounted(tmp_path: Path) -> None:
    """As one file of the machine is in a container: no other can take its place."""
    registration.register(user=True)
    path, real, out = (tmp_path / name for name in ("a.ipynb", "real.ipynb", "out.ipynb"))
    real.write_text("older")
    out.touch()
    if subprocess.run(["mount", "--bind", real, out], capture_output=True).returncode:
        pytest.skip("takes root")
    try:
        assert call("run", str(notebook(path, "crkernel")), "-o", str(out)) == 0
    finally:
        subprocess.run(["umount", out], check=True)
    assert nbformat.read(real, as_version=4).cells
    assert not list(tmp_path.glob(".*.crkernel"))


def test_run_refuses_other_languages(
    tmp_path: Path, client: type[FakeClient], capsys: pytest.CaptureFixture[str]
) -> None:
    registration.register(user=True)
    client.used = ""
    assert call("run", str(notebook(tmp_path / "a.ipynb", "python3", "python"))) == 2
    assert "a notebook of python, crkernel runs JavaScript" in capsys.readouterr().err
    content = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "ir", "display_name": "R"}, "language_info": {"name": "R"}}
    )
    nbformat.write(content, tmp_path / "b.ipynb")
    assert call("run", str(tmp_path / "b.ipynb")) == 2
    assert client.used == ""


def test_run_without_a_registered_kernel_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration, "find", lambda *_: None)
    with pytest.raises(UserError) as caught:
        unattended.run_notebook(
            notebook(tmp_path / "a.ipynb", "crkernel"), tmp_path / "out.ipynb", print
        )
    assert caught.value.hint == "run: crkernel install"


# doctor


def test_the_doctor_names_each_failure_and_its_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> str:
        raise EngineUnavailable("it is off", hint="switch it on")

    monkeypatch.setattr(
        doctor, "CHECKS", (("one", lambda: "fine"), ("two", fails), ("proof", doctor.proof))
    )
    said: list[str] = []
    assert not doctor.examine(said.append)
    assert said == [
        "ok   one: fine",
        "FAIL two: it is off \N{EM DASH} fix: switch it on",
        "FAIL proof: not tried, since a check above failed \N{EM DASH} fix: "
        "mend what failed above, then run: crkernel doctor",
    ]


@pytest.mark.parametrize("engine", ["local", "docker"])
def test_a_missing_kernelspec_does_not_keep_the_doctor_from_its_proof(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def proves(*_: object) -> dict[str, float]:
        return {"boot": 0.1}

    monkeypatch.setattr(doctor, "_prove", proves)
    monkeypatch.setattr(registration, "find", lambda _: None)
    checks = doctor.docker_checks() if engine == "docker" else doctor.CHECKS
    monkeypatch.setattr(doctor, "CHECKS", checks[-2:])
    monkeypatch.setattr(doctor, "docker_checks", lambda: checks[-2:])
    said: list[str] = []
    assert not doctor.examine(said.append, engine)
    assert said[0].startswith("FAIL kernelspec: not registered with Jupyter")
    assert said[1] == "ok   dump and restore: boot 100 ms"


@pytest.mark.parametrize(
    ("failure", "fix"),
    [
        (EngineUnavailable("no nest", hint="run: crkernel doctor"), "crkernel image build --force"),
        (RestoreFailed("it came back with 0"), "crkernel image build --force"),
        (NoSpace("full", hint="free 1 GB"), "free 1 GB"),
        (TimeoutError(), "ps -eo pid,pcpu"),
    ],
)
def test_the_fix_for_a_failed_proof(
    failure: Exception, fix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object) -> dict[str, float]:
        raise failure

    monkeypatch.setattr(doctor, "_prove", fails)
    with pytest.raises(EngineUnavailable) as caught:
        doctor.proof()
    assert fix in str(caught.value.hint)


def test_the_fix_for_want_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_MEMORY_NEEDED", 1 << 40)
    with pytest.raises(EngineUnavailable, match="MiB available") as caught:
        doctor.check_memory()
    assert "ps -eo pid,rss" in str(caught.value.hint)


def test_the_doctor_is_content_when_all_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CHECKS", (("one", lambda: "fine"),))
    assert call("doctor") == 0


@pytest.mark.parametrize(
    "check", [doctor.check_platform, doctor.check_python, doctor.check_kernel, doctor.check_memory]
)
def test_checks_that_hold_wherever_the_tests_run(check: object) -> None:
    assert callable(check)
    assert check()


def test_the_documents_name_the_kernel_that_is_needed() -> None:
    needed = "Linux {}.{} or newer".format(*trial.LINUX_NEEDED)
    assert needed in (Path(__file__).parents[2] / "README.md").read_text()


def test_an_old_kernel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "LINUX_NEEDED", (99, 1))
    with pytest.raises(CRKernelError, match=r"older than 99\.1"):
        doctor.check_kernel()


@pytest.mark.parametrize(
    ("failed", "sysctls", "fix"),
    [
        (
            "user namespace: No space left on device",
            {"user.max_user_namespaces": "0"},
            "sudo sysctl -w user.max_user_namespaces=15000",
        ),
        (
            "user namespace: Operation not permitted",
            {"kernel.unprivileged_userns_clone": "0"},
            "sudo sysctl -w kernel.unprivileged_userns_clone=1",
        ),
        (
            "private mounts: Permission denied",
            {"kernel.apparmor_restrict_unprivileged_userns": "1"},
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ("mount of /proc: Operation not permitted", {}, "systempaths=unconfined"),
        ("user namespace: Operation not permitted", {}, "seccomp=unconfined"),
    ],
)
def test_the_fix_for_namespaces(failed: str, sysctls: dict[str, str], fix: str) -> None:
    assert fix in doctor.namespaces_fix(failed, sysctls.get, filtered=True)


@pytest.mark.parametrize("command", ["--help", "bulid"])
def test_the_module_takes_the_same_commands(command: str) -> None:
    def answer(*program: str) -> tuple[int, str]:
        result = subprocess.run(
            [*program, "image", command], capture_output=True, text=True, check=False, timeout=60
        )
        return result.returncode, result.stdout + result.stderr

    script = str(Path(sys.executable).with_name("crkernel"))
    assert answer(sys.executable, "-m", "crkernel") == answer(script)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change its root directory")
def test_a_chroot_is_named(tmp_path: Path) -> None:
    enter = 'mount --rbind / "$1" && exec chroot "$1" "$2" -m crkernel doctor'
    command = ["unshare", "--mount", "sh", "-c", enter, "sh", str(tmp_path), sys.executable]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    (line,) = (line for line in result.stdout.splitlines() if " namespaces: " in line)
    assert line == (
        "FAIL namespaces: user namespace: Operation not permitted"
        " — fix: where this is a chroot Linux allows none: enter it with bwrap or systemd-nspawn"
    )


def test_the_namespaces_are_really_made() -> None:
    assert "user" in doctor.check_namespaces()


def test_a_namespace_that_cannot_be_made_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_failed_step", lambda: "user namespace: no")
    with pytest.raises(EngineUnavailable, match="user namespace: no"):
        doctor.check_namespaces()


def test_a_missing_image_is_reported_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crkernel.image_host.check_host", lambda _: None)
    with pytest.raises(ImageMissing) as caught:
        doctor.check_image()
    assert "crkernel image build" in str(caught.value.hint)
