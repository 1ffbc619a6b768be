"""`commonplace doctor` beside an api that runs, and beside what is broken."""

import asyncio
import json
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

from commonplace_runtime import contract
from commonplace_runtime.domain.models import Reach, TeamId
from commonplace_runtime.embedded import EmbeddedRedis
from commonplace_runtime.entrypoints.http.app import create_app
from commonplace_runtime.services.keep_index import keep_indexes
from commonplace_runtime.services.reindex import request_rebuild
from commonplace_runtime.settings import Settings
from commonplace_runtime.store.pool import Pool
from tests.api_server import served
from tests.conftest import Database
from tests.factories import make_team
from tests.integration.runtime.cli.support import commonplace

NAMES = [
    *(
        "settings",
        "database",
        "roles",
        "migrations",
        "tenancy",
        "index",
        "log-in",
        "redis",
        "provider",
        "api",
        "public URL",
        "MCP",
    )
]


@pytest.fixture
async def api(database: Database) -> AsyncIterator[str]:
    async with served(create_app(Settings.model_validate({"database_url": database.runtime_url}))) as url:
        yield url


async def examined(database: Database, **environ: str) -> tuple[int, dict[str, dict[str, Any]]]:
    done = await asyncio.to_thread(partial(commonplace, database, "doctor", "--json", **environ))
    assert done.stderr == ""
    return done.returncode, {check["name"]: check for check in json.loads(done.stdout)}


def healthy(database: Database, api: str, redis: EmbeddedRedis) -> dict[str, str]:
    return {
        contract.ENV_DATABASE_URL: database.runtime_url,
        contract.ENV_REDIS_URL: redis.url,
        contract.ENV_PUBLIC_URL: api,
        contract.ENV_PORT: api.rsplit(":", 1)[1],
    }


async def test_all_is_well_and_the_key_of_the_round_trip_is_revoked(
    database: Database, admin_pool: Pool, api: str, redis_server: EmbeddedRedis
) -> None:
    await make_team(admin_pool)
    environ = healthy(database, api, redis_server)
    code, checks = await examined(database, **environ)
    assert (code, list(checks)) == (0, NAMES)
    assert {check["status"] for check in checks.values()} == {"ok"}, checks
    assert "search, context, recent" in checks["MCP"]["found"]
    assert await admin_pool.fetchval("SELECT state FROM commonplace.api_keys") == "revoked"
    shown = await asyncio.to_thread(partial(commonplace, database, "doctor", **environ))
    lines = shown.stdout.splitlines()
    assert (shown.returncode, shown.stderr, len(lines)) == (0, "", len(NAMES))
    assert all(line.startswith("ok    ") for line in lines)
    assert lines[-1][6:19] == "MCP".ljust(13)


async def test_each_fault_fails_its_check_and_says_what_to_do(
    database: Database, admin_pool: Pool, api: str, redis_server: EmbeddedRedis
) -> None:
    await make_team(admin_pool)
    environ = healthy(database, api, redis_server)
    broken = {
        "redis": {contract.ENV_REDIS_URL: "redis://127.0.0.1:1"},
        "provider": {contract.ENV_PROVIDER: "anthropic"},
        "api": {contract.ENV_PORT: "1"},
        "public URL": {contract.ENV_PUBLIC_URL: "http://127.0.0.1:1"},
        "log-in": {contract.ENV_DATABASE_URL: database.admin_url},
        "database": {contract.ENV_ADMIN_DATABASE_URL: "postgresql://nobody:x@127.0.0.1:1/x"},
        "settings": {contract.ENV_PUBLIC_URL: "ftp://x"},
    }
    for name, change in broken.items():
        code, checks = await examined(database, **(environ | change))
        assert (code, checks[name]["status"]) == (1, "fail"), checks
        assert checks[name]["todo"]


async def test_open_tables_and_an_older_schema_are_found(database: Database, admin_pool: Pool) -> None:
    await admin_pool.execute("ALTER TABLE commonplace.memories NO FORCE ROW LEVEL SECURITY")
    await admin_pool.execute("DELETE FROM commonplace.schema_migrations WHERE version = $1", contract.SCHEMA_VERSION)
    code, checks = await examined(database)
    assert code == 1
    assert (checks["tenancy"]["status"], "memories" in checks["tenancy"]["found"]) == ("fail", True)
    assert (checks["migrations"]["status"], checks["migrations"]["todo"]) == ("fail", "run `commonplace migrate`")
    # What could not be looked at is no fault.
    assert {checks[name]["status"] for name in ("settings", "public URL", "log-in")} == {"warn"}


async def test_an_index_that_lacks_words_or_that_nobody_keeps_is_found(
    database: Database, admin_pool: Pool, runtime_pool: Pool
) -> None:
    team = await make_team(admin_pool, "acme")
    texts = (
        "INSERT INTO commonplace.memories (id, team_id, project_id, owner_actor, visibility, content)"
        " SELECT gen_random_uuid(), team_id, id, 'agent:a', 'team', 'uploader ' || n"
        " FROM commonplace.projects, generate_series(1, $1) AS n"
    )
    await admin_pool.execute(texts, 300)
    await request_rebuild(runtime_pool, Reach(team_id=TeamId(team.id), actor="human:ann"), None)
    _, checks = await examined(database)
    assert checks["index"] == {**checks["index"], "status": "ok", "found": "being rebuilt: acme/default for 0 min"}

    await admin_pool.execute("UPDATE commonplace.search_work SET queued_at = now() - interval '11 minutes'")
    _, checks = await examined(database)
    assert (checks["index"]["status"], checks["index"]["found"]) == ("warn", "being rebuilt: acme/default for 11 min")
    while await keep_indexes(runtime_pool):
        pass
    _, checks = await examined(database)
    assert checks["index"]["status"] == "ok"

    # As on a machine that hashes otherwise.
    await admin_pool.execute("UPDATE commonplace.search_postings SET term = term - 1")
    code, checks = await examined(database)
    assert (code, checks["index"]["status"], "acme/default" in checks["index"]["found"]) == (1, "fail", True)
    assert "`commonplace reindex --all`" in checks["index"]["todo"]
    await admin_pool.execute("UPDATE commonplace.search_postings SET term = term + 1")

    await admin_pool.execute(texts, 2001)
    _, checks = await examined(database)
    assert (checks["index"]["status"], checks["index"]["found"].split()[-1]) == ("warn", "2001")


async def test_a_stopped_database_is_told_without_a_trace(database: Database) -> None:
    done = await asyncio.to_thread(
        commonplace, None, "doctor", COMMONPLACE_ADMIN_DATABASE_URL="postgresql://a:secret@127.0.0.1:1/x"
    )
    assert done.returncode == 1
    assert "secret" not in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "fail  database" in done.stdout
