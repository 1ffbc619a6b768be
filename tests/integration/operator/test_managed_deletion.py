"""What is left of a managed MemoryRuntime, and that nothing keeps it from going."""

from typing import Any

import pytest

from commonplace_operator.reconcile.children import KINDS
from tests.integration.operator.harness import until
from tests.integration.operator.kubelet import ManagedWorld

LASTING = {"ServiceMonitor", "ScaledObject"}
"""Kinds that this cluster does not have."""


def left(world: ManagedWorld) -> list[tuple[str, str]]:
    found = [(kind, name) for kind in sorted(set(KINDS) - LASTING) for name in world.names(kind)]
    return found + [("Pod", pod["metadata"]["name"]) for pod in world.find("Pod", runtime="main")]


def claims(world: ManagedWorld) -> list[str]:
    _, answer = world.api.request("GET", f"/api/v1/namespaces/{world.namespace}/persistentvolumeclaims")
    return [item["metadata"]["name"] for item in answer["items"]]


async def with_tenants(world: ManagedWorld) -> None:
    world.create("MemoryTeam", "team", {"runtimeRef": {"name": "main"}})
    world.key()
    world.create("Quota", "quota", {"teamRef": {"name": "team"}, "hard": {"memories": 10}})
    await world.ready("ApiKey", "key")
    await world.ready("MemoryTeam", "team")


async def test_nothing_of_a_runtime_is_left_and_its_teams_can_go_after_it(managed_world: ManagedWorld) -> None:
    world = managed_world
    await world.installed(ingress={"host": "memory.example.com"})
    await with_tenants(world)
    token = (world.secret("key") or {})["token"]

    world.delete("MemoryRuntime", "main")

    await until(lambda: not left(world), "every child gone", 60)
    await world.reason("MemoryTeam", "team", "RuntimeNotFound")
    world.delete("ApiKey", "key")
    world.delete("MemoryTeam", "team")
    for kind, name in (("ApiKey", "key"), ("MemoryTeam", "team")):
        await world.gone(kind, name)
    assert not await world.works(token)
    assert await world.sql.fetchval("SELECT detached_at IS NOT NULL FROM commonplace.teams")


async def embedded(world: ManagedWorld, **spec: Any) -> None:
    """A trial whose Postgres never answers."""
    world.create("MemoryRuntime", "main", {"database": {"embedded": True}, "queue": {"embedded": True}} | spec)
    await until(lambda: len(world.find("Pod", runtime="main")) == 2, "the servers' pods")


@pytest.mark.parametrize(
    ("policy", "kept"), [("Retain", ["data-main-postgres-0", "data-main-redis-0"]), ("Delete", [])]
)
async def test_volumes_of_the_embedded_servers_stay_unless_that_was_asked_for(
    managed_world: ManagedWorld, policy: str, kept: list[str]
) -> None:
    world = managed_world
    await embedded(world, deletionPolicy=policy)
    await until(lambda: len(claims(world)) == 2, "the volumes")

    world.delete("MemoryRuntime", "main")

    await until(lambda: not left(world), "every child gone", 60)
    # Nothing provisions here, so protection by the API server is what a claim may still wait for.
    await until(lambda: sorted(claims(world)) == kept, f"claims {kept}", 60)


async def test_a_team_of_an_embedded_database_that_is_gone_is_not_kept(managed_world: ManagedWorld) -> None:
    world = managed_world
    await embedded(world)
    world.create(
        "MemoryTeam",
        "team",
        {"runtimeRef": {"name": "main"}},
        # As if it had rows: they went with the volume or stay in it, and nobody can be asked.
        finalizers=["commonplace.dev/cleanup"],
    )
    world.delete("MemoryRuntime", "main")
    await world.gone("MemoryRuntime", "main")

    world.delete("MemoryTeam", "team")

    await world.gone("MemoryTeam", "team")
    await until(lambda: "RowsLeft" in world.event_reasons("team"), "the Event")


@pytest.mark.parametrize("is_embedded", [True, False])
async def test_a_namespace_goes_with_all_that_is_in_it(managed_world: ManagedWorld, is_embedded: bool) -> None:
    world = managed_world
    if is_embedded:
        await embedded(world)
        world.create("MemoryTeam", "team", {"runtimeRef": {"name": "main"}}, finalizers=["commonplace.dev/cleanup"])
    else:
        await world.installed()
        await with_tenants(world)

    world.api.request("DELETE", f"/api/v1/namespaces/{world.namespace}")

    await until(
        lambda: world.api.request("GET", f"/api/v1/namespaces/{world.namespace}")[0] == 404,
        f"the namespace gone; left: {left(world)}",
        90,
    )
    if not is_embedded:
        states = await world.sql.fetch("SELECT state FROM commonplace.api_keys")
        assert [row["state"] for row in states] == ["revoked"]
        assert await world.sql.fetchval("SELECT detached_at IS NOT NULL FROM commonplace.teams")


async def test_a_runtime_that_is_made_again_takes_up_where_it_was(managed_world: ManagedWorld) -> None:
    world = managed_world
    await world.installed()
    await with_tenants(world)
    team = (world.get("MemoryTeam", "team") or {})["status"]["teamId"]
    world.delete("MemoryRuntime", "main")
    # Told by the pass that found it gone, after which nothing is written for the old one any more.
    await world.reason("MemoryTeam", "team", "RuntimeNotFound")
    await until(lambda: not left(world), "every child gone", 60)

    await world.installed()

    await world.ready("MemoryTeam", "team")
    await world.ready("ApiKey", "key")
    assert (world.get("MemoryTeam", "team") or {})["status"]["teamId"] == team
    assert await world.works((world.secret("key") or {})["token"])
