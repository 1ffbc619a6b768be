"""GET /v1/audit: who did what, and when."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final, NotRequired

from fastapi import Depends
from pydantic import Field
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from commonplace_runtime.domain.models import Principal
from commonplace_runtime.domain.moments import read_date
from commonplace_runtime.domain.scopes import Access
from commonplace_runtime.domain.validation import InvalidFields, Issue
from commonplace_runtime.entrypoints.http.errors import HttpFault, json_response
from commonplace_runtime.entrypoints.http.listing import read_limit, read_name
from commonplace_runtime.entrypoints.http.operations import Operation
from commonplace_runtime.entrypoints.http.security import needs
from commonplace_runtime.entrypoints.http.state import reach_of, state_of
from commonplace_runtime.services.audit import AuditQuery, read_audit

Auditor = Annotated[Principal, Depends(needs(Access.AUDIT))]

_LIMITS: Final = (100, 200)
_WHOLE_TEAM: Final = "*"
_EPOCH_MILLISECONDS: Final = re.compile(r"[0-9]{5,15}")


class AuditParameters(TypedDict):
    """Which rows; each narrows."""

    projectId: Annotated[str, Field(description="Id or name; `*`, for a key of the whole team: all of it")]
    since: NotRequired[Annotated[str, Field(description="At or after: ISO 8601 or epoch milliseconds")]]
    until: NotRequired[Annotated[str, Field(description="Before: ISO 8601 or epoch milliseconds")]]
    actor: NotRequired[str]
    keyId: NotRequired[str]
    action: NotRequired[Annotated[str, Field(description="A name, or a beginning and `*`: `api_key.*`")]]
    requestId: NotRequired[str]
    targetType: NotRequired[str]
    targetId: NotRequired[str]
    limit: NotRequired[Annotated[int, Field(ge=1, le=_LIMITS[1])]]
    cursor: NotRequired[str]


class AuditEntry(TypedDict):
    """One thing that was done."""

    id: str
    teamId: str
    projectId: str | None
    keyId: str | None
    actor: str | None
    actorType: str
    actorId: str | None
    requestId: str | None
    action: str
    aliases: Annotated[list[str], Field(description="Other names of the action")]
    targetType: str
    targetId: str | None
    metadata: dict[str, Any]
    withheld: NotRequired[Annotated[list[str], Field(description="What of another actor's metadata is not shown")]]
    createdAtEpoch: int


class AuditAnswer(TypedDict):
    """One page, newest first."""

    audit: list[AuditEntry]
    nextCursor: str | None


async def get_audit(request: Request, principal: Auditor) -> Response:
    """Who did what in a project; what other actors wrote shows with `audit:read` or an admin scope."""
    query = _query(request.query_params)
    rows, after = await read_audit(state_of(request).pool, principal, reach_of(request, principal), query)
    return json_response({"audit": rows, "nextCursor": after})


def _query(asked: QueryParams) -> AuditQuery:
    project = asked.get("projectId")
    if not project:
        raise HttpFault(400, "ValidationError", "projectId query parameter is required")
    issues: list[Issue] = []
    usual, most = _LIMITS
    query = AuditQuery(
        project=None if project == _WHOLE_TEAM else read_name(project),
        since=_moment(asked, "since", issues),
        until=_moment(asked, "until", issues),
        actor=read_name(asked.get("actor")),
        key_id=read_name(asked.get("keyId")),
        action=read_name(asked.get("action")),
        request_id=read_name(asked.get("requestId")),
        target_type=read_name(asked.get("targetType")),
        target_id=read_name(asked.get("targetId")),
        limit=read_limit(asked.get("limit"), usual=usual, most=most),
        cursor=asked.get("cursor") or None,
    )
    if issues:
        raise InvalidFields(issues)
    return query


def _moment(asked: QueryParams, name: str, issues: list[Issue]) -> datetime | None:
    """None where nothing was asked: a time that cannot be read must not widen what an auditor believes to see."""
    text = asked.get(name, "").strip()
    if not text:
        return None
    found = read_date(text)
    if found is None and _EPOCH_MILLISECONDS.fullmatch(text):
        try:
            found = datetime.fromtimestamp(int(text) / 1000, UTC)
        except (ValueError, OverflowError, OSError):
            found = None
    if found is None:
        message = "Invalid ISO datetime or epoch milliseconds"
        issues.append({"code": "invalid_format", "format": "datetime", "path": [name], "message": message})
    return found


OPERATIONS: Final = (
    Operation(
        method="GET",
        path="/v1/audit",
        handler=get_audit,
        id="listAudit",
        tag="Audit",
        query=AuditParameters,
        answer=AuditAnswer,
    ),
)
