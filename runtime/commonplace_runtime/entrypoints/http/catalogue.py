"""Every fault that the API answers: when it comes, what to do, and a body as it is really sent."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

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
from commonplace_runtime.entrypoints.http.errors import HttpFault, told_of


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One kind of refusal. `body` and `headers` are an example; what to match is `status` and `body["error"]`."""

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str]
    when: str
    what_to_do: str

    @property
    def error(self) -> str:
        """The literal that names it on the wire."""
        return str(self.body["error"])


def _fault(error: DomainError | HttpFault, when: str, what_to_do: str) -> Fault:
    told = told_of(error)
    return Fault(status=told.status, body=told.body, headers=told.headers, when=when, what_to_do=what_to_do)


FAULTS: Final[tuple[Fault, ...]] = (
    _fault(
        InvalidFields([wrong_type(("eventType",), "string", "undefined")]),
        "Parts of the body or the query are wrong. All of them are listed in `issues`, each with its `path`. A body "
        "that is not sent as `application/json` counts as none.",
        "Put right what the issues name. The same request will always be refused.",
    ),
    _fault(
        ProjectMissing(0),
        "No project was named, and the key is not bound to one.",
        "Send `projectId` (an id or a name), or use a key of one project.",
    ),
    _fault(
        InvalidInput("Legacy /api/sessions/observations requires a project-scoped API key"),
        "The request is well-formed and can never work.",
        "The message says what is needed instead.",
    ),
    _fault(
        HttpFault(400, "SyntaxError", "the body is not valid JSON: Expecting value: line 1 column 1 (char 0)"),
        "The body is no JSON, is neither object nor array, or is not packed as its `Content-Encoding` says.",
        "Send valid JSON. NUL characters, lone surrogates and unknown fields are fine.",
    ),
    Fault(
        status=400,
        body={"error": "Invalid topic"},
        headers={},
        when="`GET /api/instructions` was asked for a topic or a tool that it does not know.",
        what_to_do="Leave the parameter out: the answer is everything.",
    ),
    _fault(
        NotAuthenticated("Missing API key (Authorization: Bearer <key> or X-Api-Key: <key>)"),
        "No key was presented.",
        "Send the key in one of the two headers.",
    ),
    _fault(
        QuotaExceeded("Monthly request quota reached (10000)", used=10000, cap=10000),
        "The team's month is used up: requests, or tokens on routes that write memories (and on capture, where the "
        "server's own environment sets the cap). Erasure, export and usage are never refused for this.",
        "Wait for the first of the next UTC month, or have the team's Quota raised. `GET /v1/usage` tells who used it.",
    ),
    _fault(
        NotPermitted("Invalid API key or insufficient scope"),
        "The key is unknown, revoked, expired or lacks the scope (which of these is not told), or it is bound to "
        "another project.",
        "Use a key that reaches that far; an administrator lists them with `commonplace keys list`.",
    ),
    _fault(
        NotFound("Memory not found"),
        "There is no such thing, or it belongs to another team. The two look alike. An unknown route answers the same "
        "with `Cannot <METHOD> <path>`.",
        "Check the id. An id never comes back.",
    ),
    Fault(
        status=404,
        body={"error": "not_found"},
        headers={},
        when="The same, from the two routes that delete: `DELETE /v1/memories/{id}` and "
        "`DELETE /v1/projects/{id}/memory`.",
        what_to_do="Nothing: what is not there needs no deleting.",
    ),
    _fault(
        Conflict("Generation job already completed; cannot cancel"),
        "The thing is in a state that forbids this.",
        "Look at its state first. Repeating will not help until the state changes.",
    ),
    Fault(
        status=408,
        body={"error": "RequestTimeoutError", "message": "the request did not arrive in time"},
        headers={"Connection": "close"},
        when="Headers took longer than 15 seconds, or the body longer than 30.",
        what_to_do="Send again; send less at once over a slow line.",
    ),
    _fault(
        HttpFault(413, "PayloadTooLargeError", "request entity too large"),
        "The body has more than 5 MiB, unpacked. An import has no such limit.",
        "Send less at once: a batch takes up to 500 events.",
    ),
    _fault(
        HttpFault(415, "UnsupportedMediaTypeError", 'unsupported content encoding "br"'),
        "The body's `Content-Encoding` is not `gzip`, `deflate` or `identity`, or an import is not sent as NDJSON.",
        "Send it packed with gzip or not at all packed, and an import as `application/x-ndjson`.",
    ),
    _fault(
        RateLimited("Rate limit exceeded (600 requests / 60s)", retry_after_seconds=17),
        "The key made more requests in this minute than its team's Quota allows.",
        "Wait as many seconds as `Retry-After` says. `RateLimit-Remaining` on every answer tells before.",
    ),
    Fault(
        status=431,
        body={"error": "HeadersTooLargeError", "message": "request line and headers may have 65536 bytes"},
        headers={"Connection": "close"},
        when="Request line and headers have more than 64 KiB.",
        what_to_do="Send what is long in the body.",
    ),
    Fault(
        status=500,
        body={"error": "InternalError", "message": "Something broke on our side; the request id finds it."},
        headers={},
        when="A fault of ours.",
        what_to_do="Report it with the answer's `X-Request-Id`: the log has the cause under that id.",
    ),
    _fault(
        Unavailable("the database does not answer"),
        "The database does not answer, or more requests are open than this server takes.",
        "Send the same again after `Retry-After` seconds: every write may be repeated safely.",
    ),
)
"""By status."""


def faults_of(status: int) -> tuple[Fault, ...]:
    """What this status may mean."""
    return tuple(fault for fault in FAULTS if fault.status == status)
