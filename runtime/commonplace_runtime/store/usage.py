"""What a team used this month, of what limits, and whether its generation is held back."""

from typing import Any, cast

from commonplace_runtime.domain.models import ProjectId, TeamId
from commonplace_runtime.store.calls import fetch_value
from commonplace_runtime.store.pool import Pool
from commonplace_runtime.store.sql import statements

_SQL = statements("usage")


async def read_usage(pool: Pool, team_id: TeamId, project_id: ProjectId | None) -> dict[str, Any]:
    """The sums of the UTC month; the shape stands above `usage_v1`. Raises Unavailable."""
    return cast("dict[str, Any]", await fetch_value(pool, _SQL["read"], team_id, project_id))
