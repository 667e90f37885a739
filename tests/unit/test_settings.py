"""Settings: what is taken for a size or a number, the defaults, and what is said about others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from traitlets.config import Config

from crkernel.engines import Limits, machine
from crkernel.errors import UserError
from crkernel.settings import Settings


@pytest.mark.parametrize(
    ("text", "value"),
    [("512M", 512 << 20), ("2 GiB", 2 << 30), ("1.5g", 3 << 29), (str(1 << 30), 1 << 30)],
)
def test_sizes(text: str, value: int) -> None:
    settings = Settings()
    settings.change_setting("memory", text)
    assert settings.memory == value


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("memory", "lots", "memory cannot be 'lots': it takes a size in bytes or like 512M or 2G"),
        ("memory", "1M", "memory cannot be '1M': it takes a size in bytes or like 512M or 2G, at"),
        ("memory", "9" * 400 + "T", "memory cannot be '99"),
        ("memory", "-5G", "memory cannot be '-5G'"),
        ("max_processes", "many", "max_processes cannot be 'many': it takes a whole number, at"),
        ("max_processes", "1.5", "at least 64"),
        ("engine", "docker", "engine cannot change while the kernel runs"),
        ("memry", "1G", "there is no setting memry; did you mean memory?"),
    ],
)
def test_what_cannot_be_set_is_said_in_plain_words(name: str, text: str, says: str) -> None:
    settings = Settings()
    before = settings.settings()
    with pytest.raises(UserError) as caught:
        settings.change_setting(name, text)
    assert says in str(caught.value)
    assert caught.value.hint
    for word in ("trait", "instance", "int"):
        assert word not in str(caught.value).split()
    assert settings.settings() == before


def test_a_bad_configuration_is_kept_for_the_first_cell() -> None:
    settings = Settings(config=Config({"Settings": {"memory": "lots"}}))
    assert str(settings.misconfigured).startswith("memory cannot be 'lots'")
    assert Settings(config=Config({"Settings": {"memory": "1G"}})).misconfigured is None


def test_those_of_a_kernelspecs_argv() -> None:
    argv = ["-f", "{connection_file}", "--debug", "--CRKernel.cpus=1.5", "--CRKernel.memory", "2G"]
    settings = Settings.of([*argv, "--IPKernelApp.log_level=10", "--CRKernel.network=full"])
    assert settings.misconfigured is None
    assert settings.limits() == replace(Limits.default(), cpus=1.5, memory=2 << 30)
    assert settings.network == "full"
    assert Settings.of(()).limits() == Limits.default()
    assert "cpus cannot be 'lots'" in str(Settings.of(["--CRKernel.cpus=lots"]).misconfigured)


@pytest.mark.parametrize("value", ["inf", "nan", "-1", "many", float("inf")])
def test_a_number_of_processors_is_finite(value: object) -> None:
    settings = Settings(config=Config({"Settings": {"cpus": value}}))
    says = f"cpus cannot be '{value}': it takes a number, at least 0"
    assert str(settings.misconfigured) == says
    assert Settings(config=Config({"Settings": {"cpus": "1.5"}})).cpus == 1.5


def test_a_name_that_is_none_is_kept_for_the_first_cell() -> None:
    settings = Settings(config=Config({"Settings": {"memry": "2G"}, "Other": {"memry": "2G"}}))
    assert str(settings.misconfigured) == "there is no setting memry; did you mean memory?"
    assert (
        settings.misconfigured.hint
        == "correct it in the kernelspec's argv, then restart the kernel"
    )
    assert Settings(config=Config({"Other": {"memry": "2G"}})).misconfigured is None


@pytest.mark.parametrize("gigabytes", [2, 4, 16, 64, 1024])
def test_all_limits_together_leave_room(monkeypatch: pytest.MonkeyPatch, gigabytes: int) -> None:
    monkeypatch.setattr(machine, "memory", lambda: gigabytes << 30)
    limits = Limits.default()
    assert limits.memory + limits.staging_size + limits.disk_size <= gigabytes * 3 << 28
    assert limits.memory >= 512 << 20


def test_a_container_has_the_memory_that_its_group_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = tmp_path / "a" / "b"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    (group.parent / "memory.max").write_text("1000000\n")
    own = tmp_path / "own"
    own.write_text("4:cpu:/x\n0::/a/b\n")
    monkeypatch.setattr(machine, "_OWN", own)
    monkeypatch.setattr(machine, "_LIMITS", {"": (tmp_path, "memory.max")})
    assert machine.memory() == 1_000_000
    own.unlink()
    assert machine.memory() > 1 << 28
