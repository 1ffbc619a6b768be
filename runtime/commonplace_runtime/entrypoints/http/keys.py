"""Keys: POST and GET /v1/keys, DELETE /v1/keys/:id and POST /v1/keys/:id/revoke."""

from collections.abc import Sequence
from typing import Annotated, Final, Literal, NotRequired, cast

from fastapi import Depends
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from commonplace_runtime import contract
from commonplace_runtime.domain.models import Json, Principal
from commonplace_runtime.domain.redaction import redact
from commonplace_runtime.domain.scopes import Access
from commonplace_runtime.domain.validation import Fields, InvalidFields, Issue, size_issues, type_name, wrong_type
from commonplace_runtime.entrypoints.http.bodies import read_json
from commonplace_runtime.entrypoints.http.errors import json_response
from commonplace_runtime.entrypoints.http.listing import read_limit, read_name
from commonplace_runtime.entrypoints.http.operations import Operation
from commonplace_runtime.entrypoints.http.public_url import mcp_url
from commonplace_runtime.entrypoints.http.security import needs
from commonplace_runtime.entrypoints.http.state import reach_of, state_of
from commonplace_runtime.services import keys
from commonplace_runtime.services.keys import DEFAULT_SCOPES, WantedKey

KeyHolder = Annotated[Principal, Depends(needs(Access.WRITE))]

_LABEL_CHARACTERS: Final = 120
_MOST_DAYS: Final = 365
_MOST_SCOPES: Final = 20
_LIMITS: Final = (50, 200)

Scope = Literal[
    "memories:read",
    "memories:write",
    "events:write",
    "sessions:write",
    "observations:read",
    "jobs:read",
    "audit:read",
    "memories:admin",
    "*",
]


class MintBody(TypedDict):
    """What the new key shall be; `{}` for a key that reads whatever this one reaches."""

    label: NotRequired[Annotated[str | None, Field(max_length=_LABEL_CHARACTERS, description="Its name in lists")]]
    expiresInDays: NotRequired[Annotated[int | None, Field(ge=1, le=_MOST_DAYS)]]
    scopes: NotRequired[
        Annotated[
            list[Scope] | None,
            Field(min_length=1, max_length=_MOST_SCOPES, description="No more than the minting key may do itself"),
        ]
    ]
    projectId: NotRequired[Annotated[str | None, Field(description="Id or name; left out: as far as this key reaches")]]
    actor: NotRequired[Annotated[str | None, Field(description="The minting key's own, which is also the default")]]


class MintAnswer(TypedDict):
    """The new key. `apiKey` is told here and never again."""

    id: str
    apiKey: str
    scopes: list[str]
    expiresAt: str | None
    label: str
    projectId: str | None
    actor: str
    mintedBy: str | None
    mcpUrl: str
    connectCommand: str


class KeyEntry(TypedDict):
    """A key without its token."""

    id: str
    label: str
    scopes: list[str]
    projectId: str | None
    project: str | None
    actor: str
    mintedBy: Annotated[str | None, Field(description="Id of the key that asked for this one")]
    managed: Annotated[bool, Field(description="Whether an ApiKey object owns it")]
    status: Literal["active", "grace", "expired", "revoked"]
    expiresAt: str | None
    createdAtEpoch: int
    lastUsedAtEpoch: Annotated[int | None, Field(description="To the minute")]
    revokedAtEpoch: int | None


class KeyQuery(TypedDict):
    """Which page."""

    limit: NotRequired[Annotated[int, Field(ge=1, le=_LIMITS[1])]]
    cursor: NotRequired[str]


class KeysAnswer(TypedDict):
    """One page of keys."""

    keys: list[KeyEntry]
    nextCursor: str | None


class RevokedAnswer(TypedDict):
    """The key is refused from now on."""

    id: str
    status: Literal["revoked"]


