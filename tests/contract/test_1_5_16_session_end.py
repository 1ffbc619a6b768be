"""Section 1.5.16: POST /v1/sessions/:id/end."""

from uuid import uuid4

import pytest

from tests.contract.support import JOB_BRIEF, JSON, OTHER_PROJECT, REFUSED_KEY, SESSION, Api, World, has_shape
from tests.factories import make_key


async def test_1_5_16_the_session_has_ended_and_its_summary_a_job(api: Api, world: World) -> None:
    session = await api.session(world.bound, world.project_id)
    answer = await api.post(f"/v1/sessions/{session['id']}/end", world.bound, {})
    assert set(answer) == {"session", "generationJob"}
    assert has_shape(answer["session"], SESSION)
    assert (answer["session"]["id"], answer["session"]["endedAtEpoch"] is not None) == (session["id"], True)
    job = answer["generationJob"]
    assert set(job) == set(JOB_BRIEF)
    assert (job["sourceType"], job["sourceId"], job["status"]) == ("session_summary", session["id"], "queued")


@pytest.mark.parametrize("content", [b"{}", b"", b"{", b"[1]", None])
async def test_1_5_16_the_body_is_ignored_and_may_be_absent(api: Api, world: World, content: bytes | None) -> None:
    session = (await api.session(world.bound, world.project_id))["id"]
    headers = {} if content is None else JSON
    answer = await api.send("POST", f"/v1/sessions/{session}/end", world.bound, headers=headers, content=content)
    assert answer.status_code == 200


async def test_1_5_16_again_is_the_same_end_and_the_same_job(api: Api, world: World) -> None:
    session = (await api.session(world.bound, world.project_id))["id"]
    first, *others = [await api.post(f"/v1/sessions/{session}/end", world.bound, {}) for _ in range(3)]
    for again in others:
        assert again["session"]["endedAtEpoch"] == first["session"]["endedAtEpoch"]
        assert again["generationJob"]["id"] == first["generationJob"]["id"]
        assert again["generationJob"]["bullmqJobId"] == first["generationJob"]["bullmqJobId"]


async def test_1_5_16_new_events_after_a_summary_get_another(api: Api, world: World) -> None:
    """Section 11.6: the peer summarises a session once ever."""
    session = (await api.session(world.bound, world.project_id))["id"]
    first = (await api.post(f"/v1/sessions/{session}/end", world.bound, {}))["generationJob"]["id"]
    await api.end_job(first, "completed")
    await api.event(world.bound, world.project_id, serverSessionId=session)
    second = (await api.post(f"/v1/sessions/{session}/end", world.bound, {}))["generationJob"]
    assert (second["id"] != first, second["status"]) == (True, "queued")


async def test_1_5_16_each_end_is_audited(api: Api, world: World) -> None:
    session = (await api.session(world.bound, world.project_id))["id"]
    for _ in range(2):
        await api.post(f"/v1/sessions/{session}/end", world.bound, {})
    rows = await api.audits(world, "session.end")
    assert [(row["resource_type"], row["resource_id"]) for row in rows] == [("server_session", session)] * 2


async def test_1_5_16_missing_or_foreign_is_404_and_a_siblings_403(api: Api, world: World, other: World) -> None:
    session = (await api.session(world.bound, world.project_id))["id"]
    missing = {"error": "NotFound", "message": "Session not found"}
    assert await api.post(f"/v1/sessions/{session}/end", other.key, {}, 404) == missing
    assert await api.post(f"/v1/sessions/{uuid4()}/end", world.key, {}, 404) == missing
    assert await api.post(f"/v1/sessions/{session}/end", world.sibling_key, {}, 403) == OTHER_PROJECT
    reader = await make_key(api.pool, world.team_id, scopes=["memories:read"])
    assert await api.post(f"/v1/sessions/{session}/end", reader, {}, 403) == REFUSED_KEY
    assert (await api.get(f"/v1/sessions/{session}", world.bound))["session"]["endedAtEpoch"] is None
