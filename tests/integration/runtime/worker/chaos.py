"""Real processes for tests that end them: a provider that counts, workers, an api; and how long such tests run."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx2

from tests.fakes.provider import KEY
from tests.integration.runtime.worker.support import until

CHAOS: Final = int(os.environ.get("CHAOS", "1"))
"""How many times as long as in `make test`: set by `make chaos`."""

WORKER: Final = """
import asyncio, os
from commonplace_runtime.entrypoints.worker import run_worker
from commonplace_runtime.observability import configure_logging
from commonplace_runtime.settings import load_settings
configure_logging("info", "json")
asyncio.run(run_worker(load_settings(os.environ)))
"""
"""A worker as `commonplace worker` runs it, without the port of its metrics."""


class Process:
    """One Python process of its own and the file that it logs to."""

    def __init__(self, child: asyncio.subprocess.Process, log: Path) -> None:
        self.child = child
        self.log = log

    def has_logged(self, event: str) -> bool:
        return f'"event":"{event}"' in self.log.read_text()

    @property
    def first_line(self) -> str:
        return self.log.read_text().partition("\n")[0]

    async def has_spoken(self) -> bool:
        assert self.child.returncode is None, self.log.read_text()
        return "\n" in self.log.read_text()

    async def logged(self, event: str) -> None:
        async def is_there() -> bool:
            assert self.child.returncode is None, self.log.read_text()
            return self.has_logged(event)

        await until(is_there, seconds=60)

    async def ended(self) -> int:
        async with asyncio.timeout(60):
            return await self.child.wait()

    async def kill(self) -> None:
        """As the kernel does when memory runs out; it may have ended itself already."""
        if self.child.returncode is None:
            self.child.kill()
        await self.ended()


@asynccontextmanager
async def process(log: Path, *arguments: str, **environ: str) -> AsyncIterator[Process]:
    """`python arguments` with these variables and no others; killed at the end of the block where it still lives."""
    with log.open("wb") as output:
        child = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, env={"PATH": os.environ["PATH"]} | environ, stdout=output, stderr=output
        )
    running = Process(child, log)
    try:
        yield running
    finally:
        await running.kill()


class Provider:
    """The fake provider in a process of its own."""

    def __init__(self, url: str, http: httpx2.AsyncClient) -> None:
        self.url = url
        self._http = http

    @property
    def environ(self) -> dict[str, str]:
        """What makes a worker call it."""
        return {
            "COMMONPLACE_PROVIDER": "anthropic",
            "COMMONPLACE_PROVIDER_BASE_URL": self.url,
            "ANTHROPIC_API_KEY": KEY,
        }

    async def count(self) -> int:
        return int((await self._http.get("/calls/count")).json())

    async def calls(self) -> Sequence[Mapping[str, Any]]:
        listed: Sequence[Mapping[str, Any]] = (await self._http.get("/calls")).json()
        return listed


@asynccontextmanager
async def provider(log: Path, *options: str) -> AsyncIterator[Provider]:
    async with process(log, "-m", "tests.fakes.provider", *options) as running:
        await until(running.has_spoken)
        async with httpx2.AsyncClient(base_url=running.first_line, timeout=10) as http:
            yield Provider(running.first_line, http)
