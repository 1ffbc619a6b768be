"""GET /v1/connect: what to paste into an agent."""

from typing import Annotated, Final

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from commonplace_runtime import contract
from commonplace_runtime.domain.models import Principal
from commonplace_runtime.domain.scopes import Access
from commonplace_runtime.entrypoints.http.errors import json_response
from commonplace_runtime.entrypoints.http.operations import Operation
from commonplace_runtime.entrypoints.http.security import needs
from commonplace_runtime.entrypoints.http.state import state_of

Reader = Annotated[Principal, Depends(needs(Access.READ))]

_PLACEHOLDER: Final = "<YOUR_API_KEY>"
_HINT: Final = (
    f"Replace {_PLACEHOLDER} with your key, or mint one that only reads with POST /v1/keys. On Kubernetes your own is "
    "in the Secret of your ApiKey (`connect-command` is the whole line)."
)


async def get_connect(request: Request, _principal: Reader) -> Response:
    """The MCP address and the line that connects Claude Code. Never mints a key."""
    url = contract.mcp_url(state_of(request).settings.public_url or str(request.base_url))
    return json_response({"mcpUrl": url, "connectCommand": contract.connect_command(url, _PLACEHOLDER), "hint": _HINT})


OPERATIONS: Final = (Operation(method="GET", path="/v1/connect", handler=get_connect, id="getConnect", tag="Keys"),)
