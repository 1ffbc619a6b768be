"""
The floor under `benchmarks.http`: the same server, envelope, body reader and pool with one statement and no more.

Started by it as a process: `python -m benchmarks.http_floor PORT` with the runtime's environment.
"""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import uvicorn
import uvloop
from fastapi import FastAPI
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from mcp.types import CallToolResult, TextContent
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from commonplace_runtime.entrypoints.http.app import open_api_pool
from commonplace_runtime.entrypoints.http.bodies import read_json
from commonplace_runtime.entrypoints.http.envelope import Envelope
from commonplace_runtime.entrypoints.http.errors import json_response
from commonplace_runtime.entrypoints.http.serve import collect_seldom, server_config
from commonplace_runtime.ids import uuid7
from commonplace_runtime.observability import configure_logging
from commonplace_runtime.settings import load_settings
from commonplace_runtime.store.pool import Pool

TABLES = """
CREATE TABLE floor.rows (id uuid PRIMARY KEY, payload jsonb NOT NULL, created_at timestamptz NOT NULL DEFAULT now());
INSERT INTO floor.rows (id, payload)
SELECT gen_random_uuid(), jsonb_build_object('content', repeat('word ', 40), 'n', n)
FROM generate_series(1, 10000) AS n
"""


def app(pool: Pool) -> FastAPI:
    """POST /insert, GET /select/:id, and /mcp with one tool that does nothing."""
    mcp = MCPServer("floor", log_level="WARNING")

    @mcp.tool()
    async def nothing() -> CallToolResult:
        return CallToolResult(content=[TextContent(type="text", text="{}")])

    mcp.streamable_http_app(
        stateless_http=True,
        json_response=True,
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )

    async def insert(request: Request) -> Response:
        body = await read_json(request, expected="object")
        row = await pool.fetchval(
            "INSERT INTO floor.rows (id, payload) VALUES ($1, $2) RETURNING payload", uuid7(), body.value
        )
        return json_response(row, 201)

    async def select(_request: Request, row_id: str) -> Response:
        return json_response(await pool.fetchval("SELECT payload FROM floor.rows WHERE id = $1", UUID(row_id)))

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with mcp.session_manager.run():
            yield

    class Protocol:
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await mcp.session_manager.handle_request(scope, receive, send)

    made = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    made.add_api_route("/insert", insert, methods=["POST"], response_model=None)
    made.add_api_route("/select/{row_id}", select, methods=["GET"], response_model=None)
    made.router.add_route("/mcp", Protocol())  # type: ignore[arg-type]
    made.add_middleware(Envelope)
    return made


async def _serve(port: int) -> None:
    settings = load_settings(os.environ)
    configure_logging(settings.log_level, settings.log_format)
    async with await open_api_pool(settings) as pool:
        config: Any = server_config(app(pool), settings)
        config.port = port
        collect_seldom()
        await uvicorn.Server(config).serve()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
