"""GET /v1/connect: what to paste into an agent."""

from typing import Annotated, Final

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from commonplace_runtime import contract
from commonplace_runtime.domain.models import Principal
from commonplace_runtime.domain.scopes import Access
from commonplace_runtime.entrypoints.http.errors import json_response
from commonplace_runtime.entrypoints.http.operations import Operation
from commonplace_runtime.entrypoints.http.public_url import mcp_url
from commonplace_runtime.entrypoints.http.security import needs

Reader = Annotated[Principal, Depends(needs(Access.READ))]

_PLACEHOLDER: Final = "<YOUR_API_KEY>"
_HINT: Final = (
    f"Replace {_PLACEHOLDER} with your key. A key that may write mints one: POST /v1/keys answers with the whole line. "
    "On Kubernetes it is in the Secret of your ApiKey (`connect-command`); elsewhere an administrator makes one with "
    "`commonplace keys create`."
)


class Connection(TypedDict):
    """Where MCP is, and the line that connects Claude Code, with a placeholder for the key."""

    mcpUrl: str
    connectCommand: str
    hint: str


async def get_connect(request: Request, _principal: Reader) -> Response:
    """The MCP address and the line that connects Claude Code. Never mints a key."""
    url = mcp_url(request)
    return json_response({"mcpUrl": url, "connectCommand": contract.connect_command(url, _PLACEHOLDER), "hint": _HINT})


OPERATIONS: Final = (
    Operation(method="GET", path="/v1/connect", handler=get_connect, id="getConnect", tag="Keys", answer=Connection),
)
