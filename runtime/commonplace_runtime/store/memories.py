"""Memories: found by words or by age, in one round trip that also audits."""

from typing import cast

from commonplace_runtime.domain.models import Principal, Recall
from commonplace_runtime.domain.wire import ObservationRow
from commonplace_runtime.store.calls import fetch_value
from commonplace_runtime.store.pool import Pool
from commonplace_runtime.store.sql import statements

_SQL = statements("memories")


async def recall(pool: Pool, principal: Principal, wanted: Recall, *, request_id: str) -> list[ObservationRow]:
    """
    What the caller may see, best first. A project that the team does not have holds nothing.

    Raises NotPermitted when the key is bound to another project, InvalidInput when none was named and none is evident.
    """
    answer = await fetch_value(
        pool,
        _SQL["recall"],
        principal.team_id,
        principal.key_id,
        principal.project_id,
        principal.actor,
        request_id,
        wanted.mode,
        wanted.project,
        wanted.query,
        wanted.limit,
        wanted.platform,
        wanted.via,
    )
    return cast("list[ObservationRow]", answer)
