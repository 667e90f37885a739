"""What npm is set to on this host: its registry and how to get there.

A courier runs npm with these settings, so that packages come from where the user gets them. They
may hold tokens: they go to the courier alone and never to a guest.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

_GLOBAL = ("/etc/npmrc", "/usr/etc/npmrc", "/usr/local/etc/npmrc")
_REGISTRY = "https://registry.npmjs.org/"
_WANTED = re.compile(
    r"registry|@[^:]+:registry|//.+|_auth.*|username|email|(https?-|no)?proxy|ca(\[\])?|cert|key"
    r"|strict-ssl|fetch-.+|maxsockets|before|min-release-age|replace-registry-host"
    r"|omit-lockfile-registry-resolved|save-exact|save-prefix|legacy-peer-deps"
)
_DEFAULTS = {"fetch-retry-mintimeout": "500", "fetch-retry-maxtimeout": "4000"}
"""Milliseconds: somebody waits."""
_PROXIES = {"proxy": "HTTP_PROXY", "https-proxy": "HTTPS_PROXY", "noproxy": "NO_PROXY"}


def settings(environment: Mapping[str, str] = os.environ) -> bytes:
    """For `Engine.courier`: npm's settings, the files that it needs beside the image's, and
    environment variables."""
    found = _DEFAULTS | dict(_entries(environment))
    files = {name: _read(f"/etc/{name}") for name in ("hosts", "resolv.conf")}
    variables = {}
    if authorities := _read(str(found.pop("cafile", ""))):
        files["ca.pem"] = authorities
        found["cafile"] = "/tmp/host/ca.pem"
    if more := _read(environment.get("NODE_EXTRA_CA_CERTS", "")):
        files["more-ca.pem"] = more
        variables["NODE_EXTRA_CA_CERTS"] = "/tmp/host/more-ca.pem"
    lines = [f"{name}={_expand(value, environment)}\n" for name, value in found.items()]
    registries = [
        value.rstrip("/") + "/" for name, value in found.items() if name.endswith("registry")
    ]
    host = {
        "npmrc": "".join(lines),
        "registries": [*registries, _REGISTRY],
        "files": files,
        "environment": variables,
    }
    return json.dumps(host).encode()


def _entries(environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Settings by name, those that count less first."""
    for name, variable in _PROXIES.items():
        for spelled in (variable, variable.lower()):
            if spelled in environment:
                yield name, environment[spelled]
    own = {
        name[len("npm_config_") :].lower().replace("_", "-"): value
        for name, value in environment.items()
        if name.lower().startswith("npm_config_")
    }
    home = environment.get("HOME") or str(Path.home())
    files = [own.get("globalconfig"), *_GLOBAL, own.get("userconfig", f"{home}/.npmrc")]
    for path in filter(None, files):
        for line in _read(path).splitlines():
            name, equals, value = line.partition("=")
            if equals and not line.lstrip().startswith(("#", ";")):
                yield from _wanted(name.strip(), value.strip())
    for name, value in own.items():
        yield from _wanted(name, value)


def _wanted(name: str, value: str) -> Iterator[tuple[str, str]]:
    if name == "cafile" or _WANTED.fullmatch(name):
        yield name, value.strip("\"'")


def _expand(value: str, environment: Mapping[str, str]) -> str:
    return re.sub(r"\$\{(\w+)\}", lambda match: environment.get(match[1], match[0]), value)


def _read(path: str) -> str:
    """A file's text; nothing of one that cannot be read: npm then says what it lacks."""
    if not path:
        return ""
    try:
        return Path(path).expanduser().read_text(errors="replace")
    except OSError:
        return ""
