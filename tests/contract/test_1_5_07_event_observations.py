"""Section 1.5.7: GET /v1/events/:id/observations."""

from uuid import uuid4

from tests.contract.support import OTHER_PROJECT, Api, World
from tests.factories import make_memory


async def test_1_5_7_observations_of_an_event_oldest_first(api: Api, world: World) -> None:
    event = (await api.event(world.bound, world.project_id))["event"]["id"]
    made = [await make_memory(api.pool, world.team, f"fact {n}", event_id=event) for n in range(3)]
    await make_memory(api.pool, world.team, "of another")
    answer = await api.get(f"/v1/events/{event}/observations", world.bound)
    assert set(answer) == {"eventId", "observations"}
    assert answer["eventId"] == event
    assert [one["id"] for one in answer["observations"]] == made
    assert {one["source"]["sourceId"] for one in answer["observations"]} == {event}


async def test_1_5_7_an_event_without_observations_has_an_empty_list(api: Api, world: World) -> None:
    event = (await api.event(world.bound, world.project_id))["event"]["id"]
    assert await api.get(f"/v1/events/{event}/observations", world.key) == {"eventId": event, "observations": []}


async def test_1_5_7_404_and_403_as_for_the_event(api: Api, world: World, other: World) -> None:
    event = (await api.event(world.bound, world.project_id))["event"]["id"]
    missing = {"error": "NotFound", "message": "Event not found"}
    assert await api.get(f"/v1/events/{event}/observations", other.key, 404) == missing
    for unknown in (str(uuid4()), "nonsense", "%00"):
        assert await api.get(f"/v1/events/{unknown}/observations", world.key, 404) == missing
    assert await api.get(f"/v1/events/{event}/observations", world.sibling_key, 403) == OTHER_PROJECT


async def test_1_5_7_private_memories_are_for_their_actor(api: Api, world: World) -> None:
    event = (await api.event(world.bound, world.project_id))["event"]["id"]
    await make_memory(
        api.pool, world.team, "secret plan", event_id=event, visibility="private", owner_actor="human:ann"
    )
    assert (await api.get(f"/v1/events/{event}/observations", world.bound))["observations"] == []


async def test_1_5_7_is_audited(api: Api, world: World) -> None:
    event = (await api.event(world.bound, world.project_id))["event"]["id"]
    memory = await make_memory(api.pool, world.team, "fact", event_id=event)
    await api.get(f"/v1/events/{event}/observations", world.bound)
    (row,) = await api.audits(world, "observation.read")
    assert row["resource_type"] == "observation"
    assert {
        "mode": "event_observations",
        "eventId": event,
        "resultCount": 1,
        "observationIds": [memory],
    }.items() <= row["details"].items()
    assert row["details"]["requestId"]
