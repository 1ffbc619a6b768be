"""The API's own description: GET /v1/openapi.json."""

import asyncio
import hashlib
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from commonplace_runtime.entrypoints.http.openapi import document
from commonplace_runtime.entrypoints.http.operations import Operation
from commonplace_runtime.entrypoints.http.state import state_of


async def get_openapi(request: Request) -> Response:
    """
    This description: an OpenAPI 3.1 document.

    It changes with the server's version only; `If-None-Match` with the `ETag` of an earlier answer gets 304.
    """
    state = state_of(request)
    if state.description is None:
        state.description = await asyncio.to_thread(lambda: orjson.dumps(document(state.operations)))
    content = state.description
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    known = [part.strip().removeprefix("W/") for part in request.headers.get("if-none-match", "").split(",")]
    if tag in known:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type="application/json; charset=utf-8")


OPERATIONS: Final[tuple[Operation, ...]] = (
    Operation(
        method="GET",
        path="/v1/openapi.json",
        handler=get_openapi,
        id="getOpenapi",
        tag="Health",
        answer=dict[str, Any],
    ),
)
