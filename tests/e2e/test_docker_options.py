"""Every option that widens what Docker's default allows a container is necessary.

Each is taken away alone; then no sandbox comes up, or CRIU dumps or restores nothing, or there is
no annex.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from crkernel import doctor
from crkernel.engines.docker import container
from crkernel.errors import EngineUnavailable

pytestmark = [pytest.mark.e2e, pytest.mark.docker]

PROFILE = json.loads(container._profile())
BEYOND = [
    name
    for group in PROFILE["syscalls"]
    if "beyond" in group.get("comment", "") or "annex" in group.get("comment", "")
    for name in group["names"]
    if name != "chroot"  # which is for the doctor where it is in a container itself
]


def without(name: str) -> str:
    """The profile, but that it refuses one system call."""
    groups = [
        {**group, "names": [one for one in group["names"] if one != name]}
        for group in PROFILE["syscalls"]
    ]
    return json.dumps({**PROFILE, "syscalls": groups})


def test_the_doctor_is_satisfied_with_all_of_them() -> None:
    assert doctor.proof("docker")


@pytest.mark.parametrize("name", BEYOND)
def test_a_system_call(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "_profile", lambda: without(name))
    with pytest.raises(EngineUnavailable):
        doctor.proof("docker")


@pytest.mark.parametrize("name", ["ReadonlyPaths", "MaskedPaths", "SecurityOpt"])
def test_an_option(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker's default in its place."""
    whole = container._confinement

    def less(*arguments: Any, **options: Any) -> Any:
        usual = ["no-new-privileges"] if name == "SecurityOpt" else None
        return {**whole(*arguments, **options), name: usual}

    monkeypatch.setattr(container, "_confinement", less)
    with pytest.raises(EngineUnavailable):
        doctor.proof("docker")
