"""A small npm registry, so that tests of `%npm` depend on no other."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

Files = dict[str, str]


class Registry:
    """Serves what was published, on a port of 127.0.0.1."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        """Path and Authorization header of each request."""
        self.go_on = threading.Event()
        """While it is not set, requests of packages named `slow…` wait."""
        self._packages: dict[str, dict[str, Any]] = {}
        self._archives: dict[str, bytes] = {}
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry.requests.append((self.path, self.headers.get("Authorization", "")))
                status, body = registry.answer(unquote(self.path))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """To nobody."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def publish(self, name: str, version: str, files: Files, **manifest: Any) -> None:
        """Add a version of a package; `manifest` goes into its package.json."""
        manifest = {"name": name, "version": version, **manifest}
        path = f"{name}/-/{version}.tgz"
        archive = _archive({"package.json": json.dumps(manifest), **files})
        self._archives[path] = archive
        digest = base64.b64encode(hashlib.sha512(archive).digest()).decode()
        dist = {"tarball": self.url + path, "integrity": f"sha512-{digest}"}
        package = self._packages.setdefault(name, {"name": name, "versions": {}, "dist-tags": {}})
        package["versions"][version] = manifest | {"dist": dist}
        package["dist-tags"]["latest"] = version

    def answer(self, path: str) -> tuple[int, bytes]:
        """Status and body for a path."""
        path = path.lstrip("/")
        if path.startswith("slow"):
            self.go_on.wait(20)
        if path in self._archives:
            return 200, self._archives[path]
        if path in self._packages:
            return 200, json.dumps(self._packages[path]).encode()
        return 404, b'{"error": "Not found"}'

    def close(self) -> None:
        """Serve no more."""
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _archive(files: Files) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"package/{name}")
            if text.startswith("-> "):
                entry.type, entry.linkname = tarfile.SYMTYPE, text.removeprefix("-> ")
                archive.addfile(entry)
            else:
                entry.size = len(text.encode())
                archive.addfile(entry, io.BytesIO(text.encode()))
    return data.getvalue()
