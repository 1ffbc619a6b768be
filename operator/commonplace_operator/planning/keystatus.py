"""What an ApiKey's status says."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Final

from commonplace_operator.planning.apikey import KeyPlan, next_rotation
from commonplace_operator.planning.status import negative, not_ready, positive, ready
from commonplace_operator.resources.conditions import Condition
from commonplace_operator.resources.objects import ApiKey
from commonplace_operator.resources.reasons import ConditionType, Reason
from commonplace_operator.resources.rows import KeyRow, ObservedKeys
from commonplace_operator.resources.times import format_time, parse_time

LAST_USED_STEP: Final = timedelta(minutes=10)
_STATES: Final = {"published": "Active", "grace": "Grace"}


def live_rows(keys: ObservedKeys) -> tuple[KeyRow, ...]:
    """Keys that somebody holds and that work: the published one and one whose grace has not ended."""
    return tuple(
        row
        for row in keys.keys
        if row.state == "published"
        or (row.state == "grace" and row.grace_until is not None and row.grace_until > keys.now)
    )


def key_fields(key: ApiKey, keys: ObservedKeys, *, team_id: str) -> dict[str, Any]:
    """Every field of the status besides conditions; None is left out."""
    rows = live_rows(keys)
    published = keys.in_state("published")
    due = next_rotation(key, published)
    return {
        "keyId": published.id if published else None,
        "revision": published.revision if published else None,
        "secretName": key.secret_name,
        "binding": {"name": key.secret_name},
        "keys": [_key_entry(row) for row in sorted(rows, key=lambda row: -row.revision)],
        "nextRotationTime": format_time(due) if due else None,
        "lastUsedTime": _last_used(key, rows),
        "teamId": team_id,
        "project": key.spec.project,
    }


def _key_entry(row: KeyRow) -> dict[str, Any]:
    expires = min((moment for moment in (row.grace_until, row.grant.expires_at) if moment), default=None)
    entry: dict[str, Any] = {"id": row.id, "revision": row.revision, "state": _STATES[row.state]}
    if row.published_at is not None:
        entry["createdAt"] = format_time(row.published_at)
    if expires is not None:
        entry["expiresAt"] = format_time(expires)
    return entry


def _last_used(key: ApiKey, rows: Iterable[KeyRow]) -> str | None:
    """The newest use, in steps: a busy key must not rewrite its object all day."""
    recorded: str | None = key.raw_status.get("lastUsedTime")
    newest = max((row.last_used_at for row in rows if row.last_used_at), default=None)
    if newest is None:
        return recorded
    if recorded is not None and newest - parse_time(recorded) < LAST_USED_STEP:
        return recorded
    return format_time(newest)


def key_conditions(key: ApiKey, plan: KeyPlan) -> tuple[Condition, ...]:
    """Conditions after the plan was carried out."""
    match plan.outcome:
        case "revoked":
            return _ended(ConditionType.REVOKED, Reason.REVOKED, "Revoked: create a new ApiKey to get another token")
        case "expired":
            return _ended(
                ConditionType.EXPIRED, Reason.EXPIRED, "spec.expiresAt has passed: set a later one for a new token"
            )
        case "conflict":
            message = (
                f"Secret {key.namespace}/{key.secret_name} exists and is not this ApiKey's; it was not touched: "
                "delete it, or name another in spec.secret.name"
            )
            return (
                not_ready(Reason.SECRET_CONFLICT, message),
                negative(ConditionType.SECRET_SYNCED, Reason.SECRET_CONFLICT, message),
            )
        case "settled" | "issued" | "rotated" | "readopted" | "repaired":
            return (
                ready(Reason.ISSUED),
                positive(ConditionType.ISSUED, Reason.ISSUED),
                positive(ConditionType.SECRET_SYNCED, Reason.SECRET_SYNCED),
            )


def _ended(type_: ConditionType, reason: Reason, message: str) -> tuple[Condition, ...]:
    return (
        not_ready(reason, message),
        negative(ConditionType.ISSUED, reason, message),
        positive(type_, reason, message),
    )


def next_look(key: ApiKey, keys: ObservedKeys) -> float | None:
    """Seconds until the next thing is due: rotation, expiry, the end of a grace period. None when nothing is."""
    moments = [next_rotation(key, keys.in_state("published")), key.spec.expires_at]
    moments += [row.grace_until for row in keys.keys if row.state == "grace"]
    due = [moment for moment in moments if moment is not None and moment > keys.now]
    return (min(due) - keys.now).total_seconds() if due else None
