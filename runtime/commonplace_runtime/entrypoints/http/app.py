"""The HTTP application: every route in one list, one lifespan, one table of faults."""

import asyncio
import re
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from commonplace_runtime import contract
from commonplace_runtime.domain.errors import DomainError
from commonplace_runtime.entrypoints.http import (
    audit,
    compat,
    connect,
    description,
    erasure,
    events,
    health,
    jobs,
    keys,
    memories,
    projects,
    recall,
    reindex,
    sessions,
    transfer,
    usage,
    worker_reads,
)
from commonplace_runtime.entrypoints.http.envelope import Envelope
from commonplace_runtime.entrypoints.http.errors import HttpFault, answer_for, json_response
from commonplace_runtime.entrypoints.http.operations import Operation
from commonplace_runtime.entrypoints.http.shortcut import Shortcut
from commonplace_runtime.entrypoints.http.state import ApiState
from commonplace_runtime.entrypoints.mcp import recall_endpoint
from commonplace_runtime.entrypoints.mcp_door import McpDoor
from commonplace_runtime.entrypoints.mcp_memory import memory_endpoint
from commonplace_runtime.services.doorbell import Doorbell, NoDoorbell
from commonplace_runtime.services.housekeeping import watch_erasures
from commonplace_runtime.services.jobs import JobNotices
from commonplace_runtime.services.keep_index import watch_indexes
from commonplace_runtime.services.watch_queue import watch_queue
from commonplace_runtime.settings import Settings
from commonplace_runtime.store.job_views import listening
from commonplace_runtime.store.pool import Pool, open_pool_patiently

OPERATIONS: Final[tuple[Operation, ...]] = tuple(
    operation
    for module in (
        *(events, sessions, jobs, recall, memories, projects, reindex, erasure, transfer),
        *(keys, connect, usage, audit, compat, worker_reads, health, description),
    )
    for operation in module.OPERATIONS
)
"""Every route but MCP's, in the order in which they are looked for."""


class _NamedRoute(Route):
    """A plain route that is found in the scope, as FastAPI's own are: log and metrics tell routes by it."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child = super().matches(scope)
        return match, {**child, "route": self}


def create_app(settings: Settings, *, pool: Pool | None = None, doorbell: Doorbell | None = None) -> FastAPI:
    """
    The application. Its lifespan opens the pool (unless one is given: then its owner closes it), listens for ended
    jobs and runs the MCP session managers; a server must run the lifespan.

    settings.database_url must be set: the pool and the listening connection dial it. doorbell: None where no Redis
    is configured.
    """
    if settings.database_url is None:
        raise ValueError("create_app needs settings.database_url")
    state = ApiState(
        settings=settings,
        doorbell=doorbell or NoDoorbell(),
        has_doorbell=doorbell is not None,
        notices=JobNotices(_listening(settings)),
        given_pool=pool,
        operations=OPERATIONS,
    )
    mcp_doors = {contract.MCP_PATH: recall_endpoint(state), contract.MCP_MEMORY_PATH: memory_endpoint(state)}
    app = FastAPI(
        title="Commonplace",
        version=contract.VERSION,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        telemetry={
            "tracing": False,
            "metrics": False,
            "logs": False,
        },  # nothing here exports it; asking costs each request
        lifespan=_lifespan(state, mcp_doors.values()),
        exception_handlers={DomainError: _on_fault, HttpFault: _on_fault, HTTPException: _on_http_exception},
    )
    app.state.api = state
    for operation in OPERATIONS:
        app.add_api_route(operation.path, operation.handler, methods=[operation.method], response_model=None)
    for path, door in mcp_doors.items():
        app.router.routes.append(_NamedRoute(path, endpoint=door, include_in_schema=False))
    for route in app.router.routes:
        _relax(route)
    app.add_middleware(Shortcut, routes=app.router.routes)
    app.add_middleware(Envelope)
    return app


def _relax(route: Any) -> None:
    """Letter case and a trailing slash do not matter in a path; what stands for an id keeps its case."""
    route.path_regex = re.compile(route.path_regex.pattern.removesuffix("$") + "/?$", re.IGNORECASE)


def _listening(settings: Settings) -> Any:
    url = "" if settings.database_url is None else settings.database_url.get_secret_value()
    return lambda heard: listening(url, heard, connect_timeout=settings.database_connect_timeout_seconds)


def _lifespan(state: ApiState, mcp_doors: Iterable[McpDoor]) -> Any:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if state.given_pool is None:
                state.given_pool = await stack.enter_async_context(await open_api_pool(state.settings))
            await stack.enter_async_context(state.notices.running())
            for door in mcp_doors:
                await stack.enter_async_context(door.running())
            await stack.enter_async_context(_running(watch_queue(state.pool, state.settings)))
            await stack.enter_async_context(_running(watch_erasures(state.pool)))
            await stack.enter_async_context(_running(watch_indexes(state.pool)))
            yield

    return lifespan


@asynccontextmanager
async def _running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def open_api_pool(settings: Settings) -> Pool:
    """The api's connections; waits for Postgres as long as the settings allow. Raises Unavailable."""
    if settings.database_url is None:
        raise ValueError("the api needs settings.database_url")
    return await open_pool_patiently(
        settings.database_url.get_secret_value(),
        patience=settings.startup_timeout_seconds,
        size=settings.database_pool_size,
        connect_timeout=settings.database_connect_timeout_seconds,
        statement_timeout=settings.database_statement_timeout_seconds,
        application="commonplace-api",
    )


async def _on_fault(_request: Request, error: Exception) -> Response:
    if not isinstance(error, DomainError | HttpFault):
        raise error
    return answer_for(error)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """Unknown routes, and known ones under another method, which the wire does not tell apart."""
    if isinstance(error, HTTPException) and error.status_code in (404, 405):
        message = f"Cannot {request.method} {request.url.path}"
        return json_response({"error": "NotFound", "message": message}, 404)
    status = error.status_code if isinstance(error, HTTPException) else 400
    return json_response({"error": "BadRequest", "message": "the request could not be read"}, status)
