"""Audit across teams; the statement is in `audit_admin.sql`."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from commonplace_runtime.store.pool import Pool, Record, faults_as_unavailable
from commonplace_runtime.store.sql import statements

_SQL = statements("audit_admin")


class AuditFilter(NamedTuple):
    """Which rows; None is any. action: with a trailing `*` all that begin so. until: before."""

    team_id: UUID | None
    project_id: UUID | None
    actor: str | None
    key_id: UUID | None
    action: str | None
    request_id: str | None
    since: datetime | None
    until: datetime | None


async def list_audit(pool: Pool, wanted: AuditFilter, limit: int) -> Sequence[Record]:
    """At most `limit` rows, newest first. Raises Unavailable."""
    async with faults_as_unavailable():
        return await pool.fetch(_SQL["list"], *wanted, limit)
