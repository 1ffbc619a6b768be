"""Section 1.5.6: GET /v1/events/:id."""

from uuid import uuid4

from tests.contract.support import OTHER_PROJECT, Api, World


async def test_1_5_6_the_event_as_it_was_answered(api: Api, world: World) -> None:
    event = (await api.event(world.bound, world.project_id))["event"]
    for key in (world.bound, world.key):
        assert await api.get(f"/v1/events/{event['id']}", key) == {"event": event}


async def test_1_5_6_not_in_the_team_is_404(api: Api, world: World, other: World) -> None:
    event = (await api.event(world.bound, world.project_id))["event"]["id"]
    for path, key in ((f"/v1/events/{event}", other.key), (f"/v1/events/{uuid4()}", world.key)):
        assert await api.get(path, key, 404) == {"error": "NotFound", "message": "Event not found"}


async def test_1_5_6_of_a_sibling_project_is_403(api: Api, world: World) -> None:
    event = (await api.event(world.bound, world.project_id))["event"]["id"]
    assert await api.get(f"/v1/events/{event}", world.sibling_key, 403) == OTHER_PROJECT


async def test_1_5_6_is_not_audited(api: Api, world: World) -> None:
    event = (await api.event(world.bound, world.project_id))["event"]["id"]
    await api.get(f"/v1/events/{event}", world.bound)
    assert [row["action"] for row in await api.audits(world)] == ["event.received"]
