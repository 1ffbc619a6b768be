"""From objects to a Secret with a token that works, and what keeps it working."""

import asyncio
import base64
import json

from commonplace_runtime import contract
from tests.integration.operator.harness import OperatorProcess, World, until


async def provisioned(world: World) -> None:
    """A runtime, a team and a key, all ready."""
    world.runtime()
    world.team()
    world.key()
    await world.ready("ApiKey", "key")


async def test_a_team_and_a_key_end_in_a_secret_whose_token_works(operator: OperatorProcess, world: World) -> None:
    world.runtime()
    world.team()
    world.key(secret={"formats": ["Env", "McpJson"], "template": {"labels": {"app": "ci"}, "annotations": {"a": "b"}}})

    key = await world.ready("ApiKey", "key")

    secret = world.secret("key") or {}
    token = secret["token"]
    assert await world.works(token)
    assert contract.token_id(token) is not None
    assert secret == {
        "token": token,
        "url": "https://memory.example.com",
        "mcp-url": "https://memory.example.com/v1/mcp",
        "connect-command": contract.connect_command("https://memory.example.com/v1/mcp", token),
        "MEMORY_API_URL": "https://memory.example.com",
        "MEMORY_API_KEY": token,
        "mcp.json": secret["mcp.json"],
    }
    server = json.loads(secret["mcp.json"])["mcpServers"]["commonplace"]
    assert server["headers"] == {"Authorization": f"Bearer {token}"}
    metadata = (world.get("Secret", "key") or {})["metadata"]
    assert metadata["labels"]["app"] == "ci"
    assert metadata["labels"]["commonplace.dev/owner-uid"] == key["metadata"]["uid"]
    assert metadata["annotations"]["commonplace.dev/revision"] == "1"
    assert [(o["uid"], o["controller"]) for o in metadata["ownerReferences"]] == [(key["metadata"]["uid"], True)]
    [row] = await world.rows()
    assert (row["state"], row["actor"]) == ("published", f"key:{world.namespace}/key")
    status = key["status"]
    assert status["conditions"][0]["type"] == "Ready"
    assert (status["keyId"], status["revision"], status["secretName"]) == (str(row["id"]), 1, "key")
    assert [entry["state"] for entry in status["keys"]] == ["Active"]


async def test_a_new_key_costs_three_writes(operator: OperatorProcess, world: World) -> None:
    await provisioned(world)

    managers = (world.get("ApiKey", "key") or {})["metadata"]["managedFields"]
    secret = world.get("Secret", "key") or {}

    ours = [m for m in managers if m["manager"] == "commonplace-operator"]
    assert sorted((m.get("subresource", ""), m["operation"]) for m in ours) == [("", "Apply"), ("status", "Apply")]
    assert [m["operation"] for m in secret["metadata"]["managedFields"]] == ["Update"]


async def test_a_key_whose_team_is_missing_says_so_and_heals(operator: OperatorProcess, world: World) -> None:
    world.runtime()
    world.team("search")
    world.key(teamRef={"name": "searhc"})

    condition = await world.reason("ApiKey", "key", "TeamNotFound")
    assert condition["message"].endswith("/searhc does not exist; did you mean search?")

    world.team("searhc")
    await world.ready("ApiKey", "key")


async def test_a_key_of_an_unknown_project_says_so_and_heals(operator: OperatorProcess, world: World) -> None:
    world.runtime()
    world.team()
    world.key(project="wbe")

    condition = await world.reason("ApiKey", "key", "ProjectNotFound")
    assert "did you mean web?" in condition["message"]

    world.patch("MemoryTeam", "team", {"spec": {"projects": [{"name": "web"}, {"name": "wbe"}]}})
    await world.ready("ApiKey", "key")


async def test_somebody_elses_secret_is_never_touched(operator: OperatorProcess, world: World) -> None:
    world.runtime()
    world.team()
    body = {"metadata": {"name": "key"}, "data": {"token": base64.b64encode(b"theirs").decode()}}
    status, theirs = world.api.request("POST", world.path("Secret"), body)
    assert status == 201

    world.key()
    await world.reason("ApiKey", "key", "SecretConflict")

    assert (world.get("Secret", "key") or {})["metadata"]["resourceVersion"] == theirs["metadata"]["resourceVersion"]
    assert await world.rows() == []
    world.delete("Secret", "key")
    await world.ready("ApiKey", "key")


async def test_rotation_by_annotation_keeps_the_old_token_in_grace(operator: OperatorProcess, world: World) -> None:
    await provisioned(world)
    old = (world.secret("key") or {})["token"]

    world.annotate("ApiKey", "key", rotate="1")
    await world.revision(2)

    new = (world.secret("key") or {})["token"]
    assert new != old
    assert await world.works(old)
    assert await world.works(new)
    assert [row["state"] for row in await world.rows()] == ["grace", "published"]
    entries = (world.get("ApiKey", "key") or {})["status"]["keys"]
    assert [entry["state"] for entry in entries] == ["Active", "Grace"]
    assert "expiresAt" in entries[1]


