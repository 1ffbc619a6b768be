"""Runs an app under uvicorn as production configures it, on a free port of loopback, in this loop."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from starlette.types import ASGIApp

from commonplace_runtime.entrypoints.http.serve import server_config
from commonplace_runtime.settings import Settings


@asynccontextmanager
async def served(app: ASGIApp, settings: Settings | None = None) -> AsyncIterator[str]:
    """Yields the base URL; the lifespan has begun. The server ends with the block."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server = uvicorn.Server(server_config(app, settings or Settings.model_validate({})))
        serving = asyncio.create_task(server._serve(sockets=[listener]))
        try:
            async with asyncio.timeout(20):
                while not server.started:
                    if serving.done():
                        await serving
                        raise RuntimeError("the app's lifespan did not begin")
                    await asyncio.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving
