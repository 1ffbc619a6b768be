"""
A real operator process, killed with SIGKILL between any two steps of issuing and of rotating a key, then started anew.

At every moment the token in the Secret works; at most two keys are published and one is not; nothing is left over.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from e2e.cluster.control_plane import ControlPlane
from tests.integration.operator.harness import OperatorProcess, World, operator_environment, until

ISSUING = [
    ("before", "finalizer"),
    ("after", "finalizer"),
    ("before", "put_key"),
    ("after", "put_key"),
    ("before", "create_secret"),
    ("after", "create_secret"),
    ("before", "publish_key"),
    ("after", "publish_key"),
    ("before", "status"),
    ("after", "status"),
]
ROTATING = [
    ("before", "put_key"),
    ("after", "put_key"),
    ("before", "take_over"),
    ("after", "take_over"),
    ("before", "apply_secret"),
    ("after", "apply_secret"),
    ("before", "publish_key"),
    ("after", "publish_key"),
    ("before", "status"),
    ("after", "status"),
]

Start = Callable[..., OperatorProcess]


@pytest.fixture
async def start(
    control_plane: ControlPlane, operator_namespace: str, world: World, tmp_path: Path
) -> AsyncIterator[Start]:
    """Starts operators that serve this test's namespace only; with arguments, the crashing one."""
    processes: list[OperatorProcess] = []
    environment = operator_environment(control_plane, operator_namespace, WATCH_NAMESPACES=world.namespace)

    def begin(*crash: str) -> OperatorProcess:
        module = "tests.integration.operator.crashing_operator" if crash else "commonplace_operator"
        process = OperatorProcess(environment, tmp_path / f"log-{len(processes)}", ("-m", module, *crash))
        processes.append(process)
        return process

    yield begin
    for process in processes:
        process.stop()


@asynccontextmanager
async def watched(world: World) -> AsyncIterator[list[str]]:
    """
    Looks without pause at the Secret and the rows meanwhile.

    Yields the list of what was wrong; it has to be empty at the end.
    """
    wrong: list[str] = []

    async def look() -> None:
        while True:
            secret = world.secret("key")
            if secret is not None and not await world.works(secret["token"]):
                wrong.append(f"a token in the Secret is refused; rows: {await world.rows()}")
            states = [row["state"] for row in await world.rows()]
            if states.count("published") > 1 or states.count("grace") > 1 or states.count("unpublished") > 1:
                wrong.append(f"too many keys: {states}")
            await asyncio.sleep(0.01)

    watcher = asyncio.create_task(look())
    try:
        yield wrong
    finally:
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
    assert wrong == []


async def killed(process: OperatorProcess) -> None:
    status = await until(lambda: process.process.poll(), "the operator killed itself")
    assert status == -signal.SIGKILL, process.log


async def settled(world: World, revision: int, states: list[str]) -> None:
    """Wait for that revision to be reported, and check that nothing else is left."""
    await world.ready("ApiKey", "key")
    await world.revision(revision)
    rows = await world.rows()
    assert [row["state"] for row in rows] == states
    secret = world.secret("key") or {}
    assert await world.works(secret["token"])
    annotations = (world.get("Secret", "key") or {})["metadata"]["annotations"]
    assert annotations["commonplace.dev/revision"] == str(revision)
    assert await world.sql.fetchval("SELECT count(*) FROM commonplace.api_keys") == len(states)


@pytest.mark.parametrize(("moment", "step"), ISSUING, ids=[f"{m}-{s}" for m, s in ISSUING])
async def test_issuing_survives_a_kill(world: World, start: Start, moment: str, step: str) -> None:
    world.runtime()
    world.team()
    world.key()

    async with watched(world):
        await killed(start(moment, step))
        start()
        await settled(world, 1, ["published"])


@pytest.mark.parametrize(("moment", "step"), ROTATING, ids=[f"{m}-{s}" for m, s in ROTATING])
async def test_rotating_survives_a_kill(world: World, start: Start, moment: str, step: str) -> None:
    world.runtime()
    world.team()
    world.key()
    first = start()
    await settled(world, 1, ["published"])
    old = (world.secret("key") or {})["token"]
    assert first.stop() == 0

    async with watched(world):
        world.annotate("ApiKey", "key", rotate="now")
        await killed(start(moment, step))
        assert await world.works(old)
        start()
        await settled(world, 2, ["grace", "published"])
        assert await world.works(old)
