"""The closed list of what crosses teams, and that nothing else does."""

from uuid import UUID

import asyncpg
import pytest

from commonplace_runtime import contract
from commonplace_runtime.store.pool import Pool
from tests.conftest import Database
from tests.factories import Team, make_event, make_key, make_memory, make_session, make_team, set_limits
from tests.integration.runtime.indexes import merge_all

RUNTIME_DEFINERS = {
    "authenticate_v1",
    "authenticate_v2",
    "claim_v1",
    "next_team_v1",
    "queue_stats_v1",
    "queue_lanes_v1",
    "housekeeping_v1",
    "schema_version_v1",
    "blank_audit_v1",
    "sweep_audit_v1",
    "resume_erasure_v1",
    "search_work_v1",
}
OPERATOR_DEFINERS = {
    "put_team_v1",
    "release_team_v1",
    "observe_key_v1",
    "put_key_v1",
    "publish_key_v1",
    "amend_key_v1",
    "revoke_keys_v1",
    "put_quota_v1",
    "release_quota_v1",
    "queue_by_team_v1",
}
SHARED = {"schema_version_v1"}
TENANT_TABLES = """
    SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'commonplace' AND c.relkind = 'r' AND (c.relname = 'teams' OR EXISTS (
        SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'team_id' AND NOT a.attisdropped))
    ORDER BY 1
"""
FUNCTIONS = """
    SELECT p.proname, p.prosecdef, pg_get_userbyid(p.proowner) AS owner, p.proconfig,
        has_function_privilege('commonplace_runtime', p.oid, 'EXECUTE') AS for_runtime,
        has_function_privilege('commonplace_operator', p.oid, 'EXECUTE') AS for_operator,
        EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a WHERE a.grantee = 0)
            AS for_public
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'commonplace'
"""


async def may_read(admin_pool: Pool, table: str) -> bool:
    question = "SELECT has_table_privilege('test_runtime', 'commonplace.' || $1::text, 'SELECT')"
    return bool(await admin_pool.fetchval(question, table))


