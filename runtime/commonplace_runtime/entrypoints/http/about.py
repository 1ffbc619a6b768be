"""GET /api/version, GET /api/instructions: what claude-mem's tools ask of a server first. No key is needed."""

from typing import Final, Literal

from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from commonplace_runtime import contract
from commonplace_runtime.domain.guidance import TOPICS
from commonplace_runtime.entrypoints.http.errors import json_response
from commonplace_runtime.entrypoints.http.operations import Operation


class Version(TypedDict):
    """Which release this is."""

    version: str


class InstructionsQuery(TypedDict, total=False):
    """What the text is to be about; `all` unless told."""

    topic: Literal["workflow", "search_params", "examples", "all"]


class Part(TypedDict):
    """A text in the shape of an MCP tool's result."""

    type: Literal["text"]
    text: str


class Instructions(TypedDict):
    """The text, in one part."""

    content: list[Part]


async def get_version(_request: Request) -> Response:
    """Which release this is."""
    return json_response({"version": contract.VERSION})


async def get_instructions(request: Request) -> Response:
    """How an agent uses the memory, by topic."""
    text = TOPICS.get(request.query_params.get("topic") or "all")
    # claude-mem keeps a text for each of its skill's operations; ours has none.
    if text is None or request.query_params.get("operation"):
        return json_response({"error": "Invalid topic"}, 400)
    return json_response({"content": [{"type": "text", "text": text}]})


OPERATIONS: Final = (
    Operation(method="GET", path="/api/version", handler=get_version, id="getVersion", tag="Health", answer=Version),
    Operation(
        method="GET",
        path="/api/instructions",
        handler=get_instructions,
        id="getInstructions",
        tag="Health",
        query=InstructionsQuery,
        answer=Instructions,
        fails=(400,),
    ),
)
