"""Why a daemon cannot be reached: in a line, with the remedy."""

from __future__ import annotations

import re

from crkernel.errors import EngineUnavailable

DOCTOR = "run: crkernel doctor --engine docker"
_CERTIFICATES = (
    "DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH, a folder with the daemon's ca.pem and your cert.pem "
    "and key.pem"
)
_ADDRESS = "DOCKER_HOST is like unix:///var/run/docker.sock, tcp://HOST:2376 or ssh://USER@HOST"

# What the SDK or the system says, what is wrong, what to do. The first that fits is taken.
_KNOWN = (
    (
        "Permission ?[Dd]enied|PermissionError",
        "you may not use the Docker daemon at {url}",
        "sudo usermod -aG docker $USER, then log in anew; or use rootless Docker",
    ),
    ("HTTP request to an HTTPS server", "the Docker daemon at {url} wants TLS", _CERTIFICATES),
    ("[Pp]ath to a certificate", "no certificate for the Docker daemon at {url}", _CERTIFICATES),
    (
        "CERTIFICATE_VERIFY_FAILED",
        "the certificate of the Docker daemon at {url} is of another authority: {why}",
        _CERTIFICATES,
    ),
    # The SDK wants it even to use the program ssh.
    ("paramiko", "ssh:// takes paramiko", "pip install 'crkernel[docker]'"),
    ("bind address|Invalid argument|npipe", "no Docker daemon can be at {url}: {why}", _ADDRESS),
    (
        "No such file|Connection refused|Connection aborted|not found",
        "no Docker daemon answers at {url}",
        "start it (sudo systemctl start docker), or name one in DOCKER_HOST",
    ),
    ("", "no Docker daemon answers at {url}: {why}", "name another in DOCKER_HOST"),
)


def unreachable(url: str, error: Exception) -> EngineUnavailable:
    """The error for what the SDK raised."""
    text = str(error)
    return next(
        EngineUnavailable(message.format(url=url, why=_reason(error)), hint=hint)
        for sign, message, hint in _KNOWN
        if re.search(sign, text)
    )


def _reason(error: Exception) -> str:
    """What is behind the retries of a pool of connections that nobody asked for."""
    inner = getattr(error.args[0], "reason", error) if error.args else error
    text = str(inner).splitlines()[0] if str(inner) else type(inner).__name__
    return re.sub(r"^(<.*?>|HTTPS?Connection\(.*?\)): ", "", text)[:200]
