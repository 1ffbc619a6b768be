"""Keys, as keys manage them: minted, listed, revoked. Each call audits in its own transaction."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from commonplace_runtime.domain.models import Reach
from commonplace_runtime.store.calls import fetch_value
from commonplace_runtime.store.pool import Pool
from commonplace_runtime.store.sql import statements

_SQL = statements("keys")


async def mint_key(pool: Pool, reach: Reach, key: Mapping[str, Any]) -> dict[str, Any]:
    """`{"outcome": "minted", "key"}` or `{"outcome": "full", …}`; the shapes stand above `mint_key_v1`."""
    return cast("dict[str, Any]", await fetch_value(pool, _SQL["mint"], *reach.arguments, key))


async def list_keys(pool: Pool, reach: Reach, *, limit: int, after: tuple[datetime, UUID] | None) -> dict[str, Any]:
    """`{"keys", "next"}` as above `list_keys_v1`, newest first."""
    at, key_id = after or (None, None)
    return cast("dict[str, Any]", await fetch_value(pool, _SQL["list"], *reach.arguments, limit, at, key_id))


async def revoke_key(pool: Pool, reach: Reach, key_id: str, scopes: Sequence[str]) -> dict[str, str] | None:
    """`{"id", "outcome": "revoked" | "managed" | "wider"}`, or None for no such key. scopes: those that it may have."""
    wanted = "" if "\0" in key_id else key_id  # names nothing, and Postgres would not take it
    found = await fetch_value(pool, _SQL["revoke"], *reach.arguments, wanted, list(scopes))
    return cast("dict[str, str] | None", found)
