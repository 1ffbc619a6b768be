"""What an MCP tool is here: who may call it, what it does to a budget, and how its answer and its faults read."""

import json
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import orjson
import structlog
from mcp.server.caching import CacheHint
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.types import (
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    ToolAnnotations,
)
from mcp.types import Tool as ToolDescription

from commonplace_runtime import contract
from commonplace_runtime.domain.errors import DomainError, InvalidInput, Unavailable
from commonplace_runtime.domain.models import Json, Principal, Reach
from commonplace_runtime.domain.quotas import Spending
from commonplace_runtime.domain.scopes import Access
from commonplace_runtime.domain.validation import InvalidFields
from commonplace_runtime.entrypoints.http.state import ApiState, request_id_of
from commonplace_runtime.entrypoints.mcp_door import McpDoor
from commonplace_runtime.store.pool import Pool

log = structlog.get_logger(__name__)

_LIST_TTL_MS: Final = 300_000
_NAME_CHARACTERS: Final = 200
READS: Final = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)
ADDS: Final = ToolAnnotations(
    read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False
)
ERASES: Final = ToolAnnotations(
    read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=False
)
"""Not idempotent: what a query finds after its best hits are gone is something else."""

Arguments: TypeAlias = Mapping[str, Json]


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who calls a tool, in which request, and how large the message is."""

    pool: Pool
    principal: Principal
    request_id: str
    body_bytes: int

    @property
    def reach(self) -> Reach:
        """What the caller may touch."""
        return Reach.of(self.principal, self.request_id)


@dataclass(frozen=True, kw_only=True)
class Tool:
    """
    One tool. `properties` and `required` make its input schema; an argument that it does not name is ignored.

    access: what a key must open to see and call it. call: the answer as JSON; it raises DomainError.
    """

    name: str
    title: str
    description: str
    properties: Mapping[str, Mapping[str, Json]]
    required: tuple[str, ...] = ()
    annotations: ToolAnnotations
    access: Access
    spending: Spending = Spending.NOTHING
    call: Callable[[Caller, Arguments], Awaitable[Any]]

    @property
    def schema(self) -> dict[str, Any]:
        """JSON Schema of its arguments."""
        properties = {name: dict(property_) for name, property_ in self.properties.items()}
        return {"type": "object", "properties": properties, "required": list(self.required)}

    @property
    def described(self) -> ToolDescription:
        """As `tools/list` shows it."""
        return ToolDescription(
            name=self.name,
            title=self.title,
            description=self.description,
            input_schema=self.schema,
            annotations=self.annotations,
        )

    async def answer(self, caller: Caller, arguments: Arguments) -> CallToolResult:
        """Call it. Every fault is a result that the model can read; none of ours shows more than that it is ours."""
        if not self.access.is_open_to(caller.principal.scopes):
            needed = " or ".join(sorted(self.access.value - {"*"}))
            return text_result(f"Insufficient scope: {self.name} needs a key with {needed}", is_error=True)
        try:
            answer = await self.call(caller, arguments)
        except Unavailable as error:
            log.warning("tool_unavailable", tool=self.name, error=error.message, request_id=caller.request_id)
            return text_result("The memory store does not answer right now; try again.", is_error=True)
        except DomainError as error:
            return text_result(fault_text(error), is_error=True)
        except Exception:
            log.exception("tool_failed", tool=self.name, request_id=caller.request_id)
            text = f"Error executing tool {self.name}; the request id {caller.request_id} finds it."
            return text_result(text, is_error=True)
        return text_result(_indented(answer))


def tools_door(
    state: ApiState, *, name: str, title: str, instructions: str, tools: Sequence[Tool], access: Access
) -> McpDoor:
    """The endpoint of `tools`: it lists to each caller those that its key may call."""
    by_name = {tool.name: tool for tool in tools}

    def caller_of(context: ServerRequestContext[Any, Any]) -> Caller:
        request: Any = context.request
        return Caller(
            pool=state.pool,
            principal=request.state.principal,
            request_id=request_id_of(request),
            body_bytes=int(request.headers["content-length"]),
        )

    async def list_tools(
        context: ServerRequestContext[Any, Any], _params: PaginatedRequestParams | None
    ) -> ListToolsResult:
        scopes = caller_of(context).principal.scopes
        return ListToolsResult(tools=[tool.described for tool in tools if tool.access.is_open_to(scopes)])

    async def call_tool(context: ServerRequestContext[Any, Any], params: CallToolRequestParams) -> CallToolResult:
        tool = by_name.get(params.name)
        if tool is None:
            return text_result(f"Unknown tool: {params.name[:_NAME_CHARACTERS]}", is_error=True)
        return await tool.answer(caller_of(context), params.arguments or {})

    # Not the SDK's MCPServer: that one claims prompts and resources, which clients then ask for.
    server: Server[Any] = Server(
        name,
        title=title,
        version=contract.VERSION,
        instructions=instructions,
        cache_hints={"tools/list": CacheHint(ttl_ms=_LIST_TTL_MS, scope="private")},
        get_tool_input_schema={tool.name: tool.schema for tool in tools}.get,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )
    return McpDoor(state, server, access=access, spending={tool.name: tool.spending for tool in tools})


def text_result(text: str, *, is_error: bool = False) -> CallToolResult:
    """`text` as a tool's whole result."""
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=is_error)


def _indented(answer: Any) -> str:
    """JSON indented by two, as the wire has it."""
    try:
        return orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode()
    except orjson.JSONEncodeError:  # an integer above 64 bits: Postgres keeps a large float as one
        return json.dumps(answer, indent=2, ensure_ascii=False)


def fault_text(error: DomainError) -> str:
    """What a model is told: of arguments which, and how to put them right."""
    if not isinstance(error, InvalidFields):
        return error.message
    return "; ".join(_issue_text(issue) for issue in error.issues)


def _issue_text(issue: Mapping[str, Json]) -> str:
    path, message = issue.get("path"), str(issue["message"])
    name = ".".join(map(str, path)) if isinstance(path, list) and path else "arguments"
    return f'"{name}" is required' if message.endswith("received undefined") else f'"{name}": {message}'


def text_argument(arguments: Arguments, name: str) -> str | None:
    """The text under `name`; None for what is missing, blank, or no text."""
    given = arguments.get(name)
    return given.strip() or None if isinstance(given, str) else None


def required_text(arguments: Arguments, name: str) -> str:
    """The text under `name`. Raises InvalidInput in the wire's words."""
    given = text_argument(arguments, name)
    if given is None:
        raise InvalidInput(f'"{name}" is required')
    return given


def clamped(given: Json, usual: int, most: int) -> int:
    """`given` as a whole number between 1 and `most`; `usual` for what is no finite number."""
    if isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(given):
        return usual
    return max(1, min(most, int(given)))
