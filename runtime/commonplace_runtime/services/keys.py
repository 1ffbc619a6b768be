"""
Keys that a key mints, lists and revokes.

A minted key acts as its minter's actor: an auditor finds one actor, and nobody mints a way to another's private
memories. Which key it came from is in `mintedBy` and in the audit. It opens, reaches and lasts no more than its minter.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypedDict
from uuid import UUID

from commonplace_runtime import contract
from commonplace_runtime.domain.cursors import invalid_cursor, read_cursor, write_cursor
from commonplace_runtime.domain.errors import Conflict, NotFound, NotPermitted, QuotaExceeded
from commonplace_runtime.domain.models import Principal, Reach
from commonplace_runtime.domain.scopes import is_grantable
from commonplace_runtime.domain.validation import InvalidFields
from commonplace_runtime.ids import uuid7
from commonplace_runtime.store import keys as store
from commonplace_runtime.store.pool import Pool

DEFAULT_SCOPES: Final = ("memories:read",)


class KeyRow(TypedDict):
    """A key as people see it. status: `active`, `grace` (being rotated out), `expired` or `revoked`."""

    id: str
    label: str
    scopes: list[str]
    projectId: str | None
    project: str | None
    actor: str
    mintedBy: str | None
    managed: bool
    status: str
    expiresAt: str | None
    createdAtEpoch: int
    lastUsedAtEpoch: int | None
    revokedAtEpoch: int | None


@dataclass(frozen=True, kw_only=True)
class WantedKey:
    """What is asked for. project: id or name, None for the minter's reach. actor: None for the minter's."""

    label: str | None = None
    scopes: Sequence[str] = DEFAULT_SCOPES
    project: str | None = None
    actor: str | None = None
    expires_in_days: int | None = None


@dataclass(frozen=True, kw_only=True)
class MintedKey:
    """A fresh key. `token` exists only here: the database has its hash."""

    row: KeyRow
    token: str


async def mint_key(pool: Pool, principal: Principal, reach: Reach, wanted: WantedKey) -> MintedKey:
    """
    A new key of the minter's team.

    Raises NotPermitted for a scope, project or actor beyond the minter's, QuotaExceeded when the team may have no more
    keys, Unavailable.
    """
    beyond = [scope for scope in wanted.scopes if not is_grantable(scope, principal.scopes)]
    if beyond:
        raise NotPermitted(f"this API key cannot grant {', '.join(beyond)}: a key mints no more than it may do itself")
    if wanted.actor not in (None, principal.actor):
        raise NotPermitted(f"a minted key acts as its minter, {principal.actor}: leave `actor` out")
    token = contract.make_token(secrets.token_bytes(contract.TOKEN_ENTROPY_BYTES))
    key_id = uuid7()
    answer = await store.mint_key(
        pool,
        reach,
        {
            "id": str(key_id),
            "project": wanted.project,
            "label": wanted.label or f"minted-{str(key_id)[-8:]}",
            "scopes": list(dict.fromkeys(wanted.scopes)),
            "tokenId": contract.token_id(token),
            "tokenHash": contract.hash_token(token),
            "expiresInDays": wanted.expires_in_days,
        },
    )
    if answer["outcome"] == "full":
        message = f"The team has all the API keys that it may have ({answer['cap']}): revoke one first"
        raise QuotaExceeded(message, used=answer["used"], cap=answer["cap"])
    return MintedKey(row=answer["key"], token=token)


async def list_keys(pool: Pool, reach: Reach, *, limit: int, cursor: str | None) -> tuple[list[KeyRow], str | None]:
    """
    Keys of the team, or of the key's project, newest first, and the cursor of what follows.

    Raises InvalidFields for a cursor that no list has handed out, Unavailable.
    """
    page: dict[str, Any] = await store.list_keys(pool, reach, limit=limit, after=_place(cursor))
    after = page["next"]
    return page["keys"], None if after is None else write_cursor(after["at"], after["id"])


def _place(cursor: str | None) -> tuple[datetime, UUID] | None:
    if cursor is None:
        return None
    at, key_id = read_cursor(cursor, (str, str))
    try:
        moment = datetime.fromisoformat(str(at))
        place = moment, UUID(str(key_id))
    except ValueError:
        place = None
    if place is None or place[0].tzinfo is None:
        raise InvalidFields([invalid_cursor()])
    return place


async def revoke_key(pool: Pool, principal: Principal, reach: Reach, key_id: str) -> str:
    """
    Refuse this key from its next request on, and return its id. Again: nothing changes.

    Raises NotFound for a key that the caller's does not reach, NotPermitted for one that may do more than the caller's,
    Conflict for one that an ApiKey object owns.
    """
    grantable = [scope for scope in contract.SCOPES if is_grantable(scope, principal.scopes)]
    found = await store.revoke_key(pool, reach, key_id, [*principal.scopes, *grantable])
    if found is None:
        raise NotFound("Key not found")
    if found["outcome"] == "wider":
        raise NotPermitted("this API key cannot revoke one that may do more than itself")
    if found["outcome"] == "managed":
        raise Conflict("an ApiKey object owns this key: set `spec.revoked: true` on it, or delete it")
    return found["id"]
