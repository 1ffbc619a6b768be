"""The api to test: the real app under uvicorn, its own Postgres, and a key that is added where a request has none."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import uvicorn
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from commonplace_runtime import contract
from commonplace_runtime.embedded import EmbeddedPostgres, free_port
from commonplace_runtime.entrypoints.http.app import create_app
from commonplace_runtime.entrypoints.http.serve import server_config
from commonplace_runtime.services import tenants
from commonplace_runtime.services.migrate import migrate
from commonplace_runtime.settings import Settings
from commonplace_runtime.store.pool import open_pool
from e2e.conformance.fixtures import FIXTURE_PATH, fixture_door
from e2e.report import CheckFailed

LOGIN: Final = "conformance"
START_SECONDS: Final = 30.0


@dataclass(frozen=True, kw_only=True)
class Api:
    """Where it answers, and a key with every scope."""

    base_url: str
    key: str

    def url(self, path: str) -> str:
        """The address of `path`."""
        return self.base_url + path


class _KeyAdded:
    """ASGI middleware: the suite has no option for a header, so a request without a key gets ours."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._header = (b"authorization", f"Bearer {key}".encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and all(name != b"authorization" for name, _ in scope["headers"]):
            scope = {**scope, "headers": [*scope["headers"], self._header]}
        await self._app(scope, receive, send)


@contextlib.asynccontextmanager
async def running_api(postgres: EmbeddedPostgres) -> AsyncIterator[Api]:
    """The api on a free port of loopback, with the suite's fixture tools behind the same door at `FIXTURE_PATH`."""
    admin = await open_pool(postgres.url(), size=2, connect_timeout=10, statement_timeout=60, application="conformance")
    async with admin:
        await migrate(admin, with_roles=True)
        await tenants.ensure_login(admin, LOGIN, contract.ROLE_RUNTIME)
        key = await tenants.reissue_key(admin, None, team="conformance", name="conformance", actor="agent:conformance")
    settings = Settings.model_validate({"database_url": postgres.url(user=LOGIN), "port": free_port()})
    app = create_app(settings)
    door = fixture_door(app.state.api)
    app.router.routes.append(Route(FIXTURE_PATH, endpoint=door))
    server = uvicorn.Server(server_config(_KeyAdded(app, key), settings))
    server.config.host, server.config.port = "127.0.0.1", settings.port
    async with door.running():
        serving = asyncio.create_task(server._serve())
        try:
            async with asyncio.timeout(START_SECONDS):
                while not server.started:
                    if serving.done():
                        await serving
                        raise CheckFailed("the api did not start")
                    await asyncio.sleep(0.02)
            yield Api(base_url=f"http://127.0.0.1:{settings.port}", key=key)
        finally:
            server.should_exit = True
            await serving
