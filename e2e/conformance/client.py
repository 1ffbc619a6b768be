"""The official Python client against both endpoints, as a user of it would write it."""

import json
from typing import Any, Final, Literal

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import TextContent

from e2e.conformance.server import Api
from e2e.report import CheckFailed

Era = Literal["auto", "legacy"]
ERAS: Final[dict[Era, str]] = {"auto": "2026-07-28", "legacy": "2025-11-25"}
RECALL_TOOLS: Final = ["search", "context", "recent"]
MEMORY_TOOLS: Final = [
    "memory_add",
    "memory_search",
    "memory_context",
    "memory_forget",
    "memory_list_recent",
    "memory_record_decision",
]


async def recall_works(api: Api, path: str, era: Era) -> str:
    """List and call the three reading tools. Returns what was seen; raises CheckFailed."""
    async with _connected(api, path, era) as client:
        tools = [tool.name for tool in (await client.list_tools()).tools]
        if tools != RECALL_TOOLS:
            raise CheckFailed(f"tools/list answers {tools}")
        for tool in tools:
            await _call(client, tool, {"query": "why does the uploader retry", "limit": 3})
        return f"{len(tools)} tools listed and called at {_agreed(client, era)}"


async def memory_works(api: Api, path: str, era: Era) -> str:
    """Add a memory, find it, record a decision, forget. Returns what was seen; raises CheckFailed."""
    word = f"quokka{era}"
    async with _connected(api, path, era) as client:
        tools = [tool.name for tool in (await client.list_tools()).tools]
        if tools != MEMORY_TOOLS:
            raise CheckFailed(f"tools/list answers {tools}")
        added = (await _call(client, "memory_add", {"content": f"The {word} sleeps at noon"}))["memory"]
        await _call(client, "memory_record_decision", {"decision": f"Feed the {word} at night", "rationale": "cooler"})
        for tool in ("memory_search", "memory_context", "memory_list_recent"):
            found = await _call(client, tool, {"query": word})
            if len(found["observations"]) < 2:
                raise CheckFailed(f"{tool} does not find what was added: {found}")
        await _call(client, "memory_forget", {"memoryId": added["id"]})
        preview = await _call(client, "memory_forget", {"query": word})
        if not preview["dryRun"] or [memory["kind"] for memory in preview["memories"]] != ["decision"]:
            raise CheckFailed(f"a forget by query is no dry run, or a forgotten memory is still found: {preview}")
        return f"{len(tools)} tools listed and called at {_agreed(client, era)}"


def _connected(api: Api, path: str, era: Era) -> Client:
    http = httpx2.AsyncClient(headers={"Authorization": f"Bearer {api.key}"}, timeout=20)
    return Client(streamable_http_client(api.url(path), http_client=http), mode=era)


def _agreed(client: Client, era: Era) -> str:
    version = client.protocol_version
    if version != ERAS[era]:
        raise CheckFailed(f"{era} agreed on {version}, not {ERAS[era]}")
    return version


async def _call(client: Client, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    content = result.content[0]
    if result.is_error or not isinstance(content, TextContent):
        raise CheckFailed(f"{tool} answers {content}")
    answer: dict[str, Any] = json.loads(content.text)
    return answer
