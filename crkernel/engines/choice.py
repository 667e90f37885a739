"""Which engine `auto` stands for."""

from __future__ import annotations

import logging

from crkernel import image
from crkernel.engines import trial
from crkernel.errors import CRKernelError

log = logging.getLogger(__name__)

_PATIENCE = 1.0  # seconds for a daemon on TCP, while a kernel starts


def choose() -> str:
    """`local` where that can work, else `docker` if a daemon is there to be used; else `local`,
    whose own complaint names what to mend."""
    obstacle = _obstacle()
    if obstacle and _docker_answers():
        log.info("sandboxes run in Docker, since %s", obstacle)
        return "docker"
    return "local"


def _obstacle() -> str:
    """Why there can be no sandboxes on this machine itself, as the doctor would find; empty if they
    can be."""
    if image.image_path() is None:
        return "there is no sandbox image outside of it"
    if why := trial.too_old():
        return why
    if failed := trial.failure():
        return f"sandboxes cannot be made here ({failed})"
    return ""


def _docker_answers() -> bool:
    try:
        from crkernel.engines.docker.endpoint import Endpoint

        Endpoint.find().knock(_PATIENCE)
    except (CRKernelError, ImportError, OSError, ValueError):
        return False
    return True