async def fill_every_table(admin_pool: Pool) -> str:
    """One row at least in each tenant table; returns the team's id."""
    team = await make_team(admin_pool)
    key = await make_key(admin_pool, team.id)
    await set_limits(admin_pool, team.id, requests_per_minute=1000, requests_per_month=1000)
    await admin_pool.fetchval("SELECT commonplace.authenticate_v1($1)", contract.hash_token(key.token))
    await make_session(admin_pool, team, content_session_id="c")
    await admin_pool.execute(
        "INSERT INTO commonplace.team_members (team_id, actor, role) VALUES ($1::text::uuid, 'human:a', 'owner')",
        team.id,
    )
    await admin_pool.execute("INSERT INTO commonplace.installations (installation, term) VALUES ('i', 0)")
    await admin_pool.execute(
        "INSERT INTO commonplace.quotas (id, team_id, name, enforcement, installation, owner_uid)"
        " VALUES (gen_random_uuid(), $1::text::uuid, 'q', 'Enforce', 'i', 'u')",
        team.id,
    )
    event = {
        **make_event(),
        "id": "01890000-0000-7000-8000-000000000001",
        "jobId": "01890000-0000-7000-8000-000000000002",
        "sourceAdapter": "hook",
        "platformGiven": True,
        "metadata": {},
        "occurredAt": 1,
        "digest": "d",
        "privateParts": 0,
        "redactedSecrets": 0,
    }
    await admin_pool.fetchval(
        "SELECT commonplace.ingest_v1($1::text::uuid, $2::text::uuid, NULL, 'a', 'r', true, false, $3)",
        team.id,
        key.id,
        [event],
    )
    memory = await make_memory(admin_pool, team, "fact", event_id=event["id"], metadata={"files_read": ["a.py"]})
    await admin_pool.execute(
        "INSERT INTO commonplace.awaited_links (team_id, memory_id, wanted)"
        " VALUES ($1::text::uuid, $2::text::uuid, 'a later one')",
        team.id,
        memory,
    )
    await admin_pool.execute(
        "INSERT INTO commonplace.team_holds (team_id, held_until, reason) VALUES ($1::text::uuid, now(), 'tokens')",
        team.id,
    )
    await admin_pool.execute(
        "INSERT INTO commonplace.reservations (team_id, project_id, session_key, provider, model, input_tokens,"
        " output_tokens, cost_microusd) SELECT team_id, project_id, session_key, 'p', 'm', 1, 1, 1"
        " FROM commonplace.job_groups WHERE team_id = $1::text::uuid",
        team.id,
    )
    await admin_pool.execute(
        "WITH begun AS (INSERT INTO commonplace.erasures (id, team_id, project_id, actor, via, action, what,"
        " last_event, last_memory, lease_until) VALUES (gen_random_uuid(), $1::text::uuid,"
        " $2::text::uuid, 'a', 'api', 'memory.forgotten', 'query', 0, 0, now()) RETURNING team_id, id)"
        " INSERT INTO commonplace.erasure_items SELECT team_id, id, 'memory', gen_random_uuid() FROM begun",
        team.id,
        team.project_id,
    )
    # What waits of the memory is there already; the keeper and a later change would have left the rest.
    await admin_pool.execute(
        "WITH index AS (INSERT INTO commonplace.search_indexes (team_id, project_id, owner_actor)"
        " VALUES ($1::text::uuid, $2::text::uuid, '') RETURNING team_id, number),"
        " document AS (INSERT INTO commonplace.search_documents SELECT number, 0, 1, team_id, gen_random_uuid()"
        " FROM index),"
        " session AS (INSERT INTO commonplace.search_sessions SELECT s.id, i.number, i.team_id, 0, 1 FROM index i"
        " JOIN commonplace.sessions s ON s.team_id = i.team_id LIMIT 1),"
        " segment AS (INSERT INTO commonplace.search_segments SELECT number, 1, team_id, 0, 1 FROM index),"
        " posting AS (INSERT INTO commonplace.search_postings SELECT number, 1, 1, team_id, int4send(1) FROM index),"
        " work AS (INSERT INTO commonplace.search_work (team_id, project_id) VALUES ($1::text::uuid, $2::text::uuid))"
        " INSERT INTO commonplace.search_purges SELECT number, 1, 1, team_id, '{1}' FROM index",
        team.id,
        team.project_id,
    )
    return team.id


async def test_the_list_of_definer_functions_is_closed(admin_pool: Pool) -> None:
    found = {row["proname"]: row for row in await admin_pool.fetch(FUNCTIONS)}
    definers = {name for name, row in found.items() if row["prosecdef"]}
    assert definers <= RUNTIME_DEFINERS | OPERATOR_DEFINERS
    assert {"authenticate_v1", "schema_version_v1"} | OPERATOR_DEFINERS <= definers
    for name in definers:
        assert found[name]["owner"] == contract.ROLE_OWNER, name
        assert found[name]["proconfig"] == ["search_path=pg_catalog, pg_temp"], name
        assert found[name]["for_runtime"] == (name in RUNTIME_DEFINERS), name
        assert found[name]["for_operator"] == (name in OPERATOR_DEFINERS | SHARED), name
    assert [name for name, row in found.items() if row["for_public"]] == []


async def test_no_login_role_escapes_row_level_security(admin_pool: Pool) -> None:
    roles = await admin_pool.fetch(
        "SELECT rolname FROM pg_roles WHERE rolname LIKE 'commonplace%' AND (rolbypassrls OR rolsuper OR rolcanlogin)"
    )
    assert [row["rolname"] for row in roles] == []


