"""Who calls: the key out of the headers, and the gate that every route but the probes stands behind."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, get_type_hints

from starlette.requests import HTTPConnection, Request

from commonplace_runtime.domain.models import Principal
from commonplace_runtime.domain.quotas import MinuteCount, Spending
from commonplace_runtime.domain.scopes import Access
from commonplace_runtime.entrypoints.http.state import ApiState, state_of
from commonplace_runtime.services.authenticate import authenticate

_BEARER: Final = re.compile(r"bearer\s+(.+)", re.IGNORECASE | re.DOTALL)
MAX_TOKEN_LENGTH: Final = 4096


def presented_token(headers: Mapping[str, str]) -> str | None:
    """The key: `Authorization: Bearer …` if that names one, else `X-Api-Key`; None when there is none."""
    match = _BEARER.fullmatch(headers.get("authorization", "").strip())
    token = (match[1].strip() if match else "") or headers.get("x-api-key", "").strip()
    return token[:MAX_TOKEN_LENGTH] or None


def rate_headers(minute: MinuteCount) -> dict[str, str]:
    """How much of the rate is left, in the peer's headers and in those of the IETF draft."""
    return {
        "X-RateLimit-Limit": str(minute.limit),
        "X-RateLimit-Remaining": str(minute.remaining),
        "X-RateLimit-Reset": str(minute.reset_epoch),
        "RateLimit-Limit": str(minute.limit),
        "RateLimit-Remaining": str(minute.remaining),
        "RateLimit-Reset": str(minute.seconds_left),
    }


async def admit(
    state: ApiState, connection: HTTPConnection, access: Access, spending: Spending = Spending.NOTHING
) -> Principal:
    """
    The caller, authenticated and within its limits. Leaves principal, usage and rate headers on the connection's state.

    Raises NotAuthenticated, NotPermitted, RateLimited, QuotaExceeded, Unavailable.
    """
    token = presented_token(connection.headers)
    admission = await authenticate(state.pool, token, access, spending, state.settings.limits)
    connection.state.principal = admission.principal
    connection.state.usage = admission.usage
    if admission.usage.minute is not None:
        connection.state.extra_headers = rate_headers(admission.usage.minute)
    if admission.refusal is not None:
        raise admission.refusal
    return admission.principal


@dataclass(frozen=True)
class Gate:
    """A FastAPI dependency: the caller, who may use `access`. It runs before the body is looked at."""

    access: Access
    spending: Spending = Spending.NOTHING

    async def __call__(self, request: Request) -> Principal:
        return await admit(state_of(request), request, self.access, self.spending)


def needs(access: Access, spending: Spending = Spending.NOTHING) -> Gate:
    """The gate of a route that needs `access`; the API's description reads it off the handler."""
    return Gate(access, spending)


def gate_of(handler: Callable[..., Any]) -> Gate | None:
    """The gate that `handler` stands behind, None for a route without a key."""
    return gate_in(handler)[1]


def gate_in(handler: Callable[..., Any]) -> tuple[str, Gate | None]:
    """The same, after the name of the parameter that takes the caller; empty where there is none."""
    for name, hint in get_type_hints(handler, include_extras=True).items():
        for note in getattr(hint, "__metadata__", ()):
            gate = getattr(note, "dependency", None)
            if isinstance(gate, Gate):
                return name, gate
    return "", None
