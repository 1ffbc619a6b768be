"""The OpenAPI document, made from `Operation`s: nobody writes a schema twice, and none is made by validation."""

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from commonplace_runtime import contract
from commonplace_runtime.domain.quotas import Spending
from commonplace_runtime.entrypoints.http.catalogue import faults_of
from commonplace_runtime.entrypoints.http.operations import Operation
from commonplace_runtime.entrypoints.http.security import Gate, gate_of

Document: TypeAlias = dict[str, Any]

_JSON: Final = "application/json"
_REFERENCE: Final = "#/components/schemas/{model}"
_PART: Final = re.compile(r"\{(\w+)\}")
_EXAMPLE_ID: Final = "0198c5f0-7e3a-7c41-9d0a-2f6b8f1c4e55"
_TAGS: Final = {
    "Capture": "What agents send: sessions and the events in them.",
    "Recall": "Questions to the memory, and MCP.",
    "Memories": "Memories as things: written, read, changed, superseded, deleted.",
    "Projects": "What a team's memory is divided into.",
    "Erasure": "Forgetting, which reaches everything that a memory came from.",
    "Transfer": "Everything out, and in again.",
    "Jobs": "The work that turns events into memories.",
    "Keys": "Credentials, and how an agent is connected.",
    "Audit": "Who did what, and who was told what.",
    "Usage": "What was used this month, and of what limits.",
    "Health": "Probes, and what this server is. No key.",
    "Compat": "Routes of claude-mem's worker, on the same services.",
}
_PROBLEM_FIELDS: Final = {
    "error": {"type": "string", "description": "The literal that names the fault."},
    "message": {"type": "string", "description": "For people; may change."},
}
_ISSUE: Final = {
    "type": "object",
    "properties": {
        "code": {"type": "string", "examples": ["invalid_type"]},
        "path": {
            "type": "array",
            "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
            "description": "Where: field names, and positions from 0.",
        },
        "message": {"type": "string"},
    },
    "required": ["code", "path", "message"],
}
_SCHEMAS: Final[dict[str, Document]] = {
    "Json": {"description": "Any JSON value."},
    "Issue": {"description": "One thing that is wrong with a body or query.", **_ISSUE},
    "Problem": {"type": "object", "properties": _PROBLEM_FIELDS, "required": ["error"]},
    "InvalidRequest": {
        "type": "object",
        "properties": {
            **_PROBLEM_FIELDS,
            "issues": {"type": "array", "items": {"$ref": "#/components/schemas/Issue"}},
        },
        "required": ["error"],
    },
    "QuotaProblem": {
        "type": "object",
        "properties": {**_PROBLEM_FIELDS, "used": {"type": "integer"}, "cap": {"type": "integer"}},
        "required": ["error", "message", "used", "cap"],
    },
}
_SCHEMA_OF_STATUS: Final = {400: "InvalidRequest", 402: "QuotaProblem"}
_RESPONSE_NAMES: Final = {
    400: "BadRequest",
    401: "Unauthorized",
    402: "QuotaExceeded",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    413: "PayloadTooLarge",
    415: "UnsupportedMediaType",
    429: "RateLimited",
    503: "Unavailable",
}
_RATE_HEADERS: Final = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")
_HEADERS: Final[dict[str, Document]] = {
    "X-Request-Id": {
        "description": "The request's own `X-Request-Id`, or a fresh one. Audit and log know the request by it.",
        "schema": {"type": "string"},
    },
    "RateLimit-Limit": {"description": "Requests a minute. Only where a rate is set.", "schema": {"type": "integer"}},
    "RateLimit-Remaining": {"description": "Requests still allowed in this minute.", "schema": {"type": "integer"}},
    "RateLimit-Reset": {"description": "Seconds until the minute ends.", "schema": {"type": "integer"}},
    "Retry-After": {"description": "Seconds to wait.", "required": True, "schema": {"type": "integer"}},
}
_DESCRIPTION: Final = """\
Memory that a team's people and coding agents share.

Send the key as `Authorization: Bearer …` or as `X-Api-Key`. Fields are camelCase, times are milliseconds since 1970.
Unknown fields are ignored, and a field that is null counts as absent. `projectId` takes an id or a name, and may be
left out where the key belongs to one project. Bodies have at most 5 MiB and may be packed with gzip.

Anything that may be retried says so: 429 and 503 carry `Retry-After`, every write may be sent twice. What each
`error` means stands in the error catalogue.
"""
MCP_ROUTES: Final = (
    (
        contract.MCP_PATH,
        "callRecall",
        "Recall over MCP",
        "The Model Context Protocol, streamable HTTP without sessions: tools that read. "
        "Clients speak it, people rarely do: one JSON-RPC message goes in, one comes back.",
    ),
    (
        contract.MCP_MEMORY_PATH,
        "callMemory",
        "Memory over MCP",
        "The same with tools that also write, for keys that may write.",
    ),
)
"""Path, operation id, summary and description of what is no REST."""


class _Schemas(GenerateJsonSchema):
    """Without a title on every field: it would repeat the field's name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def document(operations: Sequence[Operation]) -> Document:
    """The whole description, the same for every installation."""
    schemas, components = _described(operations)
    paths: dict[str, Document] = {}
    for operation in operations:
        entry = _operation(operation, schemas)
        paths.setdefault(_path(operation), {})[operation.method.lower()] = entry
    for path, name, summary, description in MCP_ROUTES:
        paths[path] = {"post": _mcp_operation(name, summary, description)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Commonplace",
            "version": contract.VERSION,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
            },
            "headers": _HEADERS,
            "responses": {name: _fault_response(status) for status, name in _RESPONSE_NAMES.items()},
            "schemas": dict(sorted({**components, **_SCHEMAS}.items())),
        },
    }


def _described(operations: Iterable[Operation]) -> tuple[Mapping[str, Document], dict[str, Document]]:
    """The schemas by operation and part, and what they share."""
    wanted: list[tuple[str, JsonSchemaMode, TypeAdapter[Any]]] = []
    for operation in operations:
        parts = {"body": operation.body, "answer": operation.answer}
        # One mode for all, though answers are never validated: in two, what both hold would have two schemas.
        wanted += [
            (f"{operation.id}.{part}", "validation", TypeAdapter(kind))
            for part, kind in parts.items()
            if kind is not None
        ]
    schemas, shared = TypeAdapter.json_schemas(wanted, ref_template=_REFERENCE, schema_generator=_Schemas)
    return {name: schema for (name, _), schema in schemas.items()}, shared.get("$defs", {})


def _path(operation: Operation) -> str:
    return _PART.sub(lambda part: "{" + _camel(part[1]) + "}", operation.path)


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


def _operation(operation: Operation, schemas: Mapping[str, Document]) -> Document:
    summary, _, rest = inspect.cleandoc(operation.handler.__doc__ or "").partition("\n")
    gate = gate_of(operation.handler)
    entry: Document = {
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": summary.strip().rstrip("."),
        "security": [] if gate is None else [{"bearer": []}, {"apiKey": []}],
    }
    texts = [rest.strip()]
    if gate is not None:
        scopes = sorted(gate.access.value - {"*"})
        entry["x-scopes"] = scopes
        texts.append("Scopes: " + " or ".join(f"`{scope}`" for scope in scopes) + ".")
        if gate.spending is Spending.EXEMPT:
            texts.append("Answered also when the month is used up.")
    entry["description"] = "\n\n".join(text for text in texts if text)
    parameters = [*_path_parameters(operation), *_query_parameters(operation)]
    if parameters:
        entry["parameters"] = parameters
    if operation.body is not None:
        content: Document = {"schema": schemas[f"{operation.id}.body"]}
        if operation.example is not None:
            content["examples"] = {"example": {"value": operation.example}}
        entry["requestBody"] = {"required": True, "content": {operation.body_media: content}}
    entry["responses"] = _responses(operation, gate, schemas)
    return entry


def _path_parameters(operation: Operation) -> Iterable[Document]:
    for name in _PART.findall(operation.path):
        yield {
            "name": _camel(name),
            "in": "path",
            "required": True,
            "schema": {"type": "string", "minLength": 1},
            "example": operation.path_examples.get(name, _EXAMPLE_ID),
        }


def _query_parameters(operation: Operation) -> Iterable[Document]:
    if operation.query is None:
        return
    found = TypeAdapter(operation.query).json_schema(ref_template=_REFERENCE, schema_generator=_Schemas)
    required = found.get("required", [])
    for name, schema in found.get("properties", {}).items():
        about = {key: value for key, value in schema.items() if key != "description"}
        parameter: Document = {"name": name, "in": "query", "required": name in required, "schema": about}
        if "description" in schema:
            parameter["description"] = schema["description"]
        yield parameter


def _responses(operation: Operation, gate: Gate | None, schemas: Mapping[str, Document]) -> Document:
    schema = {"type": "string"} if operation.answer is None else schemas[f"{operation.id}.answer"]
    headers = ["X-Request-Id"] if operation.path.lower().startswith("/v1/") else []
    headers += [] if gate is None else _RATE_HEADERS
    answer = {
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in headers},
        "content": {operation.media: {"schema": schema}},
    }
    good = {operation.status, *operation.also}
    made = {str(status): {"description": _GOOD.get(status, "As the status says."), **answer} for status in sorted(good)}
    for status in sorted(_refusals(operation, gate) - good):
        made[str(status)] = {"$ref": f"#/components/responses/{_RESPONSE_NAMES[status]}"}
    return made


_GOOD: Final = {200: "Done.", 201: "Made.", 202: "Taken on.", 503: "The same, while requests cannot be served."}


def _refusals(operation: Operation, gate: Gate | None) -> set[int]:
    found = set(operation.fails)
    if gate is not None:
        found |= {401, 403, 429, 503} | (set() if gate.spending is Spending.EXEMPT else {402})
    if operation.body is not None:
        found |= {400, 413, 415}
    if operation.query is not None:
        found.add(400)
    if _PART.search(operation.path):
        found.add(404)
    return found


def _fault_response(status: int) -> Document:
    faults = faults_of(status)
    names: dict[str, Document] = {}
    for fault in faults:
        name = fault.error if fault.error not in names else f"{fault.error} {len(names) + 1}"
        names[name] = {"summary": fault.when, "value": dict(fault.body)}
    headers = sorted({name for fault in faults for name in fault.headers} & _HEADERS.keys())
    return {
        "description": faults[0].when,
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in (*headers, "X-Request-Id")},
        "content": {
            _JSON: {
                "schema": {"$ref": f"#/components/schemas/{_SCHEMA_OF_STATUS.get(status, 'Problem')}"},
                "examples": names,
            }
        },
    }


def _mcp_operation(name: str, summary: str, description: str) -> Document:
    opaque = {"content": {_JSON: {"schema": {"type": "object", "description": "A JSON-RPC 2.0 message."}}}}
    refusals = {str(status): {"$ref": f"#/components/responses/{_RESPONSE_NAMES[status]}"} for status in _MCP_REFUSALS}
    return {
        "operationId": name,
        "tags": ["Recall"],
        "summary": summary,
        "description": description,
        "security": [{"bearer": []}, {"apiKey": []}],
        "requestBody": {"required": True, **opaque},
        "responses": {
            "200": {"description": "The answer to a request.", **opaque},
            "202": {"description": "A notification was taken."},
            **refusals,
        },
    }


_MCP_REFUSALS: Final = (400, 401, 402, 403, 429, 503)