async def test_a_second_rotation_in_grace_revokes_the_oldest_and_says_so(
    operator: OperatorProcess, world: World
) -> None:
    await provisioned(world)
    first = (world.secret("key") or {})["token"]

    for number in (2, 3):
        world.annotate("ApiKey", "key", rotate=str(number))
        await world.revision(number)

    assert not await world.works(first)
    assert [row["state"] for row in await world.rows()] == ["revoked", "grace", "published"]
    await until(lambda: "GraceCutShort" in world.event_reasons("key"), "an Event")


async def test_rotation_by_interval_happens_when_it_is_due(operator: OperatorProcess, world: World) -> None:
    world.runtime()
    world.team()
    world.key(rotation={"interval": "2h", "gracePeriod": "1h"})
    key = await world.ready("ApiKey", "key")
    assert key["status"]["nextRotationTime"]

    # The interval is an hour at least, so time passes by decree.
    await world.sql.execute(
        "UPDATE commonplace.api_keys SET published_at = now() - interval '3 hours' WHERE owner_uid = $1",
        key["metadata"]["uid"],
    )
    world.annotate("ApiKey", "key", look="now")

    await world.revision(2)
    grace = await world.sql.fetchval(
        "SELECT grace_until - now() FROM commonplace.api_keys WHERE owner_uid = $1 AND state = 'grace'",
        key["metadata"]["uid"],
    )
    assert 3500 < grace.total_seconds() <= 3600


async def test_a_lost_secret_comes_back_with_a_new_token(operator: OperatorProcess, world: World) -> None:
    await provisioned(world)
    old = (world.secret("key") or {})["token"]

    world.delete("Secret", "key")
    secret = await until(lambda: world.secret("key"), "the Secret")

    assert secret["token"] != old
    assert await world.works(secret["token"])
    assert await world.works(old)


async def test_an_edited_token_is_replaced_by_a_new_one(operator: OperatorProcess, world: World) -> None:
    await provisioned(world)
    old = (world.secret("key") or {})["token"]

    world.patch("Secret", "key", {"data": {"token": base64.b64encode(b"cm_mine").decode()}})
    await world.revision(2)

    new = (world.secret("key") or {})["token"]
    assert new not in {"cm_mine", old}
    assert await world.works(new)


async def test_an_edited_url_is_repaired_with_the_same_token(operator: OperatorProcess, world: World) -> None:
    await provisioned(world)
    before = world.secret("key")

    world.patch("Secret", "key", {"data": {"mcp-url": base64.b64encode(b"https://evil").decode()}})

    await until(lambda: world.secret("key") == before, "the Secret as before")
    assert len(await world.rows()) == 1


async def test_a_format_taken_away_takes_its_keys_away(operator: OperatorProcess, world: World) -> None:
    world.runtime()
    world.team()
    world.key(secret={"formats": ["Env"]})
    await world.ready("ApiKey", "key")
    world.patch("Secret", "key", {"data": {"theirs": base64.b64encode(b"x").decode()}})

    world.patch("ApiKey", "key", {"spec": {"secret": {"formats": ["McpJson"]}}})

    await until(lambda: "MEMORY_API_KEY" not in (world.secret("key") or {}), "no env keys")
    assert {"mcp.json", "token", "theirs"} <= set(world.secret("key") or {})


async def test_a_changed_public_url_reaches_every_secret(operator: OperatorProcess, world: World) -> None:
    await provisioned(world)
    before = (world.secret("key") or {})["token"]

    world.patch("MemoryRuntime", "rt", {"spec": {"publicUrl": "http://other.example.com:8787"}})

    await until(lambda: (world.secret("key") or {}).get("url") == "http://other.example.com:8787", "the new address")
    assert (world.secret("key") or {})["token"] == before


async def test_changed_scopes_need_no_new_token(operator: OperatorProcess, world: World) -> None:
    await provisioned(world)
    before = world.secret("key")

    world.patch("ApiKey", "key", {"spec": {"scopes": ["memories:read"], "project": "web", "actor": "agent:ci"}})
    await world.ready("ApiKey", "key")

    [row] = await world.rows()
    assert (row["scopes"], row["actor"]) == (["memories:read"], "agent:ci")
    assert row["project_id"] is not None
    assert world.secret("key") == before


async def test_a_renamed_secret_leaves_no_old_one(operator: OperatorProcess, world: World) -> None:
    await provisioned(world)

    world.patch("ApiKey", "key", {"spec": {"secret": {"name": "other"}}})

    await until(lambda: world.secret("other"), "the new Secret")
    await world.gone("Secret", "key")
    assert await world.works((world.secret("other") or {})["token"])


