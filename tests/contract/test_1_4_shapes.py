"""Section 1.4: resource shapes, enumerations and the names of platforms."""

import pytest

from tests.contract.support import (
    EVENT,
    JOB_BRIEF,
    JOB_FULL,
    JOB_LISTED,
    JOB_WAIT,
    OBSERVATION,
    SESSION,
    Api,
    World,
    has_shape,
)
from tests.factories import make_key, make_memory


async def test_1_4_session(api: Api, world: World) -> None:
    session = await api.session(world.bound, world.project_id)
    assert has_shape(session, SESSION)
    assert session["generationStatus"] == "idle"
    full = {"externalSessionId": "e", "contentSessionId": "c", "agentId": "a", "agentType": "t", "platformSource": "x"}
    session = await api.session(world.bound, world.project_id, metadata={"k": [1]}, **full)
    assert has_shape(session, SESSION)
    assert full.items() <= session.items()
    assert session["metadata"] == {"k": [1]}
    assert (session["projectId"], session["teamId"]) == (world.project_id, world.team_id)
    assert (await api.get(f"/v1/sessions/{session['id']}", world.bound)) == {"session": session}
    ended = await api.post(f"/v1/sessions/{session['id']}/end", world.bound, {})
    assert has_shape(ended["session"], SESSION)
    assert isinstance(ended["session"]["endedAtEpoch"], int)


async def test_1_4_event(api: Api, world: World) -> None:
    event = (await api.event(world.bound, world.project_id, memorySessionId="m"))["event"]
    assert has_shape(event, EVENT)
    assert "contentSessionId" not in event
    assert "memorySessionId" not in event
    assert (await api.get(f"/v1/events/{event['id']}", world.bound)) == {"event": event}


async def test_1_4_job_brief(api: Api, world: World) -> None:
    job = (await api.event(world.bound, world.project_id))["generationJob"]
    assert set(job) == set(JOB_BRIEF)
    assert has_shape(job, JOB_BRIEF)


async def test_1_4_job_wait(api: Api, world: World) -> None:
    job = (await api.event(world.bound, world.project_id, "?wait=true"))["generationJob"]
    assert set(job) == set(JOB_WAIT)
    assert has_shape(job, JOB_WAIT)
    assert (job["attempts"], job["maxAttempts"]) == (0, 3)


async def test_1_4_job_full(api: Api, world: World) -> None:
    answer = await api.event(world.bound, world.project_id)
    job_id = answer["generationJob"]["id"]
    job = (await api.get(f"/v1/jobs/{job_id}", world.bound))["generationJob"]
    assert has_shape(job, JOB_FULL)
    assert job["agentEventId"] == job["sourceId"] == answer["event"]["id"]
    for name in ("nextAttemptAtEpoch", "completedAtEpoch", "failedAtEpoch", "cancelledAtEpoch", "lastError"):
        assert job[name] is None
    await api.end_job(job_id, "failed")
    job = (await api.get(f"/v1/jobs/{job_id}", world.bound))["generationJob"]
    assert has_shape(job, JOB_FULL)
    assert {"reason", "classification"} <= set(job["lastError"])
    assert isinstance(job["failedAtEpoch"], int)


async def test_1_4_job_list_entry(api: Api, world: World) -> None:
    admin = await make_key(api.pool, world.team_id, scopes=["*"])
    await api.event(world.bound, world.project_id)
    (job,) = (await api.get("/v1/jobs", world.bound))["jobs"]
    assert set(job) == set(JOB_LISTED)
    assert has_shape(job, JOB_LISTED)
    (job,) = (await api.get("/v1/jobs?include=payload", admin))["jobs"]
    assert set(job) == {*JOB_LISTED, "payload"}
    assert isinstance(job["payload"], dict)


async def test_1_4_observation(api: Api, world: World) -> None:
    await make_memory(api.pool, world.team, "The uploader retries")
    (observation,) = await api.search(world.bound, world.project_id, "uploader")
    assert has_shape(observation, OBSERVATION)


