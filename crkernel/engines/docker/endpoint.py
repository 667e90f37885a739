"""Where the Docker daemon listens, as the docker command would find it."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from crkernel.engines.docker.complaints import translated
from crkernel.errors import EngineUnavailable

if TYPE_CHECKING:
    from docker.context import Context
    from docker.tls import TLSConfig


@dataclass(frozen=True)
class Endpoint:
    """Where a daemon listens."""

    url: str
    tls: TLSConfig | None

    @classmethod
    def find(cls) -> Endpoint:
        """By DOCKER_HOST, else the context in use. Raises EngineUnavailable with the remedy."""
        from docker.utils import kwargs_from_env

        if host := os.environ.get("DOCKER_HOST", "").strip():
            url = _url(host)
            return cls(url, translated(kwargs_from_env, url).get("tls") or None)
        context = _context()
        return cls(_url(context.Host or "unix:///var/run/docker.sock"), context.TLSConfig)

    @property
    def address(self) -> tuple[str, int]:
        """The name and the port of a daemon that listens on TCP. Raises ValueError."""
        url = urlsplit(self.url)
        return url.hostname or "localhost", url.port or 2375

    def knock(self, patience: float | None = None) -> None:
        """See whether somebody listens on this machine; raises OSError. The SDK would not tell why
        not so plainly, nor close its socket. With `patience`, in seconds, on TCP too, for which it
        raises ValueError as well; what ssh leads to is not tried."""
        url = urlsplit(self.url)
        if url.scheme in ("unix", "http+unix"):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(url.path)
        elif patience is not None and url.scheme != "ssh":
            socket.create_connection(self.address, patience).close()


def _url(host: str) -> str:
    """An address with its scheme, which the docker command does without; or requests and streams,
    which read it differently, would go to two places."""
    return host if "://" in host else f"tcp://{host}"


def _context() -> Context:
    from docker.context import ContextAPI
    from docker.context.config import get_current_context_name

    name, others = os.environ.get("DOCKER_CONTEXT"), "see: docker context ls"
    if name:
        choose = f"name another in DOCKER_CONTEXT, {others}"
    else:
        name = get_current_context_name()
        choose = f"docker context use default, or another, {others}"
    try:
        context = ContextAPI.get_context(name)
    except Exception as error:  # a file that is none: the SDK raises whatever it comes to
        why = str(error).splitlines()[0] or type(error).__name__
        message = f"the docker context {name!r} cannot be read: {why}"
        raise EngineUnavailable(message, hint=choose) from error
    if context is None:
        raise EngineUnavailable(f"there is no docker context {name!r}", hint=choose)
    return context
