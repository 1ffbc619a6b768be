"""The SQL functions of the operator: what each promises about terms, generations, ownership and counts."""

import asyncio
import json
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from commonplace_runtime.store.pool import Pool
from tests.conftest import Database

INSTALLATION = "cluster-1/default"


async def put_team(pool: Pool, owner: str = "team-uid", **changes: Any) -> Any:
    given = {
        "installation": INSTALLATION,
        "term": 1,
        "generation": 1,
        "slug": "ns.shop",
        "policies": {},
        "projects": [{"id": str(uuid4()), "name": "default"}],
        "members": [],
        "adopt": False,
        "gone": None,
    } | changes
    return await pool.fetchval(
        "SELECT commonplace.put_team_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        given["installation"],
        given["term"],
        given["generation"],
        owner,
        uuid4(),
        given["slug"],
        "Shop",
        given["policies"],
        given["projects"],
        given["members"],
        given["adopt"],
        given["gone"],
    )


async def put_key(
    pool: Pool, team: str, revision: int, owner: str = "key-uid", installation: str = INSTALLATION, **changes: Any
) -> Any:
    key = {
        "id": str(uuid4()),
        "revision": revision,
        "tokenId": "x" * 16,
        "tokenHash": f"{revision:064x}",
        "name": "ns/agent",
        "project": "default",
        "actor": "agent:a",
        "scopes": ["memories:read"],
    } | changes
    return await pool.fetchval(
        "SELECT commonplace.put_key_v1($1, 1, 1, $2, $3, $4)", installation, owner, UUID(team), key
    )


async def publish(pool: Pool, revision: int, owner: str = "key-uid", grace: int = 3600) -> Any:
    return await pool.fetchval(
        "SELECT commonplace.publish_key_v1($1, 1, 1, $2, $3, $4)", INSTALLATION, owner, revision, grace
    )


async def states(pool: Pool, owner: str = "key-uid") -> dict[int, str]:
    rows = await pool.fetch("SELECT revision, state FROM commonplace.api_keys WHERE owner_uid = $1", owner)
    return {row["revision"]: row["state"] for row in rows}


async def test_putting_a_team_twice_writes_once(operator_pool: Pool, admin_pool: Pool) -> None:
    first = await put_team(operator_pool)
    assert first["outcome"] == "created"
    before = await admin_pool.fetchval("SELECT xmin FROM commonplace.teams")
    second = await put_team(operator_pool)
    assert (second["outcome"], second["teamId"]) == ("unchanged", first["teamId"])
    assert await admin_pool.fetchval("SELECT xmin FROM commonplace.teams") == before


async def test_an_older_term_is_refused_and_a_newer_one_is_remembered(operator_pool: Pool) -> None:
    await put_team(operator_pool, term=7)
    with pytest.raises(asyncpg.PostgresError, match="term 7 leads") as caught:
        await put_team(operator_pool, term=6)
    assert caught.value.sqlstate == "CM001"
    assert (await put_team(operator_pool, installation="cluster-2/default", owner="b", slug="other", term=1))["outcome"]


async def test_an_older_generation_is_refused(operator_pool: Pool) -> None:
    await put_team(operator_pool, generation=3)
    with pytest.raises(asyncpg.PostgresError) as caught:
        await put_team(operator_pool, generation=2)
    assert caught.value.sqlstate == "CM002"


async def test_a_slug_is_taken_over_only_when_detached_or_told(operator_pool: Pool, admin_pool: Pool) -> None:
    first = await put_team(operator_pool)
    with pytest.raises(asyncpg.PostgresError) as caught:
        await put_team(operator_pool, owner="rival")
    assert caught.value.sqlstate == "CM003"
    released = await operator_pool.fetchval("SELECT commonplace.release_team_v1($1, 1, 1, 'rival', true)", INSTALLATION)
    assert released["outcome"] == "absent", "an object that never owned the row deletes nothing"
    await operator_pool.fetchval("SELECT commonplace.release_team_v1($1, 1, 1, 'team-uid', false)", INSTALLATION)
    with pytest.raises(asyncpg.PostgresError):
        await put_team(operator_pool, owner="stranger", installation="cluster-2/default")
    again = await put_team(operator_pool, owner="rebuilt")
    assert (again["outcome"], again["teamId"]) == ("adopted", first["teamId"])
    assert await admin_pool.fetchval("SELECT detached_at FROM commonplace.teams") is None
    moved = await put_team(operator_pool, owner="stranger", installation="cluster-2/default", adopt=True)
    assert moved["teamId"] == first["teamId"]


