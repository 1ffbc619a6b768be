"""A worker as a pod: its probes tell the truth, and it ends before Kubernetes ends it."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from time import monotonic

import httpx2
import pytest

from commonplace_runtime import contract
from commonplace_runtime.embedded import EmbeddedPostgres, free_port
from commonplace_runtime.services.migrate import migrate
from commonplace_runtime.store.pool import open_pool
from tests.fakes.provider import KEY, FakeProvider
from tests.integration.runtime.worker.chaos import Process, process
from tests.integration.runtime.worker.support import environ, make_tenant, put_event, until

AFTER_GRACE_SECONDS = 15
"""What the operator leaves between the worker's own grace and the end of the pod's."""


@asynccontextmanager
async def worker(log: Path, port: int, values: dict[str, str]) -> AsyncIterator[Process]:
    values = {**values, contract.ENV_METRICS_PORT: str(port), "COMMONPLACE_LOG_FORMAT": "json"}
    if "PYTHONPATH" in os.environ:
        values["PYTHONPATH"] = os.environ["PYTHONPATH"]
    async with process(log, "-m", "commonplace_runtime", "worker", **values) as running:
        yield running


@contextmanager
def frozen(server: EmbeddedPostgres) -> Iterator[None]:
    """Every process of the server stands still: connections stay open and nobody answers."""
    pid = int((server.data_dir / "pgdata" / "postmaster.pid").read_text().splitlines()[0])
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    stopped = [pid, *(int(child) for child in children)]
    for one in stopped:
        os.kill(one, signal.SIGSTOP)
    try:
        yield
    finally:
        for one in stopped:
            os.kill(one, signal.SIGCONT)


async def probe(port: int, path: str) -> tuple[int, str]:
    async with httpx2.AsyncClient(timeout=10) as http:
        try:
            answer = await http.get(f"http://127.0.0.1:{port}{path}")
        except httpx2.TransportError as error:
            return 0, type(error).__name__
    return answer.status_code, answer.text


async def said(port: int, path: str, status: int, text: str) -> None:
    async def is_said() -> bool:
        code, found = await probe(port, path)
        return code == status and text in found

    await until(is_said, seconds=60)


@pytest.mark.timeout(300)
async def test_the_probes_tell_what_the_worker_waits_for(tmp_path: Path) -> None:
    port = free_port()
    with EmbeddedPostgres() as server:
        server.kill()
        async with worker(tmp_path / "log", port, environ(server.url())) as running:
            await said(port, contract.WORKER_READINESS_PATH, 503, "not been reached")
            assert await probe(port, contract.HEALTH_PATH) == (200, "ok\n")

            await asyncio.to_thread(server.start)
            await said(port, contract.WORKER_READINESS_PATH, 503, "run `commonplace migrate`")
            pool = await open_pool(server.url(), size=1, connect_timeout=5, statement_timeout=60, application="tests")
            async with pool:
                await migrate(pool, with_roles=True)
            await said(port, contract.WORKER_READINESS_PATH, 200, "ok")

            server.kill()
            await said(port, contract.WORKER_READINESS_PATH, 503, "has not answered for")
            assert await probe(port, contract.HEALTH_PATH) == (200, "ok\n")
            assert running.child.returncode is None

            await asyncio.to_thread(server.start)
            await said(port, contract.WORKER_READINESS_PATH, 200, "ok")


@pytest.mark.timeout(300)
async def test_a_worker_ends_within_the_pods_grace_although_the_database_hangs(tmp_path: Path) -> None:
    grace = 1
    with EmbeddedPostgres() as server:
        pool = await open_pool(server.url(), size=2, connect_timeout=5, statement_timeout=60, application="tests")
        async with pool, FakeProvider() as provider:
            await migrate(pool, with_roles=True)
            await put_event(pool, await make_tenant(pool))
            provider.gate.clear()
            values = environ(
                server.url(),
                COMMONPLACE_WORKER_GRACE_SECONDS=str(grace),
                COMMONPLACE_PROVIDER="anthropic",
                COMMONPLACE_PROVIDER_BASE_URL=provider.url,
                ANTHROPIC_API_KEY=KEY,
            )
            async with worker(tmp_path / "log", free_port(), values) as running:
                await provider.called.wait()
                with frozen(server):
                    started = monotonic()
                    running.child.send_signal(signal.SIGTERM)
                    async with asyncio.timeout(grace + AFTER_GRACE_SECONDS):
                        assert await running.child.wait() == 0
                    print(f"ended after {monotonic() - started:.1f} s")
