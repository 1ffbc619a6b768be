"""A proxy on loopback that adds the key, as a machine needs it whose claude-mem plugin asks its worker without one."""

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_PASSED_ON = ("Content-Type", "Accept", "Authorization")


@dataclass(frozen=True, kw_only=True)
class Answered:
    """A request that was passed on, and the status of its answer."""

    method: str
    path: str
    status: int


@dataclass(kw_only=True)
class Proxy:
    """Where it listens, and what came through since `forget`."""

    url: str
    port: int
    seen: list[Answered] = field(default_factory=list)

    def forget(self) -> None:
        """Begin the list anew."""
        self.seen.clear()

    def paths(self, *, status: int = 200) -> Sequence[str]:
        """Paths, without probes, that were answered with this status, in order."""
        probes = ("/api/health", "/api/readiness")
        return [each.path for each in self.seen if each.status == status and each.path not in probes]


@contextmanager
def proxy_to(base_url: str, key: str) -> Iterator[Proxy]:
    """Runs in a thread until the block ends."""
    proxy = Proxy(url="", port=0)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._pass_on(None)

        def do_POST(self) -> None:
            self._pass_on(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

        def _pass_on(self, body: bytes | None) -> None:
            headers = {name: self.headers[name] for name in _PASSED_ON if self.headers[name]}
            headers.setdefault("Authorization", f"Bearer {key}")
            request = urllib.request.Request(base_url + self.path, data=body, headers=headers, method=self.command)
            try:
                with urllib.request.urlopen(request, timeout=40) as answer:
                    status, kind, content = answer.status, answer.headers["Content-Type"], answer.read()
            except urllib.error.HTTPError as error:
                status, kind, content = error.code, error.headers["Content-Type"], error.read()
            path = self.path.split("?")[0]
            proxy.seen.append(Answered(method=self.command, path=path, status=status))
            if path == "/api/health":
                content = _without_version(content)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name for it
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        proxy.port = server.server_port
        proxy.url = f"http://127.0.0.1:{proxy.port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield proxy
        finally:
            server.shutdown()


def _without_version(content: bytes) -> bytes:
    """The plugin takes another version than its own for a stale worker, which it would try to replace."""
    health = json.loads(content)
    return json.dumps({name: value for name, value in health.items() if name != "version"}).encode()
