"""What a provider's refusal means: by its status, by its code, and only then by its words."""

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final

from commonplace_runtime.domain.retry import FailureKind

_IDENTIFIER = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
MESSAGE_CHARACTERS: Final = 300
"""How much of a message is looked at: further on it may quote the prompt, whose words mean nothing here."""

BROKEN_FORM: Final = ("json_validate_failed",)
"""Groq: what the model wrote does not follow the schema that was sent."""
_MODERATED: Final = ("content_filter", "content management policy", "content_policy", "moderation", "flagged")
_TOO_LONG: Final = (
    "prompt is too long",
    "prompt too long",
    "context length",
    "context_length",
    "context window",
    "context limit",
    "maximum context",
    "too many tokens",
    "input token count",
    "request_too_large",
)
_QUOTA: Final = (
    "quota exceeded",
    "exceeded your current quota",
    "insufficient credits",
    "insufficient_quota",
    "resource_exhausted",
    "limit exceeded",
    "negative credit",
    "credit balance",
    "billing",
)
_OVERLOADED: Final = ("overloaded",)
_RATE: Final = ("rate_limit", "rate limit", "too many requests")
_MISCONFIGURED: Final = (
    "invalid api key",
    "invalid x-api-key",
    "incorrect api key",
    "authentication_error",
    "api key not valid",
    "api_key_invalid",
    "api key expired",
    "model_not_found",
    "not a valid model",
    # The endpoint does not know what every call of ours says: no other events would fare better.
    "not supported",
    "unsupported",
    "unknown name",
    "unrecognized request argument",
    "extra inputs are not permitted",
)
_CREDENTIAL: Final = (
    "authentication",
    "unauthorized",
    "permission",
    "access denied",
    "access_denied",
    "request not allowed",
    "api key",
    "api_key",
)
"""What a 403 is about that every call would get. One that names none of it may come from a filter of contents."""

_BY_STATUS: Final[Mapping[int, FailureKind]] = {
    400: "poison",
    401: "configuration",
    402: "configuration",
    403: "poison",
    404: "configuration",
    405: "configuration",
    408: "transient",
    409: "transient",
    413: "splittable",
    425: "transient",
}


class CallFailed(Exception):
    """
    One call gave no answer that could be used. `reason` quotes nothing that the provider said but identifiers.

    is_broken_off: the provider may have it, but what it made of it never came back.
    """

    def __init__(
        self,
        kind: FailureKind,
        reason: str,
        *,
        retry_after_seconds: float | None = None,
        request_id: str | None = None,
        is_broken_off: bool = False,
    ) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds
        self.request_id = request_id
        self.is_broken_off = is_broken_off


@dataclass(frozen=True, kw_only=True)
class Told:
    """What an error document says: `words` in lower case, to look for signals in; `names` fit to be shown."""

    words: str = ""
    names: tuple[str, ...] = ()
    code: int | None = None
    retry_after_seconds: float | None = None

    def says(self, signals: tuple[str, ...]) -> bool:
        """Whether any of the signals occurs."""
        return any(signal in self.words for signal in signals)


def told_by(document: object) -> Told:
    """
    The error in a document of any of the APIs.

    They write `{"error": {"type" | "status" | "code", "message", "details"}}`, `{"error": "message"}` or the fields
    at the top; FastAPI `{"detail": "message" | [{"type", "loc", "msg"}]}`, which Mistral puts into `message`.
    """
    error = document.get("error", document) if isinstance(document, Mapping) else None
    if isinstance(error, str):
        return Told(words=error[:MESSAGE_CHARACTERS].lower())
    if not isinstance(error, Mapping):
        return Told()
    details = error.get("details")
    items = [item for item in details[:20] if isinstance(item, Mapping)] if isinstance(details, list) else []
    candidates = [error.get("type"), error.get("status"), error.get("code"), *(item.get("reason") for item in items)]
    names = [name for name in candidates if isinstance(name, str) and _IDENTIFIER.fullmatch(name)]
    message, code = error.get("message"), error.get("code")
    text = _detail(error if message is None else message)
    return Told(
        words=" ".join([*names, text[:MESSAGE_CHARACTERS]]).lower(),
        names=tuple(dict.fromkeys(names)),
        code=code if type(code) is int else None,
        retry_after_seconds=next((delay for item in items if (delay := _delay(item.get("retryDelay")))), None),
    )


