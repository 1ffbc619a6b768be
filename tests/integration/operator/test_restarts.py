"""What must not be forgotten by an operator that was killed or started anew; and who serves what."""

import base64
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from e2e.cluster.control_plane import ControlPlane
from tests.integration.operator.harness import OperatorProcess, World, operator_environment, until

Start = Callable[..., OperatorProcess]


@pytest.fixture
async def start(
    control_plane: ControlPlane, operator_namespace: str, world: World, tmp_path: Path
) -> AsyncIterator[Start]:
    """Starts operators that serve this test's namespace only."""
    processes: list[OperatorProcess] = []

    def begin(**settings: str) -> OperatorProcess:
        environment = operator_environment(
            control_plane, operator_namespace, WATCH_NAMESPACES=world.namespace, **settings
        )
        process = OperatorProcess(environment, tmp_path / f"log-{len(processes)}", ("-m", "commonplace_operator"))
        processes.append(process)
        return process

    yield begin
    for process in processes:
        process.stop()


async def provisioned(world: World) -> None:
    world.runtime()
    world.team()
    world.key()
    await world.ready("ApiKey", "key")


def kill(process: OperatorProcess) -> None:
    process.process.kill()
    process.process.wait()


def kept(world: World, operator_namespace: str) -> list[str]:
    """Namespaces of the runtimes whose database the operator keeps in its own Secret."""
    secret = world.get("Secret", "commonplace-operator", operator_namespace) or {}
    entries = {k: v for k, v in (secret.get("data") or {}).items() if k.startswith("database.")}
    return [json.loads(base64.b64decode(value))["namespace"] for value in entries.values()]


async def key_states(world: World) -> list[str]:
    return [row["state"] for row in await world.sql.fetch("SELECT state FROM commonplace.api_keys")]


async def test_a_namespace_that_went_while_nobody_looked_leaves_no_key_behind(
    world: World, start: Start, operator_namespace: str
) -> None:
    process = start()
    await provisioned(world)
    assert world.namespace in kept(world, operator_namespace)
    kill(process)
    world.api.request("DELETE", f"/api/v1/namespaces/{world.namespace}")
    await until(
        lambda: all(world.get(*what) is None for what in (("MemoryRuntime", "rt"), ("Secret", "rt-db"))),
        "runtime and Secret gone",
        60,
    )

    start()

    await until(
        lambda: world.api.request("GET", f"/api/v1/namespaces/{world.namespace}")[0] == 404, "namespace gone", 60
    )
    assert await key_states(world) == ["revoked"]
    assert await world.sql.fetchval("SELECT detached_at IS NOT NULL FROM commonplace.teams")
    await until(lambda: world.namespace not in kept(world, operator_namespace), "the database forgotten")


async def test_a_key_is_revoked_after_its_runtime_went_and_the_operator_was_started_anew(
    world: World, start: Start, operator_namespace: str
) -> None:
    process = start()
    await provisioned(world)
    world.delete("MemoryRuntime", "rt")
    await world.gone("MemoryRuntime", "rt")
    await world.reason("MemoryTeam", "team", "RuntimeNotFound")
    process.restart()

    world.delete("ApiKey", "key")
    await world.gone("ApiKey", "key")
    assert await key_states(world) == ["revoked"]
    world.delete("MemoryTeam", "team")
    await world.gone("MemoryTeam", "team")

    assert await world.sql.fetchval("SELECT detached_at IS NOT NULL FROM commonplace.teams")
    await until(lambda: world.namespace not in kept(world, operator_namespace), "the database forgotten")


async def test_a_living_teams_rows_are_not_adopted(world: World, start: Start) -> None:
    start()
    world.runtime()
    world.team("one", slug="search")
    first = await world.ready("MemoryTeam", "one")
    world.annotate("MemoryTeam", "one", adopt="true")
    world.key(teamRef={"name": "one"})
    await world.ready("ApiKey", "key")

    world.team("two", slug="search")
    world.annotate("MemoryTeam", "two", adopt="true")
    await until(lambda: "is in use" in world.condition("MemoryTeam", "two").get("message", ""), "refused")

    owner = await world.sql.fetchval("SELECT owner_uid FROM commonplace.teams")
    assert owner == first["metadata"]["uid"]
    assert await world.works((world.secret("key") or {})["token"])


async def test_a_team_restored_under_a_new_uid_takes_its_rows_back_and_its_keys_get_new_tokens(
    world: World, start: Start
) -> None:
    process = start()
    await provisioned(world)
    world.create("Quota", "quota", {"teamRef": {"name": "team"}, "hard": {"requestsPerMinute": 7}})
    await world.ready("Quota", "quota")
    old = (world.secret("key") or {})["token"]
    assert process.stop() == 0
    # As after a cluster was built again from Git: the same objects, and nobody had released the rows.
    world.patch("MemoryTeam", "team", {"metadata": {"finalizers": None}})
    world.delete("MemoryTeam", "team")
    world.team()
    start()
    await world.reason("MemoryTeam", "team", "SlugConflict")

    world.annotate("MemoryTeam", "team", adopt="true")
    await world.ready("MemoryTeam", "team")
    await world.revision(2)

    assert not await world.works(old)
    assert await world.works((world.secret("key") or {})["token"])
    limit = "SELECT requests_per_minute FROM commonplace.team_limits"
    await until(lambda: world.sql.fetchval(limit), "the Quota's limit put back")


async def test_a_quota_outlives_its_team_in_kubernetes_only(world: World, start: Start) -> None:
    start()
    world.runtime()
    world.team()
    world.create("Quota", "quota", {"teamRef": {"name": "team"}, "hard": {"requestsPerMinute": 7}})
    await world.ready("Quota", "quota")
    world.delete("MemoryTeam", "team")
    await world.gone("MemoryTeam", "team")
    await world.reason("Quota", "quota", "TeamNotFound")
    assert await world.sql.fetchval("SELECT requests_per_minute FROM commonplace.team_limits") is None

    world.team()
    await world.ready("Quota", "quota")
    assert await world.sql.fetchval("SELECT requests_per_minute FROM commonplace.team_limits") == 7
    world.delete("MemoryTeam", "team")
    await world.gone("MemoryTeam", "team")
    world.delete("Quota", "quota")
    await world.gone("Quota", "quota")
    world.team()
    await world.ready("MemoryTeam", "team")
    assert await world.sql.fetchval("SELECT requests_per_minute FROM commonplace.team_limits") is None


async def test_an_operator_serves_its_own_class_only(world: World, start: Start) -> None:
    start(OPERATOR_CLASS="blue")
    world.runtime()
    world.runtime("rt-blue")
    world.annotate("MemoryRuntime", "rt-blue", **{"operator-class": "blue"})
    await world.ready("MemoryRuntime", "rt-blue")
    assert world.condition("MemoryRuntime", "rt") == {}

    start()
    await world.ready("MemoryRuntime", "rt")
    managers = {m["manager"] for m in (world.get("MemoryRuntime", "rt") or {})["metadata"]["managedFields"]}
    assert "commonplace-operator" in managers


async def test_a_runtimes_count_follows_its_teams(world: World, start: Start) -> None:
    start()
    world.runtime()
    await world.ready("MemoryRuntime", "rt")

    def count() -> int | None:
        value = (world.get("MemoryRuntime", "rt") or {})["status"].get("teams")
        return None if value is None else int(value)

    world.team()
    await until(lambda: count() == 1, "one team")
    world.delete("MemoryTeam", "team")
    await until(lambda: count() == 0, "no team")
