"""`commonplace audit`, over all teams."""

from uuid import UUID

import pytest

from commonplace_runtime.store.pool import Pool
from tests.conftest import Database
from tests.factories import Team, make_key, make_team
from tests.integration.runtime.cli.support import answer, commonplace, said


async def put(pool: Pool, team: Team, action: str, at: str, key_id: str | None = None, **details: str) -> None:
    await pool.execute(
        "INSERT INTO commonplace.audit_log (team_id, project_id, key_id, actor, request_id, action, resource_type,"
        " details, created_at) VALUES ($1, $2, $3, $4, 'r-' || $5::text, $5, 'memory', $6, $7::text::timestamptz)",
        UUID(team.id),
        UUID(team.project_id),
        None if key_id is None else UUID(key_id),
        f"agent:{team.slug}",
        action,
        details,
        at,
    )


async def test_who_did_what_is_found_in_every_way(database: Database, admin_pool: Pool) -> None:
    team, other = await make_team(admin_pool, "crawlers"), await make_team(admin_pool, "painters")
    key = await make_key(admin_pool, team.id)
    await put(admin_pool, team, "memory.export", "2026-05-01T10:00:00Z", key.id, stage="begun\n\x1b[31m")
    await put(admin_pool, team, "memory.import", "2026-05-02T10:00:00Z")
    await put(admin_pool, other, "memories.read", "2026-05-03T10:00:00Z")

    heading, *lines = said(database, "audit").splitlines()

    assert heading.split() == ["at", "team", "project", "actor", "action", "what", "request", "details"]
    assert [line.split()[:5] for line in lines] == [
        ["2026-05-03T10:00:00.000Z", "painters", "default", "agent:painters", "memories.read"],
        ["2026-05-02T10:00:00.000Z", "crawlers", "default", "agent:crawlers", "memory.import"],
        ["2026-05-01T10:00:00.000Z", "crawlers", "default", "agent:crawlers", "memory.export"],
    ]
    assert "\x1b" not in "".join(lines)

    def actions(*words: str) -> list[str]:
        return [row["action"] for row in answer(database, "audit", *words)]

    assert actions("--team", "crawlers", "--project", "default") == ["memory.import", "memory.export"]
    assert actions("--actor", "agent:painters") == ["memories.read"]
    assert actions("--key", key.id) == ["memory.export"]
    assert actions("--action", "memory.import") == ["memory.import"]
    assert actions("--action", "memory.*") == ["memory.import", "memory.export"]
    assert actions("--request-id", "r-memories.read") == ["memories.read"]
    assert actions("--since", "2026-05-02T10:00:00Z") == ["memories.read", "memory.import"]
    assert actions("--until", "2026-05-02T10:00:00Z") == ["memory.export"]
    assert actions("--limit", "1") == ["memories.read"]
    (row,) = answer(database, "audit", "--key", key.id)
    assert (row["teamId"], row["projectId"], row["keyId"]) == (team.id, team.project_id, key.id)
    assert row["createdAtEpoch"] == 1_777_629_600_000
    assert row["details"] == {"stage": "begun\n\x1b[31m"}


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--project", "default"], "with --team"),
        (["--team", "nobody"], "there is no team 'nobody'"),
        (["--limit", "0"], "--limit is 1 to 10000"),
        (["--since", "yesterday"], "2027-01-31T00:00:00Z"),
    ],
)
def test_what_cannot_be_asked_is_one_line_with_what_to_do(database: Database, words: list[str], hint: str) -> None:
    done = commonplace(database, "audit", *words)
    assert done.returncode == 1
    assert hint in done.stderr
    assert len(done.stderr.splitlines()) == 1
