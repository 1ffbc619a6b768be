"""
The real worker over a database and a generator that end this process, to be run as `python -m … <moment> <step>`.

step: a statement of the queue by its name in `store/jobs.sql`, or `call`. moment: `before` or `after` it the process
kills itself; `sent`: it stands still once the request is on its way, and never reads the answer. Who watches from
outside then kills it, at the moment of his choice.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from commonplace_runtime.domain.observations import Generated
from commonplace_runtime.domain.prices import cost_microusd
from commonplace_runtime.entrypoints.worker import Worker
from commonplace_runtime.llm.build import build_generator
from commonplace_runtime.llm.ports import Batch, Generator
from commonplace_runtime.observability import configure_logging
from commonplace_runtime.services.generate import Terms
from commonplace_runtime.settings import load_settings
from commonplace_runtime.store.pool import Pool, open_pool
from commonplace_runtime.store.sql import statements

APPLICATION = "crashing-worker"
STATEMENTS = {text: name for name, text in statements("jobs").items()}
MOMENTS = ("before", "sent", "after")
STEPS = ("claim", "reserve", "call", "extend_lease", "complete")


class Killer:
    """Ends this process at one moment of one step."""

    def __init__(self, moment: str, step: str) -> None:
        self._moment = moment
        self._step = step

    async def around(self, step: str, call: Callable[[], Awaitable[Any]]) -> Any:
        """Make the call; `step` decides whether that is the last we do."""
        if step != self._step:
            return await call()
        if self._moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        answer = asyncio.ensure_future(call())
        if self._moment == "sent":
            # A prepared statement is written to its socket before its task first waits.
            await asyncio.sleep(0)
            os.kill(os.getpid(), signal.SIGSTOP)
        await answer
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("nobody outlives that")


class CrashingPool:
    """A pool whose statements may be the last."""

    def __init__(self, real: Pool, killer: Killer) -> None:
        self._real = real
        self._killer = killer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def fetchval(self, text: str, *arguments: object) -> Any:
        """One statement of the queue."""
        async with self._real.acquire() as connection:
            prepared = await connection.prepare(text)
            return await self._killer.around(STATEMENTS[text], partial(prepared.fetchval, *arguments))


class CrashingGenerator:
    """A generator whose call may be the last."""

    def __init__(self, real: Generator, killer: Killer) -> None:
        self._real = real
        self._killer = killer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def generate(self, batch: Batch, **more: Any) -> Generated:
        """One call."""
        answer: Generated = await self._killer.around("call", partial(self._real.generate, batch, **more))
        return answer


async def main() -> None:
    """Work until the killer strikes."""
    moment, step = sys.argv[1:3]
    assert moment in MOMENTS
    assert step in STEPS
    killer = Killer(moment, step)
    settings = load_settings(os.environ)
    configure_logging("debug", "json")
    assert settings.database_url is not None
    url = settings.database_url.get_secret_value()
    pool: Any = CrashingPool(
        await open_pool(url, size=5, connect_timeout=5, statement_timeout=30, application=APPLICATION), killer
    )
    generator: Any = CrashingGenerator(build_generator(settings), killer)
    terms = Terms(
        worker=APPLICATION,
        lease_seconds=settings.worker_lease_seconds,
        price=partial(cost_microusd, prices=settings.prices),
    )
    await Worker(pool, generator, terms, settings, asyncio.Event()).run()


if __name__ == "__main__":
    asyncio.run(main())
