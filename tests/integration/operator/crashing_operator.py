"""
The real operator over adapters that kill this process, to be run as `python -m … <moment> <step> [<signal>]`.

moment: `before` or `after` the step's effect. step: one of the writes of issuing a key, as `STEPS` names them.
signal: `SIGKILL`, or `SIGSTOP` for a process that stands still there.
Steps of other objects are never counted, so runtime and team are served like by any operator.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from commonplace_operator.__main__ import serve
from commonplace_operator.cluster import KubernetesCluster, load_configuration
from commonplace_operator.composition import build
from commonplace_operator.observability import configure_logging
from commonplace_operator.registry import PostgresRegistries
from commonplace_operator.settings import Settings

STEPS = ("finalizer", "put_key", "create_secret", "take_over", "apply_secret", "publish_key", "status", "revoke_keys")


class Killer:
    """Sends this process a signal at one moment of one step."""

    def __init__(self, moment: str, step: str, signal_name: str = "SIGKILL") -> None:
        self.moment = moment
        self.step = step
        self.signal = signal.Signals[signal_name]

    async def around(self, step: str, call: Callable[[], Awaitable[Any]]) -> Any:
        if (self.moment, self.step) == ("before", step):
            os.kill(os.getpid(), self.signal)
        answer = await call()
        if (self.moment, self.step) == ("after", step):
            os.kill(os.getpid(), self.signal)
        return answer


class CrashingCluster:
    """A cluster whose writes to ApiKeys and their Secrets may be the last."""

    def __init__(self, real: KubernetesCluster, killer: Killer) -> None:
        self.real = real
        self.killer = killer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    async def create(self, kind: Any, body: Any) -> Any:
        step = "create_secret" if kind.kind == "Secret" and "ownerReferences" in body["metadata"] else ""
        return await self.killer.around(step, lambda: self.real.create(kind, body))

    async def apply(self, kind: Any, body: Any, *, subresource: str | None = None, **options: Any) -> Any:
        step = {"ApiKey": subresource or "finalizer", "Secret": "apply_secret"}.get(kind.kind, "")
        return await self.killer.around(step, lambda: self.real.apply(kind, body, subresource=subresource, **options))

    async def patch(self, kind: Any, namespace: str, name: str, operations: Any) -> Any:
        step = "take_over" if kind.kind == "Secret" else ""
        return await self.killer.around(step, lambda: self.real.patch(kind, namespace, name, operations))


class CrashingRegistry:
    """A registry whose writes of key rows may be the last."""

    def __init__(self, real: Any, killer: Killer) -> None:
        self.real = real
        self.killer = killer

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.real, name)
        return lambda *args, **kwargs: self.killer.around(name, lambda: call(*args, **kwargs))


class CrashingRegistries:
    """Gives crashing registries."""

    def __init__(self, real: PostgresRegistries, killer: Killer) -> None:
        self.real = real
        self.killer = killer

    @asynccontextmanager
    async def of(self, uri: str) -> AsyncIterator[Any]:
        async with self.real.of(uri) as registry:
            yield CrashingRegistry(registry, self.killer)

    async def close(self) -> None:
        await self.real.close()


async def main() -> None:
    killer = Killer(*sys.argv[1:])
    assert killer.step in STEPS
    assert killer.moment in {"before", "after"}
    settings = Settings.from_environment()
    configure_logging(style="json", level="debug")
    configuration = await load_configuration(os.environ)
    operator = build(
        settings,
        cluster=CrashingCluster(KubernetesCluster(configuration, timeout=15), killer),
        registries=CrashingRegistries(PostgresRegistries(connect_timeout=5, statement_timeout=10), killer),
    )
    await serve(operator, settings, configuration)


if __name__ == "__main__":
    asyncio.run(main())
