"""
An MCP endpoint: streamable HTTP, stateless, answered as plain JSON.

The SDK speaks the protocol; the door in front of it is ours: 405 for anything but POST before a key is asked for
(a 401 there would send clients into an OAuth flow that does not exist), then the same authentication as REST, then
what the SDK reads more strictly than clients write (`mcp_messages.py`).

The SDK's guard against DNS rebinding is off. It refuses unknown Host headers, and a server that is reached by a public
name, a cluster name and pod addresses does not know its hosts; what a rebinding page lacks is the key, which
browsers never send on their own.
"""

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import orjson
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPError
from mcp_types import METHOD_NOT_FOUND
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from commonplace_runtime.domain.errors import DomainError
from commonplace_runtime.domain.quotas import Spending, refusal
from commonplace_runtime.domain.scopes import Access
from commonplace_runtime.entrypoints.http.bodies import MAX_BODY_BYTES, read_bytes
from commonplace_runtime.entrypoints.http.errors import HttpFault, answer_for, json_response
from commonplace_runtime.entrypoints.http.security import admit
from commonplace_runtime.entrypoints.http.state import ApiState
from commonplace_runtime.entrypoints.mcp_messages import DRAFT, SERVER_ERROR, Posted, RpcFault, encode, read_posted

_RENDERED_GROWTH: Final = 8
"""How much longer JSON may get when it is written again: `9e9` becomes `9000000000.0`."""
_JSON_TYPES: Final = frozenset({"", "*/*", "application/*", "application/json"})
_STRAY: Final = frozenset({b"accept", b"content-length", b"content-encoding", b"transfer-encoding"})
_NOT_POST: Final = {"error": "MethodNotAllowed", "message": "This MCP endpoint is stateless: it answers POST only."}


class McpDoor:
    """
    The ASGI endpoint of one SDK server. `running()` must be entered for as long as it serves.

    access: what a key must open to come in. spending: what the server's tools do to a budget, by name; those that
    are missing do nothing.
    """

    def __init__(
        self, state: ApiState, server: Server[Any], *, access: Access, spending: Mapping[str, Spending] | None = None
    ) -> None:
        self._state = state
        self._access = access
        self._spending = dict(spending or {})
        # Instead of OpenTelemetry's spans, which nothing here exports.
        server.middleware[:] = [_agree_on_the_draft, partial(_only_what_is_there, server)]
        logging.getLogger("mcp").setLevel(logging.WARNING)
        self._sessions = StreamableHTTPSessionManager(
            server,
            stateless=True,
            json_response=True,
            max_request_body_size=MAX_BODY_BYTES * _RENDERED_GROWTH,
            security_settings=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the SDK's session manager. Once only: it cannot be started again."""
        async with self._sessions.run():
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Gate, then protocol."""
        if scope["method"] != "POST":
            await json_response(_NOT_POST, 405, {"Allow": "POST"})(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            posted = await self._admitted(request)
        except (DomainError, HttpFault) as error:
            await answer_for(error)(scope, receive, send)
        except RpcFault as error:
            await json_response(error.body, error.status)(scope, receive, send)
        else:
            await self._serve(posted, scope, receive, send)

    async def _admitted(self, request: Request) -> Posted:
        # Which tools are called is known once the body was read, and to read it one must be let in. Where a tool is
        # exempt from caps, so is what a client must ask before it can call it.
        has_exempt = Spending.EXEMPT in self._spending.values()
        await admit(self._state, request, self._access, Spending.EXEMPT if has_exempt else Spending.NOTHING)
        _check_media_types(request)
        version = request.headers.get("mcp-protocol-version", "").strip() or None
        posted = await read_posted(await read_bytes(request), version)
        for tool in posted.called_tools:
            refused = refusal(request.state.usage, self._spending.get(tool, Spending.NOTHING))
            if refused is not None:
                raise refused
        return posted

    async def _serve(self, posted: Posted, scope: Scope, receive: Receive, send: Send) -> None:
        if not posted.is_batch:
            body = encode(posted.messages[0])
            await self._sessions.handle_request(_rewritten(scope, posted, len(body)), _replayed(body, receive), send)
            return
        answers: list[Any] = []
        for message in posted.messages:
            body = encode(message)
            taken = _Taken()
            await self._sessions.handle_request(_rewritten(scope, posted, len(body)), _replayed(body, receive), taken)
            if taken.body:
                answers.append(orjson.loads(taken.body))
        answer = json_response(answers) if answers else Response(status_code=202)
        await answer(scope, receive, send)


async def _agree_on_the_draft(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """SDK middleware: who shakes hands on the draft, which the SDK has forgotten, is told the draft."""
    result = await call_next(ctx)
    wanted = (ctx.params or {}).get("protocolVersion") if ctx.method == "initialize" else None
    return {**result, "protocolVersion": DRAFT} if wanted == DRAFT and isinstance(result, dict) else result


async def _only_what_is_there(
    server: Server[Any], context: ServerRequestContext[Any, Any], call_next: CallNext
) -> HandlerResult:
    """SDK middleware: a method that is not served is unknown, whatever its parameters; the SDK reads these first."""
    is_request = context.request_id is not None
    if is_request and context.method != "initialize" and server.get_request_handler(context.method) is None:
        raise MCPError(code=METHOD_NOT_FOUND, message="Method not found", data=context.method)
    return await call_next(context)


def _check_media_types(request: Request) -> None:
    """Raise RpcFault for a body that is no JSON, and for a client that takes none."""
    accepted = {part.split(";")[0].strip().lower() for part in request.headers.get("accept", "").split(",")}
    if _JSON_TYPES.isdisjoint(accepted):
        message = "Not Acceptable: Client must accept both application/json and text/event-stream"
        raise RpcFault(406, SERVER_ERROR, message)
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        raise RpcFault(415, SERVER_ERROR, "Unsupported Media Type: Content-Type must be application/json")


def _rewritten(scope: Scope, posted: Posted, size: int) -> Scope:
    """
    `scope` of one message of `size` bytes, for the SDK.

    `mcp-*` values lose the blanks that httptools leaves. The SDK is asked for both media types: it answers JSON.
    """
    headers = [
        (name, value.strip() if name.startswith(b"mcp-") else value)
        for name, value in scope["headers"]
        if name not in _STRAY and (name != b"mcp-protocol-version" or posted.version is not None)
    ]
    headers += [(b"content-length", str(size).encode()), (b"accept", b"application/json, text/event-stream")]
    return {**scope, "headers": headers}


def _replayed(body: bytes, receive: Receive) -> Receive:
    """`receive` of a request whose body was read already."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


class _Taken:
    """A `send` that keeps the body."""

    def __init__(self) -> None:
        self.body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            self.body += message.get("body", b"")
