"""`commonplace members`, and `--json` of the verbs beside it."""

from typing import Any
from uuid import UUID

import pytest

from commonplace_runtime.store.pool import Pool
from tests.conftest import Database
from tests.factories import make_team
from tests.integration.runtime.cli.support import answer, commonplace, said


async def test_members_come_change_and_go_and_each_step_is_audited(database: Database, admin_pool: Pool) -> None:
    team, _other = await make_team(admin_pool, "crawlers"), await make_team(admin_pool, "painters")
    add = ("members", "add", "human:ada", "--team", "crawlers")
    assert answer(database, *add) == {"team": "crawlers", "actor": "human:ada", "role": "member"}
    assert said(database, "members", "add", "agent:bot", "--role", "viewer", "--team", team.id) == (
        "agent:bot viewer (crawlers)\n"
    )
    assert said(database, "members", "set-role", "human:ada", "owner", "--team", "crawlers") == (
        "human:ada owner (crawlers)\n"
    )
    said(database, "members", "set-role", "human:ada", "owner", "--team", "crawlers")
    heading, *lines = said(database, "members", "list").splitlines()
    assert heading.split() == ["team", "actor", "role", "managed", "createdAt"]
    assert [line.split()[:4] for line in lines] == [
        ["crawlers", "agent:bot", "viewer", "False"],
        ["crawlers", "human:ada", "owner", "False"],
    ]
    assert answer(database, "members", "list", "--team", "painters") == []
    assert said(database, "members", "remove", "human:ada", "--team", "crawlers") == "human:ada removed (crawlers)\n"
    assert [row["actor"] for row in answer(database, "members", "list")] == ["agent:bot"]
    rows = await admin_pool.fetch(
        "SELECT action, resource_id, details FROM commonplace.audit_log WHERE team_id = $1 ORDER BY number",
        UUID(team.id),
    )
    assert [(row["action"], row["resource_id"], row["details"].get("before")) for row in rows] == [
        ("team_member.add", "human:ada", None),
        ("team_member.add", "agent:bot", None),
        ("team_member.set_role", "human:ada", "member"),
        ("team_member.remove", "human:ada", None),
    ]


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["add", "ada", "--team", "crawlers"], "human:…"),
        (["add", "human:ada", "--team", "nobody"], "commonplace teams list"),
        (["add", "human:there", "--team", "crawlers"], "is a member of crawlers already"),
        (["remove", "human:ada", "--team", "crawlers"], "commonplace members list --team crawlers"),
        (["set-role", "human:ada", "owner", "--team", "crawlers"], "is no member of crawlers"),
        (["add", "human:ada", "--team", "managed"], "spec.members"),
    ],
)
async def test_what_cannot_be_done_is_one_line_with_what_to_do(
    database: Database, admin_pool: Pool, words: list[str], hint: str
) -> None:
    await make_team(admin_pool, "crawlers")
    await admin_pool.execute("INSERT INTO commonplace.installations (installation, term) VALUES ('i', 0)")
    await make_team(admin_pool, "managed", installation="i", owner_uid="u")
    said(database, "members", "add", "human:there", "--team", "crawlers")
    done = commonplace(database, "members", *words)
    assert done.returncode == 1
    assert hint in done.stderr
    assert len(done.stderr.splitlines()) == 1


async def test_every_verb_of_tenants_speaks_json(database: Database) -> None:
    team = answer(database, "teams", "create", "alpha")
    assert set(team) == {"id", "slug", "name"}
    project = answer(database, "projects", "create", "web", "--team", "alpha")
    assert set(project) == {"id", "teamId", "name"}
    key = answer(database, "keys", "create", "--team", "alpha", "--project", "web", "--scope", "memories:read")
    assert set(key) >= {"id", "key", "projectId"}
    listed: list[Any] = [answer(database, noun, "list") for noun in ("teams", "projects", "keys")]
    assert [row["id"] for row in listed[0]] == [team["id"]]
    assert {row["name"] for row in listed[1]} == {"default", "web"}
    assert [(row["id"], row["projectId"], row["state"]) for row in listed[2]] == [
        (key["id"], project["id"], "published")
    ]
    assert answer(database, "keys", "revoke", key["id"]) == {"id": key["id"], "status": "revoked"}
