"""Where clients are told to dial."""

import re
from typing import Final

from starlette.requests import Request

from commonplace_runtime import contract
from commonplace_runtime.entrypoints.http.state import state_of

_HOST: Final = re.compile(
    r"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?)(?::[0-9]{1,5})?"
)


def mcp_url(request: Request) -> str:
    """
    The MCP address under the configured public URL, else under the request's Host.

    What is no host name or address there could be anything, and would end in a line that people paste into a shell:
    then it is the address that the server listens on.
    """
    configured = state_of(request).settings.public_url
    if configured:
        return contract.mcp_url(configured)
    host = request.headers.get("host", "")
    if not _HOST.fullmatch(host):
        address, port = request.scope.get("server") or ("127.0.0.1", contract.API_PORT)
        host = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    return contract.mcp_url(f"{request.url.scheme}://{host}")
