"""Runs the api under uvicorn until SIGTERM, and lets requests in flight finish."""

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator

import structlog
import uvicorn
from starlette.types import ASGIApp

from commonplace_runtime import contract
from commonplace_runtime.domain.errors import Conflict
from commonplace_runtime.entrypoints.doorbell import TaskiqDoorbell
from commonplace_runtime.entrypoints.http.app import create_app, open_api_pool
from commonplace_runtime.entrypoints.http.protocol import BoundedHttp
from commonplace_runtime.services.doorbell import Doorbell
from commonplace_runtime.settings import Settings

log = structlog.get_logger(__name__)

GRACE_SECONDS = 35
"""Longer than `wait=true` holds an answer back."""


class _Server(uvicorn.Server):
    """
    uvicorn that says when it answers, and without its signal handling, which would end the process before we
    closed what we opened.
    """

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._announce()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def server_config(app: ASGIApp, settings: Settings) -> uvicorn.Config:
    """How the api is served."""
    return uvicorn.Config(
        app,
        http=BoundedHttp,
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        # Whoever dials us on loopback could otherwise say what address we tell others to connect to.
        proxy_headers=False,
        limit_concurrency=settings.api_concurrency,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


def collect_seldom() -> None:
    """
    What stands now stays: the garbage collector need not look at it again. And it looks at what requests leave behind
    after 10,000 objects instead of 700, which a single batch of events makes several times.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


async def serve_api(
    settings: Settings, *, doorbell: Doorbell | None = None, on_listening: Callable[[int], None] | None = None
) -> None:
    """
    Serve until SIGTERM or SIGINT; a second signal ends at once. Call it in a uvloop loop, in the main thread.

    settings.port 0 takes a free port; `on_listening` gets the port once requests are answered. doorbell: None takes
    the one that settings.redis_url asks for.
    Raises Unavailable when Postgres stays away for `startup_timeout_seconds`, Conflict when the port is taken.
    """
    listener = _listener(settings.host, settings.port)
    with contextlib.closing(listener):
        port = int(listener.getsockname()[1])
        async with await open_api_pool(settings) as pool, _doorbell(settings, doorbell) as bell:
            server = _Server(
                server_config(create_app(settings, pool=pool, doorbell=bell), settings),
                lambda: _announce(settings.host, port, on_listening),
            )
            collect_seldom()
            with _ended_by_signals(server):
                await server.serve(sockets=[listener])


@contextlib.asynccontextmanager
async def _doorbell(settings: Settings, given: Doorbell | None) -> AsyncIterator[Doorbell | None]:
    if given is not None or settings.redis_url is None:
        yield given
        return
    bell = TaskiqDoorbell(settings.redis_url.get_secret_value())
    try:
        yield bell
    finally:
        await bell.aclose()


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        message = (
            f"cannot listen on {host} port {port}: {error.strerror}: set {contract.ENV_HOST} and {contract.ENV_PORT}"
        )
        raise Conflict(message) from error
    # Accepted connections inherit it; asyncio sets it only on sockets that name their protocol, and without it
    # each answer waits 40 ms for the client's acknowledgement of its headers.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _announce(host: str, port: int, on_listening: Callable[[int], None] | None) -> None:
    log.info("api_listening", host=host, port=port)
    if on_listening is not None:
        on_listening(port)


@contextlib.contextmanager
def _ended_by_signals(server: uvicorn.Server) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def end() -> None:
        server.force_exit = server.should_exit
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
