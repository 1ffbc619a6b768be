"""GET /v1/usage."""

from typing import Annotated, Final, Literal

from fastapi import Depends
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from commonplace_runtime.domain.models import Principal
from commonplace_runtime.domain.quotas import Spending
from commonplace_runtime.domain.scopes import Access
from commonplace_runtime.entrypoints.http.errors import json_response
from commonplace_runtime.entrypoints.http.operations import Operation
from commonplace_runtime.entrypoints.http.security import needs
from commonplace_runtime.entrypoints.http.state import state_of
from commonplace_runtime.services.usage import get_usage as read_usage

Reader = Annotated[Principal, Depends(needs(Access.READ, Spending.EXEMPT))]


class UsageLimits(TypedDict):
    """What the team's Quota says, by the names of its fields; a limit that is not set is absent."""

    hard: dict[str, float]
    soft: dict[str, float]


class UsagePart(TypedDict):
    """What one project, key or model used."""

    id: str | None
    name: str | None
    modelCalls: int
    inputTokens: int
    outputTokens: int
    tokens: int
    costMicrousd: int
    costUsd: float


class UsageBreakdown(TypedDict):
    """The 100 dearest of each."""

    projects: list[UsagePart]
    keys: list[UsagePart]
    models: list[UsagePart]


class GenerationState(TypedDict):
    """Whether memories are made, and if not why and until when."""

    state: Literal["running", "deferred", "waiting", "stopped"]
    until: str | None
    reason: str | None


class UsageAnswer(TypedDict):
    """The month so far. `usage` sums by kind: `request`, `observation`, `tokens` and more; 0 is absent."""

    since: Annotated[
        str, Field(description="The first instant of the UTC month.", examples=["2026-11-01T00:00:00.000Z"])
    ]
    usage: dict[str, int]
    costUsd: float
    limits: UsageLimits
    breakdown: UsageBreakdown
    generation: GenerationState


async def get_usage(request: Request, principal: Reader) -> Response:
    """The team's month so far; answered also when the month's requests are used up."""
    state = state_of(request)
    told = await read_usage(state.pool, principal.team_id, principal.project_id, state.settings.limits)
    return json_response(told)


OPERATIONS: Final = (
    Operation(method="GET", path="/v1/usage", handler=get_usage, id="getUsage", tag="Usage", answer=UsageAnswer),
)
