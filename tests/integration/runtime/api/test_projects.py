"""Projects over HTTP: what a key sees and makes of its team's, and nothing of others'."""

from typing import Any

import httpx2
import pytest

from commonplace_runtime.store.pool import Pool
from tests.factories import Key, Team, make_key, make_project, make_team

OTHER_PROJECT = {"error": "Forbidden", "message": "API key is scoped to a different project"}


async def make_world(admin_pool: Pool, **key: Any) -> tuple[Team, Key]:
    team = await make_team(admin_pool)
    return team, await make_key(admin_pool, team.id, **key)


async def post(http: httpx2.AsyncClient, key: Key, **body: Any) -> httpx2.Response:
    return await http.post("/v1/projects", json=body, headers=key.headers)


async def names(http: httpx2.AsyncClient, key: Key, **query: Any) -> list[str]:
    answer = await http.get("/v1/projects", params=query, headers=key.headers)
    assert answer.status_code == 200, answer.text
    return [project["name"] for project in answer.json()["projects"]]


async def test_a_new_project_has_the_shape_of_the_wire_and_is_found_by_id_and_name(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    team, key = await make_world(admin_pool)
    answer = await post(http, key, name="shop", slug="s", rootPath="/src/shop", metadata={"lang": "go"})
    assert answer.status_code == 201
    project = answer.json()["project"]
    assert project == {
        "id": project["id"],
        "teamId": team.id,
        "name": "shop",
        "slug": "s",
        "rootPath": "/src/shop",
        "metadata": {"lang": "go"},
        "createdAtEpoch": project["createdAtEpoch"],
        "updatedAtEpoch": project["createdAtEpoch"],
    }
    for named in (project["id"], project["id"].upper(), "shop"):
        found = await http.get(f"/v1/projects/{named}", headers=key.headers)
        assert found.json() == {"project": project}
    assert await names(http, key) == ["default", "shop"]


async def test_a_project_that_http_made_belongs_to_people_and_outlives_the_operators_list(
    http: httpx2.AsyncClient, admin_pool: Pool, operator_pool: Pool
) -> None:
    put = (
        "SELECT commonplace.put_team_v1('i', 1, $1, 'uid', gen_random_uuid(), 'acme', 'Acme', '{}',"
        " $2::jsonb, '[]', false)"
    )
    declared = [{"id": "01890000-0000-7000-8000-000000000001", "name": "default"}]
    team_id = (await operator_pool.fetchval(put, 1, declared))["teamId"]
    key = await make_key(admin_pool, team_id)
    made = (await post(http, key, name="mine", metadata={"a": 1})).json()["project"]
    await operator_pool.fetchval(put, 2, declared)
    assert await names(http, key) == ["default", "mine"]
    await operator_pool.fetchval(
        put, 3, [*declared, {"id": "01890000-0000-7000-8000-000000000002", "name": "mine", "displayName": "Mine"}]
    )
    assert (await http.get("/v1/projects/mine", headers=key.headers)).json()["project"]["id"] == made["id"]


async def test_a_name_that_is_taken_is_a_conflict(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _team, key = await make_world(admin_pool)
    answer = await post(http, key, name="default")
    assert answer.status_code == 409
    assert answer.json() == {
        "error": "Conflict",
        "message": 'The team has a project "default" already: use that one, or choose another name',
    }
    _other, other = await make_world(admin_pool)
    assert (await post(http, other, name="only-mine")).status_code == 201
    assert (await post(http, key, name="only-mine")).status_code == 201, "names are a team's own"


async def test_a_bound_key_sees_its_own_project_and_makes_none(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team = await make_team(admin_pool)
    sibling = await make_project(admin_pool, team.id, "sibling")
    key = await make_key(admin_pool, team.id, project_id=team.project_id)
    assert await names(http, key) == ["default"]
    assert (await http.get("/v1/projects/default", headers=key.headers)).status_code == 200
    for named in (sibling, "sibling"):
        refused = await http.get(f"/v1/projects/{named}", headers=key.headers)
        assert (refused.status_code, refused.json()) == (403, OTHER_PROJECT)
    refused = await post(http, key, name="new")
    assert (refused.status_code, refused.json()["message"]) == (
        403,
        "Project-scoped API keys cannot create projects",
    )
    assert await admin_pool.fetchval("SELECT count(*) FROM commonplace.projects WHERE name = 'new'") == 0


async def test_another_teams_project_is_not_there(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _team, key = await make_world(admin_pool)
    other = await make_team(admin_pool)
    secret = await make_project(admin_pool, other.id, "secret")
    for named in (secret, other.project_id, "secret", "no%00such", "nonsense", "x" * 5000):
        answer = await http.get(f"/v1/projects/{named}", headers=key.headers)
        assert (answer.status_code, answer.json()) == (404, {"error": "NotFound", "message": "Project not found"})
    assert await names(http, key) == ["default"]


async def test_a_key_that_reads_makes_none(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _team, key = await make_world(admin_pool, scopes=["memories:read"])
    assert (await post(http, key, name="new")).status_code == 403
    _team, key = await make_world(admin_pool, scopes=["memories:write"])
    assert (await http.get("/v1/projects", headers=key.headers)).status_code == 403


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, ["name"]),
        ({"name": None}, ["name"]),
        ({"name": ""}, ["name"]),
        ({"name": " \t"}, ["name"]),
        ({"name": "<private>all of it</private>"}, ["name"]),
        ({"name": 7}, ["name"]),
        ({"name": "x" * 201}, ["name"]),
        ({"name": "a", "slug": "x" * 201}, ["slug"]),
        ({"name": "a", "rootPath": "x" * 4097}, ["rootPath"]),
        ({"name": "a", "rootPath": 1}, ["rootPath"]),
        ({"name": "a", "metadata": []}, ["metadata"]),
        ({"name": "a", "metadata": {"x": "y" * 20_000}}, ["metadata"]),
    ],
)
async def test_a_body_that_is_wrong_is_told_where(
    http: httpx2.AsyncClient, admin_pool: Pool, body: Any, path: list[str]
) -> None:
    _team, key = await make_world(admin_pool)
    answer = await post(http, key, **body)
    assert answer.status_code == 400, answer.text
    assert [issue["path"] for issue in answer.json()["issues"]] == [path]


async def test_what_must_not_be_stored_is_taken_out(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    _team, key = await make_world(admin_pool)
    token = "ghp_" + "a1B2" * 9
    raw = (
        b'{"name": "a\\u0000b\\ud800", "slug": "", "rootPath": "/x<private>y</private>",'
        b' "metadata": {"t": "%s"}}' % token.encode()
    )
    headers = {**key.headers, "Content-Type": "application/json"}
    answer = await http.post("/v1/projects", content=raw, headers=headers)
    assert answer.status_code == 201, answer.text
    project = answer.json()["project"]
    assert (project["name"], project["slug"], project["rootPath"]) == ("a\ufffdb\ufffd", None, "/x")
    assert token not in answer.text


async def test_the_list_goes_on_where_the_page_before_ended(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    for name in ("Ä rger", "b", "c", "zz"):
        await make_project(admin_pool, team.id, name)
    everything = await names(http, key)
    assert sorted(everything) == sorted(["default", "Ä rger", "b", "c", "zz"])
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        params: dict[str, str | int] = {"limit": 2, **({"cursor": cursor} if cursor else {})}
        page = (await http.get("/v1/projects", params=params, headers=key.headers)).json()
        seen += [project["name"] for project in page["projects"]]
        cursor = page["nextCursor"]
    assert seen == everything
    for query in ({"cursor": "nonsense"}, {"cursor": "é"}, {"limit": 0}, {"limit": 1001}, {"limit": "x"}):
        assert (await http.get("/v1/projects", params=query, headers=key.headers)).status_code == 400, query


async def test_each_look_and_each_making_is_audited(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, key = await make_world(admin_pool)
    made = (await post(http, key, name="shop")).json()["project"]
    await http.get("/v1/projects", headers=key.headers)
    await http.get("/v1/projects/shop", headers={**key.headers, "X-Request-Id": "r-1"})
    await post(http, key, name="shop")
    rows = await admin_pool.fetch(
        "SELECT action, project_id::text, key_id::text, actor, resource_type, resource_id, request_id,"
        " details ->> 'requestId' AS detail FROM commonplace.audit_log WHERE team_id = $1::text::uuid ORDER BY number",
        team.id,
    )
    assert [(row["action"], row["project_id"], row["resource_id"]) for row in rows] == [
        ("project.create", made["id"], made["id"]),
        ("projects.list", None, None),
        ("project.read", made["id"], made["id"]),
    ]
    assert {(row["key_id"], row["actor"], row["resource_type"]) for row in rows} == {
        (key.id, "agent:tester", "project")
    }
    assert all(row["request_id"] == row["detail"] for row in rows)
    assert rows[2]["request_id"] == "r-1"
