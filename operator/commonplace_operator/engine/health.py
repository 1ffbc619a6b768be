"""`/healthz`, `/livez`, `/readyz` and `/metrics` on a port of their own."""

import asyncio
from collections.abc import Callable

from aiohttp import web

from commonplace_operator.engine.metrics import Metrics


class HealthServer:
    """Answers probes from `is_alive` and `is_ready`; both are asked on each request and must not block."""

    def __init__(self, *, metrics: Metrics, is_alive: Callable[[], bool], is_ready: Callable[[], bool]) -> None:
        self._metrics = metrics
        self._is_alive = is_alive
        self._is_ready = is_ready
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; gives the port (of use with port 0). Raises OSError when it is taken."""
        app = web.Application()
        app.router.add_get("/healthz", self._live)
        app.router.add_get("/livez", self._live)
        app.router.add_get("/readyz", self._ready)
        app.router.add_get("/metrics", self._render)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await asyncio.shield(self._runner.cleanup())

    async def _live(self, _: web.Request) -> web.Response:
        return _answer(self._is_alive())

    async def _ready(self, _: web.Request) -> web.Response:
        return _answer(self._is_ready())

    async def _render(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4"})


def _answer(good: bool) -> web.Response:
    return web.Response(text="ok\n") if good else web.Response(status=503, text="not ok\n")
