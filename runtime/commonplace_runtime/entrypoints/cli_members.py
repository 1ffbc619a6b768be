"""`commonplace members` and `commonplace audit`: who belongs to a team, and who did what."""

import json
from typing import Annotated, Any, Literal
from uuid import UUID

import cyclopts
from cyclopts import Parameter

from commonplace_runtime.domain.errors import InvalidInput
from commonplace_runtime.entrypoints.terminal import Json, Team, as_admin, print_rows, read_moment
from commonplace_runtime.services import audit_admin
from commonplace_runtime.services import members as service
from commonplace_runtime.store.pool import Record

members = cyclopts.App(name="members", help="Members of a team: people, systems and agents, and their roles.")

Role = Literal["owner", "admin", "member", "viewer"]
_MOST_ROWS = 10_000
_CUT = 80


@members.command(name="list")
def list_members(*, team: Team | None = None, json_: Annotated[Json, Parameter(name="--json")] = False) -> None:
    """List the members of a team, or of all."""
    columns = {"team": "team", "actor": "actor", "role": "role", "managed": "managed", "createdAt": "created_at"}
    print_rows(as_admin(lambda pool: service.list_members(pool, team)), columns, json_)


@members.command(name="add")
def add_member(
    actor: str, *, team: Team, role: Role = "member", json_: Annotated[Json, Parameter(name="--json")] = False
) -> None:
    """
    Add a member.

    actor: human:…, system:… or agent:…
    """
    _say(as_admin(lambda pool: service.add_member(pool, team, actor, role)), json_)


@members.command(name="set-role")
def set_role(actor: str, role: Role, *, team: Team, json_: Annotated[Json, Parameter(name="--json")] = False) -> None:
    """Give a member another role."""
    _say(as_admin(lambda pool: service.set_role(pool, team, actor, role)), json_)


@members.command(name="remove")
def remove_member(actor: str, *, team: Team, json_: Annotated[Json, Parameter(name="--json")] = False) -> None:
    """Remove a member. Its keys and memories stay: `commonplace keys list` shows the keys."""
    _say(as_admin(lambda pool: service.remove_member(pool, team, actor)), json_)


def _say(done: dict[str, str], as_json: bool) -> None:
    print(json.dumps(done) if as_json else f"{done['actor']} {done.get('status') or done['role']} ({done['team']})")


def audit(
    *,
    team: Team | None = None,
    project: Annotated[str | None, Parameter(help="The project's id or name; needs --team.")] = None,
    actor: str | None = None,
    key: Annotated[UUID | None, Parameter(help="A key's id.")] = None,
    action: Annotated[str | None, Parameter(help="Such as memory.export, or memory.* for all of a kind.")] = None,
    request_id: Annotated[str | None, Parameter(help="As the answer's header X-Request-Id said.")] = None,
    since: Annotated[str | None, Parameter(help="At or after, for example 2027-01-31T00:00:00Z.")] = None,
    until: Annotated[str | None, Parameter(help="Before.")] = None,
    limit: Annotated[int, Parameter(help=f"At most so many, 1 to {_MOST_ROWS}.")] = 50,
    json_: Annotated[Json, Parameter(name="--json")] = False,
) -> None:
    """Show who did what, newest first, over all teams or in one."""
    if not 1 <= limit <= _MOST_ROWS:
        raise InvalidInput(f"--limit is 1 to {_MOST_ROWS}")
    if any("\0" in text for text in (actor, action, request_id) if text):
        raise InvalidInput("a filter holds a NUL, which nothing recorded does")
    after, before = read_moment(since), read_moment(until)
    rows = as_admin(
        lambda pool: audit_admin.list_audit(
            pool,
            team=team,
            project=project,
            actor=actor,
            key=key,
            action=action,
            request_id=request_id,
            since=after,
            until=before,
            limit=limit,
        )
    )
    if json_:
        print(json.dumps([_row(row) for row in rows]))
        return
    table = [{**dict(row), "what": _what(row), "details": _cut(json.dumps(row["details"]))} for row in rows]
    columns = {"at": "created_at", "team": "team", "project": "project", "actor": "actor", "action": "action"}
    print_rows(table, columns | {"what": "what", "request": "request_id", "details": "details"}, False)


def _row(row: Record) -> dict[str, Any]:
    return {
        "id": str(row["id"]),
        "teamId": str(row["team_id"]),
        "team": row["team"],
        "projectId": None if row["project_id"] is None else str(row["project_id"]),
        "project": row["project"],
        "keyId": None if row["key_id"] is None else str(row["key_id"]),
        "actor": row["actor"],
        "action": row["action"],
        "resourceType": row["resource_type"],
        "resourceId": row["resource_id"],
        "requestId": row["request_id"],
        "details": row["details"],
        "createdAtEpoch": int(row["created_at"].timestamp() * 1000),
    }


def _what(row: Record) -> str:
    return row["resource_type"] if row["resource_id"] is None else f"{row['resource_type']} {row['resource_id']}"


def _cut(text: str) -> str:
    return text if len(text) <= _CUT else text[: _CUT - 1] + "…"
