"""`commonplace jobs` and `commonplace usage`, run as a user runs them."""

import json
import os
import subprocess
import sys
from typing import Any
from uuid import UUID

import pytest

from commonplace_runtime import contract
from commonplace_runtime.ids import uuid7
from commonplace_runtime.store.pool import Pool
from tests.conftest import Database
from tests.factories import Team, make_event, make_key, make_team


def commonplace(database: Database, *words: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("COMMONPLACE_", "CLAUDE_MEM_"))}
    return subprocess.run(
        [sys.executable, "-m", "commonplace_runtime", *words],
        env=clean | {contract.ENV_ADMIN_DATABASE_URL: database.admin_url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def said(database: Database, *words: str) -> str:
    done = commonplace(database, *words)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def answer(database: Database, *words: str) -> Any:
    return json.loads(said(database, *words, "--json"))


async def put(pool: Pool, team: Team, *, session: str = "one", error: dict[str, Any] | None = None) -> str:
    """The id of a job: queued, or failed with `error`."""
    key = await make_key(pool, team.id)
    event = make_event(contentSessionId=session) | {
        "id": str(uuid7()),
        "jobId": str(uuid7()),
        "sourceAdapter": "hook",
        "platformGiven": True,
        "metadata": {},
        "occurredAt": 1,
        "digest": str(uuid7()),
        "privateParts": 0,
        "redactedSecrets": 0,
    }
    await pool.execute(
        "SELECT commonplace.ingest_v1($1, $2, $3, 'agent:tester', 'r', true, false, $4)",
        UUID(team.id),
        UUID(key.id),
        UUID(team.project_id),
        [event],
    )
    if error is not None:
        row = await pool.fetchrow(
            "UPDATE commonplace.jobs SET status = 'failed', failed_at = now(), attempts = 3, last_error = $2"
            " WHERE id = $1 RETURNING team_id, project_id, session_key",
            UUID(event["jobId"]),
            error,
        )
        assert row is not None
        await pool.execute("SELECT commonplace.free_group($1, $2, $3)", *row)
    return str(event["jobId"])


async def status(pool: Pool, job_id: str) -> str:
    return str(await pool.fetchval("SELECT status FROM commonplace.jobs WHERE id = $1", UUID(job_id)))


async def test_dead_letters_are_readable_in_a_terminal(database: Database, admin_pool: Pool) -> None:
    team, other = await make_team(admin_pool, "crawlers"), await make_team(admin_pool, "painters")
    reason = "the provider answered 401:\n\x1b[31mcheck ANTHROPIC_API_KEY"
    dead = await put(admin_pool, team, error={"reason": reason, "classification": "configuration", "status": 401})
    waiting = await put(admin_pool, other)

    heading, *lines = said(database, "jobs", "list", "--status", "failed").splitlines()

    assert heading.split() == ["id", "team", "project", "kind", "status", "attempts", "created", "lastError"]
    (line,) = lines
    assert line.startswith(f"{dead}  crawlers  default  event  failed  3/3       20")
    assert line.endswith('Z  configuration: the provider answered 401: [31mcheck ANTHROPIC_API_KEY {"status": 401}')
    assert "\x1b" not in line
    assert [job["id"] for job in answer(database, "jobs", "list")] == [waiting, dead]
    assert [job["id"] for job in answer(database, "jobs", "list", "--team", "painters", "--project", "default")] == [
        waiting
    ]
    assert answer(database, "jobs", "list", "--classification", "throttled") == []
    assert answer(database, "jobs", "list", "--since", "2999-01-01T00:00:00Z") == []
    shown = said(database, "jobs", "show", dead)
    assert shown.splitlines()[1:3] == [
        "status:          failed",
        'lastError:       configuration: the provider answered 401: [31mcheck ANTHROPIC_API_KEY {"status": 401}',
    ]
    assert answer(database, "jobs", "show", dead)["lastError"]["reason"] == reason


async def test_jobs_are_retried_and_cancelled_by_their_ids(database: Database, admin_pool: Pool) -> None:
    team = await make_team(admin_pool)
    dead = await put(admin_pool, team, error={"reason": "r", "classification": "poison"})
    assert said(database, "jobs", "retry", dead) == f"{dead} queued\n"
    assert answer(database, "jobs", "cancel", dead) == [{"id": dead, "status": "cancelled"}]
    assert answer(database, "jobs", "retry", dead) == [{"id": dead, "status": "queued", "retriedCount": 2}]
    rows = await admin_pool.fetch(
        "SELECT action, actor FROM commonplace.audit_log WHERE action LIKE 'generation%' ORDER BY number"
    )
    assert [tuple(row) for row in rows] == [
        ("generation_job.retried_by_operator", "human:administrator"),
        ("generation_job.cancelled_by_operator", "human:administrator"),
        ("generation_job.retried_by_operator", "human:administrator"),
    ]


@pytest.mark.parametrize("verb", ["retry", "cancel"])
async def test_what_was_done_is_said_though_a_later_job_cannot_be(
    database: Database, admin_pool: Pool, verb: str
) -> None:
    team = await make_team(admin_pool)
    first, second = [await put(admin_pool, team, error={"reason": "r", "classification": "poison"}) for _ in range(2)]
    became = {"retry": "queued", "cancel": "cancelled"}[verb]
    plain = commonplace(database, "jobs", verb, first, "nothing", second)
    as_json = commonplace(database, "jobs", verb, first, "nothing", second, "--json")
    for done in (plain, as_json):
        assert done.returncode == 1
        assert "there is no job nothing" in done.stderr
    assert plain.stdout == f"{first} {became}\n"
    assert [job["id"] for job in json.loads(as_json.stdout)] == [first]
    assert await status(admin_pool, second) == "failed"


async def test_all_dead_letters_of_all_teams_are_retried(database: Database, admin_pool: Pool) -> None:
    team, other = await make_team(admin_pool), await make_team(admin_pool)
    throttled = [
        await put(admin_pool, one, session=f"session-{n}", error={"reason": "r", "classification": "throttled"})
        for one in (team, other)
        for n in range(2)
    ]
    poisoned = await put(admin_pool, team, error={"reason": "r", "classification": "poison"})
    words = ("jobs", "retry", "--all", "--classification", "throttled")
    assert said(database, *words, "--team", other.slug) == "2 queued again, 0 remain\n"
    assert answer(database, *words) == {"retried": 2, "remaining": 0}
    assert {await status(admin_pool, job_id) for job_id in throttled} == {"queued"}
    assert await status(admin_pool, poisoned) == "failed"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["jobs", "show", "nothing"], "commonplace jobs list"),
        (["jobs", "retry", "nothing"], "commonplace jobs list"),
        (["jobs", "retry"], "name jobs by their ids, or take --all"),
        (["jobs", "retry", "nothing", "--all"], "name jobs by their ids, or take --all"),
        (["jobs", "retry", "nothing", "--team", "x"], "name jobs by their ids, or take --all"),
        (["jobs", "list", "--project", "default"], "with --team"),
        (["jobs", "list", "--team", "nobody"], "there is no team 'nobody'"),
        (["jobs", "list", "--limit", "0"], "--limit is 1 to 1000"),
        (["jobs", "list", "--since", "yesterday"], "2027-01-31T00:00:00Z"),
        (["usage", "--team", "nobody"], "there is no team 'nobody'"),
    ],
)
async def test_what_cannot_be_done_is_one_line_with_what_to_do(database: Database, words: list[str], hint: str) -> None:
    done = commonplace(database, *words)
    assert done.returncode == 1
    assert hint in done.stderr
    assert len(done.stderr.splitlines()) == 1


async def test_usage_is_told_in_a_terminal(database: Database, admin_pool: Pool) -> None:
    team = await make_team(admin_pool)
    await admin_pool.execute(
        "INSERT INTO commonplace.usage_counters (team_id, project_id, month, kind, model, quantity) SELECT $1, $2,"
        " date_trunc('month', now() AT TIME ZONE 'UTC')::date, kind, 'small', n FROM (VALUES ('tokens', 1200),"
        " ('cost_microusd', 2500000)) AS used (kind, n)",
        UUID(team.id),
        UUID(team.project_id),
    )
    await admin_pool.execute("INSERT INTO commonplace.team_holds VALUES ($1, '2999-01-01Z', 'cost')", UUID(team.id))
    shown = said(database, "usage", "--team", team.slug)
    assert "$2.50, generation is stopped until 2999-01-01T00:00:00.000Z: the month's budget is used up" in shown
    assert answer(database, "usage", "--team", team.slug)["breakdown"]["models"][0]["costUsd"] == 2.5