def _detail(message: object) -> str:
    """A message as text. Of FastAPI's list, what is wrong and where: not `input`, which quotes what was sent."""
    if isinstance(message, Mapping):
        message = message.get("detail")
    if isinstance(message, list):
        items = [item for item in message[:20] if isinstance(item, Mapping)]
        parts: list[object] = []
        for item in items:
            loc = item.get("loc")
            parts += [item.get("type"), *(loc[:20] if isinstance(loc, list) else ()), item.get("msg")]
        return " ".join(part[:MESSAGE_CHARACTERS] for part in parts if isinstance(part, str))
    return message if isinstance(message, str) else ""


def kind_of(status: int | None, told: Told, *, is_wait_told: bool = False) -> FailureKind:
    """
    The class of a refusal. status: None where the answer was a 200 with an error inside that carries no status.

    is_wait_told: the provider said when to come back, so a 429 cannot be an empty account.
    """
    if status is not None and status >= 500:
        return "transient"
    if status == 429:
        return "configuration" if told.says(_QUOTA) and not is_wait_told else "throttled"
    if status in (None, 400, 403, 422):
        signals: tuple[tuple[tuple[str, ...], FailureKind], ...] = (
            (BROKEN_FORM, "invalid_output"),
            (_MODERATED, "refusal"),
            (_TOO_LONG, "splittable"),
            (_QUOTA, "configuration"),
            (_OVERLOADED, "transient"),
            (_RATE, "throttled"),
            (_MISCONFIGURED, "configuration"),
        )
        for words, kind in signals:
            if told.says(words):
                return kind
    if status == 403 and told.says(_CREDENTIAL):
        return "configuration"
    if status is None:
        return "transient"
    return _BY_STATUS.get(status, "configuration" if status < 400 else "poison")


def refused(
    status: int, document: object, headers: Mapping[str, str], *, key_variable: str, inside_ok: bool = False
) -> CallFailed:
    """
    The refusal as an exception to raise.

    inside_ok: the error stood in an answer with status 200; the status that counts is then the one it tells.
    """
    told = told_by(document)
    meant = status
    if inside_ok:
        meant = told.code if told.code is not None and 300 <= told.code < 600 else 0
    wait = told.retry_after_seconds or retry_after_seconds(headers)
    kind = kind_of(meant or None, told, is_wait_told=wait is not None)
    reason = " ".join([f"the provider answered {meant or 'with an error'}", *told.names])
    if kind == "configuration" and (meant in (401, 403) or told.says(("api key", "api_key", "x-api-key"))):
        reason += f": check {key_variable}"
    elif meant == 404 or 300 <= meant < 400:
        reason += ": check the model's name and the base URL"
    return CallFailed(
        kind,
        reason,
        retry_after_seconds=wait if kind == "throttled" else None,
        request_id=_request_id(headers),
    )


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, out of `Retry-After` as seconds or as a date; None for nonsense and absence. Never negative."""
    if (milliseconds := _number(headers.get("retry-after-ms"))) is not None:
        return milliseconds / 1000
    header = headers.get("retry-after")
    if (seconds := _number(header)) is not None:
        return seconds
    until = _epoch(header)
    if until is None:
        return None
    # By the clock that wrote the date, where it tells the time.
    now = _epoch(headers.get("date"))
    return max(until - (time.time() if now is None else now), 0.0)


def _request_id(headers: Mapping[str, str]) -> str | None:
    found = headers.get("request-id") or headers.get("x-request-id") or ""
    return found if _REQUEST_ID.fullmatch(found) else None


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _epoch(text: str | None) -> float | None:
    try:
        return parsedate_to_datetime(text or "").timestamp()
    except (ValueError, OverflowError):
        return None


def _delay(value: Any) -> float | None:
    """Google's `17s` or `0.5s`."""
    return _number(value.removesuffix("s")) if isinstance(value, str) else None
