"""Section 1.5.15: GET /v1/sessions/:id."""

from uuid import uuid4

from tests.contract.support import OTHER_PROJECT, Api, World


async def test_1_5_15_the_session_as_it_was_answered(api: Api, world: World) -> None:
    session = await api.session(world.bound, world.project_id, 201, contentSessionId="c")
    for key in (world.bound, world.key):
        assert await api.get(f"/v1/sessions/{session['id']}", key) == {"session": session}


async def test_1_5_15_missing_or_foreign_is_404_and_a_siblings_403(api: Api, world: World, other: World) -> None:
    session = (await api.session(world.bound, world.project_id))["id"]
    missing = {"error": "NotFound", "message": "Session not found"}
    assert await api.get(f"/v1/sessions/{session}", other.key, 404) == missing
    assert await api.get(f"/v1/sessions/{session}", other.bound, 404) == missing
    assert await api.get(f"/v1/sessions/{uuid4()}", world.key, 404) == missing
    assert await api.get(f"/v1/sessions/{session}", world.sibling_key, 403) == OTHER_PROJECT


async def test_1_5_15_is_not_audited(api: Api, world: World) -> None:
    session = (await api.session(world.bound, world.project_id))["id"]
    before = len(await api.audits(world))
    await api.get(f"/v1/sessions/{session}", world.bound)
    assert len(await api.audits(world)) == before