async def test_two_published_keys_and_one_unpublished_at_most(operator_pool: Pool, admin_pool: Pool) -> None:
    team = (await put_team(operator_pool))["teamId"]
    assert (await put_key(operator_pool, team, 1))["outcome"] == "created"
    assert (await put_key(operator_pool, team, 1, tokenHash="a" * 64))["outcome"] == "overwritten"
    assert await states(admin_pool) == {1: "unpublished"}
    await publish(operator_pool, 1)
    await put_key(operator_pool, team, 2)
    assert await states(admin_pool) == {1: "published", 2: "unpublished"}
    assert (await publish(operator_pool, 2))["inGrace"] == 1
    await put_key(operator_pool, team, 3)
    assert await states(admin_pool) == {1: "grace", 2: "published", 3: "unpublished"}
    published = await publish(operator_pool, 3)
    assert (published["inGrace"], published["revokedEarly"]) == (2, [1])
    assert await states(admin_pool) == {1: "revoked", 2: "grace", 3: "published"}
    assert (await publish(operator_pool, 3))["outcome"] == "unchanged"


async def test_a_published_hash_is_never_overwritten(operator_pool: Pool) -> None:
    team = (await put_team(operator_pool))["teamId"]
    await put_key(operator_pool, team, 1)
    await publish(operator_pool, 1)
    with pytest.raises(asyncpg.PostgresError) as caught:
        await put_key(operator_pool, team, 1, tokenHash="b" * 64)
    assert caught.value.sqlstate == "CM002"


async def test_releasing_a_team_revokes_every_key_and_keeps_the_data(operator_pool: Pool, admin_pool: Pool) -> None:
    team = (await put_team(operator_pool))["teamId"]
    await put_key(operator_pool, team, 1)
    await publish(operator_pool, 1)
    done = await operator_pool.fetchval("SELECT commonplace.release_team_v1($1, 1, 1, 'team-uid', false)", INSTALLATION)
    assert done == {"outcome": "detached", "revokedKeys": 1}
    assert await states(admin_pool) == {1: "revoked"}
    assert await admin_pool.fetchval("SELECT count(*) FROM commonplace.projects") == 1
    with pytest.raises(asyncpg.PostgresError) as caught:
        await put_key(operator_pool, team, 2)
    assert caught.value.sqlstate == "CM004", "a detached team gets no keys"
    await put_team(operator_pool, owner="again")
    gone = await operator_pool.fetchval("SELECT commonplace.release_team_v1($1, 1, 1, 'again', true)", INSTALLATION)
    assert gone["outcome"] == "deleted"
    assert await admin_pool.fetchval("SELECT count(*) FROM commonplace.teams") == 0


async def test_the_limit_of_keys_holds_among_concurrent_issues(operator_pool: Pool) -> None:
    team = (await put_team(operator_pool))["teamId"]
    await operator_pool.fetchval(
        "SELECT commonplace.put_quota_v1($1, 1, 1, 'quota-uid', $2, $3, 'q', $4, 'Enforce')",
        INSTALLATION,
        uuid4(),
        UUID(team),
        {"apiKeys": 3},
    )
    outcomes = await asyncio.gather(
        *(put_key(operator_pool, team, 1, owner=f"k{n}", tokenHash=f"{n:064x}") for n in range(8)),
        return_exceptions=True,
    )
    refused = [error for error in outcomes if isinstance(error, asyncpg.PostgresError)]
    assert len(refused) == 5
    assert {error.sqlstate for error in refused} == {"CM005"}


