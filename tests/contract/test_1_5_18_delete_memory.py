"""Section 1.5.18: DELETE /v1/memories/:id."""

from uuid import UUID, uuid4

from tests.contract.support import REFUSED_KEY, Api, World
from tests.factories import make_key, make_memory

MISSING = {"error": "not_found"}


async def test_1_5_18_deletes_and_says_so(api: Api, world: World) -> None:
    for key in (world.bound, world.key):
        memory = (await api.memory(world.bound, world.project_id, "The uploader retries"))["id"]
        answer = await api.delete(f"/v1/memories/{memory}", key)
        assert answer == {"deleted": True, "id": memory}
        assert await api.search(world.bound, world.project_id, "uploader") == []
        assert await api.delete(f"/v1/memories/{memory}", key, 404) == MISSING


async def test_1_5_18_missing_foreign_and_sibling_are_404(api: Api, world: World, other: World) -> None:
    memory = (await api.memory(world.bound, world.project_id, "x"))["id"]
    for path, key in (
        (memory, other.key),
        (memory, other.bound),
        (memory, world.sibling_key),
        (str(uuid4()), world.key),
        ("nonsense", world.key),
        ("%00", world.key),
    ):
        assert await api.delete(f"/v1/memories/{path}", key, 404) == MISSING
    assert await api.count(world, "memories") == 1


async def test_1_5_18_sources_go_and_audit_rows_stay(api: Api, world: World) -> None:
    event = (await api.event(world.bound, world.project_id))["event"]["id"]
    memory = await make_memory(api.pool, world.team, "x", event_id=event)
    await api.delete(f"/v1/memories/{memory}", world.bound)
    sources = "SELECT count(*) FROM commonplace.memory_sources WHERE memory_id = $1"
    assert await api.pool.fetchval(sources, UUID(memory)) == 0
    assert len(await api.audits(world, "event.received")) == 1


async def test_1_5_18_the_raw_event_goes_too(api: Api, world: World) -> None:
    """Section 9.33: in the peer the event stays, and with it what was to be forgotten."""
    event = (await api.event(world.bound, world.project_id, payload={"text": "salary"}))["event"]["id"]
    memory = await make_memory(api.pool, world.team, "salary", event_id=event)
    await api.delete(f"/v1/memories/{memory}", world.bound)
    await api.get(f"/v1/events/{event}", world.bound, 404)


async def test_1_5_18_is_audited(api: Api, world: World) -> None:
    memory = (await api.memory(world.bound, world.project_id, "x"))["id"]
    await api.delete(f"/v1/memories/{memory}", world.bound)
    (row,) = await api.audits(world, "observation.deleted")
    assert (row["resource_type"], row["resource_id"]) == ("observation", memory)
    assert row["details"]["via"] == "api"
    assert row["details"]["requestId"]


async def test_1_5_18_a_private_memory_is_deleted_by_its_actor_only(api: Api, world: World) -> None:
    memory = await make_memory(api.pool, world.team, "x", visibility="private", owner_actor="human:ann")
    assert await api.delete(f"/v1/memories/{memory}", world.bound, 404) == MISSING
    ann = await make_key(api.pool, world.team_id, actor="human:ann")
    assert (await api.delete(f"/v1/memories/{memory}", ann))["deleted"] is True


async def test_1_5_18_needs_memories_write(api: Api, world: World) -> None:
    reader = await make_key(api.pool, world.team_id, scopes=["memories:read"])
    assert await api.delete(f"/v1/memories/{uuid4()}", reader, 403) == REFUSED_KEY