async def test_without_a_team_the_runtime_reads_nothing_of_any_tenant_table(
    admin_pool: Pool, runtime_pool: Pool
) -> None:
    team_id = await fill_every_table(admin_pool)
    tables = [row["relname"] for row in await admin_pool.fetch(TENANT_TABLES)]
    assert {"teams", "events", "jobs", "job_groups", "memories", "audit_log", "sessions"} <= set(tables)
    for table in tables:
        assert await admin_pool.fetchval(f"SELECT count(*) FROM commonplace.{table}") > 0, f"{table} was not filled"
        readable = await admin_pool.fetchval(
            f"SELECT has_table_privilege('test_runtime', 'commonplace.{table}', 'SELECT')"
        )
        async with runtime_pool.acquire() as connection:
            if not readable:
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.fetchval(f"SELECT count(*) FROM commonplace.{table}")
                continue
            assert await connection.fetchval(f"SELECT count(*) FROM commonplace.{table}") == 0, table
            async with connection.transaction():
                await connection.execute("SELECT set_config('app.team_id', $1, true)", team_id)
                assert await connection.fetchval(f"SELECT count(*) FROM commonplace.{table}") > 0, table
            assert await connection.fetchval(f"SELECT count(*) FROM commonplace.{table}") == 0, f"{table}, afterwards"


async def test_every_tenant_table_forces_row_level_security(admin_pool: Pool) -> None:
    rows = await admin_pool.fetch(
        "SELECT c.relname, c.relrowsecurity, c.relforcerowsecurity FROM pg_class c"
        " WHERE c.relnamespace = 'commonplace'::regnamespace AND c.relkind = 'r'"
    )
    forced = {row["relname"] for row in rows if row["relrowsecurity"] and row["relforcerowsecurity"]}
    assert {row["relname"] for row in await admin_pool.fetch(TENANT_TABLES)} <= forced
    assert {row["relname"] for row in rows} - forced == {"installations", "schema_migrations", "provider_pauses"}


async def test_a_definer_function_of_somebody_else_reads_nothing(
    admin_pool: Pool, runtime_pool: Pool, database: Database
) -> None:
    await fill_every_table(admin_pool)
    superuser = await asyncpg.connect(database.superuser_url)
    try:
        await superuser.execute("CREATE SCHEMA elsewhere AUTHORIZATION test_runtime")
    finally:
        await superuser.close()
    for row in await admin_pool.fetch(TENANT_TABLES):
        table = row["relname"]
        if not await admin_pool.fetchval(
            f"SELECT has_table_privilege('test_runtime', 'commonplace.{table}', 'SELECT')"
        ):
            continue
        await runtime_pool.execute(
            f"CREATE FUNCTION elsewhere.peek_{table}() RETURNS bigint LANGUAGE sql SECURITY DEFINER"
            f" SET search_path = pg_catalog, pg_temp AS 'SELECT count(*) FROM commonplace.{table}'"
        )
        assert await runtime_pool.fetchval(f"SELECT elsewhere.peek_{table}()") == 0, table


