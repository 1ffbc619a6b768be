"""Forgetting: DELETE /v1/memories/:id, DELETE /v1/projects/:id/memory, POST /v1/forget."""

from typing import Annotated, Final, Literal

from fastapi import Depends
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from commonplace_runtime.domain.erasure import QUERY_LIMITS, Forgotten, Selection
from commonplace_runtime.domain.errors import NotFound
from commonplace_runtime.domain.models import Principal
from commonplace_runtime.domain.quotas import Spending
from commonplace_runtime.domain.scopes import Access
from commonplace_runtime.domain.validation import Fields, InvalidFields, Issue
from commonplace_runtime.entrypoints.http.bodies import read_json
from commonplace_runtime.entrypoints.http.errors import json_response
from commonplace_runtime.entrypoints.http.operations import Operation
from commonplace_runtime.entrypoints.http.security import needs
from commonplace_runtime.entrypoints.http.state import reach_of, state_of
from commonplace_runtime.services import forget

Eraser = Annotated[Principal, Depends(needs(Access.WRITE, Spending.EXEMPT))]

_CHOICES: Final = ("memoryId", "query", "serverSessionId", "contentSessionId", "file")
_USUAL, _MOST = QUERY_LIMITS


class ForgetBody(TypedDict, total=False):
    """Exactly one of the first five, or `projectId` alone for all that the project captured."""

    memoryId: Annotated[str, Field(description="One memory.")]
    query: Annotated[str, Field(min_length=1, description="What a search for this finds and has one of its words.")]
    serverSessionId: Annotated[str, Field(description="All of one session, by our id.")]
    contentSessionId: Annotated[str, Field(description="All of one session, by the client's own id.")]
    file: Annotated[
        str, Field(description="What tells of this file: its path, or the end of its path from a whole part on.")
    ]
    projectId: Annotated[str, Field(description="Id or name. Beside a query, session or file: where to look.")]
    limit: Annotated[int, Field(ge=1, le=_MOST, description=f"How many of a query's hits go; {_USUAL} if left out.")]
    dryRun: Annotated[bool, Field(description="Only say what would go.")]


class Deleted(TypedDict):
    """A memory that is gone."""

    deleted: Literal[True]
    id: str


class PurgedCounts(TypedDict):
    """Rows that went, as claude-mem counts them. The audit row of the purge has those of each table."""

    observations: int
    agentEvents: int
    sessions: int
    jobs: int


class Purged(TypedDict):
    """A project that is empty."""

    purged: Literal[True]
    projectId: str
    counts: PurgedCounts


async def delete_memory(request: Request, principal: Eraser, memory_id: str) -> Response:
    """Forget one memory, with the events that it came from and all that was made on the way."""
    try:
        await forget.delete_memory(state_of(request).pool, reach_of(request, principal), memory_id)
    except NotFound:
        return _not_found()
    return json_response({"deleted": True, "id": memory_id})


async def delete_project_memory(request: Request, principal: Eraser, project_id: str) -> Response:
    """Forget all that a project captured. The project, its keys, its audit rows and its usage stay."""
    try:
        found, counts = await forget.purge_project(state_of(request).pool, reach_of(request, principal), project_id)
    except NotFound:
        return _not_found()
    told: PurgedCounts = {
        "observations": counts["observations"],
        "agentEvents": counts["agentEvents"],
        "sessions": counts["sessions"],
        "jobs": counts["jobs"],
    }
    return json_response({"purged": True, "projectId": found, "counts": told})


async def post_forget(request: Request, principal: Eraser) -> Response:
    """Forget a memory, the hits of a query, a session, a file or a project; or say what that would take."""
    body = await read_json(request, expected="object")
    selection, dry_run = _read(body.value)
    forgotten: Forgotten = await forget.forget(
        state_of(request).pool, reach_of(request, principal), selection, dry_run=dry_run
    )
    return json_response(forgotten)


def _read(body: object) -> tuple[Selection, bool]:
    issues: list[Issue] = []
    fields = Fields(body, issues)
    given = {name: fields.text(name) for name in _CHOICES}
    project = fields.text("projectId")
    limit = fields.integer("limit", minimum=1, maximum=_MOST) or _USUAL
    dry_run = fields.value("dryRun")
    if not isinstance(dry_run, bool | None):
        message = "Invalid input: expected boolean"
        issues.append({"code": "invalid_type", "expected": "boolean", "path": ["dryRun"], "message": message})
    named = [name for name, value in given.items() if value is not None]
    if not issues and (len(named) > 1 or (not named and project is None)):
        message = f"Exactly one of {', '.join(_CHOICES)} is required, or projectId alone"
        issues.append({"code": "custom", "path": [], "message": message})
    if issues:
        raise InvalidFields(issues)
    selection = Selection(
        memory_id=given["memoryId"],
        query=given["query"],
        session=given["serverSessionId"] or given["contentSessionId"],
        file=given["file"],
        project=project,
        limit=limit,
    )
    return selection, bool(dry_run)


def _not_found() -> Response:
    """The two DELETE routes say it in a shape of their own."""
    return json_response({"error": "not_found"}, 404)


OPERATIONS: Final = (
    Operation(
        method="DELETE",
        path="/v1/memories/{memory_id}",
        handler=delete_memory,
        id="deleteMemory",
        tag="Erasure",
        answer=Deleted,
        fails=(404,),
    ),
    Operation(
        method="DELETE",
        path="/v1/projects/{project_id}/memory",
        handler=delete_project_memory,
        id="purgeProjectMemory",
        tag="Erasure",
        answer=Purged,
        fails=(404,),
    ),
    Operation(
        method="POST",
        path="/v1/forget",
        handler=post_forget,
        id="forget",
        tag="Erasure",
        body=ForgetBody,
        answer=Forgotten,
        fails=(404,),
        example={"query": "the staging database's password", "limit": 1, "dryRun": True},
    ),
)