async def post_keys(request: Request, principal: KeyHolder) -> Response:
    """Mint a key that may do no more than this one; its token is told once."""
    body = await read_json(request, expected="object")
    wanted = _wanted(body.value)
    minted = await keys.mint_key(state_of(request).pool, principal, reach_of(request, principal), wanted)
    url = mcp_url(request)
    told = {name: minted.row[name] for name in ("expiresAt", "label", "projectId", "actor", "mintedBy")}
    answer = {
        "id": minted.row["id"],
        "apiKey": minted.token,
        "scopes": minted.row["scopes"],
        **told,
        "mcpUrl": url,
        "connectCommand": contract.connect_command(url, minted.token),
    }
    return json_response(answer, 201, {"Cache-Control": "no-store"})


async def get_keys(request: Request, principal: KeyHolder) -> Response:
    """The keys of the team, or of the key's project, newest first; never a token."""
    usual, most = _LIMITS
    listed, after = await keys.list_keys(
        state_of(request).pool,
        reach_of(request, principal),
        limit=read_limit(request.query_params.get("limit"), usual=usual, most=most),
        cursor=request.query_params.get("cursor") or None,
    )
    return json_response({"keys": listed, "nextCursor": after})


async def revoke_key(request: Request, principal: KeyHolder, key_id: str) -> Response:
    """Revoke a key, this one too: it is refused from its next request on."""
    revoked = await keys.revoke_key(state_of(request).pool, principal, reach_of(request, principal), key_id)
    return json_response({"id": revoked, "status": "revoked"})


def _wanted(given: Json) -> WantedKey:
    issues: list[Issue] = []
    fields = Fields(given, issues)
    wanted = WantedKey(
        label=_label(fields.value("label"), issues),
        scopes=_scopes(fields.value("scopes"), issues),
        project=read_name(fields.text("projectId")),
        actor=fields.text("actor"),
        expires_in_days=fields.integer("expiresInDays", minimum=1, maximum=_MOST_DAYS),
    )
    if issues:
        raise InvalidFields(issues)
    return wanted


def _label(label: Json, issues: list[Issue]) -> str | None:
    if label is None:
        return None
    if not isinstance(label, str):
        issues.append(wrong_type(("label",), "string", type_name(label)))
        return None
    if len(label) > _LABEL_CHARACTERS:
        message = f"Too big: expected string to have <={_LABEL_CHARACTERS} characters"
        bound: Issue = {"code": "too_big", "maximum": _LABEL_CHARACTERS, "message": message}
        issues.append({"origin": "string", "inclusive": True, "path": ["label"], **bound})
    return cast("str", redact(label).value).strip() or None


def _scopes(given: Json, issues: list[Issue]) -> Sequence[str]:
    if given is None:
        return DEFAULT_SCOPES
    if not isinstance(given, list):
        issues.append(wrong_type(("scopes",), "array", type_name(given)))
        return DEFAULT_SCOPES
    issues += [{**issue, "path": ["scopes"]} for issue in size_issues(given, least=1, most=_MOST_SCOPES)]
    message = "Invalid option: expected one of " + "|".join(f'"{scope}"' for scope in contract.SCOPES)
    issues += [
        {"code": "invalid_value", "values": list(contract.SCOPES), "path": ["scopes", place], "message": message}
        for place, scope in enumerate(given[:_MOST_SCOPES])
        if scope not in contract.SCOPES
    ]
    return [str(scope) for scope in given]


OPERATIONS: Final = (
    Operation(
        method="POST",
        path="/v1/keys",
        handler=post_keys,
        id="mintKey",
        tag="Keys",
        body=MintBody,
        answer=MintAnswer,
        status=201,
        example={"label": "laptop", "expiresInDays": 30},
    ),
    Operation(
        method="GET", path="/v1/keys", handler=get_keys, id="listKeys", tag="Keys", query=KeyQuery, answer=KeysAnswer
    ),
    Operation(
        method="DELETE",
        path="/v1/keys/{key_id}",
        handler=revoke_key,
        id="revokeKey",
        tag="Keys",
        answer=RevokedAnswer,
        fails=(404, 409),
    ),
    Operation(
        method="POST",
        path="/v1/keys/{key_id}/revoke",
        handler=revoke_key,
        id="revokeKeyByPost",
        tag="Keys",
        answer=RevokedAnswer,
        fails=(404, 409),
    ),
)
