"""The Docker daemon: where it is, what it is asked, and the streams into its containers.

Requests go through the docker SDK, on threads; the streams do not, since the SDK's sockets block.
Nothing here assumes that the daemon runs on this machine. Podman's socket answers nearly the same
way; `Daemon.podman` is asked where it does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from crkernel.engines.docker.complaints import (
    INSTALL_SDK,
    SEE_DAEMON,
    SEE_LOG,
    SEE_PODMANS_LOG,
    translated,
    unreachable,
)
from crkernel.engines.docker.endpoint import Endpoint
from crkernel.engines.docker.stream import Stream
from crkernel.errors import DaemonRefused, EngineError, EngineUnavailable

if TYPE_CHECKING:
    from docker import APIClient
    from docker.tls import TLSConfig
    from requests import Response

Json = dict[str, Any]
T = TypeVar("T")

_API_NEEDED = (1, 41)
"""Docker 20.10: its runc knows the system calls that our seccomp profile names."""
_TIMEOUT = 60.0
# An idle stream is kept from being forgotten on the way, and one that leads nowhere ends, in place
# of a cell that waits for ever: within two minutes.
_ALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 120_000),
)
_SSH = [
    word
    for option in ("BatchMode=yes", "ServerAliveInterval=30", "ServerAliveCountMax=3")
    for word in ("-o", option)
]
_GONE = "no such container"
_PODMAN_PAUSE = 0.02
_LIMIT = 1 << 20  # bytes that a stream holds before its sender waits


class Daemon:
    """One daemon. All methods raise errors of our tree."""

    def __init__(self, endpoint: Endpoint, api: APIClient, version: Json) -> None:
        self.endpoint = endpoint
        self.podman = any("Podman" in one["Name"] for one in version.get("Components") or [])
        self.see_log = SEE_PODMANS_LOG if self.podman else SEE_LOG
        """The hint where it refuses something."""
        self._api = api
        self._info: Json | None = None

    @classmethod
    async def connect(cls) -> Daemon:
        """Find it and see that it answers. Raises EngineUnavailable with the remedy."""
        return await asyncio.to_thread(cls._connect)

    @classmethod
    def _connect(cls) -> Daemon:
        try:
            import docker
            from urllib3.connection import HTTPConnection
        except ImportError as error:
            raise EngineUnavailable(
                "the docker SDK for Python is not installed", hint=INSTALL_SDK
            ) from error
        endpoint = Endpoint.find()
        translated(endpoint.knock, endpoint.url)
        oldest = ".".join(map(str, _API_NEEDED))

        def client(version: str) -> APIClient:
            api = docker.APIClient(
                base_url=endpoint.url,
                tls=endpoint.tls or False,
                version=version,
                timeout=_TIMEOUT,
                use_ssh_client=True,
            )
            # REQUESTS_CA_BUNDLE would outrank the daemon's own certificate authority.
            api.trust_env = False
            pools = api.get_adapter(api.base_url).poolmanager.connection_pool_kw
            pools["socket_options"] = [*HTTPConnection.default_socket_options, *_ALIVE]
            return api

        with contextlib.closing(translated(lambda: client(oldest), endpoint.url)) as first:
            said = translated(lambda: first.version(api_version=False), endpoint.url)
        api = translated(lambda: client(str(said["ApiVersion"])), endpoint.url)
        if tuple(map(int, api.api_version.split("."))) < _API_NEEDED:
            raise EngineUnavailable(
                f"the daemon at {endpoint.url} speaks API {api.api_version}, {oldest} is needed",
                hint="install Docker 20.10 or newer",
            )
        return cls(endpoint, api, said)

    async def ask(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of the SDK's `APIClient`."""
        call = getattr(self._api, method)
        return await asyncio.to_thread(self._translated, lambda: call(*arguments, **options))

    def _translated(self, call: Callable[[], T]) -> T:
        return translated(call, self.endpoint.url, self.see_log)

    async def info(self) -> Json:
        """What it says of itself and its machine."""
        if self._info is None:
            self._info = dict(await self.ask("info"))
        return self._info

    async def find(self, method: str, *arguments: Any, **options: Any) -> Any | None:
        """As `ask`; None if there is no such thing."""
        try:
            return await self.ask(method, *arguments, **options)
        except DaemonRefused as refused:
            # Podman finds some that go meanwhile, and then not.
            if refused.status == 404 or (self.podman and _GONE in str(refused)):
                return None
            raise

    @contextlib.contextmanager
    def build(
        self, context: Iterator[bytes], arguments: dict[str, str], options: dict[str, str]
    ) -> Iterator[Iterator[Json]]:
        """Have an image built of the blocks of a tar archive, as `docker build` does, with the
        proxies of Docker's configuration; what is said. It ends with the block.

        Not by the SDK's method, which leaves no way to end it, and in the caller's thread.
        """
        from docker.utils.config import load_general_config
        from docker.utils.proxy import ProxyConfig

        proxies = load_general_config().get("proxies", {})
        proxy = ProxyConfig.from_dict(proxies.get(self.endpoint.url, proxies.get("default", {})))
        given = proxy.get_environment() | arguments

        def post() -> Response:
            answer: Response = self._api.post(
                f"{self._api.base_url}/v{self._api.api_version}/build",
                params=options | {"buildargs": json.dumps(given)},
                headers={"Content-Type": "application/x-tar"},
                data=context,
                stream=True,
                timeout=None,
            )
            return answer

        with contextlib.closing(self._translated(post)) as answer:
            if not answer.ok:
                raise DaemonRefused(f"Docker refused: {answer.text.strip()}", hint=self.see_log)
            lines = filter(None, answer.iter_lines())
            yield map(json.loads, iter(lambda: self._translated(lambda: next(lines, b"")), b""))

    async def exit_code(self, container: str) -> int | None:
        """That of a container's main process, once it has ended; None if the container is gone."""
        if self.podman:
            return await self._podmans_exit_code(container)
        try:
            return int((await self.post(f"containers/{container}/wait"))["StatusCode"])
        except DaemonRefused as refused:
            if refused.status == 404:
                return None
            raise

    async def _podmans_exit_code(self, container: str) -> int | None:
        """Its `wait` says 0 of any container that goes with its process, and so does its state when
        it was removed by force."""
        while (found := await self.find("inspect_container", container)) is not None:
            state = found["State"]
            if not state["Running"] and state["ExitCode"]:
                return int(state["ExitCode"])
            await asyncio.sleep(_PODMAN_PAUSE)
        return None

    async def run(self, container: str, command: list[str]) -> Stream:
        """Start a program in a container (`docker exec`) and return the stream to it."""
        created = await self.ask("exec_create", container, command, stdin=True)
        body = json.dumps({"Detach": False, "Tty": False}).encode()
        return await self._stream(f"exec/{created['Id']}/start", body)

    async def attach(self, container: str) -> Stream:
        """The stream to the main process of a container that is yet to be started."""
        return await self._stream(
            f"containers/{container}/attach?stream=1&stdin=1&stdout=1&stderr=1"
        )

    async def post(self, path: str, body: Json | None = None) -> Json:
        """Ask for what the SDK has no method for, or waits for in a thread of ours."""
        said = json.dumps(body).encode() if body else b""
        stream = await self._stream(path, said, version="1.0")  # which ends with the answer
        with contextlib.closing(stream.writer):
            try:
                answer: Json = json.loads(await stream.rest())
            except (OSError, ValueError) as error:
                raise self._hung_up(error) from error
        return answer

    async def _stream(self, path: str, body: bytes = b"", version: str = "1.1") -> Stream:
        head = (
            f"POST /v{self._api.api_version}/{path} HTTP/{version}\r\nHost: docker\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            "Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        )
        url = self.endpoint.url
        try:
            async with asyncio.timeout(_TIMEOUT):
                return await self._upgraded(head.encode() + body)
        except TimeoutError as error:
            message = f"the daemon at {url} opens no stream within {_TIMEOUT:.0f} s"
            raise EngineError(message, hint=SEE_DAEMON) from error
        except OSError as error:
            raise unreachable(url, error) from error

    async def _upgraded(self, request: bytes) -> Stream:
        stream = await self._open()
        stream.see_log = self.see_log
        try:
            await stream.upgrade(request)
        except BaseException as error:
            stream.writer.close()
            if isinstance(error, (ConnectionError, ValueError, EOFError)):
                raise self._hung_up(error) from error
            raise
        return stream

    def _hung_up(self, error: Exception) -> EngineError:
        message = f"the daemon at {self.endpoint.url} hung up: {error}"
        return EngineError(message, hint=SEE_DAEMON)

    async def _open(self) -> Stream:
        url = urlsplit(self.endpoint.url)
        if url.scheme in ("unix", "http+unix"):
            return Stream(*await asyncio.open_unix_connection(url.path, limit=_LIMIT))
        if url.scheme == "ssh":
            at = ["-p", str(url.port)] if url.port else []
            user = f"{url.username}@" if url.username else ""
            process = await asyncio.create_subprocess_exec(
                *("ssh", *_SSH, *at, "--", f"{user}{url.hostname}"),
                *("docker", "system", "dial-stdio"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=_LIMIT,
            )
            assert process.stdout is not None
            assert process.stdin is not None
            return Stream(process.stdout, process.stdin)
        context = _ssl_context(self.endpoint.tls) if self.endpoint.tls else None
        host, port = self.endpoint.address
        reader, writer = await asyncio.open_connection(host, port, ssl=context, limit=_LIMIT)
        for option in _ALIVE:
            writer.get_extra_info("socket").setsockopt(*option)
        return Stream(reader, writer)


def _ssl_context(tls: TLSConfig) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=tls.ca_cert)
    if not tls.verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if tls.cert:
        context.load_cert_chain(*tls.cert)
    return context
