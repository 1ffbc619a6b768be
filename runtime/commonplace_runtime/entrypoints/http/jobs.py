"""GET /v1/jobs/:id."""

from typing import Annotated

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from commonplace_runtime.domain.models import Principal
from commonplace_runtime.domain.scopes import Access
from commonplace_runtime.domain.wire import full_job
from commonplace_runtime.entrypoints.http.errors import json_response
from commonplace_runtime.entrypoints.http.security import needs
from commonplace_runtime.entrypoints.http.state import state_of
from commonplace_runtime.services import jobs

JobReader = Annotated[Principal, Depends(needs(Access.JOBS))]


async def get_job(request: Request, principal: JobReader, job_id: str) -> Response:
    """One job; 404 for another team's and for a sibling project's."""
    return json_response({"generationJob": full_job(await jobs.get_job(state_of(request).pool, principal, job_id))})
