"""
What every answer has in common, around the whole app: request id, security headers, CORS, HEAD, one log line, one
metric, and an answer even when we fail.

CORS: pages on this machine may read answers. Other origins get no CORS headers and are otherwise served: the key is
sent by whoever holds it, never by a browser on its own, so a foreign page has nothing to abuse.
"""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from time import perf_counter
from typing import Any, Final
from uuid import uuid4

import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from commonplace_runtime.entrypoints.http.errors import json_response
from commonplace_runtime.observability import REQUEST_SECONDS, REQUESTS

log = structlog.get_logger(__name__)

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_WITH_REQUEST_ID: Final = ("/v1/", "/api/")
_LOCAL_ORIGINS: Final = ("http://localhost:", "http://127.0.0.1:")
CLIENT_GONE: Final = 499
"""The status in log and metrics of a request whose client left before its body was whole; nginx's word for it."""
_QUIET: Final = frozenset({"/healthz", "/api/health", "/api/readiness"})
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
SECURITY_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-DNS-Prefetch-Control": "off",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Origin-Agent-Cluster": "?1",
}
_SECURITY: Final = [(name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]
_OURS: Final = frozenset(name for name, _ in _SECURITY) | {b"x-request-id"}
PREFLIGHT_HEADERS: Final = {
    "Access-Control-Allow-Methods": "GET,HEAD,POST,PUT,PATCH,DELETE",
    "Access-Control-Allow-Headers": (
        "Content-Type,Authorization,X-Requested-With,X-Api-Key,X-Request-Id,MCP-Protocol-Version,Mcp-Method,Mcp-Name,"
        "Mcp-Session-Id"
    ),
    "Access-Control-Max-Age": "600",
}
_EXPOSED: Final = "X-Request-Id,Retry-After,X-RateLimit-Limit,X-RateLimit-Remaining,X-RateLimit-Reset"


def _header(scope: Scope, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


class Envelope:
    """ASGI middleware; outermost."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        given = _header(scope, b"x-request-id").strip()
        request_id = given if _REQUEST_ID.fullmatch(given) else str(uuid4())
        inner = {**scope, "state": {**scope.get("state", {}), "request_id": request_id}}
        is_head = scope["method"] == "HEAD"
        if is_head:
            inner["method"] = "GET"
            inner["state"]["is_head"] = True  # for those whose body is dear to make
        sender = _Sender(inner, send, origin=_header(scope, b"origin"), is_head=is_head)
        try:
            if scope["method"] == "OPTIONS":
                await Response(status_code=204, headers=PREFLIGHT_HEADERS)(inner, receive, sender)
            else:
                await self._app(inner, receive, sender)
        except ClientDisconnect:
            sender.status = sender.status or CLIENT_GONE
        except Exception:
            log.exception("request_failed", request_id=request_id, method=scope["method"])
            if not sender.status:
                body = {"error": "InternalError", "message": "Something broke on our side; the request id finds it."}
                await json_response(body, 500)(inner, receive, sender)
        finally:
            _account(scope, inner, sender.status, perf_counter() - started, request_id)


class _Sender:
    """Adds the common headers on the way out, and remembers the status."""

    def __init__(self, scope: Scope, send: Send, *, origin: str, is_head: bool) -> None:
        self.status = 0
        self._scope = scope
        self._send = send
        self._origin = origin
        self._is_head = is_head

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = int(message["status"])  # the MCP SDK sends an enum
            message = {**message, "headers": self._headers(message.get("headers", ()))}
        elif self._is_head and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await self._send(message)

    def _headers(self, given: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Those of the answer, and ours, which take the place of others by the same name."""
        headers = [header for header in given if header[0].lower() not in _OURS]
        headers += _SECURITY
        state = self._scope["state"]
        if self._scope["path"].lower().startswith(_WITH_REQUEST_ID):
            headers.append((b"x-request-id", state["request_id"].encode()))
        more: Mapping[str, str] = state.get("extra_headers", {})
        if not more and not self._origin.startswith(_LOCAL_ORIGINS):
            return headers
        shown = MutableHeaders(raw=headers)
        shown.update(more)
        if self._origin.startswith(_LOCAL_ORIGINS):
            shown["Access-Control-Allow-Origin"] = self._origin
            shown["Access-Control-Expose-Headers"] = _EXPOSED
            shown.add_vary_header("Origin")
        return shown.raw


@cache
def _counters(method: str, route: str, status: int) -> tuple[Any, Any]:
    """Looked up once: methods, routes and statuses are few."""
    return REQUESTS.labels(method, route, str(status)), REQUEST_SECONDS.labels(method, route)


def _account(scope: Scope, inner: Scope, status: int, seconds: float, request_id: str) -> None:
    route: str = getattr(inner.get("route"), "path", "unmatched")
    method = scope["method"] if scope["method"] in _METHODS else "OTHER"
    requests, durations = _counters(method, route, status)
    requests.inc()
    durations.observe(seconds)
    if route in _QUIET and status < 400:
        return
    principal: Any = inner["state"].get("principal")
    log.info(
        "request_answered",
        method=method,
        route=route,
        status=status,
        ms=round(seconds * 1000, 1),
        request_id=request_id,
        key_id=getattr(principal, "key_id", None),
        team_id=getattr(principal, "team_id", None),
    )