async def test_a_revoked_key_is_refused_and_its_secret_goes(operator: OperatorProcess, world: World) -> None:
    await provisioned(world)
    token = (world.secret("key") or {})["token"]

    world.patch("ApiKey", "key", {"spec": {"revoked": True}})

    await world.reason("ApiKey", "key", "Revoked")
    assert not await world.works(token)
    await world.gone("Secret", "key")
    assert world.condition("ApiKey", "key", "Revoked")["status"] == "True"


async def test_an_expired_key_is_refused_at_that_moment(operator: OperatorProcess, world: World) -> None:
    world.runtime()
    world.team()
    soon = await world.sql.fetchval(
        """SELECT to_char(now() AT TIME ZONE 'UTC' + interval '4 s', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')"""
    )
    world.key(expiresAt=soon)
    await world.ready("ApiKey", "key")

    await world.reason("ApiKey", "key", "Expired")
    assert [row["state"] for row in await world.rows()] == ["revoked"]

    world.patch("ApiKey", "key", {"spec": {"expiresAt": "2100-01-01T00:00:00Z"}})
    await world.ready("ApiKey", "key")
    assert await world.works((world.secret("key") or {})["token"])


async def test_a_key_that_expired_before_it_was_made_gets_no_secret(operator: OperatorProcess, world: World) -> None:
    world.runtime()
    world.team()
    world.key(expiresAt="2001-01-01T00:00:00Z")

    await world.reason("ApiKey", "key", "Expired")
    assert world.secret("key") is None


async def test_a_row_lost_by_a_restore_is_readopted_by_its_mac(operator: OperatorProcess, world: World) -> None:
    await provisioned(world)
    token = (world.secret("key") or {})["token"]

    await world.sql.execute("DELETE FROM commonplace.api_keys")
    world.annotate("ApiKey", "key", look="now")
    await until(lambda: world.works(token), "the same token working")

    assert (world.secret("key") or {})["token"] == token
    await until(lambda: "Readopted" in world.event_reasons("key"), "an Event")


async def quiet(operator: OperatorProcess, about: str) -> bool:
    before = operator.log.count(about)
    await asyncio.sleep(1)
    return operator.log.count(about) == before


async def test_a_token_without_a_valid_mac_is_not_readopted(operator: OperatorProcess, world: World) -> None:
    await provisioned(world)
    token = (world.secret("key") or {})["token"]

    # A pass that is still under way may read the Secret before its MAC is broken, and then rightly readopts.
    await until(lambda: quiet(operator, f"ApiKey {world.namespace}/key"), "the key left alone for a second")
    await world.sql.execute("DELETE FROM commonplace.api_keys")
    world.patch("Secret", "key", {"metadata": {"annotations": {"commonplace.dev/mac": "0" * 64}}})

    secret = await until(lambda: s if (s := world.secret("key")) and s["token"] != token else None, "another token")
    assert await world.works(secret["token"])
    assert not await world.works(token)


async def test_a_deleted_key_is_revoked_and_its_secret_has_an_owner(operator: OperatorProcess, world: World) -> None:
    await provisioned(world)
    token = (world.secret("key") or {})["token"]

    world.delete("ApiKey", "key")

    await world.gone("ApiKey", "key")
    assert not await world.works(token)
    await world.gone("Secret", "key")


async def test_an_orphaned_secret_outlives_its_key(operator: OperatorProcess, world: World) -> None:
    world.runtime()
    world.team()
    world.key(secret={"deletionPolicy": "Orphan"})
    await world.ready("ApiKey", "key")

    world.delete("ApiKey", "key")
    await world.gone("ApiKey", "key")

    assert "ownerReferences" not in (world.get("Secret", "key") or {})["metadata"]


async def test_no_token_is_seen_outside_its_secret(operator: OperatorProcess, world: World) -> None:
    await provisioned(world)
    world.secret("key")
    world.annotate("ApiKey", "key", rotate="hygiene")
    await world.revision(2)
    world.secret("key")
    assert len(world.seen_tokens) == 2

    _, events = world.api.request("GET", f"/apis/events.k8s.io/v1/namespaces/{world.namespace}/events")
    managed = (world.get("Secret", "key") or {})["metadata"]
    rows = json.dumps([dict(row) for row in await world.rows()], default=str)
    elsewhere = [operator.log, json.dumps(events), json.dumps(world.get("ApiKey", "key")), json.dumps(managed), rows]

    for token in world.seen_tokens:
        assert not [text for text in elsewhere if token in text or base64.b64encode(token.encode()).decode() in text]
    assert world.database.operator_url not in operator.log
