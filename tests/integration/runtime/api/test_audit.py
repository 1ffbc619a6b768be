"""GET /v1/audit: which rows a key finds, how much of them it is shown, and that reading leaves a row too."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import httpx2
import pytest

from commonplace_runtime.store.pool import Pool
from tests.factories import Key, Team, make_event, make_key, make_project, make_team


async def put(
    pool: Pool,
    team: Team,
    action: str,
    *,
    at: str = "2026-01-01T00:00:00Z",
    project: str | None = None,
    actor: str | None = "human:ada",
    key_id: str | None = None,
    request_id: str | None = None,
    target: tuple[str, str | None] = ("thing", None),
    details: dict[str, Any] | None = None,
) -> None:
    await pool.execute(
        "INSERT INTO commonplace.audit_log (team_id, project_id, key_id, actor, request_id, action, resource_type,"
        " resource_id, details, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::text::timestamptz)",
        UUID(team.id),
        None if project is None else UUID(project),
        None if key_id is None else UUID(key_id),
        actor,
        request_id,
        action,
        *target,
        details or {},
        at,
    )


async def read(http: httpx2.AsyncClient, key: Key, *, expect: int = 200, **query: str) -> Any:
    answer = await http.get("/v1/audit", params={"projectId": "*"} | query, headers=key.headers)
    assert answer.status_code == expect, answer.text
    return answer.json()


async def actions(http: httpx2.AsyncClient, key: Key, **query: str) -> list[str]:
    rows = (await read(http, key, expect=200, **query))["audit"]
    return [row["action"] for row in rows if row["action"] != "audit.read"]


async def test_a_row_says_who_did_what_to_what(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id, project_id=team.project_id, actor="human:ada")
    sent = await http.post("/v1/events", json=make_event(), headers={**key.headers, "X-Request-Id": "req-1"})
    [row] = (await read(http, key, projectId="default"))["audit"]
    assert row["createdAtEpoch"] > 1_700_000_000_000
    assert {name: row[name] for name in row.keys() - {"id", "metadata", "createdAtEpoch"}} == {
        "teamId": team.id,
        "projectId": team.project_id,
        "keyId": key.id,
        "actor": "human:ada",
        "actorType": "human",
        "actorId": "ada",
        "requestId": "req-1",
        "action": "event.received",
        "aliases": [],
        "targetType": "agent_event",
        "targetId": sent.json()["event"]["id"],
    }
    assert row["metadata"]["requestId"] == "req-1"


async def test_a_project_must_be_named(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    key = await make_key(admin_pool, (await make_team(admin_pool)).id)
    for query in ({}, {"projectId": ""}):
        answer = await http.get("/v1/audit", params=query, headers=key.headers)
        assert (answer.status_code, answer.json()) == (
            400,
            {"error": "ValidationError", "message": "projectId query parameter is required"},
        )


@pytest.mark.parametrize(
    ("scopes", "status"),
    [
        (["audit:read"], 200),
        (["memories:read"], 200),
        (["memories:admin"], 200),
        (["admin"], 200),
        (["*"], 200),
        (["memories:write"], 403),
        (["observations:read", "jobs:read"], 403),
        ([], 403),
    ],
)
async def test_which_scopes_open_the_audit(
    http: httpx2.AsyncClient, admin_pool: Pool, scopes: Sequence[str], status: int
) -> None:
    await read(http, await make_key(admin_pool, (await make_team(admin_pool)).id, scopes=scopes), expect=status)


async def test_a_key_for_the_audit_opens_nothing_else(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    key = await make_key(admin_pool, (await make_team(admin_pool)).id, scopes=["audit:read"])
    for method, path in (
        ("GET", "/v1/connect"),
        ("GET", "/v1/usage"),
        ("GET", "/v1/jobs"),
        ("GET", "/v1/keys"),
        ("POST", "/v1/keys"),
        ("POST", "/v1/search"),
        ("POST", "/v1/events"),
        ("POST", "/v1/mcp"),
    ):
        assert (await http.request(method, path, json={}, headers=key.headers)).status_code == 403, path


@pytest.mark.parametrize(
    "scopes",
    [["memories:read"], ["audit:read", "memories:read"], ["memories:admin", "memories:read"], ["*"]],
)
async def test_what_others_searched_for_is_shown_to_auditors_only(
    http: httpx2.AsyncClient, admin_pool: Pool, scopes: Sequence[str]
) -> None:
    team = await make_team(admin_pool)
    ada = await make_key(admin_pool, team.id, actor="human:ada")
    eve = await make_key(admin_pool, team.id, actor="human:eve", scopes=[*scopes])
    for key, query in ((ada, "layoffs"), (eve, "lunch")):
        await http.post("/v1/search", json={"query": query, "projectId": "default"}, headers=key.headers)
    rows = (await read(http, eve, projectId="default", action="observation.read"))["audit"]
    is_auditor = scopes != ["memories:read"]
    shown = {row["actor"]: (row["metadata"].get("query"), row.get("withheld")) for row in rows}
    assert shown == {"human:ada": ("layoffs", None) if is_auditor else (None, ["query"]), "human:eve": ("lunch", None)}


async def test_rows_of_other_teams_and_projects_are_out_of_reach(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, other = await make_team(admin_pool), await make_team(admin_pool)
    sibling = await make_project(admin_pool, team.id, "sibling")
    wide = await make_key(admin_pool, team.id)
    bound = await make_key(admin_pool, team.id, project_id=team.project_id)
    await put(admin_pool, team, "mine", project=team.project_id, at="2026-01-01")
    await put(admin_pool, team, "siblings", project=sibling, at="2026-01-02")
    await put(admin_pool, team, "teams", at="2026-01-03")
    await put(admin_pool, other, "others", project=other.project_id)
    assert await actions(http, wide) == ["teams", "siblings", "mine"]
    assert await actions(http, wide, projectId="sibling") == ["siblings"]
    assert await actions(http, wide, projectId=sibling) == ["siblings"]
    assert await actions(http, bound, projectId="default") == ["mine"]
    for project in (other.project_id, "nowhere", "no\0where", "x" * 300):
        assert await actions(http, wide, projectId=project) == []
    for project in ("*", "sibling", other.project_id):
        refused = await read(http, bound, expect=403, projectId=project)
        assert refused == {"error": "Forbidden", "message": "API key is scoped to a different project"}


async def test_each_filter_narrows(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id)
    one, two = "01890000-0000-7000-8000-000000000001", "01890000-0000-7000-8000-000000000002"
    await put(admin_pool, team, "api_key.create", at="2026-01-01T00:00:00Z", key_id=one, request_id="r1")
    await put(admin_pool, team, "api_key.revoke", at="2026-01-02T00:00:00Z", actor="human:eve", target=("api_key", two))
    await put(admin_pool, team, "event.received", at="2026-01-03T00:00:00Z", key_id=two, target=("agent_event", one))
    await put(admin_pool, team, "generation_job.completed", at="2026-01-04T00:00:00Z", actor=None)
    create, revoke, event, done = "api_key.create", "api_key.revoke", "event.received", "generation_job.completed"
    for query, found in (
        ({}, [done, event, revoke, create]),
        ({"since": "2026-01-03T00:00:00Z"}, [done, event]),
        ({"until": "2026-01-03T00:00:00Z"}, [revoke, create]),
        ({"since": "1767312000000", "until": "Jan 4, 2026"}, [event, revoke]),
        ({"actor": "human:eve"}, [revoke]),
        ({"actor": "human:%"}, []),
        ({"keyId": one}, [create]),
        ({"keyId": "nonsense"}, []),
        ({"action": "api_key.create"}, [create]),
        ({"action": "api_key.*"}, [revoke, create]),
        ({"action": "e*"}, [event]),
        ({"action": "*"}, [done, event, revoke, create]),
        ({"action": "api_key._reate"}, []),
        ({"action": "generation.completed"}, [done]),
        ({"action": "generation.*"}, [done]),
        ({"requestId": "r1"}, [create]),
        ({"requestId": "r\0"}, []),
        ({"targetType": "api_key"}, [revoke]),
        ({"targetType": "agent_event", "targetId": one}, [event]),
        ({"targetId": two, "actor": "human:ada"}, []),
        ({"unknown": "x"}, [done, event, revoke, create]),
    ):
        assert await actions(http, key, **query) == found, query
    [row] = (await read(http, key, action="generation.completed"))["audit"]
    assert row["aliases"] == ["generation.completed"]


@pytest.mark.parametrize("name", ["since", "until"])
@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "999999999999999", "-1", "\0"])
async def test_a_time_that_cannot_be_read_is_refused_not_ignored(
    http: httpx2.AsyncClient, admin_pool: Pool, name: str, text: str
) -> None:
    key = await make_key(admin_pool, (await make_team(admin_pool)).id)
    refused = await read(http, key, expect=400, **{name: text})
    assert [issue["path"] for issue in refused["issues"]] == [[name]]


@pytest.mark.parametrize("filters", [{}, {"projectId": "default"}, {"action": "a.*"}, {"actor": "human:ada"}])
async def test_pages_hold_each_row_once_though_times_are_equal(
    http: httpx2.AsyncClient, admin_pool: Pool, filters: dict[str, str]
) -> None:
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id)
    for place in range(7):
        await put(admin_pool, team, f"a.{place}", at="2026-01-01T00:00:00.123456Z", project=team.project_id)
    seen: list[str] = []
    query = {**filters, "limit": "3", "until": "2026-02-01"}
    while True:
        page = await read(http, key, expect=200, **query)
        assert len(page["audit"]) <= 3
        seen += [row["action"] for row in page["audit"]]
        if page["nextCursor"] is None:
            break
        query["cursor"] = page["nextCursor"]
    assert seen == [f"a.{place}" for place in reversed(range(7))]


@pytest.mark.parametrize(("limit", "rows"), [("2", 2), ("0", 1), ("-4", 1), ("x", 100), ("9999", 200)])
async def test_a_page_has_bounds(http: httpx2.AsyncClient, admin_pool: Pool, limit: str, rows: int) -> None:
    team = await make_team(admin_pool)
    await admin_pool.execute(
        "INSERT INTO commonplace.audit_log (team_id, action, resource_type)"
        " SELECT id, 'x', 'y' FROM commonplace.teams CROSS JOIN generate_series(1, 300)"
    )
    key = await make_key(admin_pool, team.id)
    assert len((await read(http, key, limit=limit))["audit"]) == rows


@pytest.mark.parametrize(
    "cursor", ["x", "W10", "WyIyMDI2LTAxLTAxIiwxXQ", "WyJ4IiwxXQ", "WyIyMDI2LTAxLTAxVDAwOjAwWiIsLTFd"]
)
async def test_a_cursor_that_nobody_handed_out_is_400(http: httpx2.AsyncClient, admin_pool: Pool, cursor: str) -> None:
    key = await make_key(admin_pool, (await make_team(admin_pool)).id)
    assert (await read(http, key, expect=400, cursor=cursor))["issues"][0]["path"] == ["cursor"]


async def test_reading_the_audit_is_audited(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id, actor="human:eve")
    answer = await http.get(
        "/v1/audit",
        params={"projectId": "default", "actor": "human:ada", "limit": "5"},
        headers={**key.headers, "X-Request-Id": "req-9"},
    )
    assert answer.json()["audit"] == []
    [row] = (await read(http, key, projectId="default"))["audit"]
    assert (row["action"], row["actor"], row["requestId"]) == ("audit.read", "human:eve", "req-9")
    assert row["metadata"] == {
        "requestId": "req-9",
        "resultCount": 0,
        "filters": {"project": "default", "actor": "human:ada"},
    }


async def test_a_started_session_has_both_names(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id, project_id=team.project_id)
    await http.post("/v1/sessions/start", json={"contentSessionId": "c"}, headers=key.headers)
    assert sorted(await actions(http, key, projectId="default")) == ["session.start", "session.write"]


async def test_a_large_audit_is_read_through_indexes(admin_pool: Pool, runtime_pool: Pool) -> None:
    """Under row-level security, as the api reads it. Of a statement in a function, the use of indexes is what shows."""
    team = await make_team(admin_pool)
    sibling = await make_project(admin_pool, team.id, "sibling")
    await admin_pool.execute(
        "INSERT INTO commonplace.audit_log (team_id, project_id, request_id, action, resource_type, created_at)"
        " SELECT $1, CASE WHEN i % 1000 = 0 THEN $2::uuid ELSE $3 END, 'r-' || i,"
        " CASE WHEN i % 5000 = 0 THEN 'api_key.revoke' ELSE 'event.received' END, 'x',"
        " '2026-01-01'::timestamptz + i * interval '1 minute' FROM generate_series(1, 20000) AS i",
        UUID(team.id),
        UUID(team.project_id),
        UUID(sibling),
    )
    async with admin_pool.acquire() as connection:
        await connection.execute("SET ROLE commonplace_owner; ANALYZE commonplace.audit_log; RESET ROLE")
    scans = "SELECT pg_stat_get_xact_numscans(('commonplace.' || $1::text)::regclass)"
    wishes: tuple[tuple[str, dict[str, Any]], ...] = (
        ("audit_log_by_time", {}),
        ("audit_log_by_time", {"since": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z"}),
        ("audit_log_of_project", {"project": "default"}),
        ("audit_log_of_request", {"requestId": "r-7"}),
        ("audit_log_of_action", {"actions": ["api_key.revoke"]}),
        ("audit_log_of_action", {"actions": [], "prefix": "api_key."}),
    )
    for index, wanted in wishes:
        async with runtime_pool.acquire() as connection, connection.transaction():
            page = await connection.fetchval(
                "SELECT commonplace.list_audit_v1($1, NULL, NULL, 'a', 'r', $2, 10)", team.id, wanted
            )
            used, whole = [await connection.fetchval(scans, name) for name in (index, "audit_log")]
            assert (len(page["audit"]) > 0, used > 0, whole) == (True, True, 0), wanted
