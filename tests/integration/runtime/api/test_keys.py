"""Keys over HTTP: what a key may mint, see and revoke, and that a token is told once."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx2
import pytest
from structlog.testing import capture_logs

from commonplace_runtime import contract
from commonplace_runtime.store.pool import Pool
from tests.factories import Key, make_key, make_project, make_team, set_limits

REFUSED = {"error": "Forbidden", "message": "Invalid API key or insufficient scope"}


async def mint(http: httpx2.AsyncClient, key: Key, status: int = 201, **body: Any) -> Any:
    answer = await http.post("/v1/keys", json=body, headers=key.headers)
    assert answer.status_code == status, answer.text
    return answer.json()


async def audited(pool: Pool, action: str) -> list[dict[str, Any]]:
    rows = await pool.fetch("SELECT * FROM commonplace.audit_log WHERE action = $1 ORDER BY number", action)
    return [dict(row) for row in rows]


async def works(http: httpx2.AsyncClient, token: str) -> bool:
    answer = await http.get("/v1/connect", headers={"X-Api-Key": token})
    return bool(answer.status_code == 200)


async def test_a_minted_key_reads_what_its_minter_reaches_and_no_more(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    team = await make_team(admin_pool)
    minter = await make_key(admin_pool, team.id, project_id=team.project_id, actor="human:ada")
    minted = await mint(http, minter)
    assert contract.token_id(minted["apiKey"]) is not None
    assert (minted["scopes"], minted["expiresAt"], minted["projectId"]) == (["memories:read"], None, team.project_id)
    assert (minted["actor"], minted["mintedBy"]) == ("human:ada", minter.id)
    assert minted["mcpUrl"] == f"{http.base_url}/v1/mcp".replace("//v1", "/v1")
    assert f'{minted["mcpUrl"]} --header "Authorization: Bearer {minted["apiKey"]}"' in minted["connectCommand"]
    assert await works(http, minted["apiKey"])
    again = await http.post("/v1/keys", json={}, headers={"X-Api-Key": minted["apiKey"]})
    assert (again.status_code, again.json()) == (403, REFUSED)


async def test_a_token_is_nowhere_but_in_its_answer(
    http: httpx2.AsyncClient, admin_pool: Pool, capfd: pytest.CaptureFixture[str]
) -> None:
    team = await make_team(admin_pool)
    minter = await make_key(admin_pool, team.id)
    with capture_logs() as lines:
        answer = await http.post("/v1/keys", json={"label": "laptop"}, headers=minter.headers)
        token = answer.json()["apiKey"]
        listed = await http.get("/v1/keys", headers=minter.headers)
    assert answer.headers["cache-control"] == "no-store"
    rows = await admin_pool.fetch("SELECT to_jsonb(k)::text AS row FROM commonplace.api_keys k")
    rows += await admin_pool.fetch("SELECT to_jsonb(a)::text AS row FROM commonplace.audit_log a")
    told = " ".join([listed.text, json.dumps(lines, default=str), *capfd.readouterr(), *(row["row"] for row in rows)])
    assert token not in told
    assert contract.hash_token(token) not in listed.text
    assert "laptop" in listed.text


async def test_a_key_lives_as_long_as_asked_and_no_longer_than_its_minter(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    team = await make_team(admin_pool)
    soon = datetime.now(UTC) + timedelta(days=3)
    minter, dying = await make_key(admin_pool, team.id), await make_key(admin_pool, team.id, expires_at=soon)
    asked = datetime.fromisoformat((await mint(http, minter, expiresInDays=30))["expiresAt"])
    assert abs(asked - datetime.now(UTC) - timedelta(days=30)) < timedelta(minutes=5)
    for body in ({}, {"expiresInDays": 30}):
        inherited = datetime.fromisoformat((await mint(http, dying, **body))["expiresAt"])
        assert abs(inherited - soon) < timedelta(milliseconds=2)


@pytest.mark.parametrize(
    ("held", "wanted", "status"),
    [
        (["memories:read", "memories:write"], ["memories:read", "memories:write"], 201),
        (["memories:read", "memories:write"], ["observations:read", "jobs:read", "events:write"], 201),
        (["memories:write"], ["sessions:write"], 201),
        (["memories:write"], None, 403),
        (["memories:read", "memories:write"], ["audit:read"], 403),
        (["memories:read", "memories:write"], ["memories:admin"], 403),
        (["memories:read", "memories:write", "memories:admin"], ["audit:read"], 201),
        (["memories:read", "memories:write", "memories:admin"], ["*"], 403),
        (["*"], ["*"], 201),
        (["*"], ["memories:admin", "audit:read"], 201),
    ],
)
async def test_a_key_mints_no_more_than_it_holds(
    http: httpx2.AsyncClient, admin_pool: Pool, held: Sequence[str], wanted: Sequence[str] | None, status: int
) -> None:
    minter = await make_key(admin_pool, (await make_team(admin_pool)).id, scopes=held)
    answer = await mint(http, minter, status, **({} if wanted is None else {"scopes": wanted}))
    assert answer.get("scopes", wanted) == wanted


@pytest.mark.parametrize("scopes", [["memories:read"], ["events:write"], ["memories:admin"], ["audit:read"]])
async def test_who_may_not_write_manages_no_keys(
    http: httpx2.AsyncClient, admin_pool: Pool, scopes: Sequence[str]
) -> None:
    key = await make_key(admin_pool, (await make_team(admin_pool)).id, scopes=scopes)
    for method, path in (
        ("POST", "/v1/keys"),
        ("GET", "/v1/keys"),
        ("DELETE", f"/v1/keys/{key.id}"),
        ("POST", f"/v1/keys/{key.id}/revoke"),
    ):
        answer = await http.request(method, path, headers=key.headers)
        assert (answer.status_code, answer.json()) == (403, REFUSED)
    assert await works(http, key.token) == (scopes == ["memories:read"])


async def test_a_minted_key_reaches_one_project_where_told(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, other = await make_team(admin_pool), await make_team(admin_pool)
    sibling = await make_project(admin_pool, team.id, "sibling")
    wide = await make_key(admin_pool, team.id)
    bound = await make_key(admin_pool, team.id, project_id=team.project_id)
    assert (await mint(http, wide))["projectId"] is None
    assert (await mint(http, wide, projectId="sibling"))["projectId"] == sibling
    assert (await mint(http, bound, projectId="default"))["projectId"] == team.project_id
    refused = await mint(http, bound, 403, projectId=sibling)
    assert refused["message"] == "API key is scoped to a different project"
    for foreign in (other.project_id, "nowhere", "no\0where", "x" * 300):
        assert (await mint(http, wide, 403, projectId=foreign))["message"] == "project_id must belong to team_id"


async def test_a_key_cannot_be_minted_for_somebody_else(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    minter = await make_key(admin_pool, (await make_team(admin_pool)).id, scopes=["*"], actor="human:ada")
    assert "acts as its minter" in (await mint(http, minter, 403, actor="human:eve"))["message"]
    assert (await mint(http, minter, actor="human:ada"))["actor"] == "human:ada"


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"expiresInDays": 0}, ["expiresInDays"]),
        ({"expiresInDays": 366}, ["expiresInDays"]),
        ({"expiresInDays": 1.5}, ["expiresInDays"]),
        ({"expiresInDays": True}, ["expiresInDays"]),
        ({"label": "x" * 121}, ["label"]),
        ({"label": 7}, ["label"]),
        ({"scopes": []}, ["scopes"]),
        ({"scopes": "memories:read"}, ["scopes"]),
        ({"scopes": ["memories:read", "root"]}, ["scopes", 1]),
        ({"scopes": [["memories:read"]]}, ["scopes", 0]),
        ({"projectId": 1}, ["projectId"]),
        ([], []),
    ],
)
async def test_what_is_wrong_with_a_wish_is_named(
    http: httpx2.AsyncClient, admin_pool: Pool, body: Any, path: list[str | int]
) -> None:
    minter = await make_key(admin_pool, (await make_team(admin_pool)).id)
    answer = await http.post("/v1/keys", json=body, headers=minter.headers)
    assert (answer.status_code, answer.json()["error"]) == (400, "ValidationError")
    assert [issue["path"] for issue in answer.json()["issues"]] == [path]


async def test_labels_are_cleaned_and_may_be_empty(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    minter = await make_key(admin_pool, (await make_team(admin_pool)).id)
    assert (await mint(http, minter, label="", unknown=1))["label"].startswith("minted-")
    assert (await mint(http, minter, label="a\0b <private>pin 1234</private>"))["label"] == "a\ufffdb"
    assert (await mint(http, minter, label="x" * 120))["label"] == "x" * 120


async def test_minting_is_audited_by_the_minter(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team = await make_team(admin_pool)
    minter = await make_key(admin_pool, team.id, actor="human:ada")
    headers = {**minter.headers, "X-Request-Id": "req-1"}
    answer = await http.post("/v1/keys", json={"label": "ci", "projectId": "default"}, headers=headers)
    [row] = await audited(admin_pool, "api_key.create")
    assert (str(row["key_id"]), row["actor"], row["request_id"]) == (minter.id, "human:ada", "req-1")
    assert (str(row["project_id"]), row["resource_id"]) == (team.project_id, answer.json()["id"])
    assert row["details"] == {
        "requestId": "req-1",
        "source": "http",
        "label": "ci",
        "scopes": ["memories:read"],
        "expiresAt": None,
    }


async def test_a_team_with_all_its_keys_gets_no_more(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team = await make_team(admin_pool)
    minter = await make_key(admin_pool, team.id)
    await make_key(admin_pool, team.id, state="revoked")
    await make_key(admin_pool, team.id, expires_at=datetime(2020, 1, 1, tzinfo=UTC))
    await set_limits(admin_pool, team.id, api_keys=2)
    second = await mint(http, minter)
    refused = await mint(http, minter, 402)
    assert (refused["error"], refused["used"], refused["cap"]) == ("quota_exceeded", 2, 2)
    assert "revoke one first" in refused["message"]
    await http.delete(f"/v1/keys/{second['id']}", headers=minter.headers)
    await mint(http, minter)


async def test_a_list_shows_each_key_once_newest_first(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team, other = await make_team(admin_pool), await make_team(admin_pool)
    minter = await make_key(admin_pool, team.id)
    await make_key(admin_pool, other.id)
    await make_key(admin_pool, team.id, expires_at=datetime(2020, 1, 1, tzinfo=UTC))
    await make_key(admin_pool, team.id, state="revoked")
    grace = datetime.now(UTC) + timedelta(days=1)
    await make_key(admin_pool, team.id, state="grace", grace_until=grace)
    newest = await mint(http, minter, label="newest")
    # Of the same instant, as a script makes them: their ids decide.
    await admin_pool.execute("UPDATE commonplace.api_keys SET created_at = '2026-01-01' WHERE name = 'test'")
    seen: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        query = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = (await http.get("/v1/keys", params=query, headers=minter.headers)).json()
        seen += page["keys"]
        cursor = page["nextCursor"]
    assert seen[0]["id"] == newest["id"]
    assert len({row["id"] for row in seen}) == len(seen) == 5
    assert sorted(row["status"] for row in seen) == ["active", "active", "expired", "grace", "revoked"]
    mine = next(row for row in seen if row["id"] == minter.id)
    assert mine["lastUsedAtEpoch"] > 1_700_000_000_000
    assert (seen[0]["mintedBy"], seen[0]["label"], seen[0]["managed"]) == (minter.id, "newest", False)
    assert not {"token", "apiKey", "tokenHash", "token_hash"} & set().union(*seen)
    assert len(await audited(admin_pool, "api_key.list")) == 3


@pytest.mark.parametrize("cursor", ["x", "é", "W10", "WzEsMl0", "WyJ4IiwieSJd", "a" * 5000, "WyIyMDI2LTAxLTAxIiwieCJd"])
async def test_a_cursor_that_nobody_handed_out_is_400(http: httpx2.AsyncClient, admin_pool: Pool, cursor: str) -> None:
    key = await make_key(admin_pool, (await make_team(admin_pool)).id)
    answer = await http.get("/v1/keys", params={"cursor": cursor}, headers=key.headers)
    assert (answer.status_code, answer.json()["issues"][0]["path"]) == (400, ["cursor"])


@pytest.mark.parametrize(("method", "suffix"), [("DELETE", ""), ("POST", "/revoke")])
async def test_a_revoked_key_is_refused_at_once_and_revoking_again_changes_nothing(
    http: httpx2.AsyncClient, admin_pool: Pool, method: str, suffix: str
) -> None:
    minter = await make_key(admin_pool, (await make_team(admin_pool)).id)
    minted = await mint(http, minter)
    assert await works(http, minted["apiKey"])
    for _ in range(2):
        answer = await http.request(method, f"/v1/keys/{minted['id']}{suffix}", headers=minter.headers)
        assert (answer.status_code, answer.json()) == (200, {"id": minted["id"], "status": "revoked"})
        assert not await works(http, minted["apiKey"])
    rows = await audited(admin_pool, "api_key.revoke")
    assert [row["details"].get("outcome") for row in rows] == [None, "noop_already_revoked"]
    assert {(str(row["key_id"]), row["resource_id"]) for row in rows} == {(minter.id, minted["id"])}


async def test_a_key_may_revoke_itself(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    key = await make_key(admin_pool, (await make_team(admin_pool)).id)
    assert (await http.delete(f"/v1/keys/{key.id.upper()}", headers=key.headers)).json()["id"] == key.id
    assert not await works(http, key.token)


async def test_what_a_key_does_not_reach_it_neither_sees_nor_revokes(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    team, other = await make_team(admin_pool), await make_team(admin_pool)
    sibling = await make_project(admin_pool, team.id, "sibling")
    bound = await make_key(admin_pool, team.id, project_id=team.project_id)
    beyond = [
        await make_key(admin_pool, team.id),
        await make_key(admin_pool, team.id, project_id=sibling),
        await make_key(admin_pool, other.id),
    ]
    listed = (await http.get("/v1/keys", headers=bound.headers)).json()["keys"]
    assert [row["id"] for row in listed] == [bound.id]
    for key_id in [*(key.id for key in beyond), "nonsense", "no%00thing"]:
        answer = await http.delete(f"/v1/keys/{key_id}", headers=bound.headers)
        assert (answer.status_code, answer.json()) == (404, {"error": "NotFound", "message": "Key not found"})
    assert [await works(http, key.token) for key in beyond] == [True, True, True]


async def test_a_key_of_an_object_is_revoked_through_the_object(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team = await make_team(admin_pool)
    key, managed = await make_key(admin_pool, team.id), await make_key(admin_pool, team.id)
    await admin_pool.execute("INSERT INTO commonplace.installations (installation, term) VALUES ('i', 0)")
    await admin_pool.execute(
        "UPDATE commonplace.api_keys SET owner_uid = 'u', installation = 'i' WHERE id = $1", UUID(managed.id)
    )
    answer = await http.delete(f"/v1/keys/{managed.id}", headers=key.headers)
    assert (answer.status_code, answer.json()["error"]) == (409, "Conflict")
    assert "spec.revoked" in answer.json()["message"]
    assert await works(http, managed.token)
    assert {row["id"]: row["managed"] for row in (await http.get("/v1/keys", headers=key.headers)).json()["keys"]} == {
        key.id: False,
        managed.id: True,
    }


async def test_a_key_that_is_revoked_while_it_mints_mints_nothing(runtime_pool: Pool, admin_pool: Pool) -> None:
    """The function itself: authentication was earlier, and the row is gone bad since."""
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id, state="revoked")
    with pytest.raises(Exception, match="Invalid API key") as caught:
        await runtime_pool.fetchval(
            "SELECT commonplace.mint_key_v1($1, $2, NULL, 'a', 'r', $3)",
            team.id,
            key.id,
            {"id": key.id, "label": "x", "scopes": ["*"], "tokenHash": "0" * 64},
        )
    assert getattr(caught.value, "sqlstate", None) == "CM100"


@pytest.mark.parametrize(
    "host", ['evil.example"; rm -rf ~ #', "$(id)", "a b", "", "-x", "a@b", "host/path", "[::1", "a:123456", "x" * 300]
)
async def test_a_hostile_host_ends_in_no_command(http: httpx2.AsyncClient, admin_pool: Pool, host: str) -> None:
    key = await make_key(admin_pool, (await make_team(admin_pool)).id)
    headers = {**key.headers, "Host": host}
    address = f"http://127.0.0.1:{http.base_url.port}/v1/mcp"
    for answer in (
        await http.get("/v1/connect", headers=headers),
        await http.post("/v1/keys", json={}, headers=headers),
    ):
        assert answer.json()["mcpUrl"] == address
        assert f"commonplace {address} --header" in answer.json()["connectCommand"]


@pytest.mark.parametrize("host", ["memory.example", "memory.example:8080", "[::1]:9", "10.0.0.1", "my_host"])
async def test_a_host_that_is_one_is_what_clients_dial(http: httpx2.AsyncClient, admin_pool: Pool, host: str) -> None:
    key = await make_key(admin_pool, (await make_team(admin_pool)).id)
    answer = await http.get("/v1/connect", headers={**key.headers, "Host": host, "X-Forwarded-Host": "evil.example"})
    assert answer.json()["mcpUrl"] == f"http://{host}/v1/mcp"
    assert "POST /v1/keys" in answer.json()["hint"]


async def test_a_narrow_key_shuts_no_wider_one_out(http: httpx2.AsyncClient, admin_pool: Pool) -> None:
    team = await make_team(admin_pool)
    wide = await make_key(admin_pool, team.id, scopes=("*",))
    peer = await make_key(admin_pool, team.id, scopes=("memories:write",))
    narrow = await make_key(admin_pool, team.id, scopes=("memories:write",))
    refused = await http.delete(f"/v1/keys/{wide.id}", headers=narrow.headers)
    assert (refused.status_code, refused.json()["error"]) == (403, "Forbidden")
    assert (await http.get("/v1/keys", headers=wide.headers)).status_code == 200
    assert (await http.delete(f"/v1/keys/{peer.id}", headers=narrow.headers)).status_code == 200
    assert (await http.delete(f"/v1/keys/{narrow.id}", headers=wide.headers)).status_code == 200
    assert (await http.delete(f"/v1/keys/{wide.id}", headers=wide.headers)).status_code == 200


async def test_a_key_that_is_being_rotated_out_mints_none_that_outlives_it(
    http: httpx2.AsyncClient, admin_pool: Pool
) -> None:
    team = await make_team(admin_pool)
    ends = datetime.now(UTC) + timedelta(hours=1)
    old = await make_key(admin_pool, team.id, state="grace", grace_until=ends)
    for body in ({}, {"expiresInDays": 30}):
        assert datetime.fromisoformat((await mint(http, old, **body))["expiresAt"]) <= ends
