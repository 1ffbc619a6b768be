"""Audit of any team, for an administrator at a terminal. `pool` is of a role in `commonplace_admin`."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from commonplace_runtime.domain.errors import InvalidInput
from commonplace_runtime.services import tenants
from commonplace_runtime.store.audit_admin import AuditFilter
from commonplace_runtime.store.audit_admin import list_audit as list_rows
from commonplace_runtime.store.pool import Pool, Record


async def list_audit(
    pool: Pool,
    *,
    team: str | None,
    project: str | None,
    actor: str | None,
    key: UUID | None,
    action: str | None,
    request_id: str | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
) -> Sequence[Record]:
    """
    Rows of `audit_log` with `team` (slug) and `project` (name), newest first.

    Raises NotFound, Conflict, InvalidInput for a project without its team, Unavailable.
    """
    if project is not None and team is None:
        raise InvalidInput("a project is found within a team: name that too, with --team")
    owner = None if team is None else await tenants.find_team(pool, team)
    within = None if project is None or owner is None else await tenants.find_project(pool, owner, project)
    wanted = AuditFilter(
        team_id=None if owner is None else owner["id"],
        project_id=None if within is None else within["id"],
        actor=actor,
        key_id=key,
        action=action,
        request_id=request_id,
        since=since,
        until=until,
    )
    return await list_rows(pool, wanted, limit)
