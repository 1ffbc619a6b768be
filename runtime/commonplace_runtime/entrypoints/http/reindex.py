"""The search index: POST /v1/reindex builds a project's anew, GET /v1/reindex says how far it is."""

from typing import Annotated, Final

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from commonplace_runtime.domain.models import Principal
from commonplace_runtime.domain.reindex import PATH, IndexState, RebuildQueued, queued
from commonplace_runtime.domain.scopes import Access
from commonplace_runtime.domain.validation import Fields, InvalidFields, Issue
from commonplace_runtime.entrypoints.http.bodies import read_json
from commonplace_runtime.entrypoints.http.errors import json_response
from commonplace_runtime.entrypoints.http.operations import Operation, ProjectName
from commonplace_runtime.entrypoints.http.security import needs
from commonplace_runtime.entrypoints.http.state import reach_of, state_of
from commonplace_runtime.services.reindex import index_state, request_rebuild

Reader = Annotated[Principal, Depends(needs(Access.READ))]
Writer = Annotated[Principal, Depends(needs(Access.WRITE))]


class WhichIndex(TypedDict, total=False):
    """Which project's index."""

    projectId: ProjectName


async def post_reindex(request: Request, principal: Writer) -> Response:
    """
    Build a project's search index anew. Asked again before it is done, it answers the same and queues nothing.

    Meanwhile a search reads the memories themselves: slower, and it finds everything.
    """
    body = await read_json(request, expected="object")
    issues: list[Issue] = []
    project = Fields(body.value, issues).text("projectId")
    if issues:
        raise InvalidFields(issues)
    state = await request_rebuild(state_of(request).pool, reach_of(request, principal), project)
    return json_response(queued(state), 202)


async def get_reindex(request: Request, principal: Reader) -> Response:
    """How far a project's search index is."""
    project = request.query_params.get("projectId") or None
    return json_response(await index_state(state_of(request).pool, reach_of(request, principal), project))


OPERATIONS: Final = (
    Operation(
        method="POST",
        path=PATH,
        handler=post_reindex,
        id="reindex",
        tag="Projects",
        body=WhichIndex,
        answer=RebuildQueued,
        status=202,
        fails=(404,),
        example={"projectId": "default"},
    ),
    Operation(
        method="GET",
        path=PATH,
        handler=get_reindex,
        id="getIndexState",
        tag="Projects",
        query=WhichIndex,
        answer=IndexState,
        fails=(404,),
    ),
)
