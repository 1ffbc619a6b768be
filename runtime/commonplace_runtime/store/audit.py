"""The audit, as people read it."""

from collections.abc import Mapping
from typing import Any, cast

from commonplace_runtime.domain.models import Json, Reach
from commonplace_runtime.store.calls import fetch_value
from commonplace_runtime.store.pool import Pool
from commonplace_runtime.store.sql import statements

_SQL = statements("audit")


async def list_audit(pool: Pool, reach: Reach, wanted: Mapping[str, Json], *, limit: int) -> dict[str, Any]:
    """`{"audit", "next"}`; what `wanted` may say stands above `list_audit_v1`. Raises NotPermitted, Unavailable."""
    return cast("dict[str, Any]", await fetch_value(pool, _SQL["list"], *reach.arguments, wanted, limit))
