"""What the SDK raises, as errors of our tree: in a line, with the remedy."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from crkernel.errors import DaemonRefused, EngineUnavailable

T = TypeVar("T")

DOCTOR = "run: crkernel doctor --engine docker"
SEE_LOG = "the daemon's log may tell more, on its machine: sudo journalctl -u docker"
SEE_PODMANS_LOG = (
    "what podman system service says may tell more; where systemd runs it: "
    "journalctl --user -u podman, or root's: sudo journalctl -u podman"
)
INSTALL_SDK = "pip install 'docker[ssh]>=7'"
"""As the extra `docker` of ours has it, which is in no index."""
SEE_DAEMON = "see whether the daemon is well: docker version"
_CERTIFICATES = (
    "DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH, a folder with the daemon's ca.pem and your cert.pem "
    "and key.pem"
)
_ADDRESS = "DOCKER_HOST is like unix:///var/run/docker.sock, tcp://HOST:2376 or ssh://USER@HOST"

# What is in the address and what the SDK or the system says, what is wrong, what to do. The first
# that fits is taken.
_KNOWN = (
    (
        r"(?s)^(http\+)?unix://.*(Permission denied|PermissionError)",
        "you may not use the Docker daemon at {url}",
        "sudo usermod -aG docker $USER, then log in anew; or use rootless Docker",
    ),
    (
        r"(?s)^(tcp|https?)://(?!.*Failed to establish).*(Permission denied|PermissionError)",
        "a certificate or key for the Docker daemon at {url} cannot be read: {why}",
        "let this user read ca.pem, cert.pem and key.pem in the folder DOCKER_CERT_PATH",
    ),
    ("HTTP request to an HTTPS server", "the Docker daemon at {url} wants TLS", _CERTIFICATES),
    (
        "WRONG_VERSION_NUMBER|record layer",
        "the Docker daemon at {url} speaks no TLS",
        "unset DOCKER_TLS_VERIFY and DOCKER_CERT_PATH, or name its port for TLS in DOCKER_HOST",
    ),
    ("TLS configurations", "no certificate for the Docker daemon at {url}", _CERTIFICATES),
    (
        r"\[X509|PEM|TLS certificate",
        "a certificate for the Docker daemon at {url} is damaged: {why}",
        _CERTIFICATES,
    ),
    (
        "(Hostname|IP address) mismatch",
        "the certificate of the Docker daemon at {url} is for another name: {why}",
        "name the daemon in DOCKER_HOST as its certificate does",
    ),
    (
        "certificate (has expired|is not yet valid)",
        "the certificate of the Docker daemon at {url} is out of date: {why}",
        "have a new one made for the daemon, and see whether both clocks are right",
    ),
    (
        "CERTIFICATE_VERIFY_FAILED",
        "the certificate of the Docker daemon at {url} is of another authority: {why}",
        _CERTIFICATES,
    ),
    (
        r"_ALERT_|\balert\b",
        "the Docker daemon at {url} does not take your certificate: {why}",
        _CERTIFICATES,
    ),
    # The SDK wants it even to use the program ssh.
    ("paramiko", "ssh:// takes paramiko", INSTALL_SDK),
    ("bind address|Invalid argument|npipe", "no Docker daemon can be at {url}: {why}", _ADDRESS),
    ("[Tt]imed out", "the Docker daemon at {url} does not answer: {why}", SEE_DAEMON),
    ("^ssh://", "no Docker daemon answers at {url}", "see why: ssh {url} docker version"),
    (
        "(Client|Server) Error",
        "what answers at {url} is no Docker daemon, or a proxy that refuses: {why}",
        "name another in DOCKER_HOST",
    ),
    (
        "No such file|Connection refused|Connection aborted|not found",
        "no Docker daemon answers at {url}",
        "start it (sudo systemctl start docker), or name one in DOCKER_HOST",
    ),
    ("", "no Docker daemon answers at {url}: {why}", "name another in DOCKER_HOST"),
)


def translated(call: Callable[[], T], url: str, see_log: str = SEE_LOG) -> T:
    """What a call of the SDK gives; what it raises becomes an error of ours. This is the one place
    for that. `see_log` is the hint where the daemon refuses."""
    from docker.errors import APIError, DockerException
    from requests.exceptions import RequestException

    try:
        return call()
    except APIError as error:
        kind = "" if error.response is None else error.response.headers.get("Content-Type", "")
        if "json" not in kind:
            raise unreachable(url, error) from error  # the daemon did not read what was asked
        refused = DaemonRefused(f"Docker refused: {error.explanation or error}", hint=see_log)
        refused.status = int(error.status_code or 0)
        raise refused from error
    except (DockerException, RequestException, OSError, ValueError) as error:
        raise unreachable(url, error) from error


def unreachable(url: str, error: Exception) -> EngineUnavailable:
    """The error for what the SDK raised."""
    text = f"{url} {error}"
    return next(
        EngineUnavailable(message.format(url=url, why=_reason(error)), hint=hint.format(url=url))
        for sign, message, hint in _KNOWN
        if re.search(sign, text)
    )


def _reason(error: Exception) -> str:
    """What is behind the retries of a pool of connections that nobody asked for."""
    inner = getattr(error.args[0], "reason", error) if error.args else error
    text = str(inner).splitlines()[0] if str(inner) else type(inner).__name__
    return re.sub(r"^(<.*?>|HTTPS?Connection\(.*?\)): ", "", text)[:200]
