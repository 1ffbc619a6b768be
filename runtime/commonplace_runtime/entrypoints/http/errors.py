"""The one table from fault to HTTP answer, shared by REST and the door in front of MCP."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
import structlog
from starlette.responses import Response

from commonplace_runtime.domain.errors import (
    Conflict,
    DomainError,
    InvalidInput,
    NotAuthenticated,
    NotFound,
    NotPermitted,
    QuotaExceeded,
    RateLimited,
    Unavailable,
)
from commonplace_runtime.domain.validation import InvalidFields, ProjectMissing, wrong_type

log = structlog.get_logger(__name__)

UNAVAILABLE_RETRY_SECONDS: Final = 2
_MEDIA_TYPE: Final = "application/json; charset=utf-8"

TABLE: Final[tuple[tuple[type[DomainError], int, str], ...]] = (
    (InvalidFields, 400, "ValidationError"),
    (ProjectMissing, 400, "ValidationError"),
    (InvalidInput, 400, "BadRequest"),
    (NotAuthenticated, 401, "Unauthorized"),
    (QuotaExceeded, 402, "quota_exceeded"),
    (NotPermitted, 403, "Forbidden"),
    (NotFound, 404, "NotFound"),
    (Conflict, 409, "Conflict"),
    (RateLimited, 429, "rate_limited"),
    (Unavailable, 503, "ServiceUnavailable"),
)


class HttpFault(Exception):
    """A request that is wrong as HTTP, before it means anything: a body that is no JSON, or too large."""

    def __init__(self, status: int, error: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.error = error
        self.message = message


def json_response(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """`body` as JSON."""
    try:
        content = orjson.dumps(body)
    except orjson.JSONEncodeError:  # an integer above 64 bits: Postgres keeps a large float as one
        content = json.dumps(body, allow_nan=False, separators=(",", ":")).encode()
    return Response(content, status_code=status, headers=dict(headers or {}), media_type=_MEDIA_TYPE)


def answer_for(error: DomainError | HttpFault) -> Response:
    """What the caller is told about `error`."""
    if isinstance(error, Unavailable):
        # The cause may name hosts and users: it is for our log.
        log.warning("store_unavailable", error=error.message)
    told = told_of(error)
    return json_response(told.body, told.status, told.headers)


@dataclass(frozen=True, kw_only=True)
class Told:
    """An answer that is a fault."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)


def told_of(error: DomainError | HttpFault) -> Told:
    """`error` as the wire says it."""
    if isinstance(error, HttpFault):
        return Told(status=error.status, body={"error": error.error, "message": error.message})
    status, name = next(
        ((status, name) for kind, status, name in TABLE if isinstance(error, kind)), (500, "InternalError")
    )
    body: dict[str, Any] = {"error": name, "message": error.message}
    headers: dict[str, str] = {}
    if isinstance(error, InvalidFields):
        body = {"error": name, "issues": error.issues}
    elif isinstance(error, ProjectMissing):
        body = {"error": name, "issues": [wrong_type(("projectId",), "string", "undefined")]}
    elif isinstance(error, QuotaExceeded):
        body |= {"used": error.used, "cap": error.cap}
    elif isinstance(error, RateLimited):
        headers["Retry-After"] = str(error.retry_after_seconds)
    elif isinstance(error, Unavailable):
        body["message"] = "The memory store does not answer right now; try again."
        headers["Retry-After"] = str(UNAVAILABLE_RETRY_SECONDS)
    return Told(status=status, body=body, headers=headers)
