"""Reading the audit, which is audited itself."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from commonplace_runtime.domain.audit import actions_named, shown
from commonplace_runtime.domain.cursors import invalid_cursor, read_cursor, write_cursor
from commonplace_runtime.domain.models import Json, Principal, Reach
from commonplace_runtime.domain.scopes import Access
from commonplace_runtime.domain.validation import InvalidFields
from commonplace_runtime.store import audit as store
from commonplace_runtime.store.pool import Pool

_LARGEST_NUMBER = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class AuditQuery:
    """
    Which rows: those of `project` (id or name; None: of the whole team), narrowed by all that is not None.

    since: at or after. until: before. action: a name or alias, or a beginning with `*`. key_id, target_id: what is no
    id matches nothing. cursor: None for the newest.
    """

    project: str | None
    limit: int
    since: datetime | None = None
    until: datetime | None = None
    actor: str | None = None
    key_id: str | None = None
    action: str | None = None
    request_id: str | None = None
    target_type: str | None = None
    target_id: str | None = None
    cursor: str | None = None


async def read_audit(
    pool: Pool, principal: Principal, reach: Reach, query: AuditQuery
) -> tuple[list[dict[str, Any]], str | None]:
    """
    Rows, newest first, and the cursor of what follows. A project that the team does not have has no rows.

    Raises NotPermitted for another project than the key's or, of such a key, the whole team; InvalidFields for a
    cursor that no list has handed out; Unavailable.
    """
    page = await store.list_audit(pool, reach, _wanted(query), limit=query.limit)
    sees_content = Access.AUDIT_CONTENT.is_open_to(principal.scopes)
    rows = [shown(row, reader=principal.actor, sees_content=sees_content) for row in page["audit"]]
    after = page["next"]
    return rows, None if after is None else write_cursor(after["at"], after["number"])


def _wanted(query: AuditQuery) -> dict[str, Json]:
    wanted: dict[str, Json] = {
        "project": query.project,
        "since": None if query.since is None else query.since.isoformat(),
        "until": None if query.until is None else query.until.isoformat(),
        "actor": query.actor,
        "keyId": query.key_id,
        "requestId": query.request_id,
        "targetType": query.target_type,
        "targetId": query.target_id,
    }
    if query.action not in (None, "*"):
        names, wanted["prefix"] = actions_named(query.action or "")
        wanted["actions"] = list[Json](names)
    if query.cursor is not None:
        wanted["at"], wanted["number"] = _place(query.cursor)
    return {name: value for name, value in wanted.items() if value is not None}


def _place(cursor: str) -> tuple[str, int]:
    at, number = read_cursor(cursor, (str, int))
    try:
        moment = datetime.fromisoformat(str(at))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None or not 0 <= int(number) <= _LARGEST_NUMBER:
        raise InvalidFields([invalid_cursor()])
    return moment.isoformat(), int(number)
