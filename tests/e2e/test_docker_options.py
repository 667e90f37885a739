"""Every option that widens what Docker's default allows a container is necessary.

Docker's default is put in the place of each alone; then no sandbox comes up, or CRIU dumps or
restores nothing, or there is no annex.
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
DOCKERS_CLONE = {
    "names": ["clone"],
    "action": "SCMP_ACT_ALLOW",
    "args": [{"index": 0, "value": 0x7E020000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}],
}
"""With no flag that makes a namespace. To refuse it altogether would show nothing: no process could
be started."""


def without(name: str) -> str:
    """The profile, but with Docker's default for one system call."""
    groups = [
        {**group, "names": [one for one in group["names"] if one != name]}
        for group in PROFILE["syscalls"]
    ]
    groups += [DOCKERS_CLONE] if name == "clone" else []
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