async def test_1_4_observation_as_memory_on_insert(api: Api, world: World) -> None:
    memory = await api.memory(world.bound, world.project_id, "The uploader retries")
    assert has_shape(memory, OBSERVATION)


async def test_1_4_observation_with_source(api: Api, world: World) -> None:
    event = (await api.event(world.bound, world.project_id))["event"]["id"]
    await make_memory(api.pool, world.team, "The uploader retries", event_id=event)
    (observation,) = (await api.get(f"/v1/events/{event}/observations", world.bound))["observations"]
    assert has_shape(observation, OBSERVATION)
    assert {"generationKey", "createdByJobId", "source"} <= set(observation)
    source = observation["source"]
    assert {"id", "sourceType", "sourceId", "generationJobId", "createdAtEpoch"} <= set(source)
    assert (source["sourceType"], source["sourceId"]) == ("agent_event", event)


async def test_1_4_enumerations(api: Api, world: World) -> None:
    session = await api.session(world.bound, world.project_id)
    event = (await api.event(world.bound, world.project_id))["generationJob"]
    summary = (await api.post(f"/v1/sessions/{session['id']}/end", world.bound, {}))["generationJob"]
    assert (event["sourceType"], summary["sourceType"]) == ("agent_event", "session_summary")
    assert {event["transport"], summary["transport"]} == {"enqueued"}
    types = [
        (await api.get(f"/v1/jobs/{job['id']}", world.bound))["generationJob"]["jobType"] for job in (event, summary)
    ]
    assert types == ["observation_generate_for_event", "observation_generate_session_summary"]
    seen = {event["status"]}
    for status in ("completed", "failed", "cancelled"):
        job = (await api.event(world.bound, world.project_id))["generationJob"]["id"]
        await api.end_job(job, status)
        seen.add((await api.get(f"/v1/jobs/{job}", world.bound))["generationJob"]["status"])
    assert seen == {"queued", "completed", "failed", "cancelled"}


PLATFORMS = [
    ("Claude Code", "claude"),
    ("claude-code", "claude"),
    ("  CLAUDE  ", "claude"),
    ("   ", "claude"),
    ("transcript", "codex"),
    ("Transcript", "codex"),
    ("my transcript", "my-transcript"),
    ("OpenAI Codex CLI", "codex"),
    ("codex-for-claude", "codex"),
    ("Cursor IDE", "cursor"),
    ("cursor with claude", "cursor"),
    ("Gemini \t CLI", "gemini-cli"),
    ("zed", "zed"),
]


@pytest.mark.parametrize(("given", "stored"), PLATFORMS)
async def test_1_4_platform_source_is_normalised_on_write(api: Api, world: World, given: str, stored: str) -> None:
    event = (await api.event(world.bound, world.project_id, platformSource=given))["event"]
    session = await api.session(world.bound, world.project_id, platformSource=given)
    assert (event["platformSource"], session["platformSource"]) == (stored, stored)


async def test_1_4_platform_source_of_null_is_null(api: Api, world: World) -> None:
    assert (await api.event(world.bound, world.project_id, platformSource=None))["event"]["platformSource"] is None
    assert (await api.session(world.bound, world.project_id, platformSource=None))["platformSource"] is None


@pytest.mark.parametrize("given", ["Claude Code", " claude ", "claude-desktop"])
async def test_1_4_platform_source_is_normalised_on_filters(api: Api, world: World, given: str) -> None:
    event = (await api.event(world.bound, world.project_id, platformSource="claude"))["event"]["id"]
    await make_memory(api.pool, world.team, "The uploader retries", event_id=event)
    await make_memory(api.pool, world.team, "The uploader of nobody")
    found = await api.contents(world.bound, world.project_id, "uploader", platformSource=given)
    assert found == ["The uploader retries"]
    assert await api.contents(world.bound, world.project_id, "uploader", platformSource="codex") == []
