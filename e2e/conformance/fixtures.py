"""What the suite asks a server to have, behind our door: this tries the door, where our own tools cannot."""

import base64
import json
from collections.abc import Callable
from typing import Any, Final

from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp.types import (
    AudioContent,
    BlobResourceContents,
    CallToolRequestParams,
    CallToolResult,
    CompleteRequestParams,
    CompleteResult,
    Completion,
    EmbeddedResource,
    GetPromptRequestParams,
    GetPromptResult,
    ImageContent,
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    PaginatedRequestParams,
    Prompt,
    PromptArgument,
    PromptMessage,
    ReadResourceRequestParams,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    TextContent,
    TextResourceContents,
    Tool,
)
from mcp_types import INVALID_PARAMS

from commonplace_runtime.domain.scopes import Access
from commonplace_runtime.entrypoints.http.state import ApiState
from commonplace_runtime.entrypoints.mcp_door import McpDoor

FIXTURE_PATH: Final = "/fixture"
_PIXEL: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
_SILENCE: Final = base64.b64encode(b"RIFF\x24\x00\x00\x00WAVEfmt \x10\x00\x00\x00" + b"\x00" * 24).decode()
_Context = ServerRequestContext[Any, Any]


def fixture_door(state: ApiState) -> McpDoor:
    """The fixtures behind the door that our tools stand behind."""
    server: Server[Any] = Server(
        "fixture",
        version="1",
        on_list_tools=_list_tools,
        on_call_tool=_call_tool,
        on_list_resources=_list_resources,
        on_list_resource_templates=_list_templates,
        on_read_resource=_read_resource,
        on_list_prompts=_list_prompts,
        on_get_prompt=_get_prompt,
        on_completion=_complete,
    )
    return McpDoor(state, server, access=Access.READ)


def _text(text: str) -> TextContent:
    return TextContent(type="text", text=text)


def _image() -> ImageContent:
    return ImageContent(type="image", data=_PIXEL, mime_type="image/png")


def _resource(uri: str, text: str, mime_type: str = "text/plain") -> EmbeddedResource:
    return EmbeddedResource(type="resource", resource=TextResourceContents(uri=uri, mime_type=mime_type, text=text))


_TOOLS: Final[dict[str, Callable[[], list[Any]]]] = {
    "test_simple_text": lambda: [_text("This is a simple text response for testing.")],
    "test_image_content": lambda: [_image()],
    "test_audio_content": lambda: [AudioContent(type="audio", data=_SILENCE, mime_type="audio/wav")],
    "test_embedded_resource": lambda: [_resource("test://embedded-resource", "This is an embedded resource content.")],
    "test_multiple_content_types": lambda: [
        _text("Multiple content types test:"),
        _image(),
        _resource("test://mixed-content-resource", '{"test":"data","value":123}', "application/json"),
    ],
    "test_error_handling": lambda: [_text("This tool intentionally returns an error for testing")],
}


async def _list_tools(_context: _Context, _params: PaginatedRequestParams | None) -> ListToolsResult:
    return ListToolsResult(
        tools=[Tool(name=name, description=name, input_schema={"type": "object"}) for name in _TOOLS],
        ttl_ms=1000,
        cache_scope="private",
    )


async def _call_tool(_context: _Context, params: CallToolRequestParams) -> CallToolResult:
    content = _TOOLS.get(params.name, lambda: [_text(f"Unknown tool: {params.name}")])()
    return CallToolResult(content=content, is_error=params.name == "test_error_handling" or params.name not in _TOOLS)


async def _list_resources(_context: _Context, _params: PaginatedRequestParams | None) -> ListResourcesResult:
    return ListResourcesResult(
        resources=[
            Resource(uri="test://static-text", name="text", description="text", mime_type="text/plain"),
            Resource(uri="test://static-binary", name="binary", description="binary", mime_type="image/png"),
        ],
        ttl_ms=1000,
        cache_scope="private",
    )


async def _list_templates(_context: _Context, _params: PaginatedRequestParams | None) -> ListResourceTemplatesResult:
    template = ResourceTemplate(uri_template="test://template/{id}/data", name="template", mime_type="application/json")
    return ListResourceTemplatesResult(resource_templates=[template], ttl_ms=1000, cache_scope="private")


async def _read_resource(_context: _Context, params: ReadResourceRequestParams) -> ReadResourceResult:
    uri = str(params.uri)
    contents: TextResourceContents | BlobResourceContents
    if uri == "test://static-text":
        text = "This is the content of the static text resource."
        contents = TextResourceContents(uri=uri, mime_type="text/plain", text=text)
    elif uri == "test://static-binary":
        contents = BlobResourceContents(uri=uri, mime_type="image/png", blob=_PIXEL)
    elif uri.startswith("test://template/") and uri.endswith("/data"):
        number = uri.split("/")[3]
        text = json.dumps({"id": number, "templateTest": True, "data": f"Data for ID: {number}"})
        contents = TextResourceContents(uri=uri, mime_type="application/json", text=text)
    else:
        raise MCPError(code=INVALID_PARAMS, message="Resource not found", data={"uri": uri})
    return ReadResourceResult(contents=[contents], ttl_ms=1000, cache_scope="private")


_PROMPTS: Final[dict[str, tuple[str, ...]]] = {
    "test_simple_prompt": (),
    "test_prompt_with_arguments": ("arg1", "arg2"),
    "test_prompt_with_embedded_resource": ("resourceUri",),
    "test_prompt_with_image": (),
}


async def _list_prompts(_context: _Context, _params: PaginatedRequestParams | None) -> ListPromptsResult:
    prompts = [
        Prompt(
            name=name,
            description=name,
            arguments=[PromptArgument(name=argument, description=argument, required=True) for argument in arguments],
        )
        for name, arguments in _PROMPTS.items()
    ]
    return ListPromptsResult(prompts=prompts, ttl_ms=1000, cache_scope="private")


async def _get_prompt(_context: _Context, params: GetPromptRequestParams) -> GetPromptResult:
    given = params.arguments or {}
    content: list[Any]
    match params.name:
        case "test_simple_prompt":
            content = [_text("This is a simple prompt for testing.")]
        case "test_prompt_with_arguments":
            content = [_text(f"Prompt with arguments: arg1='{given.get('arg1')}', arg2='{given.get('arg2')}'")]
        case "test_prompt_with_embedded_resource":
            resource = _resource(given.get("resourceUri", ""), "Embedded resource content for testing.")
            content = [resource, _text("Please process the embedded resource above.")]
        case "test_prompt_with_image":
            content = [_image(), _text("Please analyze the image above.")]
        case _:
            raise MCPError(code=INVALID_PARAMS, message=f"Unknown prompt: {params.name}")
    return GetPromptResult(messages=[PromptMessage(role="user", content=part) for part in content])


async def _complete(_context: _Context, _params: CompleteRequestParams) -> CompleteResult:
    return CompleteResult(completion=Completion(values=["paris", "park", "party"], total=150, has_more=False))
