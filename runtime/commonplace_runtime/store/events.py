"""Captured events: stored with their jobs in one transaction, and read one at a time."""

from collections.abc import Sequence
from typing import cast

from commonplace_runtime.domain.models import Principal, TeamId
from commonplace_runtime.domain.wire import EventRow, IngestedRow, NewEventRow
from commonplace_runtime.store.calls import fetch_value
from commonplace_runtime.store.pool import Pool
from commonplace_runtime.store.sql import statements

_SQL = statements("events")


async def ingest(
    pool: Pool,
    principal: Principal,
    *,
    request_id: str,
    generate: bool,
    is_awaited: bool,
    is_batch: bool,
    events: Sequence[NewEventRow],
) -> list[IngestedRow]:
    """
    Store all of `events` or none, in one transaction with jobs, group marks and audit; answers in their order.
    `is_awaited`: the jobs' ends are to be notified.

    Raises NotPermitted for a project or session out of the key's reach, InvalidInput where no project was named
    and none can be assumed.
    """
    answer = await fetch_value(
        pool,
        _SQL["ingest_batch" if is_batch else "ingest"],
        principal.team_id,
        principal.key_id,
        principal.project_id,
        principal.actor,
        request_id,
        generate,
        list(events),
        is_awaited,
    )
    return cast("list[IngestedRow]", answer)


async def get(pool: Pool, team_id: TeamId, actor: str, event_id: str) -> EventRow | None:
    """One event of the team that the actor may see, or None."""
    if "\0" in event_id:  # no id, and nothing that Postgres would take
        return None
    return cast("EventRow | None", await fetch_value(pool, _SQL["get"], team_id, actor, event_id))
