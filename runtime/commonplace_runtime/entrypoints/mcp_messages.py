"""
What a POST to an MCP endpoint holds, checked before the SDK sees it.

The SDK reads JSON strictly and refuses batches. Clients in the field escape half a surrogate pair when they cut a
string, and those of 2025-03-26 and before may send several messages at once: both are read here, and the SDK is
given one clean message after the other.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from mcp_types import PROTOCOL_VERSION_META_KEY
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS

from commonplace_runtime.domain.models import Json
from commonplace_runtime.domain.validation import InvalidFields
from commonplace_runtime.entrypoints.http.bodies import parse_body
from commonplace_runtime.entrypoints.http.errors import HttpFault

MAX_BATCH: Final = 20
"""Messages in one POST: it counts as one request against the rate."""
PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
SERVER_ERROR: Final = -32000
DRAFT: Final = "2024-10-07"
"""Before the first revision; claude-mem's server lists it. It differs in nothing that a recall server does."""
_SUPPORTED: Final = ", ".join(reversed((DRAFT, *HANDSHAKE_PROTOCOL_VERSIONS, *MODERN_PROTOCOL_VERSIONS)))


class RpcFault(Exception):
    """A POST that is no JSON-RPC message for us; answered with `status` and a JSON-RPC error without an id."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message

    @property
    def body(self) -> dict[str, Any]:
        """The JSON-RPC error."""
        return {"jsonrpc": "2.0", "error": {"code": self.code, "message": self.message}, "id": None}


@dataclass(frozen=True, kw_only=True)
class Posted:
    """The messages of one POST. `version`: the revision to tell the SDK, None for its default."""

    messages: Sequence[Json]
    is_batch: bool
    version: str | None

    @property
    def called_tools(self) -> frozenset[str]:
        """The names in its `tools/call` requests."""
        return frozenset(name for message in self.messages if (name := _called_tool(message)) is not None)


async def read_posted(raw: bytes, version: str | None) -> Posted:
    """
    The messages in `raw`; `version` is the `MCP-Protocol-Version` header.

    What claims to be of the 2026 revision is left to the SDK, which knows its errors. Raises RpcFault.
    """
    try:
        value = await parse_body(raw)
    except HttpFault as error:
        raise RpcFault(400, PARSE_ERROR, f"Parse error: {error.message}") from error
    except InvalidFields as error:
        raise RpcFault(400, INVALID_REQUEST, f"Invalid Request: {error.issues[0]['message']}") from error
    if version in MODERN_PROTOCOL_VERSIONS:
        return Posted(messages=[value], is_batch=False, version=version)
    is_batch = isinstance(value, list)
    messages = value if isinstance(value, list) else [value]
    if not messages or not all(_is_message(message) for message in messages):
        raise RpcFault(400, PARSE_ERROR, "Parse error: Invalid JSON-RPC message")
    if len(messages) > MAX_BATCH:
        raise RpcFault(400, INVALID_REQUEST, f"Invalid Request: a batch may hold {MAX_BATCH} messages")
    return Posted(messages=messages, is_batch=is_batch, version=_known_version(version, messages))


def encode(message: Json) -> bytes:
    """`message` as strict JSON: half a surrogate pair becomes a question mark."""
    try:
        return orjson.dumps(message)
    except orjson.JSONEncodeError:
        return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _known_version(version: str | None, messages: Sequence[Json]) -> str | None:
    """The header for the SDK. Raises RpcFault for a revision that nobody speaks."""
    if version is None or version in HANDSHAKE_PROTOCOL_VERSIONS:
        return version
    if any(_is_self_contained(message) for message in messages):
        return version
    if version == DRAFT or all(_member(message, "method") == "initialize" for message in messages):
        return None  # a handshake agrees on a revision, whatever the header says
    shown = version[:40]
    raise RpcFault(
        400,
        SERVER_ERROR,
        f"Bad Request: Unsupported protocol version: {shown} (supported versions: {_SUPPORTED})",
    )


def _is_message(value: Json) -> bool:
    """Whether `value` is one JSON-RPC request, notification or answer."""
    if not isinstance(value, dict) or value.get("jsonrpc") != "2.0":
        return False
    has_id = "id" in value
    if has_id and (isinstance(value["id"], bool) or not isinstance(value["id"], str | int)):
        return False
    if "method" in value:
        return isinstance(value["method"], str) and isinstance(value.get("params", {}), dict)
    return has_id and (isinstance(value.get("result"), dict) or isinstance(value.get("error"), dict))


def _is_self_contained(message: Json) -> bool:
    """Whether it names its revision itself, as those since 2026-07-28 do."""
    meta = _member(_member(message, "params"), "_meta")
    return isinstance(meta, dict) and PROTOCOL_VERSION_META_KEY in meta


def _called_tool(message: Json) -> str | None:
    name = _member(_member(message, "params"), "name") if _member(message, "method") == "tools/call" else None
    return name if isinstance(name, str) else None


def _member(value: Json, name: str) -> Json:
    return value.get(name) if isinstance(value, dict) else None