async def test_the_strictest_enforced_quota_wins_and_leaves_with_its_object(operator_pool: Pool) -> None:
    team = (await put_team(operator_pool))["teamId"]

    async def put_quota(owner: str, limits: dict[str, Any], enforcement: str = "Enforce") -> Any:
        return await operator_pool.fetchval(
            "SELECT commonplace.put_quota_v1($1, 1, 1, $2, $3, $4, $2, $5, $6)",
            INSTALLATION,
            owner,
            uuid4(),
            UUID(team),
            limits,
            enforcement,
        )

    await put_quota("a", {"requestsPerMinute": 100, "memories": 10})
    await put_quota("warn", {"memories": 1}, "Warn")
    assert (await put_quota("b", {"requestsPerMinute": 60}))["effective"] == {"memories": 10, "requests_per_minute": 60}
    assert (await put_quota("b", {"requestsPerMinute": 60}))["outcome"] == "unchanged"
    assert await operator_pool.fetchval("SELECT commonplace.release_quota_v1($1, 1, 1, 'b')", INSTALLATION)
    assert (await put_quota("a", {"requestsPerMinute": 100, "memories": 10}))["effective"]["requests_per_minute"] == 100


async def test_the_operator_reads_no_table_and_runs_no_function_but_its_own(operator_pool: Pool) -> None:
    for statement in (
        "SELECT * FROM commonplace.memories",
        "SELECT * FROM commonplace.api_keys",
        "SELECT commonplace.refresh_team_limits(gen_random_uuid())",
        "SELECT commonplace.fence('x', 1)",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await operator_pool.execute(statement)


async def test_amending_follows_the_object_without_a_new_token(operator_pool: Pool, admin_pool: Pool) -> None:
    team = (await put_team(operator_pool))["teamId"]
    await put_key(operator_pool, team, 1)
    await publish(operator_pool, 1)
    wanted = {"project": "default", "actor": "agent:a", "scopes": ["memories:read", "memories:write"]}
    call = "SELECT commonplace.amend_key_v1($1, 1, 2, 'key-uid', $2)"
    assert await operator_pool.fetchval(call, INSTALLATION, wanted) == 1
    assert await operator_pool.fetchval(call, INSTALLATION, wanted) == 0
    assert await admin_pool.fetchval("SELECT scopes FROM commonplace.api_keys") == ["memories:read", "memories:write"]
    assert await operator_pool.fetchval("SELECT commonplace.revoke_keys_v1($1, 1, 2, 'key-uid')", INSTALLATION) == 1
    seen = await operator_pool.fetchval("SELECT commonplace.observe_key_v1($1, 1, 2, 'key-uid')", INSTALLATION)
    assert (seen["newestRevision"], seen["keys"]) == (1, [])


async def test_a_new_term_never_deadlocks_and_never_lets_an_older_one_follow(database: Database) -> None:
    connections = [await asyncpg.connect(database.operator_url) for _ in range(16)]
    answers: list[tuple[int, str | None]] = []

    async def call(connection: Any, term: int) -> None:
        try:
            await connection.fetchval("SELECT commonplace.observe_key_v1('racing', $1, 1, 'uid')", term)
        except asyncpg.PostgresError as error:
            answers.append((term, error.sqlstate))
        else:
            answers.append((term, None))

    try:
        for term in range(0, 60, 2):
            # Half of them still believe in the term before.
            await asyncio.gather(*(call(c, term + (number % 2)) for number, c in enumerate(connections)))
            await call(connections[0], term)
            assert answers[-1] == (term, "CM001"), "an older term succeeded after a newer one had committed"
    finally:
        for connection in connections:
            await connection.close()
    assert {state for _, state in answers} <= {None, "CM001"}
    assert all(state is None for term, state in answers if term % 2)


async def put_quota(pool: Pool, team: str, limits: dict[str, Any], owner: str = "quota-uid", **changes: Any) -> Any:
    given = {"installation": INSTALLATION, "enforcement": "Enforce"} | changes
    return await pool.fetchval(
        "SELECT commonplace.put_quota_v1($1, 1, 1, $2, $3, $4, $2, $5, $6)",
        given["installation"],
        owner,
        uuid4(),
        UUID(team),
        limits,
        given["enforcement"],
    )


async def test_limits_do_not_outlive_the_team_that_they_were_of(operator_pool: Pool, admin_pool: Pool) -> None:
    team = (await put_team(operator_pool))["teamId"]
    await put_quota(operator_pool, team, {"requestsPerMinute": 1})
    await operator_pool.fetchval("SELECT commonplace.release_team_v1($1, 1, 1, 'team-uid', false)", INSTALLATION)
    assert await admin_pool.fetchval("SELECT count(*) FROM commonplace.quotas") == 0
    assert await admin_pool.fetchval("SELECT requests_per_minute FROM commonplace.team_limits") is None
    await put_team(operator_pool, owner="again")
    assert (await put_quota(operator_pool, team, {"requestsPerMinute": 2}))["outcome"] == "created"


async def test_whoever_takes_a_team_over_starts_without_the_former_owners_keys_and_limits(
    operator_pool: Pool, admin_pool: Pool
) -> None:
    team = (await put_team(operator_pool))["teamId"]
    await put_key(operator_pool, team, 1)
    await publish(operator_pool, 1)
    await put_quota(operator_pool, team, {"requestsPerMinute": 1})
    await admin_pool.execute(
        """INSERT INTO commonplace.api_keys (id, team_id, name, actor, scopes, token_hash, state, revision)
           VALUES ($1, $2, 'by-people', 'human:a', '{}', $3, 'published', 1)""",
        uuid4(),
        UUID(team),
        "b" * 64,
    )
    taken = await put_team(operator_pool, owner="rebuilt", adopt=True, gone="team-uid")
    assert taken["outcome"] == "adopted"
    assert await states(admin_pool) == {1: "revoked"}
    assert await admin_pool.fetchval("SELECT state FROM commonplace.api_keys WHERE name = 'by-people'") == "published"
    assert await admin_pool.fetchval("SELECT requests_per_minute FROM commonplace.team_limits") is None


async def test_a_team_of_a_living_owner_is_not_taken_over_on_request(operator_pool: Pool, admin_pool: Pool) -> None:
    await put_team(operator_pool, policies={"namespace": "ns"})
    for changes in ({}, {"gone": "somebody-else"}, {"installation": "cluster-1/blue"}):
        with pytest.raises(asyncpg.PostgresError) as caught:
            await put_team(operator_pool, owner="rival", adopt=True, policies={"namespace": "ns"}, **changes)
        assert caught.value.sqlstate == "CM003"
        assert json.loads(caught.value.detail or "") == {"ownerUid": "team-uid", "namespace": "ns"}
    assert await admin_pool.fetchval("SELECT owner_uid FROM commonplace.teams") == "team-uid"


async def test_another_installation_takes_nothing_without_being_told(operator_pool: Pool, admin_pool: Pool) -> None:
    other = "cluster-1/blue"
    team = (await put_team(operator_pool))["teamId"]
    await put_key(operator_pool, team, 1)
    await publish(operator_pool, 1)
    await put_quota(operator_pool, team, {"apiKeys": 9})
    with pytest.raises(asyncpg.PostgresError, match="belongs to installation cluster-1/default") as caught:
        await put_team(operator_pool, installation=other)
    assert caught.value.sqlstate == "CM003"
    with pytest.raises(asyncpg.PostgresError, match="belongs to installation") as caught:
        await put_key(operator_pool, team, 2, installation=other)
    assert caught.value.sqlstate == "CM004"
    with pytest.raises(asyncpg.PostgresError, match="belongs to installation") as caught:
        await put_quota(operator_pool, team, {"apiKeys": 1}, installation=other)
    assert caught.value.sqlstate == "CM004"

    moved = await put_team(operator_pool, installation=other, adopt=True)

    assert (moved["outcome"], moved["teamId"]) == ("adopted", team)
    assert await states(admin_pool) == {1: "revoked"}
    seen = await operator_pool.fetchval("SELECT commonplace.observe_key_v1($1, 1, 1, 'key-uid')", other)
    assert (seen["newestRevision"], seen["keys"]) == (1, []), "a revision is given out once"
    assert (await put_key(operator_pool, team, 2, installation=other))["outcome"] == "created"
    assert (await put_quota(operator_pool, team, {"apiKeys": 1}, installation=other))["outcome"] == "created"
