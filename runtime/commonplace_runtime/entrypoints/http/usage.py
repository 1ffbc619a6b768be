"""GET /v1/usage."""

from typing import Annotated, Final

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from commonplace_runtime.domain.models import Principal
from commonplace_runtime.domain.quotas import Spending
from commonplace_runtime.domain.scopes import Access
from commonplace_runtime.entrypoints.http.errors import json_response
from commonplace_runtime.entrypoints.http.operations import Operation
from commonplace_runtime.entrypoints.http.security import needs
from commonplace_runtime.entrypoints.http.state import state_of
from commonplace_runtime.services.usage import get_usage as read_usage

Reader = Annotated[Principal, Depends(needs(Access.READ, Spending.EXEMPT))]


async def get_usage(request: Request, principal: Reader) -> Response:
    """The team's month so far; answered also when the month's requests are used up."""
    state = state_of(request)
    told = await read_usage(state.pool, principal.team_id, principal.project_id, state.settings.limits)
    return json_response(told)


OPERATIONS: Final = (Operation(method="GET", path="/v1/usage", handler=get_usage, id="getUsage", tag="Usage"),)
