"""The administrative verbs, each run as a user runs it: a process, its output, its exit code."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from commonplace_runtime import contract
from commonplace_runtime.store.pool import Pool
from tests.conftest import Database


def commonplace(database: Database | None, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("COMMONPLACE_", "CLAUDE_MEM_"))}
    if database is not None:
        clean[contract.ENV_ADMIN_DATABASE_URL] = database.admin_url
    return subprocess.run(
        [sys.executable, "-m", "commonplace_runtime", *words],
        env=clean | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def answer(database: Database, *words: str) -> Any:
    done = commonplace(database, *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


async def test_a_team_gets_projects_and_keys(database: Database, admin_pool: Pool) -> None:
    team = answer(database, "teams", "create", "Search & Ranking")
    assert team["slug"] == "search-ranking"
    project = answer(database, "projects", "create", "--team", team["id"], "crawler", "--json")
    assert project["teamId"] == team["id"]
    names = [row["name"] for row in answer(database, "projects", "list", "--team", "search-ranking", "--json")]
    assert names == ["crawler", "default"]

    key = answer(
        database,
        "keys",
        "create",
        "--team",
        team["id"],
        "--project",
        "crawler",
        "--scope",
        "memories:read,events:write",
    )
    assert key["teamId"] == team["id"]
    assert key["projectId"] == project["id"]
    assert contract.token_id(key["key"]) is not None
    row = await admin_pool.fetchrow(
        "SELECT state, scopes, token_hash FROM commonplace.api_keys WHERE id = $1::uuid", key["id"]
    )
    assert row is not None
    assert (row["state"], row["scopes"]) == ("published", ["memories:read", "events:write"])
    assert row["token_hash"] == contract.hash_token(key["key"])

    listed = commonplace(database, "keys", "list")
    assert key["id"] in listed.stdout
    assert key["key"] not in listed.stdout
    assert answer(database, "keys", "revoke", key["id"]) == {"id": key["id"], "status": "revoked"}
    assert await admin_pool.fetchval("SELECT state FROM commonplace.api_keys") == "revoked"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["teams", "create", "!!!"], "choose another name"),
        (["projects", "create", "--team", "nobody", "x"], "commonplace teams list"),
        (["keys", "create", "--team", "nobody", "--scope", "memories:read"], "there is no team 'nobody'"),
        (["keys", "create", "--team", "", "--scope", "memories:read"], "there is no team ''"),
        (["keys", "list", "--team", ""], "there is no team ''"),
        (["keys", "create", "--team", "nobody", "--scope", "everything"], "unknown scope everything"),
        (["keys", "create", "--team", "t", "--scope", "*", "--expires-at", "tomorrow"], "write it like 2027"),
        (["keys", "create", "--team", "t", "--scope", "*", "--expires-at", "2020-01-01T00:00:00Z"], "expired already"),
        (["keys", "create", "--team", "t", "--scope", "*", "--actor", "me"], "human:"),
        (["keys", "revoke", "00000000-0000-0000-0000-000000000000"], "there is no key"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value[:2]),
)
def test_a_refusal_says_what_to_do_and_exits_1(database: Database, words: list[str], hint: str) -> None:
    done = commonplace(database, *words)
    assert done.returncode == 1
    assert hint in done.stderr
    assert "Traceback" not in done.stderr


def test_misconfiguration_names_every_variable_and_exits_78() -> None:
    done = commonplace(None, "api", COMMONPLACE_PORT="eleventy", COMMONPLACE_REDIS_URL="localhost")
    assert done.returncode == 78
    assert "COMMONPLACE_PORT" in done.stderr
    assert "COMMONPLACE_REDIS_URL: must look like redis://host:6379/0" in done.stderr
    missing = commonplace(None, "teams", "list")
    assert missing.returncode == 78
    assert "COMMONPLACE_ADMIN_DATABASE_URL is not set" in missing.stderr


def test_an_empty_project_never_widens_a_key(database: Database) -> None:
    answer(database, "teams", "create", "alpha")
    done = commonplace(database, "keys", "create", "--team", "alpha", "--project", "", "--scope", "*")
    assert done.returncode == 1
    assert "has no project ''" in done.stderr