async def test_the_runtime_may_not_act_as_the_operator(runtime_pool: Pool) -> None:
    for call in (
        "put_team_v1('i', 0, 0, 'u', gen_random_uuid(), 's', 'n', '{}', '[]', '[]', false)",
        "release_team_v1('i', 0, 0, 'u', true)",
        "revoke_keys_v1('i', 0, 0, 'u')",
        "observe_key_v1('i', 0, 0, 'u')",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await runtime_pool.fetchval(f"SELECT commonplace.{call}")
    for statement in (
        "CREATE TABLE commonplace.mine (a int)",
        "SET ROLE commonplace_owner",
        "ALTER TABLE commonplace.events DISABLE ROW LEVEL SECURITY",
        "UPDATE commonplace.teams SET name = 'x'",
        "DELETE FROM commonplace.audit_log",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await runtime_pool.execute(statement)


async def test_a_function_called_for_one_team_never_sees_another(admin_pool: Pool, runtime_pool: Pool) -> None:
    """Even with arguments that only a bug could mix up: another team's project and job."""
    await fill_every_table(admin_pool)
    job = await admin_pool.fetchrow("SELECT id::text, project_id FROM commonplace.jobs")
    event_id = await admin_pool.fetchval("SELECT id::text FROM commonplace.events")
    assert job is not None
    other = await make_team(admin_pool)
    key = await make_key(admin_pool, other.id)
    assert await runtime_pool.fetchval("SELECT commonplace.get_event_v1($1, $2)", other.id, event_id) is None
    assert await runtime_pool.fetchval("SELECT commonplace.get_jobs_v1($1, NULL, $2)", other.id, [job["id"]]) == {}
    recall = "SELECT commonplace.recall_v1($1, $2, $3, 'a', 'r', 'recent', NULL, NULL, 10, NULL, NULL)"
    assert await runtime_pool.fetchval(recall, other.id, key.id, job["project_id"]) == []


SEARCHES = {
    "parts": "SELECT count(*) FROM commonplace.search_parts_v1($1, $2, 'a', NULL, 'uploader') WHERE"
    " part IN ('size', 'list', 'tail') AND (number > 0 OR data <> '') AND $3::int[] || $4::int[] || $5::int[] <> '{}'",
    "parts of names": "SELECT count(*) FROM commonplace.worker_parts_v1($1, $2, 'a', NULL, 'uploader') WHERE"
    " part IN ('size', 'list', 'tail') AND (number > 0 OR data <> '') AND $3::int[] || $4::int[] || $5::int[] <> '{}'",
    "recall": "SELECT count(*) FROM commonplace.recall_v2($1, NULL, $2, 'a', 'r', 'search', NULL, 'uploader', 10, NULL,"
    " NULL, $3, $4, $5, '{}', '{}', '{}')",
    "worker search": "SELECT jsonb_array_length(commonplace.worker_search_v2($1, NULL, $2, 'a', 'r', NULL, 'uploader',"
    " NULL, NULL, '{}', NULL, NULL, 'relevance', 10, 0, $3, $4, $5, '{}', '{}', '{}') -> 'memories')",
    "timeline": "SELECT jsonb_array_length(commonplace.timeline_v2($1, NULL, $2, 'a', 'r', NULL, 'uploader', NULL, 5,"
    " 5, $3, $4, $5, '{}', '{}', '{}') -> 'memories')",
    "forget": "SELECT jsonb_array_length(commonplace.begin_erasure_v1($1, NULL, $2, 'a', 'r', jsonb_build_object("
    "'what', 'query', 'value', 'uploader', 'limit', 10, 'isDry', true, 'ranking', jsonb_build_object('indexes',"
    " $3::int[], 'docnos', $4::int[], 'scores', $5::int[], 'names', '{}'::int[], 'years', '{}'::int[],"
    " 'months', '{}'::int[]))) -> 'memories')",
}
"""$1 team, $2 the key's project, $3 to $5 a ranking; each answers how much it found."""


@pytest.mark.parametrize("is_merged", [False, True], ids=["waiting", "merged"])
async def test_a_search_for_one_team_never_finds_what_another_has(
    admin_pool: Pool, runtime_pool: Pool, is_merged: bool
) -> None:
    """Even with the other's project and a ranking of its index; by the policies, and by the predicates alone."""
    team, other = await make_team(admin_pool), await make_team(admin_pool)
    await make_memory(admin_pool, team, "uploader")
    await make_memory(admin_pool, team, "uploader, mine", visibility="private", owner_actor="a")
    documents = "SELECT 0, number FROM commonplace.memories"
    if is_merged:
        await merge_all(admin_pool, runtime_pool)
        documents = "SELECT index_no, docno FROM commonplace.search_documents"
    ranking = [tuple(row) for row in await admin_pool.fetch(documents)]
    told = (UUID(team.project_id), [index for index, _ in ranking], [docno for _, docno in ranking], [1, 1])

    async def found(pool: Pool, caller: Team) -> dict[str, int]:
        return {name: await pool.fetchval(search, UUID(caller.id), *told) for name, search in SEARCHES.items()}

    assert all((await found(runtime_pool, team)).values())
    assert await found(runtime_pool, other) == dict.fromkeys(SEARCHES, 0)
    assert await found(admin_pool, other) == dict.fromkeys(SEARCHES, 0)
