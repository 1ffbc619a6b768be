"""Section 1.5.10: GET /v1/jobs."""

import pytest

from tests.contract.support import JOB_LISTED, Api, World
from tests.factories import make_key

REFUSED_PAYLOAD = {"error": "Forbidden", "message": "`include=payload` requires admin scope"}


async def test_1_5_10_adds_the_request_id(api: Api, world: World) -> None:
    answer = await api.send("GET", "/v1/jobs", world.key, headers={"X-Request-Id": "rq-10"})
    assert set(answer.json()) == {"jobs", "total", "limit", "offset", "requestId"}
    assert answer.json()["requestId"] == answer.headers["x-request-id"] == "rq-10"


async def test_1_5_10_source_type_filters_and_an_unknown_one_is_ignored(api: Api, world: World) -> None:
    event = (await api.event(world.bound, world.project_id))["generationJob"]["id"]
    session = (await api.session(world.bound, world.project_id))["id"]
    summary = (await api.post(f"/v1/sessions/{session}/end", world.bound, {}))["generationJob"]["id"]

    async def ids(query: str) -> set[str]:
        return {job["id"] for job in (await api.get(f"/v1/jobs?{query}", world.bound))["jobs"]}

    assert await ids("source_type=agent_event") == {event}
    assert await ids("source_type=session_summary") == {summary}
    assert await ids("source_type=observation_reindex") == set()
    assert await ids("source_type=nonsense") == {event, summary}


@pytest.mark.parametrize(
    ("since", "total"),
    [
        ("2020-01-01", 1),
        ("2020-01-01T10:00:00Z", 1),
        ("2020-01-01T10:00:00.000%2B02:00", 1),
        ("Wed, 01 Jan 2020 00:00:00 GMT", 1),
        ("2999-01-01", 0),
        ("2999-01-01T00:00:00.000Z", 0),
        ("nonsense", 1),
        ("", 1),
    ],
)
async def test_1_5_10_since_is_any_date_and_an_invalid_one_is_ignored(
    api: Api, world: World, since: str, total: int
) -> None:
    await api.event(world.bound, world.project_id)
    assert (await api.get(f"/v1/jobs?since={since}", world.bound))["total"] == total


async def test_1_5_10_since_is_inclusive(api: Api, world: World) -> None:
    await api.event(world.bound, world.project_id)
    moment = await api.pool.fetchval(
        "SELECT to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')"
        " FROM commonplace.jobs WHERE team_id = $1::text::uuid",
        world.team_id,
    )
    assert (await api.get(f"/v1/jobs?since={moment}", world.bound))["total"] == 1


async def test_1_5_10_the_payload_is_hidden_unless_an_administrator_asks(api: Api, world: World) -> None:
    await api.event(world.bound, world.project_id)
    for key in (world.bound, await make_key(api.pool, world.team_id, scopes=["*"])):
        assert set((await api.get("/v1/jobs", key))["jobs"][0]) == set(JOB_LISTED)
    assert await api.get("/v1/jobs?include=payload", world.bound, 403) == REFUSED_PAYLOAD
    assert await api.get("/v1/jobs?include=a,payload", world.bound, 403) == REFUSED_PAYLOAD
    assert "payload" not in (await api.get("/v1/jobs?include=nonsense", world.bound))["jobs"][0]


@pytest.mark.parametrize("scopes", [["*"], ["memories:read", "memories:admin"], ["memories:read", "admin"]])
async def test_1_5_10_include_payload_with_each_administrative_scope(api: Api, world: World, scopes: list[str]) -> None:
    """Scope arrays are free text in the contract (2.3): `admin` is one of the three that open payloads."""
    answer = await api.event(world.bound, world.project_id)
    key = await make_key(api.pool, world.team_id, scopes=scopes)
    (job,) = (await api.get("/v1/jobs?include=payload", key))["jobs"]
    payload = job["payload"]
    assert {
        "kind": "event",
        "team_id": world.team_id,
        "project_id": world.project_id,
        "source_type": "agent_event",
        "source_id": answer["event"]["id"],
        "source_adapter": "hook",
        "generation_job_id": job["id"],
        "agent_event_id": answer["event"]["id"],
        "api_key_id": world.bound.id,
    }.items() <= payload.items()
    assert "actor_id" in payload


@pytest.mark.parametrize("scopes", [["admin"], ["memories:admin"], ["admin", "memories:write"]])
async def test_1_5_10_an_administrative_scope_alone_opens_nothing(api: Api, world: World, scopes: list[str]) -> None:
    key = await make_key(api.pool, world.team_id, scopes=scopes)
    await api.get("/v1/jobs?include=payload", key, 403)
    await api.get("/v1/jobs", key, 403)


async def test_1_5_10_a_project_key_sees_its_project_only(api: Api, world: World, other: World) -> None:
    ours = (await api.event(world.key, world.project_id))["generationJob"]["id"]
    await api.event(world.key, world.sibling_id)
    await api.event(other.key, other.project_id)
    answer = await api.get("/v1/jobs", world.bound)
    assert ([job["id"] for job in answer["jobs"]], answer["total"]) == ([ours], 1)
    assert (await api.get("/v1/jobs", world.key))["total"] == 2


async def test_1_5_10_is_audited(api: Api, world: World) -> None:
    await api.get("/v1/jobs?status=failed", world.key)
    (row,) = await api.audits(world, "observation.read")
    assert (row["details"]["mode"], row["details"]["resultCount"]) == ("jobs_list", 0)
