"""Objects and rows with sensible defaults, for tests of pure code."""

import base64
from datetime import UTC, datetime
from typing import Any

from commonplace_operator.children.secret import MacKey, SecretFacts
from commonplace_operator.planning.apikey import KeyWorld, Minted, wanted_grant
from commonplace_operator.resources.objects import ApiKey, MemoryRuntime, MemoryTeam, Quota
from commonplace_operator.resources.rows import Grant, KeyRow, KeyState, ObservedKeys
from commonplace_operator.resources.token import Token
from commonplace_runtime import contract

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MAC_KEY = MacKey(b"k" * 32)
ENDPOINT = "https://memory.example.com"
TEAM_UID = "team-uid"


def token(number: int) -> Token:
    """A token of our shape, a different one for each number."""
    return Token(contract.make_token(number.to_bytes(contract.TOKEN_ENTROPY_BYTES, "big")))


def metadata(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "namespace": "ns", "uid": f"{name}-uid", "generation": 1, "resourceVersion": "1"} | more


def api_key(*, annotations: dict[str, str] | None = None, status: dict[str, Any] | None = None, **spec: Any) -> ApiKey:
    return ApiKey.parse(
        {
            "metadata": metadata("key", annotations=annotations or {}),
            "spec": {"teamRef": {"name": "team"}, "scopes": ["memories:read"]} | spec,
            "status": status or {},
        }
    )


def team(*, annotations: dict[str, str] | None = None, namespace: str = "ns", **spec: Any) -> MemoryTeam:
    return MemoryTeam.parse(
        {
            "metadata": metadata("team", annotations=annotations or {}, namespace=namespace),
            "spec": {"runtimeRef": {"name": "rt"}} | spec,
        }
    )


def runtime(*, namespace: str = "ns", **spec: Any) -> MemoryRuntime:
    return MemoryRuntime.parse(
        {
            "metadata": metadata("rt", namespace=namespace),
            "spec": {"management": "External", "publicUrl": ENDPOINT, "database": {}} | spec,
        }
    )


def quota(**spec: Any) -> Quota:
    return Quota.parse({"metadata": metadata("quota"), "spec": {"teamRef": {"name": "team"}} | spec})


def row(
    revision: int, state: KeyState, held: Token, *, key: ApiKey | None = None, grant: Grant | None = None, **more: Any
) -> KeyRow:
    values: dict[str, Any] = {"published_at": NOW if state != "unpublished" else None} | more
    return KeyRow(
        id=f"row-{revision}",
        team_id="team-id",
        revision=revision,
        state=state,
        token_hash=held.hash,
        grant=grant or wanted_grant(key or api_key()),
        **values,
    )


def keys(*rows: KeyRow, newest: int | None = None, now: datetime = NOW) -> ObservedKeys:
    return ObservedKeys(newest_revision=newest or max((r.revision for r in rows), default=0), now=now, keys=rows)


def facts(manifest: dict[str, Any], *, uid: str = "secret-uid", version: str = "7") -> SecretFacts:
    """What would be read after `manifest` was written."""
    return SecretFacts.parse({**manifest, "metadata": manifest["metadata"] | {"uid": uid, "resourceVersion": version}})


def world(observed: ObservedKeys, secret: SecretFacts | None, **more: Any) -> KeyWorld:
    values: dict[str, Any] = {"team_uid": TEAM_UID, "endpoint": ENDPOINT, "mac_key": MAC_KEY} | more
    return KeyWorld(keys=observed, secret=secret, **values)


def minted(number: int = 99) -> Minted:
    return Minted(token=token(number), row_id=f"row-{number}")


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
