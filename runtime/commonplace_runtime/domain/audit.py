"""
What an audit row says to whom.

Rows carry details in whatever shape their action wants. Readers who may not see content get of other actors' rows what
cannot be any: numbers, ids, and texts of fields known to hold none. Whatever else there is, now or later, is withheld.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, TypedDict

from commonplace_runtime.domain.models import Json

_ALIASES: Final[Mapping[str, str]] = {"generation.completed": "generation_job.completed"}
"""Names that claude-mem's documents have for what is recorded under the name that its code has."""
_ALIASES_OF: Final = {name: [alias for alias, of in _ALIASES.items() if of == name] for name in _ALIASES.values()}
_PLAIN: Final = frozenset(
    {
        "classification",
        "currentStatus",
        "eventType",
        "expiresAt",
        "heldUntil",
        "jobType",
        "mode",
        "model",
        "outcome",
        "platformSource",
        "previousStatus",
        "provider",
        "requestId",
        "scopes",
        "source",
        "sourceAdapter",
        "sourceType",
        "status",
        "via",
    }
)
"""Fields of details whose texts are words of ours, or of the client's program, and never of a person."""
_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class AuditRow(TypedDict):
    """A row as it is kept."""

    id: str
    teamId: str
    projectId: str | None
    keyId: str | None
    actor: str | None
    requestId: str | None
    action: str
    targetType: str
    targetId: str | None
    metadata: dict[str, Json]
    createdAtEpoch: int


def actions_named(text: str) -> tuple[list[str], str | None]:
    """The actions that a filter means, and its prefix if it ends with `*`. Aliases count as what they stand for."""
    if not text.endswith("*"):
        return [_ALIASES.get(text, text)], None
    prefix = text[:-1]
    return [name for alias, name in _ALIASES.items() if alias.startswith(prefix)], prefix


def shown(row: AuditRow, *, reader: str, sees_content: bool) -> dict[str, Any]:
    """A row in the shape of the wire. reader: the actor who reads; `sees_content`: all of it, whoever wrote it."""
    actor = row["actor"]
    kind, _, name = (actor or "system").partition(":")
    answer: dict[str, Any] = {
        **row,
        "actorType": kind if name or actor is None else "unknown",
        "actorId": name or actor,
        "aliases": list(_ALIASES_OF.get(row["action"], ())),
    }
    if not sees_content and actor != reader:
        kept, withheld = _without_content(row["metadata"])
        answer["metadata"] = kept
        answer["withheld"] = withheld
    return answer


def _without_content(details: Mapping[str, Json]) -> tuple[dict[str, Json], list[str]]:
    kept = {name: value for name, value in details.items() if _is_plain(name, value)}
    return kept, sorted(details.keys() - kept.keys())


def _is_plain(name: str, value: Json) -> bool:
    if isinstance(value, str):
        return name in _PLAIN or _ID.fullmatch(value) is not None
    if isinstance(value, list):
        return all(_is_plain(name, item) for item in value)
    if isinstance(value, dict):
        return all(_is_plain(key, item) for key, item in value.items())
    return True
