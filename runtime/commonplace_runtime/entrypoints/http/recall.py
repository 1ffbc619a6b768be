"""POST /v1/search, POST /v1/context."""

from typing import Annotated, Final, NotRequired

from fastapi import Depends
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from commonplace_runtime.domain.models import Principal, Recall, RecallMode
from commonplace_runtime.domain.platforms import normalise_platform
from commonplace_runtime.domain.scopes import Access
from commonplace_runtime.domain.validation import Fields, InvalidFields, Issue
from commonplace_runtime.domain.wire import ObservationRow, context_of
from commonplace_runtime.entrypoints.http.bodies import read_json
from commonplace_runtime.entrypoints.http.errors import json_response
from commonplace_runtime.entrypoints.http.operations import Operation, ProjectName, Text
from commonplace_runtime.entrypoints.http.security import needs
from commonplace_runtime.entrypoints.http.state import request_id_of, state_of
from commonplace_runtime.services.search import recall_memories

Reader = Annotated[Principal, Depends(needs(Access.READ))]

LIMITS: Final[dict[RecallMode, tuple[int, int]]] = {"search": (20, 100), "context": (10, 50), "recent": (20, 100)}
"""Mode → (default, most) of `limit`; REST refuses more, MCP clamps."""


class SearchQuestion(TypedDict):
    """What is wanted of a project's memory."""

    projectId: NotRequired[ProjectName | None]
    query: Annotated[str, Field(min_length=1, description="Words, in any order; none of them must occur.")]
    limit: NotRequired[Annotated[int | None, Field(ge=1, le=LIMITS["search"][1], description="Default 20.")]]
    platformSource: NotRequired[Annotated[Text | None, Field(description="Only what came from this client.")]]


class ContextQuestion(TypedDict):
    """What is wanted of a project's memory; without a query the newest."""

    projectId: NotRequired[ProjectName | None]
    query: NotRequired[Text | None]
    limit: NotRequired[Annotated[int | None, Field(ge=1, le=LIMITS["context"][1], description="Default 10.")]]
    platformSource: NotRequired[Annotated[Text | None, Field(description="Only what came from this client.")]]


class Found(TypedDict):
    """Memories, best first."""

    observations: list[ObservationRow]


class FoundContext(Found):
    """The same with the contents as one text."""

    context: str


async def post_search(request: Request, principal: Reader) -> Response:
    """Memories that any word of the query finds, best first."""
    return json_response({"observations": await _recall(request, principal, "search")})


async def post_context(request: Request, principal: Reader) -> Response:
    """The same, or the newest without a query, with the contents as one text."""
    observations = await _recall(request, principal, "context")
    return json_response({"observations": observations, "context": context_of(observations)})


async def _recall(request: Request, principal: Principal, mode: RecallMode) -> list[ObservationRow]:
    body = await read_json(request, expected="object")
    wanted = _read(body.value, mode)
    return await recall_memories(state_of(request).pool, principal, wanted, request_id=request_id_of(request))


def _read(body: object, mode: RecallMode) -> Recall:
    issues: list[Issue] = []
    fields = Fields(body, issues)
    usual, most = LIMITS[mode]
    platform = fields.text("platformSource")
    wanted = Recall(
        mode=mode,
        project=fields.text("projectId"),
        query=fields.text("query", required=mode == "search"),
        limit=fields.integer("limit", minimum=1, maximum=most) or usual,
        platform=normalise_platform(platform),
    )
    if issues:
        raise InvalidFields(issues)
    return wanted


OPERATIONS: Final = (
    Operation(
        method="POST",
        path="/v1/search",
        handler=post_search,
        id="search",
        tag="Recall",
        body=SearchQuestion,
        answer=Found,
        example={"query": "why does the build fail", "limit": 5},
    ),
    Operation(
        method="POST",
        path="/v1/context",
        handler=post_context,
        id="getContext",
        tag="Recall",
        body=ContextQuestion,
        answer=FoundContext,
        example={"limit": 5},
    ),
)
